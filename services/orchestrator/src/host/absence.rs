//! The duty of judging hosts that are connected with nobody.
//!
//! A host that went away in order is Disconnected, a silent one is in Alert. Absent for long enough it is investigated
//! ([`super::investigate`]), and again every `investigate.retry.interval` seconds. Only one that is known to be dead goes
//! Down, which is what lets its VMs be started elsewhere ([`crate::vm::ha`]). One that lives, or of which nobody knows, is
//! left alone; people are told.
//!
//! Times are measured from when this leader first saw the host so, on its monotonic clock: a new leader starts anew, and
//! wall clocks don't matter. What it found is in the database, so that people are told once.

use super::figures::{self, UnderWay};
use super::investigate::{self, Finding, Investigator, Verdict};
use crate::store::absences::{self, Known, Suspect};
use crate::store::restarts;
use crate::world::World;
use ::store::Tx;
use config::keys;
use contract::ApiError;
use coord::Term;
use events::Alert;
use futures::StreamExt as _;
use hub::Absent;
use model::HostId;
use model::state::HostStatus;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Who investigates.
pub type Investigators = Vec<Arc<dyn Investigator>>;

/// Judges absent hosts for as long as this replica leads.
pub fn start(world: &World, investigators: Investigators) {
    let world = world.clone();
    let investigators = Arc::new(investigators);
    world.node.clone().duty("host-absence", move |term| {
        let (world, investigators) = (world.clone(), investigators.clone());
        async move {
            let mut watch = Watch { world, investigators, seen: HashMap::new() };
            let shown = figures::Hosts;
            loop {
                let silence = watch.world.hub.timing().silence;
                tokio::select! {
                    () = term.lost() => return,
                    () = tokio::time::sleep((silence / 10).clamp(Duration::from_millis(50), Duration::from_secs(5))) => {}
                }
                if let Err(error) = watch.round(&term).await {
                    tracing::warn!(%error, "absent hosts can't be judged; the next round tries again");
                }
                if let Ok(counts) = absences::by_status(&watch.world.node.db).await {
                    shown.show(&counts);
                }
            }
        }
    });
}

struct Seen {
    absent: Absent,
    since: Instant,
    looked: Option<Instant>,
}

struct Watch {
    world: World,
    investigators: Arc<Investigators>,
    seen: HashMap<HostId, Seen>,
}

/// What becomes of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Next {
    /// Its state.
    status: HostStatus,
    /// Whether people are told.
    tell: bool,
}

/// How long a host is away before it is looked at: a silent one was waited for by its hub.
fn patience(status: HostStatus, silence: Duration) -> Duration {
    if status == HostStatus::Disconnected { silence } else { Duration::ZERO }
}

/// The state machine of absent hosts (states.json, Host.Status).
fn next(status: HostStatus, away: Duration, alert_wait: Duration, verdict: Verdict) -> Next {
    match verdict {
        Verdict::Dead => Next { status: HostStatus::Down, tell: true },
        Verdict::Unknown => Next { status: HostStatus::Alert, tell: true },
        Verdict::Alive if away >= alert_wait => Next { status: HostStatus::Alert, tell: true },
        Verdict::Alive => Next { status, tell: false },
    }
}

/// All ripe hosts with VMs, then at most so many without: first those that were never looked at, then those whose last look is
/// the longest ago.
fn choose(
    mut ripe: Vec<(Option<Instant>, HostId)>,
    is_busy: impl Fn(HostId) -> bool,
    idle_at_once: usize,
) -> Vec<HostId> {
    ripe.sort_by_key(|(looked, _)| *looked);
    let (mut first, mut idle): (Vec<_>, Vec<_>) =
        ripe.into_iter().map(|(_, host)| host).partition(|host| is_busy(*host));
    idle.truncate(idle_at_once);
    first.append(&mut idle);
    first
}

