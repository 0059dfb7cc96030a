//! Compiles the client of etcd.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["etcd.proto"], ["proto"])?;
    let simulated = std::env::var_os("CARGO_FEATURE_SIMULATION").is_some();
    tonic_prost_build::configure().build_server(simulated).compile_fds(files)?;
    Ok(())
}
