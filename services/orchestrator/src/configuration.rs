//! Settings as the API shows and changes them, and what an installation can do.

use crate::fact;
use crate::placement::Planner;
use crate::store::clusters;
use crate::store::hosts;
use crate::store::zones;
use crate::world::World;
use config::keys::{self, Key};
use config::{Kind, Scope, Setting};
use contract::{ApiError, Page};
use contract_infra::{
    Capabilities, Configuration, DeploymentPlanner, ListCapabilitiesRequest, ListConfigurationsRequest,
    ListConfigurationsResponse, ListDeploymentPlannersRequest, ListDeploymentPlannersResponse,
    UpdateConfigurationRequest,
};
use events::Alert;
use rpc::Cx;

/// The version that clients are told: the one whose API this is.
pub const VERSION: &str = "4.11.1.0";
/// What a secret's value is shown as.
const MASK: &str = "*****";

/// The scope that a request names; at most one.
fn scope(cx: &Cx) -> Result<Scope, ApiError> {
    let named = [
        ("zoneid", Scope::Zone as fn(i64) -> Scope),
        ("clusterid", Scope::Cluster),
        ("storageid", Scope::Pool),
        ("accountid", Scope::Account),
        ("domainid", Scope::Domain),
        ("imagestoreuuid", Scope::ImageStore),
    ];
    let mut found = Vec::new();
    for (param, of) in named {
        if let Some(id) = cx.refs.id::<i64>(param)? {
            found.push(of(id));
        }
    }
    match found.as_slice() {
        [] => Ok(Scope::Global),
        [one] => Ok(*one),
        _ => Err(ApiError::param("cannot handle multiple IDs, provide only one ID corresponding to the scope")),
    }
}

/// Lists settings; with a scope, those that may differ there, with what is in force there.
pub fn list(world: &World, cx: &Cx, r: &ListConfigurationsRequest) -> Result<ListConfigurationsResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let scope = scope(cx)?;
    let settings = &world.node.settings;
    let given = |v: &Option<String>| v.as_deref().map(str::to_lowercase).filter(|v| !v.is_empty());
    let (category, name, keyword) = (given(&r.category), given(&r.name), given(&r.keyword));
    let matches = |s: &&Setting| {
        (scope == Scope::Global || s.scope == scope.kind())
            && category.as_deref().is_none_or(|c| s.category.to_lowercase() == c)
            && name.as_deref().is_none_or(|n| s.name.to_lowercase().contains(config::aliased(n).unwrap_or(n)))
            && keyword.as_deref().is_none_or(|k| {
                [s.name, s.category, s.component.unwrap_or_default(), s.description()]
                    .iter()
                    .any(|text| text.to_lowercase().contains(k))
                    || settings.text(s, scope).is_some_and(|v| !is_secret(s) && v.to_lowercase().contains(k))
            })
    };
    let found: Vec<&Setting> = settings.registry().iter().filter(matches).collect();
    let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
    let configuration = cut(found, page).into_iter().map(|s| message(s, settings.text(s, scope), scope)).collect();
    Ok(ListConfigurationsResponse { count: Some(count), configuration })
}

/// Lists the planners that offerings, deployments and the setting `vm.deployment.planner` may name (VM-028).
///
/// # Errors
/// 431 when `page` and `pagesize` don't fit together.
pub fn planners(world: &World, r: &ListDeploymentPlannersRequest) -> Result<ListDeploymentPlannersResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let keyword = r.keyword().to_lowercase();
    let names = Planner::ALL.map(Planner::name).into_iter();
    let found: Vec<&str> = names.filter(|name| name.to_lowercase().contains(&keyword)).collect();
    let shown = |name: &str| DeploymentPlanner { name: Some(name.to_owned()), ..DeploymentPlanner::default() };
    Ok(ListDeploymentPlannersResponse {
        count: i64::try_from(found.len()).ok(),
        deployment_planner: cut(found, page).into_iter().map(shown).collect(),
    })
}

fn cut<T>(found: Vec<T>, page: Page) -> Vec<T> {
    let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let take = page.limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(usize::MAX));
    found.into_iter().skip(skip).take(take).collect()
}