impl Watch {
    async fn round(&mut self, term: &Term) -> Result<(), ApiError> {
        let db = &self.world.node.db;
        let absent = hub::absent(db).await?;
        let known: HashMap<i64, Known> = absences::all(db).await?.into_iter().map(|k| (k.host, k)).collect();
        self.welcome(term, &absent, &known).await?;
        for host in absent.iter().filter(|h| h.status == HostStatus::Down) {
            let told = known.get(&host.id.0).is_some_and(|k| k.conn_epoch == host.conn_epoch && k.alerted);
            if !told {
                self.bury(term, host).await?;
            }
        }
        let settings = &self.world.node.settings;
        let again = seconds(settings.get(keys::INVESTIGATE_RETRY_INTERVAL));
        let at_once = settings.get(keys::HA_MAX_CONCURRENT_ACTIVITY_CHECKS).clamp(1, 1000).unsigned_abs();
        let ids: Vec<i64> = absent.iter().filter(|h| h.status != HostStatus::Down).map(|h| h.id.0).collect();
        let busy = absences::with_vms(db, &ids).await?;
        let at_once = usize::try_from(at_once).unwrap_or(1);
        let due = self.due(absent, again, &busy, at_once);
        let (world, investigators) = (self.world.clone(), self.investigators.clone());
        let mut looks = futures::stream::iter(due)
            .map(|(absent, away)| {
                let (world, investigators) = (world.clone(), investigators.clone());
                async move {
                    let suspect = match absences::suspect(&world.node.db, absent.id).await {
                        Ok(Some(suspect)) => suspect,
                        Ok(None) => return None,
                        Err(error) => {
                            tracing::warn!(host = absent.id.0, %error, "a host can't be investigated");
                            return None;
                        }
                    };
                    let look = UnderWay::begin();
                    let finding = investigate::ask(&investigators, &suspect).await;
                    look.end(finding.verdict);
                    Some((absent, away, suspect, finding))
                }
            })
            .buffer_unordered(at_once);
        while let Some(looked) = looks.next().await {
            let Some((absent, away, suspect, finding)) = looked else { continue };
            judge(&world, term, &absent, away, &suspect, &finding).await?;
        }
        Ok(())
    }

    /// The hosts that are to be looked at now, and how long they have been away. Those without VMs are watched for longest,
    /// and nobody waits for them as VMs do: so few of them in a round that they don't hold up the next, the others in turn.
    fn due(
        &mut self,
        absent: Vec<Absent>,
        again: Duration,
        busy: &HashSet<i64>,
        idle_at_once: usize,
    ) -> Vec<(Absent, Duration)> {
        let now = Instant::now();
        let silence = self.world.hub.timing().silence;
        let mut before = std::mem::take(&mut self.seen);
        let mut ripe = Vec::new();
        for host in absent.into_iter().filter(|h| h.status != HostStatus::Down) {
            let (since, looked) = match before.remove(&host.id) {
                // The state may have changed by what was found; the absence is the same.
                Some(seen) if seen.absent.conn_epoch == host.conn_epoch => (seen.since, seen.looked),
                _ => (now, None),
            };
            let is_ripe = match looked {
                None => now.duration_since(since) >= patience(host.status, silence),
                Some(at) => now.duration_since(at) >= again,
            };
            if is_ripe {
                ripe.push((looked, host.id));
            }
            self.seen.insert(host.id, Seen { absent: host, since, looked });
        }
        let chosen = choose(ripe, |host| busy.contains(&host.0), idle_at_once);
        let seen = &mut self.seen;
        let look = chosen.into_iter().filter_map(|id| {
            let seen = seen.get_mut(&id)?;
            seen.looked = Some(now);
            Some((seen.absent, now.duration_since(seen.since)))
        });
        look.collect()
    }

