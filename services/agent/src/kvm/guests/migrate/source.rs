//! At the source: the guest is described, sent, and ended or called back.

use super::{FLAGS, is_moving, refusal};
use crate::hypervisor::{Done, Failure, Work};
use crate::kvm::driver::{Parts, done};
use crate::kvm::guests::table::{Guest, Phase};
use crate::kvm::guests::watch::{look_at, power};
use crate::kvm::guests::{Guests, Lines, ended, told};
use crate::lease::{Standing, now};
use contract::ApiError;
use contract_agent::{
    BeginMigration, ConfirmMigration, MigrationStep, PerformMigration, PowerReason, PowerState, VmState, outcome,
};
use libvirt::domain::PausedReason;
use libvirt::migration::{Cookie, JobKind, migrate};
use libvirt::{Connection, DomainRef, JobStatsFlags, Params, State};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch as channel;

/// Between two calls to break a sending off: it may not have begun when it is called off first.
const AGAIN: Duration = Duration::from_millis(200);
/// Between two looks at how far a sending is.
const LOOK: Duration = Duration::from_secs(1);
/// What QEMU lets a guest stand still for at the end, unless it is told, in ms.
const USUAL_DOWNTIME: u64 = 300;
/// libvirt's number of the job of a guest that is sent (`VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT`).
const SENT_AWAY: u64 = 5;

/// A guest that is sent, or was.
pub(super) struct Sending {
    generation: i64,
    uri: String,
    domain: DomainRef,
    /// Of its own: sending takes long, and libvirt forgets the migration with it.
    line: Connection,
    /// What came of it, once that is known.
    end: channel::Sender<Option<Result<Cookie, ApiError>>>,
}

impl Sending {
    fn ended(&self) -> Option<Result<Cookie, ApiError>> {
        self.end.borrow().clone()
    }

    /// Whether it has ended, well or not.
    pub fn is_over(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Waits for the end, for so long.
    async fn await_end(&self, patience: Duration) {
        let mut end = self.end.subscribe();
        // It can't be closed: this holds the other side.
        let _ = tokio::time::timeout(patience, end.wait_for(Option::is_some)).await;
    }
}

/// Whether a guest that libvirt says this of was sent.
pub(in crate::kvm::guests) fn was_sent(state: State) -> bool {
    state.paused() == Some(PausedReason::MIGRATION)
}

impl Guests {
    pub async fn begin_migration(self: &Arc<Self>, work: &Work, order: BeginMigration) -> Result<Done, Failure> {
        if self.options.containers {
            return Err(ApiError::unsupported("Containers can't be moved while they run").into());
        }
        let _turn = self.turn(&order.vm_uuid).await;
        let domain = movable(self.table().guests.get(&order.vm_uuid), order.generation)?.domain.clone();
        let lines = self.daemon.lines()?;
        let offer = lines.orders.migrate_begin(&domain, &Params::new(), FLAGS).await;
        let (cookie, domain) = offer.map_err(|e| refusal("The VM can't be moved", &e))?;
        // What came of an earlier one means nothing to this one.
        self.moves.sent().remove(&order.vm_uuid);
        done(work, outcome::Body::Migration(MigrationStep { cookie: cookie.0, domain, ..MigrationStep::default() }))
    }

    pub async fn perform_migration(self: &Arc<Self>, work: &Work, order: PerformMigration) -> Result<Done, Failure> {
        let sending = {
            let _turn = self.turn(&order.vm_uuid).await;
            self.send(&order).await?
        };
        let step = match sending {
            // The agent that sent it is no more: whether all of it came, the other side knows.
            None => MigrationStep { sent: true, ..MigrationStep::default() },
            Some(sending) => {
                sending.await_end(Duration::from_millis(order.report_after_millis.into())).await;
                match sending.ended() {
                    Some(sent) => MigrationStep { cookie: sent?.0, sent: true, ..MigrationStep::default() },
                    None => self.how_far(&sending).await,
                }
            }
        };
        done(work, outcome::Body::Migration(step))
    }