/// Changes a setting, everywhere or in one scope.
pub async fn update(world: &World, cx: &Cx, r: UpdateConfigurationRequest) -> Result<Configuration, ApiError> {
    let scope = scope(cx)?;
    let name = r.name().trim().to_owned();
    let value = r.value.clone().unwrap_or_default();
    let setting = config::find(&name)
        .filter(|s| !s.hidden)
        .ok_or_else(|| ApiError::param(format!("Config parameter with name {name} doesn't exist")))?;
    let settings = &world.node.settings;
    let factor = factor(setting, scope, &value);
    let changed = jobs::mutate!(world.node.db, cx.caller, "update-configuration", |tx| {
        settings.set(tx, &name, &value, scope).await?;
        // A cluster's factor is part of its hosts' capacity.
        if let (Some(factor), Scope::Cluster(id)) = (factor, scope) {
            let cpu = setting.name == keys::CPU_OVERPROVISIONING_FACTOR.name;
            clusters::overcommit(tx, id, cpu.then_some(factor), (!cpu).then_some(factor)).await?;
        }
        let unused = tag_without_hosts(tx, setting, &value).await?;
        let shown = after(setting, scope, &value, || settings.text(setting, Scope::Global));
        let told = if is_secret(setting) { MASK } else { value.as_str() };
        let what = format!("updating configuration. Name: {} New Value: {told}", setting.name);
        fact::completed(tx, &cx.caller, "CONFIGURATION.VALUE.EDIT", &what, ("Configuration", setting.name)).await?;
        let mut answer = message(setting, shown, scope);
        if let Some(warning) = &unused {
            events::record(tx, &[Alert::host_setting(setting.name).warn(warning.clone())]).await?;
        }
        if let Some(warning) = unused.or_else(|| late_notice(setting, &value, |key| settings.get_in(key, scope))) {
            answer.description = Some(format!("{} Warning: {warning}", setting.description()).trim().to_owned());
        }
        Ok(answer)
    })
    .await?;
    if factor.is_some() {
        world.hosts_changed();
    }
    Ok(changed)
}

/// What is wrong with a new `ha.tag` that no host carries.
async fn tag_without_hosts(tx: &mut ::store::Tx, setting: &Setting, value: &str) -> Result<Option<String>, ApiError> {
    let tag = value.trim();
    if setting.name != keys::HA_TAG.name || tag.is_empty() || tag == "null" || hosts::carriers(tx, tag).await? > 0 {
        return Ok(None);
    }
    Ok(Some(format!("no host carries the tag {tag}: until one does, VMs aren't started again when their host fails")))
}

/// What is wrong with a cluster's threshold of notification that isn't below the one beyond which it takes no VMs (INST-202, INST-203):
/// nobody would be told before VMs are refused. `current` gives what the other one is.
fn late_notice(setting: &Setting, value: &str, current: impl Fn(Key<f64>) -> f64) -> Option<String> {
    let value: f64 = value.trim().parse().ok()?;
    let pairs = [
        (keys::CLUSTER_CPU_NOTIFICATION_THRESHOLD, keys::CLUSTER_CPU_DISABLE_THRESHOLD),
        (keys::CLUSTER_MEMORY_NOTIFICATION_THRESHOLD, keys::CLUSTER_MEMORY_DISABLE_THRESHOLD),
    ];
    let (notice, disable) = pairs.into_iter().find_map(|(notice, disable)| match setting.name {
        name if name == notice.name => Some((value, current(disable))),
        name if name == disable.name => Some((current(notice), value)),
        _ => None,
    })?;
    (notice >= disable).then(|| {
        format!(
            "people are told at {notice} only, and beyond {disable} the cluster takes no VMs: the first should be lower"
        )
    })
}

/// The factor by which a cluster's hosts are sold, when that is what changes.
fn factor(setting: &Setting, scope: Scope, value: &str) -> Option<f64> {
    let is_factor =
        [keys::CPU_OVERPROVISIONING_FACTOR.name, keys::MEM_OVERPROVISIONING_FACTOR.name].contains(&setting.name);
    match scope {
        Scope::Cluster(_) if is_factor => value.trim().parse().ok(),
        _ => None,
    }
}

/// What is in force after a change.
fn after(setting: &Setting, scope: Scope, value: &str, global: impl FnOnce() -> Option<String>) -> Option<String> {
    if !value.is_empty() && value != "null" {
        let text = if setting.kind == Kind::Text { value } else { value.trim() };
        return Some(text.to_owned());
    }
    match (scope, setting.kind) {
        (Scope::Global, Kind::Text) => None,
        (Scope::Global, _) => setting.unset_value().map(str::to_owned),
        _ => global(),
    }
}

fn is_secret(setting: &Setting) -> bool {
    setting.encrypted || setting.name.contains("password")
}

