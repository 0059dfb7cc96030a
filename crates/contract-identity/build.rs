//! Compiles proto/arcus/identity/v1.
fn main() {
    contract_build::compile("identity");
}
