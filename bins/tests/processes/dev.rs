//! `rmom dev`, used like its users do.

use std::{fs, net::TcpListener, path::Path};

use serde_json::Value;

use crate::support::{Output, Process, command, eventually, program, rmom, rmom_in};

/// A running `rmom dev`.
pub(super) struct Dev {
    process: Process,
    pub(super) manager: String,
    pub(super) brokers: Vec<String>,
}

impl Dev {
    pub(super) fn start(directory: &Path, args: &[&str]) -> Self {
        let mut command = command(program("rmom"));
        command.args(["dev", "--json"]).args(args).current_dir(directory);
        // The output of an earlier run does not matter.
        let _ = fs::remove_file(directory.join("dev.out"));
        let mut process = Process::spawn("dev", directory, command);
        let line = process.wait_until("its addresses", |stdout, _| stdout.lines().next().map(str::to_owned));
        let line: Value = serde_json::from_str(&line).unwrap();
        let brokers = line["brokers"].as_array().unwrap().iter().map(|addr| addr.as_str().unwrap().to_owned());
        Self { process, manager: line["manager"].as_str().unwrap().to_owned(), brokers: brokers.collect() }
    }

    #[track_caller]
    pub(super) fn rmom(&self, args: &[&str], input: impl Into<Vec<u8>>) -> Output {
        rmom(&self.manager, args, input)
    }

    /// Starts a command that runs beside the test.
    fn spawn(&self, name: &str, directory: &Path, args: &[&str]) -> Process {
        let mut command = command(program("rmom"));
        command.args(args).env("RMOM_MANAGER", &self.manager);
        Process::spawn(name, directory, command)
    }

    /// The number, from 1, of the broker that hosts a queue.
    fn host_of(&self, queue: &str) -> Option<usize> {
        let shown = self.rmom(&["queue", "show", queue, "--json"], "").success();
        let shown: Value = serde_json::from_str(shown.text()).unwrap();
        let addr = format!("{}:{}", shown["host"].as_str()?, shown["port"]);
        self.brokers.iter().position(|broker| *broker == addr).map(|index| index + 1)
    }
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

pub(super) const EPHEMERAL: &[&str] = &["--port", "0", "--ephemeral"];

#[test]
fn lines_come_out_as_they_went_in() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    let output = dev.rmom(&["push", "--create", "q"], numbers(1..=1_000)).success();
    assert!(output.stderr.starts_with("pushed 1,000 messages (0 duplicates) in "), "{}", output.stderr);
    let output = dev.rmom(&["subscribe", "q", "--count", "1000"], "").success();
    assert!(output.text() == numbers(1..=1_000), "{}", output.text());
    // The channel that it created is gone.
    let channels = dev.rmom(&["channel", "list", "--json"], "").success();
    assert_eq!(channels.text(), "[]\n");

    // Bytes that are not text, empty lines, and a last line without an end are all kept.
    let strange = b"\xff\xfe\n\n  x \r\nlast";
    dev.rmom(&["push", "--create", "Strange"], *strange).success();
    let output = dev.rmom(&["subscribe", "strange", "--count", "4"], "").success();
    assert_eq!(output.stdout, [&strange[..], b"\n"].concat());
    let output = dev.rmom(&["subscribe", "strange", "--count", "1", "--json"], "").success();
    let message: Value = serde_json::from_str(output.text()).unwrap();
    assert_eq!((&message["content_base64"], &message["offset"]), (&"//4=".into(), &1.into()));
}

#[test]
fn topics_starts_and_named_producers() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    dev.rmom(&["push", "--create", "q", "--topic", "Even", "2", "4"], "").success();
    dev.rmom(&["push", "q", "--topic", "odd", "1", "3"], "").success();
    let subscribe = |args: &[&str]| {
        let output = dev.rmom(&[&["subscribe", "q", "--idle-timeout", "1s"], args].concat(), "").success();
        output.text().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(subscribe(&["--topic", "EVEN"]), ["2", "4"]);
    assert_eq!(subscribe(&["--from", "3"]), ["1", "3"]);
    assert!(subscribe(&["--from", "latest"]).is_empty());

    // A channel that is kept starts at its start offset every time.
    let id = dev.rmom(&["channel", "create", "q", "--topic", "odd"], "").success().text().trim().to_owned();
    for _ in 0..2 {
        let output = dev.rmom(&["subscribe", &id, "--count", "2"], "").success();
        assert_eq!(output.text(), "1\n3\n");
    }

    // The same input again, but longer: only the new messages are stored.
    let push = |input: String| dev.rmom(&["push", "--create", "n", "--producer", "import"], input).success().stderr;
    assert!(push(numbers(1..=10)).starts_with("pushed 10 messages"));
    let told = push(numbers(1..=15));
    assert!(told.starts_with("pushed 5 messages") && told.ends_with("had stored the first 10\n"), "{told}");
    let output = dev.rmom(&["subscribe", "n", "--count", "15"], "").success();
    assert_eq!(output.text(), numbers(1..=15));
}