    /// The sending that was ordered, begun now or before; none when an earlier agent has sent the guest.
    async fn send(self: &Arc<Self>, order: &PerformMigration) -> Result<Option<Arc<Sending>>, ApiError> {
        let (vm, generation) = (order.vm_uuid.as_str(), order.generation);
        let known = self.moves.sent().get(vm).cloned();
        let ours = known.is_some();
        if let Some(known) = known.filter(|known| known.generation == generation && known.uri == order.uri) {
            return Ok(Some(known));
        }
        let is_sent = |guest: &Guest| guest.phase == Phase::Moving && guest.power == PowerState::Paused;
        if !ours && self.table().guests.get(vm).is_some_and(|g| g.described.generation == generation && is_sent(g)) {
            return Ok(None);
        }
        if order.cookie.is_empty() {
            // libvirt's daemon (9.0) ends by a segmentation fault.
            return Err(ApiError::param("There is no cookie of the host that waits for the VM"));
        }
        let line = self.daemon.line().await?;
        let domain = {
            let mut table = self.table();
            let domain = movable(table.guests.get(vm), generation)?.domain.clone();
            // From here on the keeper stops QEMU itself, and resumes nothing that was sent.
            if let Some(guest) = table.guests.get_mut(vm) {
                guest.phase = Phase::Moving;
            }
            domain
        };
        let sending =
            Arc::new(Sending { generation, uri: order.uri.clone(), domain, line, end: channel::Sender::new(None) });
        self.moves.sent().insert(vm.to_owned(), sending.clone());
        let (guests, order, under_way) = (self.clone(), order.clone(), sending.clone());
        tokio::spawn(async move {
            let sent = guests.send_all(&under_way, &order).await;
            guests.has_sent(&order.vm_uuid, &under_way, sent).await;
        });
        Ok(Some(sending))
    }

    async fn send_all(&self, sending: &Sending, order: &PerformMigration) -> Result<Cookie, ApiError> {
        let Sending { line, domain, .. } = sending;
        let cant = |e: libvirt::Error| refusal("The VM can't be sent to the other host", &e);
        if order.max_downtime_millis > 0 {
            line.set_max_downtime(domain, order.max_downtime_millis.into()).await.map_err(cant)?;
        }
        let mut params = Params::new().with(migrate::URI, sending.uri.clone());
        if let Some(most) = self.options.migration_mib_per_s {
            params = params.with(migrate::BANDWIDTH, most);
        }
        let cookie = Cookie::from(order.cookie.clone());
        let mut sent = std::pin::pin!(line.migrate_perform(domain, None, &params, &cookie, FLAGS));
        let millis = u64::from(order.give_up_after_millis);
        tokio::select! {
            sent = &mut sent => return sent.map_err(cant),
            () = self.urge(sending, order.max_downtime_millis) => {}
            () = tokio::time::sleep(Duration::from_millis(millis)), if millis > 0 => {}
        }
        // It goes on here, unless all of it was sent at the last moment.
        loop {
            self.abort(sending).await;
            if let Ok(ended) = tokio::time::timeout(AGAIN, &mut sent).await {
                return ended.map_err(|_| too_busy(millis));
            }
        }
    }

    /// A guest may change its memory faster than that can be sent, slowed down as it is. The more often all of it was gone through
    /// in vain, the longer it may stand still for the rest. `fixed`: how long it may is ordered. Never returns.
    async fn urge(&self, sending: &Sending, fixed: u32) {
        let most = u64::try_from(self.options.migration_max_downtime.as_millis()).unwrap_or(u64::MAX);
        let (mut downtime, mut passes) = (USUAL_DOWNTIME, 1);
        while fixed == 0 && downtime < most {
            tokio::time::sleep(LOOK).await;
            let Ok(lines) = self.daemon.lines() else { continue };
            let stats = lines.orders.job_stats(&sending.domain, JobStatsFlags::none()).await;
            let passed = stats.ok().and_then(|(_, job)| job.number("memory_iteration")).unwrap_or(passes);
            if passed <= passes {
                continue;
            }
            let longer = (downtime * 3 / 2).min(most);
            match lines.orders.set_max_downtime(&sending.domain, longer).await {
                Ok(()) => (downtime, passes) = (longer, passed),
                Err(error) => tracing::debug!(%error, "a guest that is sent can't be let stand still for longer"),
            }
        }
        std::future::pending().await
    }

    /// Takes note of what came of a sending.
    async fn has_sent(&self, vm: &str, sending: &Sending, sent: Result<Cookie, ApiError>) {
        match &sent {
            Ok(_) => tracing::info!(vm, to = sending.uri, "a guest was sent"),
            Err(error) => tracing::warn!(vm, to = sending.uri, %error, "a guest can't be sent"),
        }
        // What libvirt says counts: it lets a guest go on that it couldn't send.
        if let Ok(lines) = self.daemon.lines()
            && let Ok(Some((_, state))) = look_at(&lines, sending.domain.uuid).await
        {
            self.note_moving(vm, state, sent.is_err());
        }
        sending.end.send_replace(Some(sent));
        self.touch();
    }

