//! Parameters.

use std::collections::BTreeMap;

use conformance::declared::Declared;
use conformance::reference::{Command, Param};
use contract::api::{Access, Ref};
use contract::{ParamInfo, WireType, descriptor};
use prost_reflect::{FieldDescriptor, Kind};

use crate::Place;
use crate::commands::{names, roles};

/// A parameter as declared and as 4.11 has it; at least one is there.
pub struct Pair<'a> {
    field: Option<FieldDescriptor>,
    declared: Option<&'a ParamInfo>,
    expected: Option<&'a Param>,
}

/// All parameters of both sides, by name.
pub fn pairs<'a>(command: &'a Declared, expected: &'a Command) -> BTreeMap<String, Pair<'a>> {
    let mut out: BTreeMap<String, Pair<'a>> = BTreeMap::new();
    for (param, field) in command.info.params.iter().zip(command.method.input().fields()) {
        out.insert(param.name.to_string(), Pair { field: Some(field), declared: Some(param), expected: None });
    }
    for param in &expected.params {
        out.entry(param.name.clone()).or_insert(Pair { field: None, declared: None, expected: None }).expected =
            Some(param);
    }
    out
}

/// Compares one.
pub fn compare(pair: &Pair<'_>, at: &mut Place<'_>) {
    let (declared, expected) = match (pair.declared, pair.expected) {
        (Some(declared), Some(expected)) => (declared, expected),
        (Some(_), None) => return at.add("unknown", "4.11 has no such parameter"),
        (None, Some(expected)) => {
            if expected.expose != Some(false) {
                at.add("missing", format!("{} ({})", expected.kind, expected.from.as_deref().unwrap_or("own")));
            }
            return;
        }
        (None, None) => return,
    };
    if expected.expose == Some(false) {
        at.add("unknown", "4.11 never reads it from a request");
    }
    kind(declared, expected, at);
    at.same("required", declared.required, expected.required);
    if expected.kind == "STRING" {
        at.same("length", declared.length, expected.length.unwrap_or(255));
    }
    at.same("since", declared.since.as_ref(), expected.since.as_deref().unwrap_or_default());
    // What only the full view of a command has is for root admins.
    let only_for = if expected.view.as_deref() == Some("Full") { vec!["Admin"] } else { names(&expected.authorized) };
    at.same("only_for", roles(&declared.only_for), only_for);
    at.same("positive", declared.positive, expected.validations.iter().any(|v| v == "PositiveNumber"));
    at.same("not_empty", declared.not_empty, expected.validations.iter().any(|v| v == "NotNullOrEmpty"));
    at.same("map_first_only", declared.map_first_only, expected.map_first_only);
    at.same(
        "not_on_integration_port",
        declared.not_on_integration_port,
        expected.accepted_on_admin_port == Some(false),
    );
    let default = expected.default.as_ref().map(|d| d.as_str().map_or_else(|| d.to_string(), str::to_owned));
    if let Some(default) = default {
        at.same("default", declared.default.as_ref(), default.as_str());
    }
    let access = match expected.acl.as_deref() {
        Some("OperateEntry") => Access::Operate,
        Some(_) => Access::Use,
        None => Access::Nothing,
    };
    if expected.acl.is_some() && declared.access != access {
        at.add("access", format!("declared {:?}, 4.11 has {access:?}", declared.access));
    }
    reference(declared, expected, at);
    sub_keys(pair.field.as_ref(), declared, expected, at);
}

fn kind(declared: &ParamInfo, expected: &Param, at: &mut Place<'_>) {
    let fits = match (expected.kind.as_str(), expected.collection_type.as_deref()) {
        ("STRING", _) => declared.kind == WireType::String,
        ("BOOLEAN", _) => declared.kind == WireType::Boolean,
        ("INTEGER", _) => declared.kind == WireType::Integer,
        ("LONG", _) => declared.kind == WireType::Long,
        ("SHORT", _) => declared.kind == WireType::Short,
        ("FLOAT", _) => declared.kind == WireType::Float,
        ("DOUBLE", _) => declared.kind == WireType::Double,
        ("UUID", _) => declared.kind == WireType::Uuid,
        ("LIST", Some("UUID")) => declared.kind == WireType::UuidList,
        ("LIST", _) => declared.kind == WireType::List,
        ("MAP", _) => declared.kind == WireType::Map,
        ("TZDATE", _) => declared.kind == WireType::TzDate,
        ("DATE", _) if takes_time(&at.name) => {
            let end = if at.name.ends_with(".enddate") { WireType::DateTimeEnd } else { WireType::DateTime };
            declared.kind == end
        }
        ("DATE", _) => declared.kind == WireType::Date,
        _ => false,
    };
    if !fits {
        let of = expected.collection_type.as_deref().map(|t| format!(" of {t}")).unwrap_or_default();
        at.add("type", format!("declared {:?}, 4.11 has {}{of}", declared.kind, expected.kind));
    }
}

/// The commands whose dates may have a time (api/README, "Request").
fn takes_time(place: &str) -> bool {
    let command = place.split('.').next().unwrap_or_default();
    matches!(
        command,
        "archiveEvents" | "deleteEvents" | "archiveAlerts" | "deleteAlerts" | "listEvents" | "listUsageRecords"
    )
}

