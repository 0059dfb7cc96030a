//! How answers are written: one plan a response message, with the options of its fields already read.

use std::collections::HashMap;

use contract::RoleType;
use contract::api::Format;
use contract::descriptor;
use prost_reflect::{FieldDescriptor, MessageDescriptor};

/// The name of the message that says how a job ended.
const JOB_RESULT: &str = "arcus.api.v1.JobResult";
/// The name of the items' count in a list.
const COUNT: &str = "count";

/// A message of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageId(usize);

/// The plans of all messages that answers are made of.
#[derive(Default)]
pub struct Messages {
    plans: Vec<MessagePlan>,
    ids: HashMap<String, MessageId>,
}

/// How a message is written.
#[derive(Debug, Default)]
pub struct MessagePlan {
    /// Its fields by number.
    pub fields: Vec<FieldPlan>,
    /// Set when the message is a list: the number of its count, when it has one, and the index of the items. Further lists
    /// in it are told in place of the first, under their own name, when they have items (4.11's `lbrulevmidip`).
    pub list: Option<(Option<u32>, usize)>,
    /// Whether something in it, at any depth, isn't for everybody.
    pub restricted: bool,
}

/// How a field is written.
#[derive(Debug)]
pub struct FieldPlan {
    /// Its number.
    pub number: u32,
    /// Its name on the wire.
    pub name: Box<str>,
    /// Its type, or that of its items.
    pub kind: Kind,
    /// Whether there may be several.
    pub repeated: bool,
    /// Whether absence means the type's zero.
    pub implicit: bool,
    /// How numbers and times are written.
    pub format: Format,
    /// Bits of the role types that see it; none: everybody does.
    visible_to: i32,
    /// Whether XML leaves it out.
    pub json_only: bool,
    /// Whether it is left out when empty.
    pub omit_empty: bool,
}

/// Types of fields.
#[derive(Debug)]
pub enum Kind {
    /// `bool`.
    Bool,
    /// `int32` and `int64`.
    Int,
    /// `uint32` and `uint64`.
    Uint,
    /// `sint32` and `sint64`.
    Sint,
    /// `fixed32`, `fixed64`.
    Fixed,
    /// `sfixed32`.
    Sfixed32,
    /// `sfixed64`.
    Sfixed64,
    /// `float`.
    Float,
    /// `double`.
    Double,
    /// `string`.
    Text,
    /// `bytes`: written as base64.
    Bytes,
    /// An enum: written as the name of its value.
    Enum(Enumeration),
    /// A message.
    Message(MessageId),
    /// A map: the plan of its entry.
    Map(MessageId),
    /// How a job ended.
    JobResult,
}

/// The names of an enum's values.
#[derive(Debug)]
pub struct Enumeration(Box<[(i32, Box<str>)]>);

impl Enumeration {
    /// The name of a value.
    pub fn name(&self, number: i32) -> Option<&str> {
        self.0.iter().find(|(n, _)| *n == number).map(|(_, name)| name.as_ref())
    }
}

impl FieldPlan {
    /// Whether a caller of this role type sees it.
    pub fn is_for(&self, role: RoleType) -> bool {
        self.visible_to == 0 || self.visible_to & role as i32 != 0
    }

    /// Whether it is a list of messages.
    pub fn is_items(&self) -> bool {
        self.repeated && matches!(self.kind, Kind::Message(_))
    }

    /// Whether its items may be packed.
    pub fn packable(&self) -> bool {
        self.repeated
            && !matches!(self.kind, Kind::Text | Kind::Bytes | Kind::Message(_) | Kind::Map(_) | Kind::JobResult)
    }
}

impl MessagePlan {
    /// The index of the field with this number. Fields mostly come in order, so `from` is tried first.
    pub fn find(&self, number: u32, from: usize) -> Option<usize> {
        if self.fields.get(from).is_some_and(|f| f.number == number) {
            return Some(from);
        }
        self.fields.binary_search_by_key(&number, |f| f.number).ok()
    }
}

impl Messages {
    /// A plan.
    pub fn get(&self, id: MessageId) -> &MessagePlan {
        // Ids are only made by `plan`, which adds the plan.
        &self.plans[id.0]
    }

    /// The plan of a message, made when it is asked for first.
    pub fn plan(&mut self, message: &MessageDescriptor) -> MessageId {
        if let Some(id) = self.ids.get(message.full_name()) {
            return *id;
        }
        let id = MessageId(self.plans.len());
        // Entered before its fields are looked at: messages may hold themselves.
        self.ids.insert(message.full_name().to_owned(), id);
        self.plans.push(MessagePlan::default());
        let mut fields: Vec<FieldPlan> = message.fields().map(|field| self.field(&field)).collect();
        fields.sort_by_key(|f| f.number);
        let items = || fields.iter().enumerate().filter(|(_, f)| f.name.as_ref() != COUNT);
        let list = items()
            .next()
            .filter(|_| items().all(|(_, f)| f.is_items()))
            .map(|(index, _)| (fields.iter().find(|f| f.name.as_ref() == COUNT).map(|f| f.number), index));
        let restricted = fields.iter().any(|f| f.visible_to != 0 || matches!(f.kind, Kind::JobResult));
        self.plans[id.0] = MessagePlan { fields, list, restricted };
        id
    }

    /// Carries `restricted` up to the messages that hold restricted ones.
    pub(super) fn finish(&mut self) {
        loop {
            let found: Vec<usize> = (0..self.plans.len())
                .filter(|i| {
                    let plan = &self.plans[*i];
                    !plan.restricted
                        && plan.fields.iter().any(|f| match f.kind {
                            Kind::Message(of) => self.plans[of.0].restricted,
                            _ => false,
                        })
                })
                .collect();
            if found.is_empty() {
                return;
            }
            for index in found {
                self.plans[index].restricted = true;
            }
        }
    }

    fn field(&mut self, field: &FieldDescriptor) -> FieldPlan {
        use prost_reflect::Kind as Proto;
        let option = descriptor::field(field);
        let kind = match field.kind() {
            Proto::Bool => Kind::Bool,
            Proto::Int32 | Proto::Int64 => Kind::Int,
            Proto::Uint32 | Proto::Uint64 => Kind::Uint,
            Proto::Sint32 | Proto::Sint64 => Kind::Sint,
            Proto::Fixed32 | Proto::Fixed64 => Kind::Fixed,
            Proto::Sfixed32 => Kind::Sfixed32,
            Proto::Sfixed64 => Kind::Sfixed64,
            Proto::Float => Kind::Float,
            Proto::Double => Kind::Double,
            Proto::String => Kind::Text,
            Proto::Bytes => Kind::Bytes,
            Proto::Enum(of) => Kind::Enum(Enumeration(of.values().map(|v| (v.number(), v.name().into())).collect())),
            Proto::Message(of) if of.full_name() == JOB_RESULT => Kind::JobResult,
            Proto::Message(of) if field.is_map() => Kind::Map(self.plan(&of)),
            Proto::Message(of) => Kind::Message(self.plan(&of)),
        };
        FieldPlan {
            number: field.number(),
            name: descriptor::wire_name(field, &option.wire).into(),
            repeated: field.is_list(),
            implicit: !field.supports_presence() && !field.is_list() && !field.is_map(),
            format: option.format(),
            visible_to: option.visible_to.iter().fold(0, |bits, role| bits | role),
            json_only: option.json_only,
            omit_empty: option.omit_empty,
            kind,
        }
    }
}
