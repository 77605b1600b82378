//! Many queues on one broker, a millisecond away from PostgreSQL: taking them back, and moving them, does not look like death.
//!
//! `RMOM_TEST_QUEUES` says how many; what it takes is printed (`--no-capture`).

#![expect(clippy::print_stdout, reason = "figures for the documents")]

use std::{env, sync::Arc, time::Duration};

use rmom_core::{
    access::Call,
    broker::{Broker, BrokerExit, BrokerSettings, NewMessage, PushRequest, QueuePhase},
    manager::{
        Manager, ManagerSettings,
        testing::{Behaviour, FakeBrokers, addr},
    },
    model::{Incarnation, QueueLabel},
    ports::{Catalog, Register},
};
use rmom_net::{
    clock::SystemUptime,
    entropy::OsEntropy,
    store::{PostgresOptions, PostgresStore},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::support::{Bench, LEASE};

/// How far PostgreSQL is away.
const DISTANCE: Duration = Duration::from_millis(1);
/// What nobody waits for any longer.
const FAR_TOO_LONG: Duration = Duration::from_secs(600);

fn queues() -> u64 {
    env::var("RMOM_TEST_QUEUES").ok().map_or(200, |queues| queues.parse().expect("RMOM_TEST_QUEUES is a number"))
}

async fn far_away(bench: &Bench) -> Arc<PostgresStore> {
    bench.proxy.delay(DISTANCE);
    let options = PostgresOptions { max_connections: 10, ..bench.proxied() };
    Arc::new(PostgresStore::connect(options).await.unwrap())
}

/// Queues `q1`, `q2` … of the first broker.
async fn fill(bench: &Bench, queues: u64) {
    let sql = format!(
        "INSERT INTO queue (label, assignee, assignment, request) \
         SELECT 'q' || n, (SELECT min(id) FROM broker), 1, gen_random_uuid() FROM generate_series(1, {queues}) n; \
         INSERT INTO log (queue_id, epoch) SELECT id, 0 FROM queue; \
         INSERT INTO log_state (queue_id) SELECT id FROM queue"
    );
    bench.database.execute(&sql).await;
}

async fn start(store: &Arc<PostgresStore>) -> (Broker<Call>, JoinHandle<BrokerExit>) {
    let settings = BrokerSettings::new(addr(1));
    let (broker, task) = Broker::spawn(settings, store.clone(), Arc::new(OsEntropy), Arc::new(SystemUptime));
    let broker = broker.on_behalf_of(Call::of_process());
    while broker.heartbeat().is_err() {
        sleep(Duration::from_millis(1)).await;
    }
    (broker, task)
}

fn served(broker: &Broker<Call>) -> u64 {
    broker.status().queues.iter().filter(|queue| queue.phase == QueuePhase::Serving).count() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_takes_many_queues_back_is_alive_all_the_while() {
    let (bench, queues) = (Bench::start().await, queues());
    let store = far_away(&bench).await;
    let (_, task) = start(&store).await;
    task.abort();
    fill(&bench, queues).await;

    let (broker, task) = start(&store).await;
    let began = Instant::now();
    // Somebody wants the last of them.
    let push = PushRequest {
        label: QueueLabel::parse(&format!("q{queues}")).unwrap(),
        queue: None,
        producer: None,
        message: NewMessage { content: "1".into(), ..NewMessage::default() },
    };
    broker.push(push).await.unwrap();
    let first_push = began.elapsed();
    while served(&broker) < queues {
        broker.heartbeat().expect("the lease lapsed: taking queues back looks like death");
        assert!(began.elapsed() < FAR_TOO_LONG, "{} of {queues} are served", served(&broker));
        sleep(Duration::from_millis(100)).await;
    }
    let failed = broker.status().failed_renewals;
    println!("{queues} queues: all served after {:?}, one that was asked for after {first_push:?}", began.elapsed());
    assert_eq!(failed, 0, "renewals of the lease failed");
    assert!(first_push < LEASE, "who asked for a queue waited for {first_push:?}");
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_queues_move_while_a_second_broker_dies() {
    let (bench, queues) = (Bench::start().await, queues());
    let store = far_away(&bench).await;
    let brokers = FakeBrokers::default();
    for n in 1..=3 {
        let incarnation = Incarnation::new(Uuid::from_u128(u128::from(n)));
        let register = Register { addr: addr(n), incarnation, replaces: None, lease: FAR_TOO_LONG };
        store.register_broker(&register).await.unwrap();
        brokers.set(&addr(n), Behaviour::Well);
    }
    fill(&bench, queues).await;
    let settings =
        ManagerSettings { max_moves_per_cycle: usize::try_from(queues / 4).unwrap(), ..ManagerSettings::default() };
    let (manager, task) = Manager::spawn(settings, store.clone(), Arc::new(brokers.clone()), Arc::new(OsEntropy));
    let counts = async || store.brokers().await.unwrap().iter().map(|broker| broker.queues).collect::<Vec<_>>();
    while !manager.status().leading {
        sleep(Duration::from_millis(10)).await;
    }
    brokers.set(&addr(1), Behaviour::Absent);
    let began = Instant::now();
    while counts().await[1] == 0 {
        assert!(began.elapsed() < FAR_TOO_LONG, "nothing moves");
        sleep(Duration::from_millis(1)).await;
    }
    brokers.set(&addr(2), Behaviour::Absent);
    let second = Instant::now();
    while counts().await != [0, 0, queues] {
        assert!(began.elapsed() < FAR_TOO_LONG, "{:?}", counts().await);
        sleep(Duration::from_millis(10)).await;
    }
    println!("{queues} queues: {:?} after the first death, {:?} after the second", began.elapsed(), second.elapsed());
    assert!(manager.status().leading, "the leader lost its lease meanwhile");
    assert_eq!(manager.status().counters.cycles_failed, 0);
    task.abort();
}
