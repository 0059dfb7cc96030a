//! Compiles proto/arcus/compute/v1.
fn main() {
    contract_build::compile("compute");
}
