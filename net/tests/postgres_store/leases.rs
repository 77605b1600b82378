//! Nothing that goes on in the database looks like the death of a broker or of the leading manager.

use std::{sync::Arc, time::Duration};

use rmom_core::{
    model::{BrokerAddr, Incarnation, ManagerId, Term},
    ports::{Catalog, ClaimError, Register},
};
use rmom_net::{
    store::{PostgresOptions, PostgresStore},
    testing::Fault,
};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::support::{Bench, LEASE, Owner};

/// How long a broker waits for the answer to a renewal: a third of its lease.
const PATIENCE: Duration = Duration::from_secs(1);

async fn renew(owner: &Owner) {
    let renewal = timeout(PATIENCE, owner.store.renew_broker(owner.broker, owner.incarnation, LEASE)).await;
    renewal.expect("the renewal was held up").unwrap();
}

#[tokio::test]
async fn leases_go_on_while_every_other_connection_is_busy() {
    let bench = Bench::start().await;
    // Nothing is given up before the test lets go of the row.
    let long = Duration::from_secs(60);
    let options = PostgresOptions {
        max_connections: 3,
        call_timeout: long,
        lock_timeout: long,
        statement_timeout: long,
        ..bench.direct()
    };
    let owner = Arc::new(bench.owner(options).await);
    let mut stuck = bench.database.connect().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM log FOR UPDATE").execute(&mut stuck).await.unwrap();
    let mut claims = Vec::new();
    for _ in 0..40 {
        let owner = Arc::clone(&owner);
        claims.push(tokio::spawn(async move { owner.claim().await }));
    }
    bench.until_waiting(3).await;
    let work = owner.store.lanes().iter().find(|lane| lane.name() == "work").map(Arc::clone).unwrap();
    let all_wait = async {
        while work.waiting() < 37 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(long, all_wait).await.expect("the other claims did not wait");
    let (manager, began) = (ManagerId::new(Uuid::from_u128(9)), Instant::now());
    while began.elapsed() < Duration::from_secs(2) {
        renew(&owner).await;
        timeout(PATIENCE, owner.store.lead(manager, LEASE)).await.expect("the lead was held up").unwrap();
        sleep(Duration::from_millis(300)).await;
    }
    timeout(PATIENCE, owner.store.resign(manager)).await.expect("the resignation was held up").unwrap();
    let retired = timeout(PATIENCE, owner.store.retire_broker(owner.broker, owner.incarnation)).await;
    retired.expect("the retirement was held up").unwrap();
    assert_eq!(work.waiting(), 37, "the other connections were not busy");
    sqlx::raw_sql("COMMIT").execute(&mut stuck).await.unwrap();
    for claim in claims {
        // Its broker has retired meanwhile.
        let answer = claim.await.unwrap();
        assert!(!matches!(answer, Err(ClaimError::Store(_))), "{answer:?}");
    }
    assert!(owner.store.lanes().iter().all(|lane| lane.given_up() == 0));
}

#[tokio::test]
async fn a_renewal_does_not_wait_for_a_claim() {
    let bench = Bench::start().await;
    let claimant = bench.owner(bench.proxied()).await;
    let owner = bench.owner(bench.direct()).await;
    // The claim has all its locks, and its client is not heard of.
    bench.proxy.when(b"COMMIT\0", Fault::Stall);
    let claiming = tokio::spawn(async move { claimant.claim().await });
    while bench.proxy.is_waiting() {
        sleep(Duration::from_millis(5)).await;
    }
    renew(&owner).await;
    bench.proxy.heal();
    claiming.await.unwrap().unwrap();
}

/// Managers that follow ask for the lead as often as the leader renews it.
#[tokio::test]
async fn the_leader_does_not_wait_for_a_manager_that_stalls() {
    let bench = Bench::start().await;
    let [leads, follows] = [1, 2].map(|n| ManagerId::new(Uuid::from_u128(n)));
    let leader = PostgresStore::connect(bench.direct()).await.unwrap();
    let follower = PostgresStore::connect(bench.proxied()).await.unwrap();
    leader.lead(leads, LEASE).await.unwrap();
    bench.proxy.when(b"UPDATE leader SET", Fault::Stall);
    let asking = tokio::spawn(async move { follower.lead(follows, LEASE).await });
    while bench.proxy.is_waiting() {
        sleep(Duration::from_millis(5)).await;
    }
    let held = timeout(PATIENCE, leader.lead(leads, LEASE)).await.expect("the lead was held up").unwrap();
    assert_eq!(held.leader, leads);
    bench.proxy.heal();
    assert_eq!(asking.await.unwrap().unwrap().leader, leads);
}

/// What a call that waited saw when it began is of no account.
#[tokio::test]
async fn a_manager_that_waited_for_the_lead_sees_the_one_that_took_it() {
    let bench = Bench::start().await;
    let store = Arc::new(PostgresStore::connect(bench.direct()).await.unwrap());
    let [first, second] = [1, 2].map(|n| ManagerId::new(Uuid::from_u128(n)));
    let mut session = bench.database.connect().await;
    let takes = format!(
        "BEGIN; UPDATE leader SET manager = '{}', term = term + 1, lease = 60000, lease_until = rmom_now() + 60000",
        first.uuid()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(takes)).execute(&mut session).await.unwrap();
    let asking = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.lead(second, LEASE).await }
    });
    bench.until_somebody_waits().await;
    sqlx::raw_sql("COMMIT").execute(&mut session).await.unwrap();
    let held = asking.await.unwrap().unwrap();
    assert_eq!((held.leader, held.term), (first, Term::new(1)));
    // And one that waited for a lease to run out reads the clock afterwards.
    sqlx::raw_sql("BEGIN; UPDATE leader SET lease_until = 0").execute(&mut session).await.unwrap();
    let asking = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.lead(second, LEASE).await }
    });
    bench.until_somebody_waits().await;
    sqlx::raw_sql("COMMIT").execute(&mut session).await.unwrap();
    let after = store.now().await.unwrap();
    let held = asking.await.unwrap().unwrap();
    assert_eq!((held.leader, held.term), (second, Term::new(2)));
    assert!(held.store_time.millis() + 1_000 >= after.millis(), "{held:?} has the time of before {after:?}");
}

