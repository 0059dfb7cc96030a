//! Compiles proto/arcus/usage/v1.
fn main() {
    contract_build::compile("usage");
}
