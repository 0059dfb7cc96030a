//! Compiles proto/arcus/network/v1.
fn main() {
    contract_build::compile("network");
}
