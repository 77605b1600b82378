//! Failures of `rmom`: exit codes and helpful messages.

use std::{
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{Process, command, program, rmom, run};

/// An address without a listener: bound and released.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn without_a_manager_it_says_how_to_start_one() {
    let manager = nowhere();
    for args in
        [&["queue", "list"][..], &["push", "--create", "q", "x"], &["subscribe", "q"], &["dev-broker", "crash", "1"]]
    {
        let output = rmom(&manager, args, "");
        assert_eq!(output.code, Some(4), "{args:?}: {}", output.stderr);
        let lines: Vec<&str> = output.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{args:?}: {}", output.stderr);
        assert!(lines[0].starts_with(&format!("rmom: cannot reach a manager at {manager}: ")), "{}", output.stderr);
        assert!(lines[0].contains("onnection refused"), "{}", output.stderr);
        assert_eq!(lines[1], "Is it running? Start one with: rmom dev. Elsewhere? Name it with --manager URL.");
    }
}

#[test]
fn a_manager_that_says_nothing_can_be_interrupted() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(program("rmom"));
    command.args(["push", "--create", "q"]).env("RMOM_MANAGER", format!("http://{}", silent.local_addr().unwrap()));
    let mut push = Process::spawn("push", directory.path(), command);
    let _connection = silent.accept().unwrap();
    let interrupted = Instant::now();
    push.signal("INT");
    assert_eq!(push.wait(), Some(130));
    assert!(interrupted.elapsed() < Duration::from_secs(3), "it took {:?}", interrupted.elapsed());
}

#[test]
fn tls_without_certificates_is_explained() {
    let output = rmom("https://127.0.0.1:1", &["queue", "list"], "");
    assert_eq!(output.code, Some(2), "{}", output.stderr);
    assert!(output.stderr.contains("--ca FILE"), "{}", output.stderr);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let mut queues = command(program("rmom"));
    queues.args(["queue", "list"]).envs(["RMOM_CA", "RMOM_CERT", "RMOM_KEY"].map(|name| (name, "")));
    queues.env("RMOM_MANAGER", nowhere());
    let output = run(queues, "");
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    // An option without a value is a mistake.
    let output = rmom(&nowhere(), &["queue", "list", "--ca", ""], "");
    assert_eq!(output.code, Some(2), "{}", output.stderr);
}

#[test]
fn wrong_usage_is_2() {
    for args in [
        &["frobnicate"][..],
        &["push"],
        &["queue", "create"],
        &["subscribe", "q", "--from", "yesterday"],
        &["subscribe", "67e55044-10b1-426f-9247-bb680e5fe0c8", "--topic", "t"],
        &["channel", "show", "nonsense"],
        &["push", "q", "x", "--ttl", "soon"],
        &["push", "q", "x", "--timeout", "2h"],
        &["queue", "list", "--manager", "nonsense"],
        &["dev", "--brokers", "0"],
        &["dev", "--broker-port", "65535", "--port", "0", "--ephemeral"],
    ] {
        let output = rmom("http://127.0.0.1:1", args, "");
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

/// Puts a stand-in beside a copy of `rmom`, since the simulation is built separately.
#[test]
fn sim_hands_over_to_the_program_beside_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (rmom, sim) = (folder.path().join("rmom"), folder.path().join("rmom-sim"));
    std::fs::copy(env!("CARGO_BIN_EXE_rmom"), &rmom).unwrap();
    let run = || Command::new(&rmom).args(["sim", "run", "--help"]).env("PATH", folder.path()).output().unwrap();

    let output = run();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cargo build --profile sim -p rmom-sim-lab"),
        "{output:?}"
    );

    std::fs::write(&sim, "#!/bin/sh\necho \"$@\"\nexit 3\n").unwrap();
    std::fs::set_permissions(&sim, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = run();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"run --help\n"[..]), "{output:?}");
}

#[test]
fn help_and_version_are_0() {
    for args in [&["--help"][..], &["push", "--help"], &["subscribe", "--help"], &["--version"]] {
        let output = rmom("http://127.0.0.1:1", args, "").success();
        assert!(!output.text().is_empty());
    }
}