#[test]
fn refusals_have_their_exit_codes() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    dev.rmom(&["queue", "create", "q"], "").success();
    let long = "x".repeat(256);
    let nobody = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    for (code, args, says) in [
        (1, &["queue", "create", "Q"][..], "the queue q exists"),
        (1, &["queue", "create", &long], "queue_label has 256 bytes after lower-casing; the limit is 255"),
        (1, &["queue", "create", "__NONE__"], "reserved word"),
        (3, &["queue", "delete", "nothing"], "there is no queue nothing"),
        (3, &["queue", "show", "nothing"], "rmom queue list"),
        (3, &["push", "nothing", "x"], "there is no queue nothing"),
        (3, &["subscribe", "nothing"], "there is no queue nothing"),
        (3, &["subscribe", nobody], "there is no channel"),
        (3, &["channel", "show", nobody], "there is no channel"),
        (3, &["channel", "delete", nobody], "there is no channel"),
        (3, &["broker", "drain", "99"], "there is no broker 99"),
        (3, &["dev-broker", "crash", "9"], "they are numbered from 1 to 3"),
        (1, &["dev-broker", "restart", "1"], "broker 1 runs already"),
        (1, &["channel", "create", "q", "--from", "7"], "beyond the end"),
        (
            4,
            &["subscribe", "q", "--count", "1", "--timeout", "200ms"],
            "received 0 messages of 1 before the time limit",
        ),
        (4, &["subscribe", "q", "--count", "1", "--idle-timeout", "200ms"], "before the time limit"),
    ] {
        let output = dev.rmom(args, "");
        assert_eq!(output.code, Some(code), "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(says), "{args:?}: {}", output.stderr);
        assert!(output.stderr.lines().count() <= 2, "{args:?}: {}", output.stderr);
    }
    let output = dev.rmom(&["push", "q"], [b"small\n".to_vec(), vec![b'x'; 5 << 20]].concat());
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    assert!(
        output.stderr.contains("pushed 1 message ") && output.stderr.contains("rmom: message 2: "),
        "{}",
        output.stderr
    );
    // None of these commands left anything behind.
    let output = dev.rmom(&["subscribe", "q", "--idle-timeout", "1s"], "").success();
    assert_eq!(output.text(), "small\n");
    assert_eq!(dev.rmom(&["queue", "list", "--json"], "").success().text().matches("label").count(), 1);
    let listed = dev.rmom(&["queue", "list"], "").success();
    let listed = listed.text();
    let cells: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(cells[0], ["QUEUE", "ID", "BROKER", "STATE", "MESSAGES", "SIZE", "SUBSCRIBERS", "BEHIND"]);
    assert_eq!((cells[1][0], cells[1][3], cells[1][4], cells.len()), ("q", "served", "1", 2), "{listed}");
    let cheap = dev.rmom(&["queue", "list", "--no-live"], "").success();
    assert_eq!(cheap.text().lines().next().unwrap().split_whitespace().last(), Some("BROKER"));
}

#[test]
fn a_broker_dies_and_nobody_notices() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    dev.rmom(&["queue", "create", "q"], "").success();
    let mut subscriber = dev.spawn("subscriber", directory.path(), &["subscribe", "q", "--count", "30000"]);
    let mut pusher = dev.spawn("pusher", directory.path(), &["push", "q"]);
    // Some of the input is under way when the broker dies; the rest comes afterwards.
    pusher.feed(numbers(1..=10_000));
    subscriber.wait_until("some messages", |stdout, _| (stdout.len() > 4_000).then_some(()));
    let host = dev.host_of("q").unwrap();
    dev.rmom(&["dev-broker", "crash", &host.to_string()], "").success();
    pusher.feed(numbers(10_001..=30_000));
    pusher.end_input();
    assert_eq!(pusher.wait(), Some(0));
    assert_eq!(subscriber.wait(), Some(0));
    assert!(subscriber.stdout() == numbers(1..=30_000), "lost, doubled or out of order");
    assert!(pusher.stderr().contains("pushed 30,000 messages"), "{}", pusher.stderr());
    assert_ne!(dev.host_of("q"), Some(host));

    dev.rmom(&["dev-broker", "restart", &host.to_string()], "").success();
    eventually("the broker is back", || {
        let brokers = dev.rmom(&["broker", "list", "--json"], "").success();
        let brokers: Value = serde_json::from_str(brokers.text()).unwrap();
        brokers.as_array().unwrap().iter().all(|broker| broker["live"] == true).then_some(())
    });
}

