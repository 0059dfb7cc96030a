//! What guests are told about themselves.

use crate::values::{self, Refusal};
use contract_agent as agent;
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// Guests by address.
pub type Guests = BTreeMap<Ipv4Addr, Guest>;

/// What one guest is told.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Guest {
    /// By the path below `/latest/`, without slashes at the ends.
    pub entries: BTreeMap<String, Vec<u8>>,
    /// The password and its id.
    pub password: Option<(String, String)>,
    /// The VM's UUID, where it is known.
    pub vm: Option<String>,
}

/// Without contents: they hold passwords and users' data.
impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest")
            .field("entries", &self.entries.keys())
            .field("password", &self.password.is_some())
            .finish()
    }
}

pub(super) fn guests(section: &agent::Metadata) -> Result<Guests, Refusal> {
    let mut all = Guests::new();
    for vm in &section.vms {
        let ip = values::ip4("the guest's address", &vm.ip4)?;
        let mut entries = BTreeMap::new();
        for (path, content) in &vm.entries {
            let path = path.trim_matches('/');
            if path.is_empty() || path.split('/').any(|p| p.is_empty() || p == "." || p == "..") {
                return Err(format!("{path:?} can't be a path of metadata"));
            }
            entries.insert(path.to_owned(), content.clone().into_bytes());
        }
        if let Some(data) = &vm.user_data {
            entries.insert("user-data".into(), data.clone());
        }
        let password = match vm.password.as_deref() {
            None | Some("") => None,
            Some(text) if text.contains(['\n', '\r']) => {
                return Err(format!("the password of {ip} has more than a line"));
            }
            Some(text) => {
                let id = vm.password_id.clone().unwrap_or_else(|| crate::digest::digest([text.as_bytes()]));
                Some((id, text.to_owned()))
            }
        };
        if all.insert(ip, Guest { entries, password, vm: vm.vm_uuid.clone() }).is_some() {
            return Err(format!("metadata of {ip} is there twice"));
        }
    }
    Ok(all)
}
