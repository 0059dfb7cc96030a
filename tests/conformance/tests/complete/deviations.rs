//! Where Arcus deviates from 4.11 on purpose.

use std::collections::BTreeSet;

use crate::Finding;

/// Places (`*` stands for anything at one end), what deviates there, and why.
const DELIBERATE: &[(&[&str], &str, &str)] = &[
    (
        &["*.starteventid"],
        "missing",
        "the event that began a job is the job's own business: 4.11 passes it from itself to itself; ignored like any \
         unknown parameter",
    ),
    (
        &["UserVmResponse.ostypeid", "VmMetricsResponse.ostypeid"],
        "type",
        "the UUID, as clients expect it (compatibility, S2)",
    ),
    (
        &["deployVirtualMachine.affinitygroupnames", "updateVMAffinityGroup.affinitygroupnames"],
        "access",
        "names: found among the groups that the VM's owner may use, and nowhere else",
    ),
    (
        &["deployVirtualMachine.securitygroupnames", "updateVirtualMachine.securitygroupnames"],
        "access",
        "names, and refused: there is nothing yet whose access could be checked",
    ),
    (
        &[
            "updateLoadBalancerRule.id",
            "deleteLoadBalancerRule.id",
            "listLoadBalancerRules.id",
            "listLoadBalancerRuleInstances.id",
            "assignToLoadBalancerRule.id",
            "removeFromLoadBalancerRule.id",
            "createLBStickinessPolicy.lbruleid",
            "listLBStickinessPolicies.lbruleid",
        ],
        "reference",
        "the id of a load balancing rule: that of another rule names nothing here",
    ),
    (&["listIsos.id", "attachIso.id"], "reference", "the id of an ISO: that of a template names nothing here"),
    (&["listRouters.id"], "reference", "the id of a router: 4.11 keeps routers and virtual machines in one table"),
    (
        &["listVolumes.storageid", "listVolumesMetrics.storageid"],
        "reference",
        "a STRING in 4.11, but the id of a pool all the same: an unknown one is told",
    ),
    (
        &["listCaCertificate"],
        "item",
        "\"cacertificates\" is the key under which clients of 4.11 look for the certificate",
    ),
    (&["login.domainId"], "type", "a UUID or a number (api/README, \"Login session\")"),
    (&["CertificateResponse.privatekey"], "sensitive", "a private key is kept out of logs and journals"),
    (&["ExtractResponse.url"], "sensitive", "whoever has the address may read: it is kept out of logs and journals"),
    (
        &["migrateVirtualMachine", "updateVMAffinityGroup"],
        "object",
        "its job names the VM, as those of all other commands on VMs do in 4.11",
    ),
    (&["updateStoragePool"], "event", "ENABLE.PS or DISABLE.PS, by `enabled`: the handler records it"),
];

/// Why a finding is no fault.
pub fn reason(finding: &Finding) -> Option<&'static str> {
    DELIBERATE
        .iter()
        .find(|(places, what, _)| *what == finding.what && places.iter().any(|p| matches(p, &finding.place)))
        .map(|(_, _, why)| *why)
}

/// Entries that no finding needs.
pub fn stale(findings: &BTreeSet<Finding>) -> Vec<String> {
    let mut out = Vec::new();
    for (places, what, _) in DELIBERATE {
        for place in *places {
            if !findings.iter().any(|f| f.what == *what && matches(place, &f.place)) {
                out.push(format!("{place} [{what}]"));
            }
        }
    }
    out
}

fn matches(pattern: &str, place: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => place.ends_with(end),
        (None, Some(start)) => place.starts_with(start),
        (None, None) => pattern == place,
    }
}
