//! `--check-config`, and configurations that are wrong.

use std::{fs, path::Path};

use crate::support::{Output, rmom_in};

fn examples() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples"))
}

fn broker(args: &[&str], environment: &[(&str, &str)]) -> Output {
    either_way("broker", args, environment)
}

fn manager(args: &[&str], environment: &[(&str, &str)]) -> Output {
    either_way("manager", args, environment)
}

/// Runs `rmom-SERVER`, and checks that `rmom serve SERVER` does the same.
#[track_caller]
fn either_way(server: &str, args: &[&str], environment: &[(&str, &str)]) -> Output {
    let program = rmom_in(examples(), &format!("rmom-{server}"), args, environment);
    let command = rmom_in(examples(), "rmom", &[&["serve", server], args].concat(), environment);
    let seen = |output: &Output| {
        let errors = output.stderr.replace(&format!("rmom serve {server}"), &format!("rmom-{server}"));
        (output.code, output.stdout.clone(), errors)
    };
    assert_eq!(seen(&program), seen(&command), "{server} {args:?}");
    program
}

#[test]
fn the_originals_files_pass_and_no_password_is_shown() {
    for file in ["mom1.yaml", "mom2.yaml", "mom3.yaml", "mom4.yaml"] {
        let output = broker(&[file, "--check-config"], &[]).success();
        assert!(output.text().contains("queue_buffer_size: 10000"), "{}", output.text());
        assert!(!output.text().contains("secret") && output.stderr.is_empty(), "{output:?}");
    }
    // Like Rocket, it finds Rocket.toml in the directory where it is started.
    let output = manager(&["--check-config"], &[]).success();
    assert!(output.text().contains("port = 8082"), "{}", output.text());
    assert!(!output.text().contains("secret"), "{output:?}");
    assert!(output.stderr.contains("warning: workers: has no meaning in rmom; ignored"), "{}", output.stderr);
    let output =
        manager(&["--check-config", "--profile", "release"], &[("RMOM_DATABASE__URL", "postgres://u:geheim@h/d")]);
    let output = output.success();
    assert!(output.text().contains("port = 8080") && output.text().contains("postgres://u:(hidden)@h/d"), "{output:?}");
}

#[test]
fn a_server_refuses_the_options_of_clients() {
    for args in [&["--json"][..], &["--manager", "http://m:1"], &["--ca", "ca.pem"]] {
        let output =
            rmom_in(examples(), "rmom", &[&["serve", "broker", "mom1.yaml", "--check-config"], args].concat(), &[]);
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
        assert!(
            output.stderr.starts_with(&format!("rmom: {} is for commands that ask a cluster", args[0])),
            "{output:?}"
        );
    }
    // Variables may be set for other commands.
    let variable = [("RMOM_MANAGER", "http://m:1")];
    rmom_in(examples(), "rmom", &["serve", "broker", "mom1.yaml", "--check-config"], &variable).success();
}

#[test]
fn mistakes_end_with_2_and_say_where_they_are() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("b.yaml"), "prot: 1\ndatabase: {dbname: d, port: x}\n").unwrap();
    let output = rmom_in(directory.path(), "rmom-broker", &["b.yaml"], &[]);
    assert_eq!(output.code, Some(2));
    let expected = "b.yaml: database.port: found the text \"x\", expected a whole number from 0 to 65535\n\
                  b.yaml: prot: there is no such setting; did you mean port?\n";
    assert_eq!(output.stderr, expected);

    let output = rmom_in(directory.path(), "rmom-manager", &[], &[]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (Some(2), "Rocket.toml: cannot be read: there is no such file\n")
    );
    assert_eq!(broker(&[], &[]).code, Some(2));
    assert_eq!(broker(&["mom1.yaml", "--log-format", "xml"], &[]).code, Some(2));
    let output = manager(&["--check-config"], &[("ROCKET_PROFILE", "staging")]);
    assert_eq!(output.code, Some(2));
    assert!(
        output.stderr.contains("there is no profile \"staging\"; known: debug, default, release"),
        "{}",
        output.stderr
    );
}
