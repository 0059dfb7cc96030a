//! Compiles proto/arcus/infra/v1.
fn main() {
    contract_build::compile("infra");
}