    /// What libvirt says of a guest that moves. `over`: nobody sends it any more.
    pub(in crate::kvm) fn note_moving(&self, vm: &str, state: State, over: bool) {
        let mut table = self.table();
        let Some(guest) = table.guests.get_mut(vm).filter(|guest| guest.phase == Phase::Moving && !guest.frozen) else {
            return;
        };
        guest.power = power(state);
        guest.reason = match state.paused() {
            None => PowerReason::Unspecified,
            // The keeper's, from before it was sent.
            Some(PausedReason::USER) => PowerReason::LeaseUnreadable,
            Some(_) => PowerReason::Sent,
        };
        if over && !was_sent(state) {
            guest.phase = Phase::Settled;
        }
    }

    async fn how_far(&self, sending: &Sending) -> MigrationStep {
        let asked = async { self.daemon.lines().ok()?.orders.job_info(&sending.domain).await.ok() };
        let (sent_bytes, total_bytes) = asked.await.map_or((0, 0), |job| (job.data_processed, job.data_total));
        MigrationStep { sent_bytes, total_bytes, ..MigrationStep::default() }
    }

    pub async fn confirm_migration(
        self: &Arc<Self>,
        work: &Work,
        parts: &Parts,
        order: ConfirmMigration,
    ) -> Result<Done, Failure> {
        let _turn = self.turn(&order.vm_uuid).await;
        let vm = order.vm_uuid.as_str();
        let known = self.table().guests.get(vm).map(|guest| (guest.described.generation, guest.state()));
        match known {
            // It came back here since.
            Some((generation, state)) if generation > order.generation => done(work, outcome::Body::Vm(state)),
            Some((generation, _)) if generation < order.generation => Err(ApiError::failed(format!(
                "The VM runs with generation {generation} here, not with {}",
                order.generation
            ))
            .into()),
            Some(_) if order.cancelled => self.call_back(work, parts, &order).await,
            Some(_) => {
                self.refuse_unsent(vm)?;
                self.depart(work, parts, &order).await
            }
            None if order.cancelled => {
                self.give_back(vm).await;
                Err(gone())
            }
            None => self.depart(work, parts, &order).await,
        }
    }

    /// A guest that goes on here isn't ended by mistake.
    fn refuse_unsent(&self, vm: &str) -> Result<(), ApiError> {
        let sending = self.moves.sent().get(vm).cloned();
        let all_sent = sending.is_none_or(|sending| matches!(sending.ended(), Some(Ok(_))));
        let table = self.table();
        let sent = table.guests.get(vm).is_some_and(|g| g.phase == Phase::Moving && g.power == PowerState::Paused);
        match sent && all_sent {
            true => Ok(()),
            false => Err(ApiError::failed("The VM goes on here: not all of it was sent to the other host")),
        }
    }

    /// The copy here ends, and its lease is given back. It writes nothing: QEMU has let go of the disks when all was sent.
    async fn depart(self: &Arc<Self>, work: &Work, parts: &Parts, order: &ConfirmMigration) -> Result<Done, Failure> {
        let vm = order.vm_uuid.as_str();
        let before = self.set_phase(vm, Phase::Ending);
        if let Err(error) = self.end(vm, true).await {
            if let Some(before) = before {
                self.set_phase(vm, before);
            }
            return Err(error.into());
        }
        let mut gone = None;
        let done = work.commit(|entries| {
            let mut table = self.table();
            gone = table.guests.remove(vm);
            let state = match &gone {
                Some(guest) => ended(guest, PowerReason::Unspecified, 0),
                None => VmState {
                    uuid: order.vm_uuid.clone(),
                    generation: order.generation,
                    power: PowerState::Off.into(),
                    ..VmState::default()
                },
            };
            table.asked(vm, order.generation, work.host(), entries);
            Ok((outcome::Body::Vm(state), table))
        })?;
        self.moves.forget(vm);
        self.give_back(vm).await;
        if let Some(guest) = gone {
            parts.network.unplug(&guest.described.nics).await;
        }
        self.touch();
        Ok(done)
    }

