//! Bringing a router to its wanted state, section by section.

use super::store::Store;
use super::{Context, Routers, Slot, State, balancer, links, names, report, rules};
use crate::compile::{Compiled, compile, settle};
use crate::host::segments::Segment;
use crate::host::{HostError, namespace};
use crate::plan::{Plan, Traffic};
use crate::section::Section;
use contract_agent::{RouterApplied, RouterSpec, SectionFault};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// One pass: the spec that is to be in force, less the sections that failed on the way.
struct Pass<'a> {
    routers: &'a Routers,
    context: &'a Context,
    in_force: &'a RouterSpec,
    spec: RouterSpec,
    /// Of `spec`.
    compiled: Compiled,
    faults: Vec<SectionFault>,
}

impl Routers {
    /// Applies what is wanted. The order keeps the router shut until its rules are there, and its names and balancers from
    /// being reached before that.
    pub(super) async fn converge(&self, slot: &Slot, state: &mut State) -> Result<RouterApplied, HostError> {
        let context = &slot.context;
        namespace::ensure(&context.name).await?;
        context.at("namespace")?;
        links::settings(context).await?;
        let (spec, faults) = settle(&state.wanted.spec, &state.in_force);
        let compiled = self.compiled(context, &spec)?;
        let mut pass = Pass { routers: self, context, in_force: &state.in_force, spec, compiled, faults };
        pass.bridges().await?;
        pass.rules().await?;
        context.at("rules")?;
        pass.interfaces().await?;
        context.at("interfaces")?;
        links::forward(context).await?;
        pass.names().await?;
        context.at("names")?;
        pass.balancer().await?;
        context.at("balancer")?;
        pass.guests(slot).await?;
        let Pass { spec, compiled, mut faults, .. } = pass;
        faults.sort_by(|a, b| a.section.cmp(&b.section));
        self.release(context, &compiled.plan).await?;
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
        let Err(error) = rules::apply(self.context, &self.compiled.ruleset).await else { return Ok(()) };
        let reason = reason(error)?;
        let blamed = self.blamed_rules().await?;
        self.revert(&blamed, &reason)?;
        rules::apply(self.context, &self.compiled.ruleset).await
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
        let segments = &self.routers.segments;
        let Err(error) = links::apply(self.context, segments, &self.compiled.plan).await else { return Ok(()) };
        self.revert(&[Section::Interfaces], &reason(error)?)?;
        rules::apply(self.context, &self.compiled.ruleset).await?;
        links::apply(self.context, segments, &self.compiled.plan).await
    }

    /// Leases and names are one process: whichever section it doesn't take stays as it was.
    async fn names(&mut self) -> Result<(), HostError> {
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
        self.or_former(names::apply(self.context, &self.compiled).await)
    }

    async fn balancer(&mut self) -> Result<(), HostError> {
        let wanted = self.compiled.haproxy.as_ref();
        let Err(error) = balancer::apply(self.context, wanted).await else { return Ok(()) };
        self.revert(&[Section::LoadBalancers], &reason(error)?)?;
        // The ports of the rules that failed are shut again.
        rules::apply(self.context, &self.compiled.ruleset).await?;
        self.or_former(balancer::apply(self.context, self.compiled.haproxy.as_ref()).await)
    }

    /// The section's failure is told already; that its former state fails too adds nothing.
    fn or_former(&self, done: Result<(), HostError>) -> Result<(), HostError> {
        match done {
            Err(error) => reason(error).map(|_| ()),
            Ok(()) => Ok(()),
        }
    }

    async fn guests(&mut self, slot: &Slot) -> Result<(), HostError> {
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
