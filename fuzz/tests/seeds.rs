//! The corpus matches its lists of steps.

use std::{fs, path::Path};

#[test]
fn seeds_are_what_the_lists_say() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, seeds) in rmom_fuzz::SEEDS {
        for (name, bytes) in seeds() {
            let found = fs::read(corpus.join(target).join(name)).ok();
            assert_eq!(found, Some(bytes), "{target}/{name}: write it with cargo run -p rmom-fuzz --example seeds");
        }
    }
}
