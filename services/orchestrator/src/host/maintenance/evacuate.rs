//! The duty of emptying hosts: each VM by a job of its own, so many at a time (`ha.workers`), the large ones first. What a
//! try came to is read from its job; all that is known is in the database.

use super::exit::{self, Exit};
use crate::store::maintenances::{self as rows, Emptying, Evacuation, Guest, Way};
use crate::store::restarts::{self, Cause};
use crate::store::{hosts, placement, vms};
use crate::vm::migrate::Migrate;
use crate::vm::stop::Stop;
use crate::vm::{VmWorld, claim, view};
use config::keys;
use contract::ApiError;
use contract_network::StopRouterRequest;
use contract_network::routers_client::RoutersClient;
use coord::Term;
use events::{Alert, EventRecord, EventState, Level, Record};
use jobs::{Accept, Claim, Job, JobState, Ticket};
use model::state::{ResourceState, VmState};
use std::collections::HashMap;
use std::time::Duration;
use store::{Tx, now_micros};

/// Between looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Tries after which a VM counts as one that can't leave.
const ATTEMPTS: i64 = 3;
/// The longest pause between tries, in `migrate.retry.interval`.
const LONGEST: i64 = 8;
/// How long routers may stay when no VM is left, in seconds: their network service retries by itself.
const ROUTERS_STAY: i64 = 120;
/// How long a host may be emptied, in seconds, whatever is in the way.
const LIMIT: i64 = 86_400;
/// VMs that an alert names.
const NAMED: usize = 20;

/// Empties hosts for as long as this replica leads.
pub fn start(world: &VmWorld) {
    let world = world.clone();
    world.node.clone().duty("host-maintenance", move |term| run(world.clone(), term));
}

async fn run(world: VmWorld, term: Term) {
    loop {
        tokio::select! {
            () = term.lost() => return,
            () = world.node.stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        if let Err(error) = round(&world, &term).await {
            tracing::warn!(%error, "hosts can't be emptied now; the next round tries again");
        }
    }
}

async fn round(world: &VmWorld, term: &Term) -> Result<(), ApiError> {
    let db = &world.node.db;
    let emptying = rows::all(db).await?;
    if emptying.is_empty() {
        return Ok(());
    }
    let hosts = placement::hosts(db, None).await?;
    for host in &emptying {
        let wanted = matches!(host.state, ResourceState::PrepareForMaintenance | ResourceState::ErrorInMaintenance);
        if host.removed || !wanted {
            forget(world, term, host).await?;
            continue;
        }
        // One host in trouble doesn't keep the others.
        if let Err(error) = (Round { world, term, host, hosts: &hosts }).run().await {
            if term.is_lost() {
                return Err(error);
            }
            tracing::warn!(host = host.uuid, %error, "a host can't be emptied now; the next round tries again");
        }
    }
    Ok(())
}

/// The host's state was changed by somebody who didn't forget the wish.
async fn forget(world: &VmWorld, term: &Term, host: &Emptying) -> Result<(), ApiError> {
    store::tx!(world.node.db, "forget-maintenance", |tx| {
        term.fence(tx).await?;
        Ok::<_, ApiError>(rows::forget(tx, host.host).await?)
    })
    .await
}

struct Round<'r> {
    world: &'r VmWorld,
    term: &'r Term,
    host: &'r Emptying,
    hosts: &'r [placement::HostRow],
}

