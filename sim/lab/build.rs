//! Notes which commit the program is built from, so that a failure can say where it happened.

use std::{path::Path, process::Command};

fn main() {
    // Empty where there is no git, or no repository: a package from a registry, say.
    let commit = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]).unwrap_or_default();
    println!("cargo::rustc-env=RMOM_COMMIT={commit}");

    // What changes when somebody commits, and what makes the work tree differ from the commit.
    let head = git(&["rev-parse", "--git-path", "logs/HEAD"]).unwrap_or_default();
    let sources =
        ["build.rs", "src", "../src", "../../core/src", "../../net/src", "../../clients/rust/src", "../../proto"];
    for path in sources.into_iter().chain([head.as_str()]).filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
