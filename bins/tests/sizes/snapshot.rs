//! A snapshot that is held open, for example by a dump: messages trimmed in the meantime stay in the database as dead rows.

use std::time::Duration;

use sqlx::Executor as _;

use crate::{
    count, millis, row, seconds, size,
    support::eventually,
    system::{PUSH_BOUND, System, failover_bound},
};

/// Lifetime of the messages.
const TTL: Duration = Duration::from_millis(200);
/// Number of producers that push at once, each one message after the other.
const PRODUCERS: usize = 4;
/// How long they push before the snapshot is taken.
const BEFORE: Duration = Duration::from_secs(2);

#[test]
fn a_queue_is_served_as_soon_while_a_snapshot_is_held_open() {
    let held = Duration::from_secs(size(4, 600));
    let bound = failover_bound(1, Duration::from_millis(10));
    let mut system = System::start(|_| ());
    system.create_queue("busy");
    let pushes_before = system.latencies("busy", PRODUCERS, TTL, BEFORE);
    let took_before = system.failover("busy");

    let mut holder = system.session();
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM queue";
    system.runtime.block_on(holder.execute(snapshot)).unwrap();
    let pushes = system.latencies("busy", PRODUCERS, TTL, held);
    let mut session = system.session();
    let dead = eventually("what was removed is dead rows", || {
        let sql = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'batch'";
        let dead: i64 = system.runtime.block_on(sqlx::query_scalar(sql).fetch_one(&mut session)).unwrap();
        u64::try_from(dead).ok().filter(|&dead| dead > 0)
    });
    let took = system.failover("busy");
    system.runtime.block_on(holder.execute("ROLLBACK")).unwrap();

    assert!(took < bound, "{took:?} until it was served, the bound is {bound:?}");
    assert!(pushes.p99 < PUSH_BOUND, "{pushes:?}, the bound is {PUSH_BOUND:?}");
    let size = format!("{}, {} dead rows", seconds(held), count(dead));
    let beside = format!("{} without", seconds(took_before));
    row("snapshot held open: push after SIGKILL", &size, seconds(took), seconds(bound), beside);
    let beside = format!("{} without", millis(pushes_before.p99));
    row("snapshot held open: p99 of pushes", &size, millis(pushes.p99), millis(PUSH_BOUND), beside);
    println!("{} pushes, the slowest took {:?}", pushes.pushes, pushes.slowest);
}
