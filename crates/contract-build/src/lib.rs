//! Build-time compiler of the contract. A crate of the contract has a `build.rs` of one line:
//!
//! ```ignore
//! fn main() { contract_build::compile("compute"); }
//! ```
//!
//! It leaves three files in `OUT_DIR`: `arcus.<area>.v1.rs` (messages and gRPC stubs), `contract.rs` (command tables,
//! `contract::Request` implementations, masking `Debug`) and `descriptor.bin` (the area's own files, with source info).

mod options;
mod requests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorSet;

/// Areas that other areas may import, with the Rust path of their generated crate.
const AREAS: [(&str, &str); 8] = [
    ("api", "::contract::api"),
    ("identity", "::contract_identity"),
    ("infra", "::contract_infra"),
    ("compute", "::contract_compute"),
    ("network", "::contract_network"),
    ("storage", "::contract_storage"),
    ("usage", "::contract_usage"),
    ("agent", "::contract_agent"),
];

/// Compiles `proto/arcus/<area>/v1`, and fails the build with the compiler's message when it can't.
pub fn compile(area: &str) {
    if let Err(error) = run(area) {
        eprintln!("{error:?}");
        std::process::exit(1);
    }
}

/// A compiled area: the pool with all it imports, and the descriptors of its own files.
pub struct Area {
    /// Package of the area.
    pub package: String,
    /// Everything that the area's files see; options are readable through it.
    pub pool: DescriptorPool,
    /// All files, for prost; services only of the area itself.
    pub files: FileDescriptorSet,
    /// The area's own files, encoded with the extensions that prost-types can't hold.
    pub encoded: Vec<u8>,
}

/// Reads and links the protos of an area below `root`.
pub fn read(root: &Path, area: &str) -> Result<Area> {
    let package = format!("arcus.{area}.v1");
    let folder = root.join("arcus").join(area).join("v1");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "proto"));
    paths.sort();
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_source_info(true).include_imports(true).open_files(&paths)?;
    let pool = compiler.descriptor_pool();
    let prefix = format!("arcus/{area}/v1/");
    let own_names: Vec<String> = pool.files().map(|f| f.name().to_owned()).filter(|n| n.starts_with(&prefix)).collect();
    let mut files = compiler.file_descriptor_set();
    files.file.iter_mut().filter(|f| !f.name().starts_with(&prefix)).for_each(|f| f.service.clear());
    let encoded = encode_only(&compiler.encode_file_descriptor_set(), &own_names)?;
    Ok(Area { package, pool, files, encoded })
}

/// Keeps only the named files of an encoded set, byte for byte: decoding into prost-types would lose the options.
fn encode_only(set: &[u8], names: &[String]) -> Result<Vec<u8>> {
    #[derive(prost::Message)]
    struct RawSet {
        #[prost(bytes = "vec", repeated, tag = "1")]
        file: Vec<Vec<u8>>,
    }
    #[derive(prost::Message)]
    struct Named {
        #[prost(string, optional, tag = "1")]
        name: Option<String>,
    }
    let mut set = RawSet::decode(set)?;
    let mut kept = Vec::new();
    for file in set.file.drain(..) {
        let name = Named::decode(file.as_slice())?.name.unwrap_or_default();
        if names.contains(&name) {
            kept.push(file);
        }
    }
    Ok(RawSet { file: kept }.encode_to_vec())
}

fn run(area: &str) -> Result<()> {
    let manifest = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let root = manifest.join("../../proto").canonicalize().context("the proto folder")?;
    for folder in [area, "api"] {
        println!("cargo:rerun-if-changed={}", root.join("arcus").join(folder).join("v1").display());
    }
    let area_set = read(&root, area)?;
    std::fs::write(out.join("descriptor.bin"), &area_set.encoded)?;

    let generated = requests::generate(&area_set, area)?;
    let mut config = tonic_prost_build::Config::new();
    config.skip_debug(generated.masked.iter().map(|name| format!(".{name}")));
    let mut builder = tonic_prost_build::configure().out_dir(&out).emit_rerun_if_changed(false);
    for (other, path) in AREAS {
        if other != area {
            builder = builder.extern_path(format!(".arcus.{other}.v1"), path);
        }
    }
    builder.compile_fds_with_config(area_set.files.clone(), config)?;
    std::fs::write(out.join("contract.rs"), generated.code)?;
    Ok(())
}

/// The Rust path of a message of the contract as seen from `area`.
fn rust_path(full_name: &str, area: &str) -> Option<String> {
    let mut parts = full_name.split('.');
    let (Some("arcus"), Some(of), Some("v1"), Some(name)) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    if of == area {
        return Some(name.to_owned());
    }
    AREAS.iter().find(|(a, _)| *a == of).map(|(_, path)| format!("{path}::{name}"))
}
