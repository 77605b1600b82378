//! Prints which of the marked points of the logic (`core/src/marks.rs`) the inputs in some folders reach, and how often:
//! `cargo run -p rmom-fuzz --features marks --example reached TARGET FOLDER...`

use std::{collections::BTreeMap, env, fs, io};

use rmom_core::marks::{self, Mark};

#[allow(clippy::print_stdout)] // Printing is its purpose.
fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let target = arguments.next().unwrap_or_default();
    let named = rmom_fuzz::TARGETS.iter().find(|(name, _)| *name == target);
    let Some((_, run)) = named else { return Err(io::Error::other(format!("there is no target {target:?}"))) };
    let mut inputs = 0_u64;
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    for folder in arguments {
        for entry in fs::read_dir(folder)? {
            run(&fs::read(entry?.path())?);
            inputs += 1;
            for name in marks::take().into_keys() {
                *reached.entry(name).or_default() += 1;
            }
        }
    }
    for mark in Mark::ALL {
        println!("{:8}  {}", reached.get(mark.name()).copied().unwrap_or_default(), mark.name());
    }
    println!("{} of {} points are reached by {inputs} inputs", reached.len(), Mark::ALL.len());
    Ok(())
}
