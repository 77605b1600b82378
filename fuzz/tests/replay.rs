//! Replays the kept inputs without a fuzzer: `corpus/`, with which fuzzing begins, and `regressions/`, each of which once
//! made a target fail.

use std::{fs, panic::catch_unwind, path::Path};

use rmom_fuzz::TARGETS;

#[test]
fn the_corpus_is_clean() {
    replay("corpus");
}

#[test]
fn what_was_found_stays_fixed() {
    replay("regressions");
}

fn replay(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    for (name, run) in TARGETS {
        let mut files: Vec<_> = fs::read_dir(folder.join(name))
            .unwrap_or_else(|e| panic!("every target has a folder in {}: {name}: {e}", folder.display()))
            .map(|entry| entry.expect("the folder can be read").path())
            .collect();
        files.sort();
        for file in files {
            let input = fs::read(&file).expect("the input can be read");
            assert!(catch_unwind(|| run(&input)).is_ok(), "{} fails", file.display());
        }
    }
}
