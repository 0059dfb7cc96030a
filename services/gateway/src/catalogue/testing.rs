//! A contract with every kind of parameter and field, for tests.

use std::path::Path;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::Catalogue;

/// The catalogue of `tests/contract`.
pub fn every_kind() -> Catalogue {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let roots = [here.join("../../proto"), here.join("tests/contract")];
    let mut compiler = protox::Compiler::new(roots).unwrap();
    compiler.include_imports(true).open_file("arcus/test/v1/every_kind.proto").unwrap();
    let pool = DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap();
    Catalogue::of(pool).unwrap()
}

impl Catalogue {
    /// The descriptor of a message.
    pub fn message(&self, name: &str) -> MessageDescriptor {
        self.pool().get_message_by_name(name).unwrap()
    }

    /// A message from protobuf's own JSON.
    pub fn message_from(&self, name: &str, json: serde_json::Value) -> DynamicMessage {
        DynamicMessage::deserialize(self.message(name), json).unwrap()
    }
}
