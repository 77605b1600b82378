//! Writes the generated seeds of all targets to `corpus/`: `cargo run -p rmom-fuzz --example seeds`.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    for (target, seeds) in rmom_fuzz::SEEDS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (name, seed) in seeds() {
            fs::write(folder.join(name), seed)?;
        }
    }
    Ok(())
}