    /// Hosts that came back.
    async fn welcome(&self, term: &Term, absent: &[Absent], known: &HashMap<i64, Known>) -> Result<(), ApiError> {
        let db = &self.world.node.db;
        for over in known.values().filter(|k| !absent.iter().any(|a| a.id.0 == k.host && a.conn_epoch == k.conn_epoch))
        {
            let host = absences::suspect(db, HostId(over.host)).await?;
            let away_again = absent.iter().any(|a| a.id.0 == over.host);
            ::store::tx!(db, "end-absence", |tx| {
                term.fence(tx).await?;
                if !absences::end(tx, over).await? {
                    return Ok(());
                }
                match &host {
                    Some(host) if over.alerted && !away_again => {
                        let text = format!("Host {} ({}) is connected again", host.name, host.uuid);
                        Ok(events::record(tx, &[Alert::host(&host.uuid).clear(text)]).await?)
                    }
                    _ => Ok::<_, ApiError>(()),
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Tells of a host whose own agent knew it to be off.
    async fn bury(&self, term: &Term, absent: &Absent) -> Result<(), ApiError> {
        let db = &self.world.node.db;
        let Some(host) = absences::suspect(db, absent.id).await? else { return Ok(()) };
        let finding = Finding::new(Verdict::Dead, "its agent knows it to be off");
        ::store::tx!(db, "bury-host", |tx| {
            term.fence(tx).await?;
            absences::note(tx, absent, finding.verdict.word(), &finding.reason, true).await?;
            Ok::<_, ApiError>(events::record(tx, &[Alert::host(&host.uuid).raise(told(&host, &finding))]).await?)
        })
        .await
    }
}

async fn judge(
    world: &World,
    term: &Term,
    absent: &Absent,
    away: Duration,
    host: &Suspect,
    finding: &Finding,
) -> Result<(), ApiError> {
    let alert_wait = seconds(world.node.settings.get(keys::ALERT_WAIT));
    let next = next(absent.status, away, alert_wait, finding.verdict);
    let moved = ::store::tx!(world.node.db, "judge-host", |tx| {
        term.fence(tx).await?;
        // It may have connected while it was looked at.
        if !hub::age(tx, absent, next.status).await? {
            return Ok(false);
        }
        let known = absences::of(tx, absent).await?;
        let told_before = known.as_ref().is_some_and(|k| k.alerted);
        // A death is told even to those who know of the absence.
        let news = next.tell && (!told_before || next.status == HostStatus::Down);
        absences::note(tx, absent, finding.verdict.word(), &finding.reason, told_before || news).await?;
        if news {
            tell(tx, host, finding).await?;
        }
        Ok::<_, ApiError>(next.status != absent.status)
    })
    .await?;
    if moved {
        tracing::warn!(host = host.uuid, name = host.name, status = %next.status, reason = finding.reason, "a host is absent");
        world.host_changed(host.id);
    }
    Ok(())
}

async fn tell(tx: &mut Tx, host: &Suspect, finding: &Finding) -> Result<(), ApiError> {
    let mut records = vec![Alert::host(&host.uuid).raise(told(host, finding))];
    if finding.verdict == Verdict::Unknown {
        for (uuid, name) in restarts::endangered(tx, host.id).await? {
            let text = format!(
                "VM {uuid} ({name}) isn't started elsewhere: nobody knows whether it still runs on host {} ({})",
                host.name, finding.reason
            );
            records.push(Alert::user_vm(&uuid).raise(text));
        }
    }
    Ok(events::record(tx, &records).await?)
}

fn told(host: &Suspect, finding: &Finding) -> String {
    let (name, uuid, why) = (&host.name, &host.uuid, &finding.reason);
    match finding.verdict {
        Verdict::Dead => format!("Host {name} ({uuid}) is down: {why}"),
        Verdict::Unknown => format!("Host {name} ({uuid}) is not connected, and nobody knows whether it lives: {why}"),
        Verdict::Alive => format!("Host {name} ({uuid}) lives but has not connected for a long time: {why}"),
    }
}

fn seconds(n: i64) -> Duration {
    Duration::from_secs(n.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use HostStatus::{Alert, Disconnected, Down};

    // covers: OPS-117, OPS-118
    #[test]
    fn a_host_is_down_only_when_it_is_known_dead() {
        let wait = Duration::from_secs(60);
        for away in [Duration::ZERO, wait, wait * 1000] {
            for status in [Disconnected, Alert] {
                assert_eq!(next(status, away, wait, Verdict::Dead).status, Down);
                assert_eq!(next(status, away, wait, Verdict::Unknown).status, Alert);
                assert_ne!(next(status, away, wait, Verdict::Alive).status, Down);
            }
        }
        assert_eq!(
            next(Disconnected, Duration::ZERO, wait, Verdict::Alive),
            Next { status: Disconnected, tell: false }
        );
        assert_eq!(next(Disconnected, wait, wait, Verdict::Alive), Next { status: Alert, tell: true });
    }

    #[test]
    fn hosts_without_vms_hold_nobody_up_and_all_get_their_turn() {
        let now = Instant::now();
        let at = |n: u64| Some(now + Duration::from_secs(n));
        let ripe = vec![
            (at(3), HostId(1)),
            (at(1), HostId(2)),
            (None, HostId(3)),
            (at(2), HostId(4)),
            (at(9), HostId(5)),
            (at(8), HostId(6)),
        ];
        let chosen = choose(ripe, |host| host.0 >= 5, 2);
        assert_eq!(chosen, [HostId(6), HostId(5), HostId(3), HostId(2)]);
    }

    #[test]
    fn a_silent_host_was_waited_for_already() {
        let silence = Duration::from_secs(150);
        assert_eq!(patience(Disconnected, silence), silence);
        assert_eq!(patience(Alert, silence), Duration::ZERO);
    }
}
