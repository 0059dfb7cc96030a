//! Alerts: events that administrators must see. An alert is an event whose type is one of [`ALERT_TYPES`]; `listAlerts`
//! lists them (OPS-148, DESIGN.md).

use crate::record::{EventRecord, EventState, Level, Record};

/// The types of alerts (4.11.1) by number (enums.json, AlertType).
pub const ALERT_TYPES: &[&str] = &[
    "ALERT.MEMORY",
    "ALERT.CPU",
    "ALERT.STORAGE",
    "ALERT.STORAGE.ALLOCATED",
    "ALERT.NETWORK.PUBLICIP",
    "ALERT.NETWORK.PRIVATEIP",
    "ALERT.STORAGE.SECONDARY",
    "ALERT.COMPUTE.HOST",
    "ALERT.USERVM",
    "ALERT.SERVICE.DOMAINROUTER",
    "ALERT.SERVICE.CONSOLEPROXY",
    "ALERT.NETWORK.ROUTING",
    "ALERT.STORAGE.MISC",
    "ALERT.USAGE",
    "ALERT.MANAGEMENT",
    "ALERT.NETWORK.DOMAINROUTERMIGRATE",
    "ALERT.SERVICE.CONSOLEPROXYMIGRATE",
    "ALERT.USERVM.MIGRATE",
    "ALERT.NETWORK.VLAN",
    "ALERT.SERVICE.SSVM",
    "ALERT.USAGE.RESULT",
    "ALERT.STORAGE.DELETE",
    "ALERT.RESOURCE.COUNT",
    "ALERT.USAGE.SANITY",
    "ALERT.NETWORK.DIRECTPUBLICIP",
    "ALERT.STORAGE.LOCAL",
    "ALERT.RESOURCE.EXCEED",
    "ALERT.TYPE.SYNC",
    "ALERT.UPLOAD.FAILED",
    "ALERT.OOBM.AUTHERROR",
    "ALERT.HA.ACTION",
    "ALERT.CA.CERT",
];

/// The number of a type of alerts; `None`: the name is no alert's.
pub fn alert_number(name: &str) -> Option<usize> {
    ALERT_TYPES.iter().position(|n| *n == name)
}

/// Something that administrators must see: its type, and what it is about. The system tells it, nobody in particular.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert<'a> {
    kind: &'static str,
    entity: &'a str,
    name: &'a str,
}

impl<'a> Alert<'a> {
    /// About the host with this UUID (type 7).
    pub const fn host(uuid: &'a str) -> Alert<'a> {
        Alert { kind: "ALERT.COMPUTE.HOST", entity: "Host", name: uuid }
    }

    /// About the user's virtual machine with this UUID (type 8).
    pub const fn user_vm(uuid: &'a str) -> Alert<'a> {
        Alert { kind: "ALERT.USERVM", entity: "VirtualMachine", name: uuid }
    }

    /// About a part of Arcus itself (type 14): its kind ("Database"), and its name or UUID.
    pub const fn management(entity: &'a str, name: &'a str) -> Alert<'a> {
        Alert { kind: "ALERT.MANAGEMENT", entity, name }
    }

    /// About an account, by its UUID, whose limits keep the system from doing what it asked for (type 26).
    pub const fn limit(account: &'a str) -> Alert<'a> {
        Alert { kind: "ALERT.RESOURCE.EXCEED", entity: "Account", name: account }
    }

    /// About a setting that hosts are affected by (type 7), by its name.
    pub const fn host_setting(name: &'a str) -> Alert<'a> {
        Alert { kind: "ALERT.COMPUTE.HOST", entity: "Configuration", name }
    }

    /// The type of its event.
    pub const fn kind(self) -> &'static str {
        self.kind
    }

    /// It is so (level ERROR).
    pub fn raise(self, text: impl Into<String>) -> Record {
        Record::Event(self.event(text).failed())
    }

    /// It may get so (level WARN).
    pub fn warn(self, text: impl Into<String>) -> Record {
        Record::Event(EventRecord { level: Level::Warn, ..self.event(text) })
    }

    /// It has passed (level INFO).
    pub fn clear(self, text: impl Into<String>) -> Record {
        Record::Event(self.event(text))
    }

    fn event(self, text: impl Into<String>) -> EventRecord {
        let system = rpc::cx::system_caller();
        EventRecord::new(&system, self.kind, EventState::Completed, text).about(self.entity, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_4_11() {
        assert_eq!(alert_number(Alert::host("h").kind()), Some(7));
        assert_eq!(alert_number(Alert::user_vm("v").kind()), Some(8));
        assert_eq!(alert_number(Alert::management("Audit", "vm-host").kind()), Some(14));
        assert_eq!(alert_number(Alert::limit("a").kind()), Some(26));
        assert_eq!((ALERT_TYPES.len(), alert_number("ALERT.CA.CERT")), (32, Some(31)));
        assert_eq!(alert_number("VM.START"), None);
    }

    #[test]
    fn an_alert_is_an_event_of_the_system() {
        let alert = Alert::host_setting("cpu");
        let levels =
            [(alert.raise("a"), Level::Error), (alert.warn("a"), Level::Warn), (alert.clear("a"), Level::Info)];
        for (record, level) in levels {
            let Record::Event(event) = record else { panic!("{record:?}") };
            assert_eq!((event.kind.as_str(), event.level, event.user_id), ("ALERT.COMPUTE.HOST", level, 1));
            assert_eq!(event.resource_type.as_deref(), Some("Configuration"));
            assert_eq!(event.resource_uuid.as_deref(), Some("cpu"));
        }
    }
}