fn reference(declared: &ParamInfo, expected: &Param, at: &mut Place<'_>) {
    let ids = expected.kind == "UUID" || expected.collection_type.as_deref() == Some("UUID");
    if !ids {
        if declared.reference != Ref::None {
            at.add("reference", format!("declared {:?}, 4.11 takes any {}", declared.reference, expected.kind));
        }
        return;
    }
    let Some(class) = expected.entity_type.as_deref() else { return };
    let kind = kind_of(class);
    let fits = match kind {
        Some(kind) => declared.reference == kind,
        None => declared.reference == Ref::Other,
    };
    if !fits {
        at.add("reference", format!("declared {:?}, 4.11 has {class}", declared.reference));
    }
    let exists = kind.is_some_and(model_has);
    if !exists && !declared.refused {
        at.add("refused", format!("there is no {class} yet, and the parameter isn't refused"));
    }
}

/// The kind of entity that a class of answers stands for.
fn kind_of(class: &str) -> Option<Ref> {
    Some(match class {
        "DomainResponse" => Ref::Domain,
        "AccountResponse" => Ref::Account,
        "UserResponse" => Ref::UserRef,
        "RoleResponse" => Ref::Role,
        "RolePermissionResponse" => Ref::RolePermission,
        "ProjectResponse" => Ref::Project,
        "ZoneResponse" => Ref::Zone,
        "PodResponse" => Ref::Pod,
        "ClusterResponse" => Ref::Cluster,
        "HostResponse" => Ref::Host,
        "PhysicalNetworkResponse" => Ref::PhysicalNetwork,
        "TrafficTypeResponse" => Ref::TrafficType,
        "ProviderResponse" => Ref::NetworkServiceProvider,
        "VirtualRouterProviderResponse" => Ref::VirtualRouterElement,
        "VlanIpRangeResponse" => Ref::VlanIpRange,
        "ServiceOfferingResponse" => Ref::ServiceOffering,
        "DiskOfferingResponse" => Ref::DiskOffering,
        "NetworkOfferingResponse" => Ref::NetworkOffering,
        "VpcOfferingResponse" => Ref::VpcOffering,
        "UserVmResponse" => Ref::VirtualMachine,
        "InstanceGroupResponse" => Ref::InstanceGroup,
        "AffinityGroupResponse" => Ref::AffinityGroup,
        "SSHKeyPairResponse" => Ref::SshKeyPair,
        "SystemVmResponse" => Ref::SystemVm,
        "DomainRouterResponse" => Ref::Router,
        "NetworkResponse" => Ref::Network,
        "NicResponse" => Ref::Nic,
        "IPAddressResponse" => Ref::IpAddress,
        "FirewallRuleResponse" | "FirewallResponse" => Ref::FirewallRule,
        "LoadBalancerResponse" => Ref::LoadBalancerRule,
        "LBStickinessResponse" => Ref::StickinessPolicy,
        "SecurityGroupResponse" => Ref::SecurityGroup,
        "VpcResponse" => Ref::Vpc,
        "NetworkACLListResponse" | "NetworkACLResponse" => Ref::NetworkAcl,
        "StoragePoolResponse" => Ref::StoragePool,
        "ImageStoreResponse" => Ref::ImageStore,
        "VolumeResponse" => Ref::Volume,
        "TemplateResponse" | "TemplatePermissionsResponse" => Ref::Template,
        "IsoVmResponse" => Ref::Iso,
        "SnapshotResponse" => Ref::Snapshot,
        "SnapshotPolicyResponse" => Ref::SnapshotPolicy,
        "GuestOSResponse" => Ref::OsType,
        "GuestOSCategoryResponse" => Ref::OsCategory,
        "HypervisorCapabilitiesResponse" => Ref::HypervisorCapabilities,
        "AsyncJobResponse" => Ref::Job,
        "EventResponse" => Ref::Event,
        "AlertResponse" => Ref::Alert,
        _ => return None,
    })
}

fn model_has(kind: Ref) -> bool {
    model::entity::source_of(kind).is_some()
}

/// The sub-keys of a map are known on both sides.
fn sub_keys(field: Option<&FieldDescriptor>, declared: &ParamInfo, expected: &Param, at: &mut Place<'_>) {
    if expected.kind != "MAP" {
        return;
    }
    let nested = declared.nested.iter().map(|p| p.name.to_string());
    let mut known: Vec<String> = nested.chain(declared.map_keys.iter().map(ToString::to_string)).collect();
    if let Some(Kind::Message(entry)) = field.map(FieldDescriptor::kind)
        && entry.package_name() == "arcus.api.v1"
    {
        known.extend(entry.fields().map(|f| descriptor::wire_name(&f, &descriptor::param(&f).wire)));
    }
    let missing: Vec<&String> = expected.map_keys.iter().filter(|key| !known.contains(key)).collect();
    if !missing.is_empty() {
        at.add("map_keys", format!("declared {known:?}, 4.11 also has {missing:?}"));
    }
}