impl Round<'_> {
    async fn run(&self) -> Result<(), ApiError> {
        let (db, host) = (&self.world.node.db, self.host);
        if host.is_empty() {
            return self.finish().await;
        }
        let guests = rows::guests(db, host.host).await?;
        self.settle(&guests).await?;
        let evacuations = rows::evacuations(db, host.host).await?;
        let under_way = evacuations.values().filter(|e| e.job.is_some()).count();
        let at_once = self.world.node.settings.get(keys::HA_WORKERS).clamp(1, 1000);
        let places = usize::try_from(at_once).unwrap_or(1).saturating_sub(under_way);
        let now = now_micros();
        let due = guests.iter().filter(|g| {
            let known = evacuations.get(&g.vm);
            g.state == VmState::Running && known.is_none_or(|e| e.job.is_none() && e.not_before <= now)
        });
        for guest in due.take(places) {
            self.send_off(guest.vm, evacuations.get(&guest.vm)).await?;
        }
        if guests.is_empty() {
            self.clear().await?;
        }
        if host.state == ResourceState::PrepareForMaintenance
            && let Some(problem) = self.problem(&guests, &evacuations)
        {
            self.give_up(&problem).await?;
        }
        Ok(())
    }

    /// Nothing is left: the host is in maintenance.
    async fn finish(&self) -> Result<(), ApiError> {
        let host = self.host;
        let from = [ResourceState::PrepareForMaintenance, ResourceState::ErrorInMaintenance];
        store::tx!(self.world.node.db, "maintained", |tx| {
            self.term.fence(tx).await?;
            if rows::is_wanted(tx, host.host, &host.job).await?
                && hosts::guests(tx, host.host).await? == 0
                && rows::transit(tx, host.host, &from, ResourceState::Maintenance).await?
            {
                rows::forget(tx, host.host).await?;
                let text = format!("Host {} ({}) is ready for maintenance: nothing runs on it", host.name, host.uuid);
                events::record(tx, &[Alert::host(&host.uuid).clear(text)]).await?;
                super::tell_placement(self.world, tx, host.host);
            }
            Ok::<_, ApiError>(())
        })
        .await
    }

    /// Notes what ended tries came to.
    async fn settle(&self, guests: &[Guest]) -> Result<(), ApiError> {
        let db = &self.world.node.db;
        for (vm, evacuation) in rows::evacuations(db, self.host.host).await? {
            let Some(job) = &evacuation.job else {
                if !guests.iter().any(|g| g.vm == vm) {
                    self.drop_row(vm, None).await?; // it left by itself
                }
                continue;
            };
            match jobs::view::find(db, job).await? {
                Some(ended) if ended.state == JobState::Done => self.drop_row(vm, Some(evacuation.way)).await?,
                Some(ended) if matches!(ended.state, JobState::Failed | JobState::Parked) => {
                    let error = ended.error().map_or_else(
                        || format!("its job {job} can't go on by itself"),
                        |error| error.full_text().to_owned(),
                    );
                    self.failed(vm, Some(&evacuation), &error).await?;
                }
                Some(_) => {}
                None => self.failed(vm, Some(&evacuation), "what became of its job isn't known").await?,
            }
        }
        Ok(())
    }

    /// A VM is off the host. One that was only stopped to be started elsewhere is wanted there.
    async fn drop_row(&self, vm: i64, way: Option<Way>) -> Result<(), ApiError> {
        store::tx!(self.world.node.db, "evacuated", |tx| {
            self.term.fence(tx).await?;
            rows::done(tx, vm).await?;
            if way == Some(Way::Restart)
                && let Some(row) = vms::find_in(tx, vm).await?
                && row.state == VmState::Stopped
            {
                let facts = restarts::facts(tx, vm).await?;
                restarts::wish(tx, &row, Cause::Host, self.host.host, facts, now_micros()).await?;
            }
            Ok::<_, ApiError>(())
        })
        .await
    }

    async fn failed(&self, vm: i64, before: Option<&Evacuation>, error: &str) -> Result<(), ApiError> {
        let interval = self.world.node.settings.get(keys::MIGRATE_RETRY_INTERVAL).clamp(1, 86_400);
        let pause = interval * (1i64 << before.map_or(0, |e| e.attempts).clamp(0, 30)).min(LONGEST);
        store::tx!(self.world.node.db, "not-evacuated", |tx| {
            self.term.fence(tx).await?;
            Ok::<_, ApiError>(rows::failed(tx, vm, self.host.host, error, now_micros() + pause * 1_000_000).await?)
        })
        .await
    }

    /// Has a VM leave.
    async fn send_off(&self, vm: i64, before: Option<&Evacuation>) -> Result<(), ApiError> {
        let Some(row) = vms::find(&self.world.node.db, vm).await? else { return Ok(()) };
        let tries = before.map_or(0, |e| e.attempts);
        let (way, target) = match exit::find(self.world, self.host, self.hosts, &row, tries).await? {
            Exit::By(way, target) => (way, target),
            Exit::Shut(why) => return self.failed(vm, before, &why).await,
        };
        let ticket = self.world.jobs.ticket().await?;
        let accepted = store::tx!(self.world.node.db, "evacuate", |tx| {
            self.term.fence(tx).await?;
            jobs::free(tx, &[claim(vm)]).await?;
            let now = vms::find_in(tx, vm).await?;
            let there = now.is_some_and(|v| v.state == VmState::Running && v.host_id == Some(self.host.host));
            if !there || !rows::is_wanted(tx, self.host.host, &self.host.job).await? {
                return Ok::<_, ApiError>(());
            }
            rows::under_way(tx, vm, self.host.host, way, ticket.uuid()).await?;
            self.accept(tx, ticket.clone(), &row, way, target, tries).await
        })
        .await;
        match accepted {
            // Another job is at the VM: it is looked at again.
            Err(error) if error.is_transient() && !self.term.is_lost() => Ok(()),
            accepted => accepted,
        }
    }

    async fn accept(
        &self,
        tx: &mut Tx,
        ticket: Ticket,
        vm: &vms::VmRow,
        way: Way,
        target: Option<i64>,
        tries: i64,
    ) -> Result<(), ApiError> {
        let host = &self.host.name;
        let (kind, what) = match way {
            Way::Move => ("VM.MIGRATE", "moves to another host"),
            Way::Stop => ("VM.STOP", "is stopped, as no other host can take it"),
            Way::Restart => ("VM.STOP", "is stopped, to be started on another host"),
        };
        let text = format!("VM {} {what}: its host {host} is being prepared for maintenance", view::label(vm));
        let mut event = EventRecord::new(&rpc::cx::system_caller(), kind, EventState::Scheduled, text);
        event.level = if way == Way::Move { Level::Info } else { Level::Warn };
        let event = event.about("VirtualMachine", &vm.uuid).owned_by(&vm.owner);
        events::record(tx, &[Record::Event(event)]).await?;
        let jobs = &self.world.jobs;
        match target {
            Some(to) => {
                let claims = vec![claim(vm.id), Claim::Shared(format!("host/{to}"))];
                jobs.accept(tx, ticket, asked(vm, Migrate { vm: vm.id, host: to }, claims, "moving")).await.map(drop)
            }
            // In order at first; by force when that failed.
            None => {
                let stop = Stop { vm: vm.id, forced: tries > 0 };
                jobs.accept(tx, ticket, asked(vm, stop, vec![claim(vm.id)], "stopping")).await.map(drop)
            }
        }
    }

    /// No VM is left. Routers leave by themselves; where no host can take them, they are stopped, as in 4.11.
    async fn clear(&self) -> Result<(), ApiError> {
        let (db, host) = (&self.world.node.db, self.host);
        if host.cleared.is_none() && host.holders == 0 {
            store::tx!(db, "cleared", |tx| {
                self.term.fence(tx).await?;
                Ok::<_, ApiError>(rows::cleared(tx, host.host).await?)
            })
            .await?;
        }
        let stay = host.routers > 0 && host.state == ResourceState::PrepareForMaintenance;
        if !stay || rows::others_in_zone(db, host.zone, host.host).await? {
            return Ok(());
        }
        for (uuid, _) in hosts::routers(db, host.host).await?.into_iter().filter(|(_, runs)| *runs) {
            let stop = StopRouterRequest { id: Some(uuid.clone()), ..StopRouterRequest::default() };
            let request = rpc::cx::request(&rpc::cx::system_caller(), stop);
            RoutersClient::new(self.world.node.peers.network()).stop(request).await?;
            tracing::info!(host = host.uuid, router = uuid, "a router is stopped: no other host can take it");
        }
        Ok(())
    }

    /// Why the host can't be emptied; none: it is on its way.
    fn problem(&self, guests: &[Guest], evacuations: &HashMap<i64, Evacuation>) -> Option<String> {
        let now = now_micros();
        let spent = |guest: &&Guest| {
            guest.state == VmState::Running
                && evacuations.get(&guest.vm).is_some_and(|e| e.job.is_none() && e.attempts >= ATTEMPTS)
        };
        let (stuck, others): (Vec<&Guest>, Vec<&Guest>) = guests.iter().partition(spent);
        let late = now > self.host.begun.saturating_add(LIMIT * 1_000_000);
        if (others.is_empty() && !stuck.is_empty()) || (late && !guests.is_empty()) {
            let mut told: Vec<String> = guests
                .iter()
                .take(NAMED)
                .map(|guest| {
                    let (uuid, name) = &guest.name;
                    let why = evacuations.get(&guest.vm).and_then(|e| e.last_error.as_deref());
                    format!("VM {uuid} ({name}) can't leave: {}", why.unwrap_or("other work on it hasn't ended"))
                })
                .collect();
            if guests.len() > NAMED {
                told.push(format!("and {} more", guests.len() - NAMED));
            }
            return Some(told.join("; "));
        }
        let waited = self.host.cleared.is_some_and(|at| now > at.saturating_add(ROUTERS_STAY * 1_000_000));
        let Emptying { routers, holders, debts, .. } = self.host;
        (guests.is_empty() && (waited || late)).then(|| {
            format!("{routers} routers and {holders} moves of VMs are still on it, and it owes {debts} orders")
        })
    }

    async fn give_up(&self, problem: &str) -> Result<(), ApiError> {
        let host = self.host;
        store::tx!(self.world.node.db, "not-maintained", |tx| {
            self.term.fence(tx).await?;
            let from = [ResourceState::PrepareForMaintenance];
            if rows::is_wanted(tx, host.host, &host.job).await?
                && rows::transit(tx, host.host, &from, ResourceState::ErrorInMaintenance).await?
            {
                rows::give_up(tx, host.host, problem).await?;
                let text = format!("Host {} ({}) can't enter maintenance: {problem}", host.name, host.uuid);
                events::record(tx, &[Alert::host(&host.uuid).raise(text)]).await?;
            }
            Ok::<_, ApiError>(())
        })
        .await
    }
}

/// A job on a VM that the duty asks for.
fn asked<J: Job>(vm: &vms::VmRow, job: J, claims: Vec<Claim>, what: &str) -> Accept<J> {
    Accept {
        job,
        caller: rpc::cx::system_caller(),
        command: None,
        owner: vm.owner.clone(),
        instance: Some(("VirtualMachine".to_owned(), vm.uuid.clone())),
        claims,
        custom_id: None,
        description: format!("{what} VM off a host that is prepared for maintenance: {}", view::label(vm)),
        entity_id: None,
    }
}