    /// The guest goes on here.
    async fn call_back(
        self: &Arc<Self>,
        work: &Work,
        parts: &Parts,
        order: &ConfirmMigration,
    ) -> Result<Done, Failure> {
        let vm = order.vm_uuid.as_str();
        self.break_off(vm).await;
        let lines = self.daemon.lines()?;
        let (domain, permit, phase) = {
            let table = self.table();
            let guest = table.guests.get(vm).ok_or_else(gone)?;
            (guest.domain.clone(), guest.permit.clone(), guest.phase)
        };
        if phase == Phase::Moving {
            // It was sent, and libvirt keeps it paused. Without a permit it mustn't go on for a moment.
            match permit.standing(now()) {
                Standing::Permitted => {}
                Standing::Unknown => {
                    return Err(
                        ApiError::unavailable("the VM's lease can't be read: it stays paused until it can").into()
                    );
                }
                Standing::Over(epoch) => {
                    return Err(ApiError::concurrent(format!("the VM was taken over with generation {epoch}")).into());
                }
            }
            if let Err(error) = self.resume_sent(&lines, vm, &domain).await {
                if error.is_transient() {
                    return Err(error.into());
                }
                tracing::warn!(vm, %error, "a guest that was sent can't go on here: it is ended");
                self.depart(work, parts, order).await?;
                return Err(gone());
            }
        }
        let state = self.table().guests.get(vm).map(Guest::state);
        let state = state.ok_or_else(gone)?;
        self.touch();
        done(work, outcome::Body::Vm(state))
    }

    async fn resume_sent(&self, lines: &Lines, vm: &str, domain: &DomainRef) -> Result<(), ApiError> {
        let sending = self.moves.sent().get(vm).cloned();
        if let Some(sending) = sending {
            // Ends libvirt's own notion of the migration; an error means that it has none any more.
            let confirmed = sending.line.migrate_confirm(domain, &Params::new(), &Cookie::default(), FLAGS, true).await;
            if let Err(error) = confirmed {
                tracing::debug!(vm, %error, "libvirt has forgotten a migration");
            }
        }
        let look = || async { look_at(lines, domain.uuid).await.map_err(|e| told(&e)) };
        if look().await?.is_some_and(|(_, state)| state.paused().is_some())
            && let Err(error) = lines.orders.resume(domain).await
        {
            return Err(refusal("The VM can't go on on this host", &error));
        }
        let (_, state) = look().await?.ok_or_else(|| ApiError::failed("The VM has ended"))?;
        self.note_moving(vm, state, true);
        self.moves.forget(vm);
        Ok(())
    }

    /// Nothing is sent any more when this returns.
    pub(in crate::kvm::guests) async fn break_off(&self, vm: &str) {
        let Some(sending) = self.moves.sent().get(vm).cloned() else { return };
        while !sending.is_over() {
            self.abort(&sending).await;
            sending.await_end(AGAIN).await;
        }
    }

    async fn abort(&self, sending: &Sending) {
        if let Ok(lines) = self.daemon.lines()
            && let Err(error) = lines.keeper.abort_job(&sending.domain).await
        {
            tracing::debug!(name = sending.domain.name, %error, "a sending can't be called off yet");
        }
    }

    /// A guest that an agent sends which is no more: it goes on here.
    pub(in crate::kvm::guests) async fn call_off(&self, lines: &Lines, domain: &DomainRef) {
        let job = match lines.keeper.job_stats(domain, JobStatsFlags::none()).await {
            Ok((JobKind::BOUNDED | JobKind::UNBOUNDED, job)) => job,
            _ => return,
        };
        if job.number("operation") == Some(SENT_AWAY) {
            tracing::warn!(name = domain.name, "a guest is being sent by an agent that is no more: called off");
            if let Err(error) = lines.keeper.abort_job(domain).await {
                tracing::warn!(name = domain.name, %error, "a sending can't be called off");
            }
        }
    }
}

/// It goes on where it is.
fn too_busy(millis: u64) -> ApiError {
    ApiError::failed(format!(
        "The VM can't be sent to the other host: it changes its memory faster than that is sent, and {} s were over",
        millis / 1000
    ))
}

fn gone() -> Failure {
    ApiError::failed("The VM doesn't run on this host any more: start it").into()
}

/// The guest, if it may be moved.
fn movable(guest: Option<&Guest>, generation: i64) -> Result<&Guest, ApiError> {
    let guest = guest.ok_or_else(|| ApiError::failed("The VM doesn't run on this host"))?;
    if guest.described.generation != generation {
        let runs = guest.described.generation;
        return Err(ApiError::failed(format!("The VM runs with generation {runs}, not with {generation}")));
    }
    match (guest.phase, guest.power) {
        (Phase::Settled, PowerState::On) if guest.kept.is_none() => Ok(guest),
        (Phase::Settled, PowerState::On) => {
            Err(ApiError::unavailable("the VM's lease changed what it may do at this moment"))
        }
        (Phase::Settled, _) => Err(ApiError::failed("The VM is paused on its host: it can't be moved now")),
        _ => Err(is_moving()),
    }
}
