//! Producers of a queue: a broker that takes over the queue reads the last sequence of each, and saves all of them again.

use std::time::Duration;

use rmom_client::Error;

use crate::{
    count, fill, millis, row, seconds, size,
    support::eventually,
    system::{PUSH_BOUND, System, failover_bound},
};

/// How far the larger queue is below the limit.
const SPARE: u64 = 10;
/// Batches of one producer in the smaller queue, for comparison.
const FEW: u64 = 1_000;
/// Lifetime of messages, longer than the test.
const TTL: Duration = Duration::from_secs(3_600);

#[test]
fn a_queue_is_served_as_soon_however_many_producers_it_has() {
    let limit = size(2_000, 100_000);
    let bound = failover_bound(2, Duration::from_millis(10));
    let mut system = System::start(|options| {
        options.broker_settings.push_str(&format!("max_producers_per_queue: {limit}\n"));
    });
    let queues = [("one", FEW, 1), ("many", limit - SPARE, limit - SPARE)].map(|(label, batches, producers)| {
        let queue = system.create_queue(label);
        let mut session = system.session();
        system.runtime.block_on(fill::batches(&mut session, queue, batches, producers));
        (label, queue)
    });
    let [one, many] = queues.map(|(label, queue)| {
        let took = system.failover(label);
        assert!(took < bound, "{label}: {took:?} until it was served, the bound is {bound:?}");
        let (filled, _) = saved(&system, queue);
        let pushes = system.latencies(label, 1, TTL, Duration::from_secs(3));
        let bytes = eventually("the producers are saved", || {
            let (through, bytes) = saved(&system, queue);
            (through > filled).then_some(bytes)
        });
        assert!(pushes.p99 < PUSH_BOUND, "{label}: {pushes:?}, the bound is {PUSH_BOUND:?}");
        (took, pushes, bytes)
    });
    let beside = format!("{} with 1", seconds(one.0));
    row("producers: push after SIGKILL", count(limit), seconds(many.0), seconds(bound), beside);
    let beside = format!("{} with 1", millis(one.1.p99));
    row("producers: p99 of pushes while they are saved", count(limit), millis(many.1.p99), millis(PUSH_BOUND), beside);
    println!("{} bytes were saved; {} pushes, the slowest took {:?}", many.2, many.1.pushes, many.1.slowest);

    // One pushed after SIGKILL, and one was measured.
    let more = (1..=2 * SPARE).take_while(|_| admitted(&system, "many")).count();
    assert_eq!(u64::try_from(more).unwrap(), SPARE - 2, "further producers were admitted");
    assert!(admitted(&system, "one"), "the limit is a queue's");
}

/// The offset up to which the store has saved producers of a queue, and their size in bytes.
fn saved(system: &System, queue: u64) -> (i64, i32) {
    let mut session = system.session();
    let sql = "SELECT producers_through, octet_length(producers) FROM log_state WHERE queue_id = $1";
    let row = sqlx::query_as(sql).bind(i64::try_from(queue).unwrap()).fetch_one(&mut session);
    system.runtime.block_on(row).unwrap()
}

/// True if a new producer may push; false if there are too many.
fn admitted(system: &System, label: &str) -> bool {
    let pushed: Result<_, Error> = system.runtime.block_on(async {
        let producer = system.client.producer(label).open().await?;
        producer.push("pushed").await
    });
    match pushed {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.code(), "TOO_MANY_PRODUCERS", "{error}");
            false
        }
    }
}
