//! Bringing a router to its wanted state, section by section.

use super::store::Store;
use super::{Context, Routers, Slot, State, balancer, links, names, neighbours, report, rules};
use crate::compile::{Compiled, compile, settle};
use crate::host::segments::Segment;
use crate::host::{HostError, namespace};
use crate::plan::{Plan, Traffic};
use crate::section::Section;
use contract_agent::{RouterApplied, RouterSpec, SectionFault};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Under which name it is told that a NIC's rate can't be limited.
const RATES: &str = "rates";

/// One pass: the spec that is to be in force, less the sections that failed on the way.
struct Pass<'a> {
    routers: &'a Routers,
    context: &'a Context,
    in_force: &'a RouterSpec,
    spec: RouterSpec,
    /// Of `spec`.
    compiled: Compiled,
    faults: Vec<SectionFault>,
    /// What is there for sure; `None`: everything is looked at.
    former: Option<&'a Made>,
    /// A part may be neither as wanted nor as it was.
    unsure: bool,
}

/// What the last pass of this process ended with. Whoever changes something else by hand is noticed by the next look.
pub(super) struct Made {
    digests: BTreeMap<&'static str, String>,
    counters: BTreeSet<String>,
}

impl Routers {
    /// Applies what is wanted. The order keeps the router shut until its rules are there, and its names and balancers from
    /// being reached before that.
    ///
    /// `look`: at everything. Else only what this change changes is touched, provided that the last pass knew all.
    pub(super) async fn converge(
        &self,
        slot: &Slot,
        state: &mut State,
        look: bool,
    ) -> Result<RouterApplied, HostError> {
        let context = &slot.context;
        // Taken: a pass that breaks off makes the next one look at everything.
        let former = state.made.take().filter(|_| !look);
        if former.is_none() {
            namespace::ensure(&context.name).await?;
            context.at("namespace")?;
            links::settings(context).await?;
        }
        let (spec, faults) = settle(&state.wanted.spec, &state.in_force);
        let compiled = self.compiled(context, &spec)?;
        let former = former.as_ref();
        let mut pass =
            Pass { routers: self, context, in_force: &state.in_force, spec, compiled, faults, former, unsure: false };
        pass.bridges().await?;
        pass.rules().await?;
        context.at("rules")?;
        pass.interfaces().await?;
        pass.rates().await?;
        context.at("interfaces")?;
        if former.is_none() {
            links::forward(context).await?;
        }
        pass.names().await?;
        context.at("names")?;
        pass.balancer().await?;
        context.at("balancer")?;
        // Before guests are answered by their addresses.
        pass.neighbours().await?;
        pass.guests(slot).await?;
        let same_nics = pass.same(&["interfaces"]);
        let Pass { spec, compiled, mut faults, unsure, .. } = pass;
        faults.sort_by(|a, b| a.section.cmp(&b.section));
        if !same_nics {
            self.release(context, &compiled.plan).await?;
        }
        if spec != state.in_force {
            Store(&context.layout).save_in_force(&spec)?;
            state.in_force = spec;
        }
        for fault in &faults {
            tracing::warn!(
                router = context.uuid,
                section = fault.section,
                reason = fault.reason,
                "a section stays as it was"
            );
        }
        state.faults = faults;
        state.made = (!unsure).then_some(Made { digests: compiled.digests, counters: compiled.ruleset.counters });
        Ok(report(slot, state))
    }

    fn compiled(&self, context: &Context, spec: &RouterSpec) -> Result<Compiled, HostError> {
        compile(spec, &context.layout, self.user.as_ref()).map_err(|faults| {
            // Each section was checked before, or was in force.
            let text: Vec<String> = faults.into_iter().map(|f| format!("{}: {}", f.section, f.reason)).collect();
            HostError::Failed(text.join("; "))
        })
    }

    fn located(&self, plan: &Plan) -> BTreeSet<Segment> {
        plan.nics.iter().map(|n| self.segments.locate(n.uri, n.traffic, n.label.as_deref())).collect()
    }

    /// Lets go of the bridges that the router no longer has a NIC in.
    async fn release(&self, context: &Context, plan: &Plan) -> Result<(), HostError> {
        let kept = self.located(plan);
        let store = Store(&context.layout);
        for old in store.segments()?.difference(&kept) {
            self.segments.release(old).await?;
        }
        store.save_segments(&kept)
    }
}

/// A failure of a section is reported; an interruption ends the pass.
fn reason(error: HostError) -> Result<String, HostError> {
    match error {
        HostError::Refused(reason) | HostError::Failed(reason) => Ok(reason),
        HostError::Interrupted(_) => Err(error),
    }
}

