//! Gives the programs their version: the crate's, and the commit that they are built from.

// Cargo reads standard output.
#![allow(clippy::print_stdout)]

mod commit;

use std::{env, path::Path};

/// Names the commit where the sources have no `.git`: in an image, or a package of a distribution.
const VARIABLE: &str = "RMOM_COMMIT";

fn main() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let commit = match env::var(VARIABLE).ok().filter(|named| !named.is_empty()) {
        Some(named) => match commit::short(&named) {
            Some(commit) => Some(commit),
            None => {
                println!("cargo::error={VARIABLE} is {named:?}; it has to be a commit: 12 to 64 hexadecimal digits");
                return;
            }
        },
        None => {
            let (head, packaged) = (commit::head(&package.join("..")), commit::packaged(package));
            for file in head.files.iter().chain(&packaged.files) {
                println!("cargo::rerun-if-changed={}", file.display());
            }
            head.commit.or(packaged.commit)
        }
    };
    let version = env!("CARGO_PKG_VERSION");
    let commit = commit.map_or_else(String::new, |commit| format!(" ({commit})"));
    println!("cargo::rustc-env=RMOM_VERSION_AND_COMMIT={version}{commit}");
}