#[test]
fn a_killed_process_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(directory.path(), &["--port", "0", "--data", "data"]);
    dev.rmom(&["push", "--create", "q", "--producer", "p"], numbers(1..=5_000)).success();
    let id = dev.rmom(&["channel", "create", "q"], "").success().text().trim().to_owned();
    dev.process.kill();
    let mut dev = Dev::start(directory.path(), &["--port", "0", "--data", "data"]);
    let told = dev.rmom(&["push", "q", "--producer", "p"], numbers(1..=6_000)).success().stderr;
    assert!(told.starts_with("pushed 1,000 messages"), "{told}");
    let output = dev.rmom(&["subscribe", &id, "--count", "6000"], "").success();
    assert!(output.text() == numbers(1..=6_000));
    // Data of other programs is left alone.
    let other =
        rmom(&dev.manager, &["dev", "--port", "0", "--data", directory.path().join("data").to_str().unwrap()], "");
    assert_eq!(other.code, Some(4), "{}", other.stderr);
    assert!(other.stderr.contains("in use by another process"), "{}", other.stderr);
    dev.process.signal("INT");
    assert_eq!(dev.process.wait(), Some(0));
}

#[test]
fn a_process_that_is_killed_and_started_again_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(directory.path(), &["--port", "0", "--data", "data"]);
    dev.rmom(&["queue", "create", "q"], "").success();
    let mut subscriber = dev.spawn("subscriber", directory.path(), &["subscribe", "q", "--count", "20000"]);
    let mut pusher = dev.spawn("pusher", directory.path(), &["push", "q"]);
    pusher.feed(numbers(1..=10_000));
    subscriber.wait_until("some messages", |stdout, _| (stdout.len() > 4_000).then_some(()));
    dev.process.kill();
    // Less than the capacity of a pipe, which has no reader now.
    pusher.feed(numbers(10_001..=10_500));
    // The manager is at the same address; the brokers have new ones.
    let port = dev.manager.rsplit(':').next().unwrap().to_owned();
    dev = Dev::start(directory.path(), &["--port", &port, "--broker-port", "0", "--data", "data"]);
    pusher.feed(numbers(10_501..=20_000));
    pusher.end_input();
    assert_eq!(pusher.wait(), Some(0));
    assert_eq!(subscriber.wait(), Some(0));
    assert!(subscriber.stdout() == numbers(1..=20_000), "lost, doubled or out of order");
    let again = dev.rmom(&["subscribe", "q", "--idle-timeout", "1s"], "").success();
    assert!(again.text() == numbers(1..=20_000), "something was stored twice");
}

#[test]
fn a_taken_port_is_named_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = rmom("http://127.0.0.1:1", &["dev", "--ephemeral", "--port", &port], "");
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    assert!(output.stderr.contains(&format!("cannot listen on 127.0.0.1:{port} for the manager")), "{}", output.stderr);
    assert!(output.stderr.contains("--port and --broker-port"), "{}", output.stderr);
}

#[test]
fn a_directory_that_does_not_do_is_named_with_a_way_out() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    fs::create_dir(directory.path().join("other")).unwrap();
    fs::write(directory.path().join("other/rmom.db"), "no database ".repeat(100)).unwrap();
    for (data, says) in [("file", "cannot make the directory file: "), ("other", "cannot open other/rmom.db: ")] {
        let output = rmom_in(directory.path(), "rmom", &["dev", "--port", "0", "--data", data], &[]);
        assert_eq!(output.code, Some(4), "{}", output.stderr);
        assert!(output.stderr.contains(says) && output.stderr.contains("--data DIR"), "{}", output.stderr);
    }
}

#[test]
fn a_broker_that_is_taken_for_a_manager_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    let broker = format!("http://{}", dev.brokers[0]);
    for args in [&["queue", "list"][..], &["push", "q", "x", "--timeout", "1s"], &["subscribe", "q"]] {
        let output = rmom(&broker, args, "");
        assert_eq!(output.code, Some(4), "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains("Is that a manager?"), "{args:?}: {}", output.stderr);
    }
}

#[test]
fn an_interrupted_subscription_leaves_no_channel_behind() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    dev.rmom(&["push", "--create", "q", "x"], "").success();
    for (signal, keep) in [("INT", false), ("TERM", false), ("INT", true)] {
        let mut command = command(program("rmom"));
        command.args(["subscribe", "q"]).args(keep.then_some("--keep")).env("RMOM_MANAGER", &dev.manager);
        let name = format!("subscriber-{signal}-{keep}");
        let mut subscriber = Process::spawn(&name, directory.path(), command);
        // It prints the messages that are there, although more may come.
        subscriber.wait_until("the message", |stdout, _| (stdout == "x\n").then_some(()));
        subscriber.signal(signal);
        assert_eq!(subscriber.wait(), Some(130));
        let channels = dev.rmom(&["channel", "list", "--json"], "").success();
        assert_eq!(channels.text().matches("queue_label").count(), usize::from(keep), "{}", channels.text());
    }
}

#[test]
fn output_that_nobody_reads_any_more_ends_quietly() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    dev.rmom(&["push", "--create", "q"], numbers(1..=50_000)).success();
    let mut shell = command("sh");
    let script = "{ \"$0\" subscribe q --count 50000; echo \"exit code $?\" >&2; } | head -n 3";
    shell.args(["-c", script]).arg(program("rmom")).env("RMOM_MANAGER", &dev.manager);
    let output = crate::support::run(shell, "").success();
    assert_eq!((output.text(), output.stderr.as_str()), ("1\n2\n3\n", "exit code 0\n"));
}
