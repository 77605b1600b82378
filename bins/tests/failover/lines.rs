//! Sends a file through a queue as a user would, `rmom push < file` at one end and `rmom subscribe` at the other, and
//! compares the result with the file.

use std::time::Instant;

use tokio::runtime::Runtime;

use crate::{
    System,
    support::{Process, command, eventually, program, rmom},
};

const LINES: usize = 100_000;

/// Lines that are sent before the broker dies; the rest are sent afterwards.
const SENT_BEFORE: usize = 60_000;

/// Lines that have been delivered when the broker dies: fewer than were sent, so that some are under way.
const DELIVERED_BEFORE: usize = 50_000;

/// Fails the test if the lines differ from those that were sent; reports the first difference.
#[track_caller]
fn assert_same(delivered: &str, sent: &str) {
    if delivered == sent {
        return;
    }
    let same = delivered.lines().zip(sent.lines()).take_while(|(delivered, sent)| delivered == sent).count();
    panic!(
        "{} lines sent, {} delivered; line {} was {:?} and is {:?}",
        sent.lines().count(),
        delivered.lines().count(),
        same + 1,
        sent.lines().nth(same),
        delivered.lines().nth(same),
    );
}

#[test]
fn a_file_of_lines_outlives_the_broker_that_hosts_them() {
    let runtime = Runtime::new().unwrap();
    let mut system = System::start(&runtime);
    let managers = system.cluster.manager_urls().join(",");
    // Lines of many lengths, from 0 dots up, and no two alike.
    let lines: Vec<String> = (1..=LINES).map(|number| format!("{number} {}\n", ".".repeat(number % 97))).collect();
    let (before, after) = lines.split_at(SENT_BEFORE);
    let half = lines[..DELIVERED_BEFORE].concat().len();

    let directory = system.cluster.directory().to_owned();
    let spawn = |name: &str, args: &[&str]| {
        let mut command = command(program("rmom"));
        command.args(args).env("RMOM_MANAGER", &managers);
        Process::spawn(name, &directory, command)
    };
    let started = Instant::now();
    let mut pusher = spawn("pusher", &["push", "--create", "lines"]);
    let host = eventually("the queue is created", || system.cluster.host_of("lines"));
    let mut subscriber = spawn("subscriber", &["subscribe", "lines", "--count", &LINES.to_string()]);
    pusher.feed(before.concat());
    subscriber.wait_until("half of the lines", |stdout, _| (stdout.len() >= half).then_some(()));
    system.cluster.brokers[host].kill();
    let killed = started.elapsed();
    let delivered = subscriber.stdout().lines().count();
    pusher.feed(after.concat());
    pusher.end_input();
    assert_eq!(pusher.wait(), Some(0));
    assert_eq!(subscriber.wait(), Some(0));
    let took = started.elapsed();

    let sent = lines.concat();
    assert_same(&subscriber.stdout(), &sent);
    assert!(pusher.stderr().contains("pushed 100,000 messages"), "{}", pusher.stderr());
    assert_ne!(system.host_of("lines"), host, "the queue has moved");
    // A reader from the beginning finds the same lines, and no more.
    let read_again = rmom(&managers, &["subscribe", "lines", "--idle-timeout", "2s"], "").success();
    assert_same(read_again.text(), &sent);
    println!(
        "{LINES} lines, {:.1} MB: {:.2} s; the broker was killed after {:.2} s, when {delivered} lines had come; the sender says: {}",
        sent.len() as f64 / 1e6,
        took.as_secs_f64(),
        killed.as_secs_f64(),
        pusher.stderr().lines().last().unwrap()
    );
}
