//! The types of alerts (4.11.1): an alert is an event whose type is one of these names.

/// Names by number.
pub(crate) const ALERT_TYPES: &[&str] = &[
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

/// The number of a name.
pub(crate) fn number(name: &str) -> Option<usize> {
    ALERT_TYPES.iter().position(|n| *n == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_4_11() {
        assert_eq!(number("ALERT.COMPUTE.HOST"), Some(7));
        assert_eq!(number("ALERT.USERVM"), Some(8));
        assert_eq!(number("ALERT.HA.ACTION"), Some(30));
        assert_eq!(number("VM.START"), None);
    }
}
