//! Hosts: adding, changing, deleting and showing them.

pub mod absence;
mod add;
mod delete;
mod evict;
pub mod facts;
mod figures;
pub mod for_migration;
mod heartbeats;
pub mod investigate;
mod machine;
pub mod maintenance;
pub mod reconnect;
pub mod routers;
pub mod sweep;
mod tags;
mod url;
mod view;

pub use add::add;
pub use delete::delete;
pub use tags::list as list_tags;
pub use view::{list, shown, shown_percent};

use crate::annotation;
use crate::store::hosts::{self as rows, HostChange};
use crate::store::os_types;
use crate::world::World;
use contract::ApiError;
use contract_infra::{Host, UpdateHostRequest};
use model::state::ResourceState;
use rpc::Cx;

/// Changes a host.
pub async fn update(world: &World, cx: &Cx, r: UpdateHostRequest) -> Result<Host, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    let wanted = match r.allocation_state.as_deref().map(str::trim).filter(|s| !s.is_empty()) {
        None => None,
        Some(word) if is_word(word, "Enable") => Some(ResourceState::Enabled),
        Some(word) if is_word(word, "Disable") => Some(ResourceState::Disabled),
        Some(word) => {
            return Err(ApiError::failed(format!("Invalid allocation state:{word}, only Enable/Disable are allowed")));
        }
    };
    let os_category = match cx.refs.id::<i64>("oscategoryid")? {
        None => None,
        Some(category) if os_types::is_none(&world.node.db, category).await? => Some(None),
        Some(category) => Some(Some(category)),
    };
    let url = match r.url.as_deref().filter(|u| !u.is_empty()) {
        Some(text) => Some(url::without_credentials(text)?),
        None => None,
    };
    let change = HostChange {
        resource_state: wanted,
        tags: (!r.host_tags.is_empty()).then(|| tags(&r.host_tags)),
        os_category,
        url,
    };
    let note = match r.annotation.as_deref().map(str::trim).filter(|a| !a.is_empty()) {
        Some(text) => Some((world.node.db.next_id("annotations").await?, text)),
        None => None,
    };
    let host = jobs::mutate!(world.node.db, cx.caller, "update-host", |tx| {
        let host = rows::find(&mut *tx, id).await?.filter(|h| h.removed.is_none()).ok_or_else(gone)?;
        if let Some(wanted) = wanted {
            check_transition(host.resource_state, wanted)?;
        }
        if !rows::update(tx, id, &change).await? {
            return Err(gone());
        }
        if let Some((number, text)) = note {
            annotation::make(tx, &cx.caller, number, &host.uuid, text).await?;
        }
        let host = rows::find(&mut *tx, id).await?.ok_or_else(gone)?;
        Ok(shown(host, view::Details::all(), ha_tag(&world.node.settings).as_deref()))
    })
    .await?;
    world.host_changed(id);
    Ok(host)
}

/// The tag of hosts that are kept for VMs whose host failed.
pub fn ha_tag(settings: &config::Settings) -> Option<String> {
    let tag: Option<String> = settings.get(config::keys::HA_TAG);
    tag.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
}

/// 4.11 takes the event's name; the state's name is what people write.
fn is_word(word: &str, event: &str) -> bool {
    word.eq_ignore_ascii_case(event) || word.eq_ignore_ascii_case(&format!("{event}d"))
}

/// `Enable` and `Disable` of the state machine of resource states.
fn check_transition(from: ResourceState, to: ResourceState) -> Result<(), ApiError> {
    use ResourceState::{Disabled, Enabled, ErrorInMaintenance};
    let allowed = match to {
        Enabled => matches!(from, Enabled | Disabled),
        Disabled => matches!(from, Enabled | Disabled | ErrorInMaintenance),
        _ => false,
    };
    if allowed { Ok(()) } else { Err(ApiError::failed(format!("A host in the state {from} can't become {to}"))) }
}

/// Host tags as the database keeps them: no blanks, no doubles.
fn tags(given: &[String]) -> String {
    let mut tags: Vec<&str> = Vec::new();
    for tag in given.iter().flat_map(|t| t.split(',')).map(str::trim).filter(|t| !t.is_empty()) {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags.join(",")
}

pub(crate) fn gone() -> ApiError {
    ApiError::param("Host with specified id doesn't exist: it has been removed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_idle_states_are_switched_by_hand() {
        use ResourceState::{Disabled, Enabled, ErrorInMaintenance, Maintenance, PrepareForMaintenance};
        for (from, to, allowed) in [
            (Enabled, Enabled, true),
            (Enabled, Disabled, true),
            (Disabled, Enabled, true),
            (ErrorInMaintenance, Disabled, true),
            (Maintenance, Enabled, false),
            (PrepareForMaintenance, Disabled, false),
        ] {
            assert_eq!(check_transition(from, to).is_ok(), allowed, "{from} to {to}");
        }
    }

    #[test]
    fn tags_are_kept_once() {
        assert_eq!(tags(&["gpu, ssd".into(), "gpu".into(), " ".into()]), "gpu,ssd");
    }
}
