//! From a spec to everything that the tools are told. Pure.

use crate::blame::without_bad;
use crate::digest::digest;
use crate::dnsmasq::Dnsmasq;
use crate::haproxy::Haproxy;
use crate::layout::Layout;
use crate::plan::Plan;
use crate::ruleset::Ruleset;
use crate::section::Section;
use contract_agent::{RouterSpec, SectionFault};
use std::collections::BTreeMap;

/// A compiled spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// The checked values; links, addresses and routes are made from it directly.
    pub plan: Plan,
    /// For nft.
    pub ruleset: Ruleset,
    /// For dnsmasq; absent: it doesn't run.
    pub dnsmasq: Option<Dnsmasq>,
    /// For haproxy; absent: it doesn't run.
    pub haproxy: Option<Haproxy>,
    /// What each part of the router is made of: a part whose digest stays is left alone.
    pub digests: BTreeMap<&'static str, String>,
}

/// Compiles a spec: the same spec and layout give the same texts. `user` is whom haproxy becomes.
///
/// # Errors
/// The sections that can't be compiled, with the reason.
pub fn compile(
    spec: &RouterSpec,
    layout: &Layout,
    user: Option<&(String, String)>,
) -> Result<Compiled, Vec<SectionFault>> {
    let plan = Plan::new(spec)?;
    let ruleset = Ruleset::new(&plan);
    let dnsmasq = Dnsmasq::new(&plan, layout);
    let haproxy = Haproxy::new(&plan, layout, user);
    let mut digests = BTreeMap::from([
        ("interfaces", digest([format!("{:?}", plan.nics).as_bytes()])),
        ("rules", ruleset.mark.clone()),
    ]);
    if let Some(dnsmasq) = &dnsmasq {
        digests.insert("dnsmasq", dnsmasq.conf_digest.clone());
        digests.insert("leases", dnsmasq.data_digest.clone());
    }
    if let Some(haproxy) = &haproxy {
        digests.insert("haproxy", haproxy.digest.clone());
    }
    Ok(Compiled { plan, ruleset, dnsmasq, haproxy, digests })
}

/// The spec to bring into force: each section that can be compiled as wanted; of one that can't the rules that can, or all
/// of it as it is in force.
pub fn settle(wanted: &RouterSpec, in_force: &RouterSpec) -> (RouterSpec, Vec<SectionFault>) {
    let mut spec = wanted.clone();
    let mut faults = Vec::new();
    for section in Section::ALL {
        let Err(reason) = Plan::check(section, wanted) else { continue };
        match without_bad(section, wanted, in_force) {
            Some((rest, fault)) => {
                faults.push(fault);
                section.copy(&rest, &mut spec);
            }
            None => {
                faults.push(section.fault(reason));
                section.copy(in_force, &mut spec);
            }
        }
    }
    (spec, faults)
}
