//! Which rules of a section can't be: the others go on without them.

use crate::plan::Plan;
use crate::section::Section;
use contract_agent::{Firewall, FirewallRule, LoadBalancer, LoadBalancers, Nat, PortForward, RouterSpec, SectionFault};
use std::collections::BTreeMap;

/// Reasons that a fault tells at most.
const TOLD: usize = 8;

/// A rule of a section, whatever its kind.
trait Ruled: Clone {
    fn id(&self) -> &str;
    /// A spec with nothing but this rule.
    fn alone(&self) -> RouterSpec;
}

impl Ruled for PortForward {
    fn id(&self) -> &str {
        &self.id
    }

    fn alone(&self) -> RouterSpec {
        let nat = Nat { forwards: vec![self.clone()], ..Nat::default() };
        RouterSpec { nat: Some(nat), ..RouterSpec::default() }
    }
}

impl Ruled for FirewallRule {
    fn id(&self) -> &str {
        &self.id
    }

    fn alone(&self) -> RouterSpec {
        // Of both directions nothing but the public address differs, which egress rules don't have.
        let rules = vec![self.clone()];
        let firewall = match self.public_ip.is_empty() {
            true => Firewall { egress: rules, ..Firewall::default() },
            false => Firewall { ingress: rules, ..Firewall::default() },
        };
        RouterSpec { firewall: Some(firewall), ..RouterSpec::default() }
    }
}

impl Ruled for LoadBalancer {
    fn id(&self) -> &str {
        &self.id
    }

    fn alone(&self) -> RouterSpec {
        let balancers = LoadBalancers { list: vec![self.clone()], ..LoadBalancers::default() };
        RouterSpec { load_balancers: Some(balancers), ..RouterSpec::default() }
    }
}

/// Takes the rules of a section that can't be out of `wanted`: each stays as it is in force, or isn't there. `None`: the
/// section fails for another reason.
pub(crate) fn without_bad(
    section: Section,
    wanted: &RouterSpec,
    in_force: &RouterSpec,
) -> Option<(RouterSpec, SectionFault)> {
    let mut spec = wanted.clone();
    let mut bad = BTreeMap::new();
    match section {
        Section::Nat => {
            let former = in_force.nat.iter().flat_map(|n| &n.forwards);
            sift(section, &mut spec.nat.as_mut()?.forwards, former, &mut bad);
        }
        Section::Firewall => {
            let (wanted, former) = (spec.firewall.as_mut()?, in_force.firewall.as_ref());
            sift(section, &mut wanted.ingress, former.into_iter().flat_map(|f| &f.ingress), &mut bad);
            sift(section, &mut wanted.egress, former.into_iter().flat_map(|f| &f.egress), &mut bad);
        }
        Section::LoadBalancers => {
            let former = in_force.load_balancers.iter().flat_map(|b| &b.list);
            sift(section, &mut spec.load_balancers.as_mut()?.list, former, &mut bad);
        }
        _ => return None,
    }
    if bad.is_empty() || Plan::check(section, &spec).is_err() {
        return None;
    }
    let reasons: Vec<&str> = bad.values().take(TOLD).map(String::as_str).collect();
    let fault = SectionFault { rules: bad.keys().cloned().collect(), ..section.fault(reasons.join("; ")) };
    Some((spec, fault))
}

fn sift<'f, R: Ruled + 'f>(
    section: Section,
    rules: &mut Vec<R>,
    former: impl Iterator<Item = &'f R>,
    bad: &mut BTreeMap<String, String>,
) {
    let mut found = BTreeMap::new();
    for rule in rules.iter() {
        if let Err(reason) = Plan::check(section, &rule.alone()) {
            found.insert(rule.id().to_owned(), reason);
        }
    }
    if found.is_empty() {
        return;
    }
    rules.retain(|rule| !found.contains_key(rule.id()));
    rules.extend(former.filter(|rule| found.contains_key(rule.id())).cloned());
    bad.extend(found);
}