#[tokio::test]
async fn a_renewal_does_not_wait_for_a_client_that_stalls() {
    let bench = Bench::start().await;
    let stalls = bench.owner(bench.proxied()).await;
    let owner = bench.owner(bench.direct()).await;
    let found = owner.store.queue_by_id(owner.queue).await.unwrap().unwrap();
    bench.proxy.when(b"COMMIT\0", Fault::Stall);
    let assigning =
        tokio::spawn(async move { stalls.store.assign_queue(found.id, found.assignment, stalls.broker).await });
    while bench.proxy.is_waiting() {
        sleep(Duration::from_millis(5)).await;
    }
    renew(&owner).await;
    bench.proxy.heal();
    let assigned = assigning.await.unwrap().unwrap();
    assert_eq!(owner.store.queue_by_id(owner.queue).await.unwrap(), Some(assigned));
}

/// The claim reads the broker's row, which it does not lock, after the log's row is its own.
#[tokio::test]
async fn a_claim_that_waited_sees_the_run_that_registered_meanwhile() {
    let bench = Bench::start().await;
    let owner = Arc::new(bench.owner(bench.direct()).await);
    let mut appender = bench.database.connect().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM log FOR SHARE").execute(&mut appender).await.unwrap();
    let claiming = tokio::spawn({
        let owner = Arc::clone(&owner);
        async move { owner.claim().await }
    });
    bench.until_somebody_waits().await;
    let twin = Register {
        addr: BrokerAddr { host: "localhost".into(), port: 1 },
        incarnation: Incarnation::new(Uuid::from_u128(2)),
        replaces: Some(owner.incarnation),
        lease: LEASE,
    };
    owner.store.register_broker(&twin).await.unwrap();
    sqlx::raw_sql("COMMIT").execute(&mut appender).await.unwrap();
    assert_eq!(claiming.await.unwrap(), Err(ClaimError::Replaced));
}
