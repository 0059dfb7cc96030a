//! Compiles proto/arcus/api/v1.
fn main() {
    contract_build::compile("api");
}
