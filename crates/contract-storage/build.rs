//! Compiles proto/arcus/storage/v1.
fn main() {
    contract_build::compile("storage");
}
