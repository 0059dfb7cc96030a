//! Compiles proto/arcus/agent/v1.
fn main() {
    contract_build::compile("agent");
}
