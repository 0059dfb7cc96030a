//! Alerts: events that administrators must see, of the types that `listAlerts` numbers (enums.json, AlertType).

use events::{EventRecord, EventState, Level, Record};

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// A host (type 7).
    Host,
    /// A virtual machine of a user (type 8).
    UserVm,
}

impl Alert {
    /// The type of its event.
    pub const fn kind(self) -> &'static str {
        match self {
            Alert::Host => "ALERT.COMPUTE.HOST",
            Alert::UserVm => "ALERT.USERVM",
        }
    }

    const fn entity(self) -> &'static str {
        match self {
            Alert::Host => "Host",
            Alert::UserVm => "VirtualMachine",
        }
    }

    /// The alert about the entity with this UUID.
    pub fn raise(self, uuid: &str, text: impl Into<String>) -> Record {
        Record::Event(self.event(uuid, text).failed())
    }

    /// What it warned of has passed.
    pub fn clear(self, uuid: &str, text: impl Into<String>) -> Record {
        Record::Event(self.event(uuid, text))
    }

    /// Something that may go wrong: with an entity of that kind and UUID or name.
    pub fn warn(self, about: (&str, &str), text: impl Into<String>) -> Record {
        Record::Event(EventRecord { level: Level::Warn, ..self.event(about.1, text).about(about.0, about.1) })
    }

    fn event(self, uuid: &str, text: impl Into<String>) -> EventRecord {
        EventRecord::new(&rpc::cx::system_caller(), self.kind(), EventState::Completed, text).about(self.entity(), uuid)
    }
}