impl Pass<'_> {
    /// Whether these parts are as wanted for sure.
    fn same(&self, parts: &[&str]) -> bool {
        let now = &self.compiled.digests;
        self.former.is_some_and(|former| parts.iter().all(|part| former.digests.get(part) == now.get(part)))
    }

    /// These sections stay as they were.
    fn revert(&mut self, sections: &[Section], reason: &str) -> Result<(), HostError> {
        for section in sections {
            section.copy(self.in_force, &mut self.spec);
            if !self.faults.iter().any(|f| f.section == section.name()) {
                self.faults.push(section.fault(reason));
            }
        }
        self.compiled = self.routers.compiled(self.context, &self.spec)?;
        Ok(())
    }

    /// What there would be if a section stayed as it was; `None` when it isn't to change.
    fn without(&self, section: Section) -> Result<Option<Compiled>, HostError> {
        if section.same(&self.spec, self.in_force) {
            return Ok(None);
        }
        let mut spec = self.spec.clone();
        section.copy(self.in_force, &mut spec);
        self.routers.compiled(self.context, &spec).map(Some)
    }

    async fn bridges(&mut self) -> Result<(), HostError> {
        if self.same(&["interfaces"]) {
            return Ok(());
        }
        let wanted = self.routers.located(&self.compiled.plan);
        let store = Store(&self.context.layout);
        let mut all = store.segments()?;
        all.extend(wanted.iter().cloned());
        store.save_segments(&all)?;
        for segment in &wanted {
            if let Err(error) = self.routers.segments.ensure(segment).await {
                return self.revert(&[Section::Interfaces], &reason(error)?);
            }
            self.context.at("bridge")?;
        }
        Ok(())
    }

    async fn rules(&mut self) -> Result<(), HostError> {
        if self.same(&["rules"]) {
            return Ok(());
        }
        let known = self.former.map(|former| &former.counters);
        let Err(error) = rules::apply(self.context, &self.compiled.ruleset, known).await else { return Ok(()) };
        let reason = reason(error)?;
        let blamed = self.blamed_rules().await?;
        self.revert(&blamed, &reason)?;
        rules::apply(self.context, &self.compiled.ruleset, None).await
    }

    /// The changed section without which nft takes the rules. When it isn't one alone, all that changed.
    async fn blamed_rules(&self) -> Result<Vec<Section>, HostError> {
        let order = [
            Section::Firewall,
            Section::Nat,
            Section::LoadBalancers,
            Section::Interfaces,
            Section::Dhcp,
            Section::Dns,
            Section::Metadata,
        ];
        let mut changed = Vec::new();
        for section in order {
            let Some(without) = self.without(section)? else { continue };
            if rules::check(self.context, &without.ruleset).await.is_ok() {
                return Ok(vec![section]);
            }
            changed.push(section);
        }
        Ok(changed)
    }

    async fn interfaces(&mut self) -> Result<(), HostError> {
        if self.same(&["interfaces"]) {
            return Ok(());
        }
        let segments = &self.routers.segments;
        let Err(error) = links::apply(self.context, segments, &self.compiled.plan).await else { return Ok(()) };
        self.revert(&[Section::Interfaces], &reason(error)?)?;
        rules::apply(self.context, &self.compiled.ruleset, None).await?;
        links::apply(self.context, segments, &self.compiled.plan).await
    }

    /// A router that can't be kept from being too fast is better than none: it is told, and nothing else is held up.
    async fn rates(&mut self) -> Result<(), HostError> {
        if self.same(&["interfaces"]) {
            return Ok(());
        }
        if let Err(error) = links::rates(self.context, &self.compiled.plan).await {
            self.unsure = true;
            let reason = reason(error)?;
            self.faults.push(SectionFault { section: RATES.into(), reason, ..SectionFault::default() });
        }
        Ok(())
    }

    /// Leases and names are one process: whichever section it doesn't take stays as it was.
    async fn names(&mut self) -> Result<(), HostError> {
        if self.same(&["dnsmasq", "leases"]) {
            return Ok(());
        }
        let Err(error) = names::apply(self.context, &self.compiled).await else { return Ok(()) };
        let reason = reason(error)?;
        let mut blamed = vec![Section::Dhcp, Section::Dns];
        for section in [Section::Dhcp, Section::Dns] {
            if let Some(without) = self.without(section)?
                && names::check(self.context, &without).await.is_ok()
            {
                blamed = vec![section];
                break;
            }
        }
        self.revert(&blamed, &reason)?;
        let done = names::apply(self.context, &self.compiled).await;
        self.or_former(done)
    }

    async fn balancer(&mut self) -> Result<(), HostError> {
        if self.same(&["haproxy"]) {
            return Ok(());
        }
        let wanted = self.compiled.haproxy.as_ref();
        let Err(error) = balancer::apply(self.context, wanted).await else { return Ok(()) };
        self.revert(&[Section::LoadBalancers], &reason(error)?)?;
        // The ports of the rules that failed are shut again.
        rules::apply(self.context, &self.compiled.ruleset, None).await?;
        let done = balancer::apply(self.context, self.compiled.haproxy.as_ref()).await;
        self.or_former(done)
    }

    /// The section's failure is told already; that its former state fails too adds nothing.
    fn or_former(&mut self, done: Result<(), HostError>) -> Result<(), HostError> {
        match done {
            Err(error) => {
                self.unsure = true;
                reason(error).map(|_| ())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn neighbours(&mut self) -> Result<(), HostError> {
        if self.same(&["interfaces", "leases"]) {
            return Ok(());
        }
        if let Err(error) = neighbours::apply(self.context, &self.compiled.plan).await {
            self.unsure = true;
            self.faults.push(Section::Metadata.fault(reason(error)?));
        }
        Ok(())
    }

    async fn guests(&mut self, slot: &Slot) -> Result<(), HostError> {
        if self.same(&["interfaces"]) && Section::Metadata.same(&self.spec, self.in_force) {
            return Ok(());
        }
        let first = |n: &crate::plan::Nic| n.addresses.first().map(|a| a.addr());
        let addresses: Vec<Ipv4Addr> = self.compiled.plan.of(Traffic::Guest).filter_map(first).collect();
        let Some(guests) = self.compiled.plan.guests.clone() else {
            slot.guests.stop();
            return Ok(());
        };
        if let Err(error) = slot.guests.serve(&self.context.namespace, &addresses, guests).await {
            self.faults.push(Section::Metadata.fault(reason(error)?));
        }
        Ok(())
    }
}
