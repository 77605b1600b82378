//! Completions and manual pages cover the whole command line.

use std::{collections::BTreeSet, fs};

use rmom::cli::args::command;

use crate::support::{Output, rmom};

/// Every command of `rmom` as its words, `rmom` itself first.
fn commands() -> Vec<Vec<String>> {
    fn add(command: &clap::Command, path: &[String], all: &mut Vec<Vec<String>>) {
        let path = [path, &[command.get_name().to_owned()]].concat();
        all.push(path.clone());
        command.get_subcommands().for_each(|sub| add(sub, &path, all));
    }
    let mut all = Vec::new();
    add(&command(), &[], &mut all);
    assert!(all.len() > 25, "{all:?}");
    all
}

fn run(args: &[&str]) -> Output {
    rmom("http://127.0.0.1:1", args, "").success()
}

#[test]
fn completions_have_every_command_and_option() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        let script = output.text();
        let words: BTreeSet<&str> = script.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
        for path in commands() {
            let name = path.last().unwrap().as_str();
            assert!(words.contains(name), "{shell}: {path:?}");
        }
        for option in ["check-config", "ephemeral", "idle-timeout"] {
            assert!(script.contains(option), "{shell}: {option}");
        }
    }
}

#[test]
fn every_command_has_a_page() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("man");
    assert!(run(&["man", folder.to_str().unwrap()]).text().is_empty());
    let page = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let version = format!("\"rmom {}\"", rmom::VERSION);
    for path in commands() {
        let name = path.join("-");
        let text = page(&format!("man1/{name}.1"));
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}: {text}");
        assert!(text.contains(&format!(".TH {name} 1 ")), "{name}: {text}");
        assert!(text.contains(&version), "{name}: {text}");
    }
    for variable in ["RMOM_MANAGER", "RMOM_CA", "RMOM_CERT", "RMOM_KEY"] {
        assert!(page("man1/rmom.1").contains(variable), "{variable}");
    }
    assert!(!page("man1/rmom-serve-broker.1").contains("RMOM_MANAGER"));
    for name in ["rmom-broker", "rmom-manager"] {
        let text = page(&format!("man8/{name}.8"));
        assert!(text.contains("\\-\\-check\\-config") && text.contains(&version), "{name}: {text}");
    }
    assert_eq!(fs::read_dir(folder.join("man1")).unwrap().count(), commands().len());
    assert_eq!(run(&["man"]).text(), page("man1/rmom.1"));
}

#[test]
fn a_directory_that_cannot_be_written_is_named_with_a_way_out() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = rmom("http://127.0.0.1:1", &["man", file.path().to_str().unwrap()], "");
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    assert!(output.stderr.contains("cannot write to ") && output.stderr.contains("rmom man "), "{}", output.stderr);
}
