//! What a router's folder holds of its state.

use crate::host::HostError;
use crate::host::files;
use crate::host::segments::Segment;
use crate::layout::Layout;
use crate::values::BroadcastUri;
use contract_agent::wanted::Wanted;
use contract_agent::{ApplyRouter, RouterSpec};
use prost::Message;
use std::collections::BTreeSet;
use std::path::Path;

pub(super) struct Store<'a>(pub &'a Layout);

impl Store<'_> {
    /// What was wanted and in force last; nothing for a new router.
    pub fn load(&self) -> Result<(Wanted, RouterSpec), HostError> {
        let wanted: ApplyRouter = decode(&self.0.wanted())?;
        let in_force = decode(&self.0.in_force())?;
        Ok((Wanted { generation: wanted.generation, spec: wanted.changes.unwrap_or_default() }, in_force))
    }

    pub fn save_wanted(&self, uuid: &str, wanted: &Wanted) -> Result<(), HostError> {
        files::folder(self.0.dir())?;
        let whole = ApplyRouter {
            router_uuid: uuid.to_owned(),
            generation: wanted.generation,
            changes: Some(wanted.spec.clone()),
            ..ApplyRouter::default()
        };
        // It holds passwords.
        files::replace(&self.0.wanted(), &whole.encode_to_vec(), 0o600)
    }

    pub fn save_in_force(&self, spec: &RouterSpec) -> Result<(), HostError> {
        files::replace(&self.0.in_force(), &spec.encode_to_vec(), 0o600)
    }

    /// The networks whose bridges this router may have made.
    pub fn segments(&self) -> Result<BTreeSet<Segment>, HostError> {
        let Some(text) = files::read(&self.0.segments())? else { return Ok(BTreeSet::new()) };
        let text = String::from_utf8_lossy(&text);
        let read = |line: &str| {
            let (uri, device) = line.split_once(' ')?;
            Some(Segment { uri: BroadcastUri::parse(uri).ok()?, device: device.to_owned() })
        };
        Ok(text.lines().filter_map(read).collect())
    }

    pub fn save_segments(&self, segments: &BTreeSet<Segment>) -> Result<(), HostError> {
        let text: String = segments.iter().map(|s| format!("{} {}\n", s.uri, s.device)).collect();
        files::replace_if_other(&self.0.segments(), text.as_bytes(), 0o600).map(|_| ())
    }
}

/// A file that a failing disk spoilt counts as none: the control plane then sends the whole state again.
fn decode<M: Message + Default>(path: &Path) -> Result<M, HostError> {
    let Some(content) = files::read(path)? else { return Ok(M::default()) };
    Ok(M::decode(content.as_slice()).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "a router's state can't be read");
        M::default()
    }))
}
