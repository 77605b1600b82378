//! Compiles the `.proto` files with protox, in pure Rust: no `protoc` on the machine.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/messages.proto", "proto/storage.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;
    let stubs = env::var_os("CARGO_FEATURE_TONIC").is_some();
    tonic_prost_build::configure().build_client(stubs).build_server(stubs).bytes(".").compile_fds(files)?;
    Ok(())
}
