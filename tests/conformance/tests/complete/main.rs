//! Each command that Arcus declares is what 4.11 has: names, parameters, answers, roles, events. What deviates on purpose
//! stands in `deviations`, with its reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod answers;
mod commands;
mod deviations;
mod params;

use std::collections::BTreeSet;
use std::fmt;

use conformance::declared;
use conformance::reference::Reference;

/// A difference between what is declared and 4.11.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// `command`, `command.parameter` or `Class.field`.
    place: String,
    /// What differs: `type`, `required`, ...
    what: &'static str,
    /// In words.
    detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]: {}", self.place, self.what, self.detail)
    }
}

/// The findings of one place.
pub struct Place<'a> {
    findings: &'a mut BTreeSet<Finding>,
    name: String,
}

impl<'a> Place<'a> {
    fn at(findings: &'a mut BTreeSet<Finding>, name: String) -> Place<'a> {
        Place { findings, name }
    }

    /// Adds a finding when the two differ.
    fn same<T: PartialEq + fmt::Debug>(&mut self, what: &'static str, declared: T, expected: T) {
        if declared != expected {
            self.add(what, format!("declared {declared:?}, 4.11 has {expected:?}"));
        }
    }

    fn add(&mut self, what: &'static str, detail: impl Into<String>) {
        self.findings.insert(Finding { place: self.name.clone(), what, detail: detail.into() });
    }
}

#[test]
fn contract_is_complete() {
    let reference = Reference::load().unwrap();
    let declared = declared::commands().unwrap();
    let mut findings = BTreeSet::new();
    for command in &declared {
        let name = command.info.name.to_string();
        let Some(expected) = reference.commands.get(&name) else {
            findings.insert(Finding { place: name, what: "unknown", detail: "4.11 has no such command".into() });
            continue;
        };
        commands::compare(command, expected, &mut Place::at(&mut findings, name.clone()));
        for (param, what) in params::pairs(command, expected) {
            params::compare(&what, &mut Place::at(&mut findings, format!("{name}.{param}")));
        }
        answers::compare(command, expected, &reference, &mut findings);
    }
    let (deliberate, left): (Vec<_>, Vec<_>) = findings.iter().partition(|f| deviations::reason(f).is_some());
    println!("{} commands, {} deliberate deviations", declared.len(), deliberate.len());
    let stale = deviations::stale(&findings);
    let text = |lines: Vec<String>| lines.join("\n  ");
    assert!(
        left.is_empty(),
        "{} deviations without a reason:\n  {}",
        left.len(),
        text(left.iter().map(ToString::to_string).collect())
    );
    assert!(stale.is_empty(), "deviations that are none any more:\n  {}", text(stale));
}

/// The metrics commands read the plain lists' messages as their own: fields have the same numbers and names.
#[test]
fn metrics_are_the_plain_lists_and_more() {
    let pool = declared::pool().unwrap();
    let message = |area: &str, name: &str| pool.get_message_by_name(&format!("arcus.{area}.v1.{name}")).unwrap();
    for (area, plain, metrics) in [
        ("infra", "Zone", "ZoneMetrics"),
        ("infra", "Cluster", "ClusterMetrics"),
        ("infra", "Host", "HostMetrics"),
        ("infra", "ListZonesRequest", "ListZonesMetricsRequest"),
        ("infra", "ListClustersRequest", "ListClustersMetricsRequest"),
        ("infra", "ListHostsRequest", "ListHostsMetricsRequest"),
        ("infra", "ListZonesResponse", "ListZonesMetricsResponse"),
        ("infra", "ListClustersResponse", "ListClustersMetricsResponse"),
        ("infra", "ListHostsResponse", "ListHostsMetricsResponse"),
        ("compute", "VirtualMachine", "VmMetrics"),
        ("compute", "ListVirtualMachinesRequest", "ListVirtualMachinesMetricsRequest"),
        ("compute", "ListVirtualMachinesResponse", "ListVirtualMachinesMetricsResponse"),
        ("storage", "StoragePool", "StoragePoolMetrics"),
        ("storage", "Volume", "VolumeMetrics"),
        ("storage", "ListStoragePoolsRequest", "ListStoragePoolsMetricsRequest"),
        ("storage", "ListVolumesRequest", "ListVolumesMetricsRequest"),
        ("storage", "ListStoragePoolsResponse", "ListStoragePoolsMetricsResponse"),
        ("storage", "ListVolumesResponse", "ListVolumesMetricsResponse"),
    ] {
        let metrics = message(area, metrics);
        for field in message(area, plain).fields() {
            let same = metrics.get_field(field.number());
            let fits = same.is_some_and(|f| f.name() == field.name() && f.cardinality() == field.cardinality());
            assert!(fits, "{area}: {plain}.{} isn't field {} of {}", field.name(), field.number(), metrics.name());
        }
    }
}
