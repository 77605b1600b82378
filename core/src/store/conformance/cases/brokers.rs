//! Brokers: registration, lease, draining.

use std::time::Duration;

use crate::{
    model::{Assignment, BrokerId, Incarnation, Renewals},
    ports::{AssignError, BrokerRecord, BrokerState, ForgetError, Register, RegisterError, RenewError},
    store::conformance::{
        Harness, START,
        support::{Bench, LEASE, Registered, addr},
    },
};

async fn record(bench: &Bench<'_>, broker: Registered) -> BrokerRecord {
    let all = bench.store.brokers().await.unwrap();
    all.into_iter().find(|record| record.id == broker.id).expect("the broker is listed")
}

/// A host and port keeps its id from run to run; another one, be it only by its port, has another.
pub async fn a_broker_keeps_its_id_from_run_to_run(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    assert_eq!(bench.store.brokers().await.unwrap(), []);
    let first = bench.register("a").await;
    let other = bench.register("b").await;
    assert_ne!(first.id, other.id);
    let mut neighbour = addr("a");
    neighbour.port += 1;
    let run = Incarnation::new(bench.uuid());
    let register = Register { addr: neighbour, incarnation: run, replaces: None, lease: LEASE };
    let neighbour = bench.store.register_broker(&register).await.unwrap();
    assert!(neighbour.broker != first.id && neighbour.broker != other.id);

    bench.reopen().await;
    let now = bench.at(500).await;
    let incarnation = Incarnation::new(bench.uuid());
    let replaces = Some(first.incarnation);
    let register = Register { addr: addr("a"), incarnation, replaces, lease: Duration::from_secs(7) };
    let again = bench.store.register_broker(&register).await.unwrap();
    assert_eq!((again.broker, again.store_time), (first.id, now));
    let brokers = bench.store.brokers().await.unwrap();
    assert!(brokers.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(brokers.len(), 3);
    assert_eq!(record(&bench, other).await.incarnation, other.incarnation);
    let expected = BrokerRecord {
        id: first.id,
        addr: addr("a"),
        incarnation,
        state: BrokerState::Up,
        lease_until: now.plus_millis(7_000),
        lease: Duration::from_secs(7),
        queues: 0,
    };
    assert_eq!(record(&bench, first).await, expected);
}

/// Who knows of another run than the one that is there, or of none, is told which it is, and changes nothing.
pub async fn a_run_takes_the_place_of_the_one_it_names(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let first = bench.register("a").await;
    let second = bench.register("a").await;
    let before = record(&bench, second).await;
    bench.at(1_000).await;
    let mut late = Register { addr: addr("a"), incarnation: first.incarnation, replaces: None, lease: LEASE };
    let taken = Err(RegisterError::Taken { by: second.incarnation });
    for replaces in [None, Some(first.incarnation), Some(Incarnation::new(bench.uuid()))] {
        late.replaces = replaces;
        assert_eq!(bench.store.register_broker(&late).await, taken, "{replaces:?}");
    }
    assert_eq!(record(&bench, second).await, before);
}

/// The same registration again, however late, extends the lease and undoes nothing that happened since.
pub async fn a_registration_made_again_changes_the_lease_alone(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let broker = bench.register("a").await;
    bench.store.renew_broker(broker.id, broker.incarnation, LEASE).await.unwrap();
    bench.store.set_draining(broker.id, true).await.unwrap();
    let now = bench.at(1_000).await;
    let again = Register { addr: addr("a"), incarnation: broker.incarnation, replaces: None, lease: LEASE };
    assert_eq!(bench.store.register_broker(&again).await.unwrap().broker, broker.id);
    let after = record(&bench, broker).await;
    assert_eq!((after.state, after.lease_until), (BrokerState::Draining, now.plus_millis(3_000)));
    assert_eq!(
        bench.store.renew_broker(broker.id, broker.incarnation, LEASE).await.unwrap().renewals,
        Renewals::new(2)
    );
    bench.store.retire_broker(broker.id, broker.incarnation).await.unwrap();
    bench.store.register_broker(&again).await.unwrap();
    assert_eq!(record(&bench, broker).await.state, BrokerState::Stopped);
}

/// A renewal sets the end of the lease and counts itself.
pub async fn a_renewal_extends_the_lease_and_is_counted(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let broker = bench.register("a").await;
    let other = bench.register("b").await;
    for count in 1..=3 {
        let now = bench.at(count * 100).await;
        let renewal = bench.store.renew_broker(broker.id, broker.incarnation, LEASE).await.unwrap();
        assert_eq!((renewal.renewals, renewal.store_time, renewal.draining), (Renewals::new(count), now, false));
        assert_eq!(record(&bench, broker).await.lease_until, now.plus_millis(3_000));
        bench.reopen().await;
    }
    assert_eq!(record(&bench, other).await.lease_until, START.plus_millis(3_000));
    let broker = bench.register("a").await;
    assert_eq!(
        bench.store.renew_broker(broker.id, broker.incarnation, LEASE).await.unwrap().renewals,
        Renewals::new(1)
    );
}

/// A run that was replaced, and one that never registered, can do nothing.
pub async fn a_replaced_run_neither_renews_nor_retires(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let old = bench.register("a").await;
    let new = bench.register("a").await;
    assert_eq!(old.id, new.id);
    let before = record(&bench, new).await;
    bench.at(1_000).await;
    assert_eq!(bench.store.renew_broker(old.id, old.incarnation, LEASE).await, Err(RenewError::Replaced));
    assert_eq!(bench.store.retire_broker(old.id, old.incarnation).await, Err(RenewError::Replaced));
    let nobody = BrokerId::new(old.id.get() + 1_000);
    assert_eq!(bench.store.renew_broker(nobody, old.incarnation, LEASE).await, Err(RenewError::Replaced));
    assert_eq!(bench.store.retire_broker(nobody, old.incarnation).await, Err(RenewError::Replaced));
    assert_eq!(record(&bench, new).await, before);
    assert_eq!(bench.store.renew_broker(new.id, new.incarnation, LEASE).await.unwrap().renewals, Renewals::new(1));
}

/// Retiring ends the lease; the next run is up again.
pub async fn retiring_ends_the_lease_at_once(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let broker = bench.register("a").await;
    let now = bench.at(1_000).await;
    bench.store.retire_broker(broker.id, broker.incarnation).await.unwrap();
    let retired = record(&bench, broker).await;
    assert_eq!(retired.state, BrokerState::Stopped);
    assert!(retired.lease_until <= now);
    bench.store.retire_broker(broker.id, broker.incarnation).await.unwrap();
    assert_eq!(record(&bench, broker).await.state, BrokerState::Stopped);
    let next = bench.register("a").await;
    let up = record(&bench, next).await;
    assert_eq!((up.state, up.lease_until), (BrokerState::Up, now.plus_millis(3_000)));
}

/// A broker learns from its renewals that it is to be drained; one that stopped stays stopped.
pub async fn draining_is_set_cleared_and_told(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let broker = bench.register("a").await;
    let other = bench.register("b").await;
    for draining in [true, true, false, true] {
        assert!(bench.store.set_draining(broker.id, draining).await.unwrap());
        let renewal = bench.store.renew_broker(broker.id, broker.incarnation, LEASE).await.unwrap();
        assert_eq!(renewal.draining, draining);
        let state = if draining { BrokerState::Draining } else { BrokerState::Up };
        assert_eq!(record(&bench, broker).await.state, state);
    }
    assert_eq!(record(&bench, other).await.state, BrokerState::Up);
    bench.store.retire_broker(broker.id, broker.incarnation).await.unwrap();
    for draining in [true, false] {
        assert!(bench.store.set_draining(broker.id, draining).await.unwrap());
        assert_eq!(record(&bench, broker).await.state, BrokerState::Stopped);
    }
    assert!(!bench.store.set_draining(BrokerId::new(other.id.get() + 1_000), true).await.unwrap());
}

/// A broker can be removed when its lease has been over for long enough and no queue is its own. It comes back as a new one.
pub async fn a_broker_is_forgotten_once_nothing_is_its_own(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (a, b) = (bench.register("a").await, bench.register("b").await);
    let queue = bench.create("q", Some(a.id)).await;
    let long = Duration::from_secs(60);
    let forget = async |bench: &Bench<'_>, gone_for| bench.store.forget_broker(a.id, gone_for).await;
    // While its lease runs nothing helps, and then not before it has been over for as long as was said.
    assert_eq!(forget(&bench, Duration::ZERO).await, Err(ForgetError::Alive));
    bench.at(3_000 + 59_999).await;
    assert_eq!(forget(&bench, long).await, Err(ForgetError::Alive));
    bench.at(3_000 + 60_000).await;
    assert_eq!(forget(&bench, long).await, Err(ForgetError::HasQueues(1)));
    bench.store.assign_queue(queue, Assignment::new(1), b.id).await.unwrap();
    let deleted = bench.create("deleted", Some(a.id)).await;
    bench.store.delete_queue(deleted).await.unwrap();
    assert_eq!(forget(&bench, long).await, Ok(true));
    assert_eq!(forget(&bench, long).await, Ok(false));
    assert_eq!(bench.store.brokers().await.unwrap().into_iter().map(|broker| broker.id).collect::<Vec<_>>(), [b.id]);
    // The run that it was is told, and can claim nothing; no queue can be assigned to it.
    assert_eq!(bench.store.renew_broker(a.id, a.incarnation, LEASE).await, Err(RenewError::Replaced));
    assert_eq!(bench.store.assign_queue(queue, Assignment::new(2), a.id).await, Err(AssignError::NoSuchBroker(a.id)));
    assert!(!bench.store.set_draining(a.id, true).await.unwrap());
    // Its id is not used again, be it the newest.
    assert_eq!(bench.store.forget_broker(b.id, long).await, Err(ForgetError::HasQueues(1)));
    bench.store.delete_queue(queue).await.unwrap();
    assert_eq!(bench.store.forget_broker(b.id, long).await, Ok(true));
    bench.reopen().await;
    let again = bench.register("b").await;
    assert!(again.id != b.id && again.id != a.id);
    assert_eq!(record(&bench, again).await.state, BrokerState::Up);
}

/// A broker's life is told without its queues.
pub async fn a_brokers_life_is_told(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let broker = bench.register("a").await;
    let now = bench.at(1_000).await;
    let life = bench.store.broker_life(broker.id).await.unwrap().unwrap();
    let record = record(&bench, broker).await;
    assert_eq!((life.store_time, life.lease, life.is_leased()), (now, LEASE, true));
    assert_eq!((life.addr, life.state, life.lease_until), (record.addr, record.state, record.lease_until));
    assert_eq!(bench.store.broker_life(BrokerId::new(broker.id.get() + 1_000)).await.unwrap(), None);
}

/// A broker's record says how many live queues it is to host.
pub async fn brokers_are_listed_with_their_live_queues(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (a, b) = (bench.register("a").await, bench.register("b").await);
    let moved = bench.create("q1", Some(a.id)).await;
    let deleted = bench.create("q2", Some(a.id)).await;
    bench.create("q3", Some(a.id)).await;
    bench.create("q4", None).await;
    assert_eq!((record(&bench, a).await.queues, record(&bench, b).await.queues), (3, 0));
    bench.store.assign_queue(moved, Assignment::new(1), b.id).await.unwrap();
    bench.store.delete_queue(deleted).await.unwrap();
    assert_eq!((record(&bench, a).await.queues, record(&bench, b).await.queues), (1, 1));
}

/// A lease from before the clock was set back says nothing; one that was renewed since does.
pub async fn a_broker_is_not_leased_because_the_clock_was_set_back(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    bench.at(10 * 3_600_000).await;
    let (dead, alive) = (bench.register("dead").await, bench.register("alive").await);
    bench.store.renew_broker(dead.id, dead.incarnation, LEASE).await.unwrap();
    let now = bench.at(0).await;
    bench.store.renew_broker(alive.id, alive.incarnation, LEASE).await.unwrap();
    for (broker, leased) in [(dead, false), (alive, true)] {
        let found = record(&bench, broker).await;
        assert_eq!((found.lease, found.is_leased(now)), (LEASE, leased), "{found:?}");
    }
    assert!(!record(&bench, alive).await.is_leased(now.plus_millis(3_000)));
}