fn message(s: &Setting, value: Option<String>, scope: Scope) -> Configuration {
    let value = value.map(|v| if is_secret(s) && !v.is_empty() { MASK.to_owned() } else { v });
    Configuration {
        category: Some(s.category.to_owned()),
        name: Some(s.name.to_owned()),
        value,
        scope: (scope != Scope::Global).then(|| scope.kind().as_str().to_owned()),
        description: Some(s.description().to_owned()).filter(|d| !d.is_empty()),
        ..Configuration::default()
    }
}

/// Tells what this installation can do.
pub async fn capabilities(world: &World, cx: &Cx, _: ListCapabilitiesRequest) -> Result<Capabilities, ApiError> {
    let settings = &world.node.settings;
    let account = Scope::Account(cx.caller.account_id);
    let throttled = settings.get(keys::API_THROTTLING_ENABLED);
    let small = |n: i64| i32::try_from(n).unwrap_or(i32::MAX);
    Ok(Capabilities {
        security_groups_enabled: Some(zones::any_security_groups(&world.node.db).await?),
        dynamic_roles_enabled: Some(settings.get(keys::DYNAMIC_APICHECKER_ENABLED)),
        cloudstack_version: Some(VERSION.to_owned()),
        user_public_template_enabled: Some(settings.get_in(keys::ALLOW_PUBLIC_USER_TEMPLATES, account)),
        support_elb: Some("false".to_owned()),
        project_invite_required: Some(settings.get(keys::PROJECT_INVITE_REQUIRED)),
        allow_user_create_projects: Some(settings.get(keys::ALLOW_USER_CREATE_PROJECTS)),
        custom_disk_offering_min_size: Some(settings.get(keys::CUSTOM_DISKOFFERING_SIZE_MIN)),
        custom_disk_offering_max_size: Some(settings.get(keys::CUSTOM_DISKOFFERING_SIZE_MAX)),
        region_secondary_enabled: Some(false),
        api_limit_interval: throttled.then(|| small(settings.get(keys::API_THROTTLING_INTERVAL))),
        kvm_snapshot_enabled: Some(settings.get(keys::KVM_SNAPSHOT_ENABLED)),
        api_limit_max: throttled.then(|| small(settings.get(keys::API_THROTTLING_MAX))),
        allow_user_view_destroyed_vm: Some(
            cx.caller.is_admin() || settings.get_in(keys::ALLOW_USER_VIEW_DESTROYED_VM, account),
        ),
        allow_user_expunge_recover_vm: Some(
            cx.caller.is_admin() || settings.get_in(keys::ALLOW_USER_EXPUNGE_RECOVER_VM, account),
        ),
        ..Capabilities::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str) -> &'static Setting {
        config::find(name).unwrap()
    }

    #[test]
    fn an_answer_shows_what_is_in_force() {
        let none = || None;
        assert_eq!(after(setting("expunge.delay"), Scope::Global, " 20 ", none).as_deref(), Some("20"));
        assert_eq!(
            after(setting("expunge.delay"), Scope::Global, "", none).as_deref(),
            setting("expunge.delay").unset_value()
        );
        assert_eq!(after(setting("alert.email.sender"), Scope::Global, "null", none), None);
        let global = || Some("7".to_owned());
        assert_eq!(after(setting("cpu.overprovisioning.factor"), Scope::Cluster(1), "", global).as_deref(), Some("7"));
    }

    #[test]
    fn notice_comes_before_refusal() {
        let warned = |name, value, other| late_notice(setting(name), value, |_| other).is_some();
        assert!(warned("cluster.cpu.allocated.capacity.disablethreshold", "0.7", 0.75));
        assert!(!warned("cluster.cpu.allocated.capacity.disablethreshold", "0.9", 0.75));
        assert!(warned("cluster.memory.allocated.capacity.notificationthreshold", "0.85", 0.85));
        assert!(!warned("cluster.memory.allocated.capacity.notificationthreshold", "", 0.85));
        assert!(!warned("expunge.delay", "9", 0.5));
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = message(setting("alert.smtp.password"), Some("secret".into()), Scope::Global);
        assert_eq!(shown.value.as_deref(), Some(MASK));
    }

    #[test]
    fn only_a_clusters_factor_is_capacity() {
        assert_eq!(factor(setting("cpu.overprovisioning.factor"), Scope::Cluster(1), "2.5"), Some(2.5));
        assert_eq!(factor(setting("cpu.overprovisioning.factor"), Scope::Global, "2.5"), None);
        assert_eq!(factor(setting("expunge.delay"), Scope::Cluster(1), "2"), None);
    }
}
