//! Which pool takes a disk: candidates are judged in memory, the database's counter decides.

use contract::ApiError;
use model::state::PoolState;
use rand::Rng;
use rand::seq::SliceRandom;

/// Who reaches a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All hosts of the zone.
    Zone,
    /// The hosts of one cluster.
    Cluster(i64),
    /// One host: local storage.
    Host(i64),
}

/// A pool, as the choice sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// State.
    pub state: PoolState,
    /// Who reaches it.
    pub reach: Reach,
    /// The only hypervisor that uses it, for zone-wide pools.
    pub hypervisor: Option<String>,
    /// Its storage tags.
    pub tags: Vec<String>,
    /// Bytes that it has.
    pub capacity: i64,
    /// Bytes that are promised.
    pub allocated: i64,
    /// Bytes that the device says are used.
    pub used: i64,
    /// How often its bytes may be promised.
    pub overcommit: f64,
    /// Whether the wanted template lies on it.
    pub has_template: bool,
    /// Whether the wanted host has said that it reaches it.
    pub mounted: bool,
}

/// What a disk needs.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Bytes of the disk.
    pub bytes: i64,
    /// Bytes of its template, charged where the template doesn't lie yet.
    pub template_bytes: i64,
    /// All of these tags must be on the pool.
    pub tags: &'a [String],
    /// Whether it must lie on the host itself.
    pub local: bool,
    /// The host's cluster.
    pub cluster: i64,
    /// The host, when it is known.
    pub host: Option<i64>,
    /// The host's hypervisor; empty: any.
    pub hypervisor: &'a str,
    /// Share of the promisable bytes that may be promised.
    pub threshold: f64,
    /// Share of the device's bytes above which it counts as full.
    pub used_threshold: f64,
}

impl Ask<'_> {
    /// Bytes that the disk costs on `pool`.
    pub fn cost(&self, pool: &Candidate) -> i64 {
        if pool.has_template { self.bytes } else { self.bytes.saturating_add(self.template_bytes) }
    }
}

/// Why a pool doesn't take a disk.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// It isn't Up.
    State(PoolState),
    /// The host doesn't reach it.
    OutOfReach,
    /// It is for another hypervisor.
    Hypervisor(String),
    /// Shared storage is wanted and it is local, or the other way round.
    Locality,
    /// It lacks tags.
    Tags(Vec<String>),
    /// The device is as good as full.
    DeviceFull,
    /// Too much is promised already.
    NoRoom {
        /// Bytes asked for.
        asked: i64,
        /// Bytes that may still be promised.
        free: i64,
    },
    /// Others were faster.
    Taken,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::State(state) => write!(f, "is {state}"),
            Reason::OutOfReach => f.write_str("is not reached from the host's cluster"),
            Reason::Hypervisor(other) => write!(f, "is for {other}"),
            Reason::Locality => f.write_str("is not of the offering's storage type"),
            Reason::Tags(missing) => write!(f, "lacks the tags {}", missing.join(",")),
            Reason::DeviceFull => f.write_str("is above the threshold of used space"),
            Reason::NoRoom { asked, free } => write!(f, "has room for {free} bytes and {asked} are asked for"),
            Reason::Taken => f.write_str("was filled by others meanwhile"),
        }
    }
}

/// A pool that doesn't take a disk, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// Name of the pool.
    pub pool: String,
    /// Why.
    pub reason: Reason,
}

/// Whether `pool` can take the disk; the cheap and permanent reasons come first.
///
/// # Errors
/// The first reason why not.
pub fn judge(pool: &Candidate, ask: &Ask<'_>) -> Result<(), Reason> {
    match (pool.reach, ask.local) {
        (Reach::Host(_), false) | (Reach::Zone | Reach::Cluster(_), true) => return Err(Reason::Locality),
        (Reach::Host(host), true) if ask.host.is_some_and(|h| h != host) => return Err(Reason::OutOfReach),
        (Reach::Cluster(cluster), false) if cluster != ask.cluster => return Err(Reason::OutOfReach),
        _ => {}
    }
    if let Some(only) = &pool.hypervisor
        && !ask.hypervisor.is_empty()
        && !only.eq_ignore_ascii_case("Any")
        && !only.eq_ignore_ascii_case(ask.hypervisor)
    {
        return Err(Reason::Hypervisor(only.clone()));
    }
    if pool.state != PoolState::Up {
        return Err(Reason::State(pool.state));
    }
    let missing: Vec<String> = ask.tags.iter().filter(|t| !pool.tags.contains(t)).cloned().collect();
    if !missing.is_empty() {
        return Err(Reason::Tags(missing));
    }
    if pool.capacity > 0 && as_real(pool.used) > as_real(pool.capacity) * ask.used_threshold {
        return Err(Reason::DeviceFull);
    }
    let asked = ask.cost(pool);
    let limit = as_real(pool.capacity) * pool.overcommit * ask.threshold;
    if as_real(pool.allocated.saturating_add(asked)) > limit {
        let free = (limit - as_real(pool.allocated)).max(0.0) as i64;
        return Err(Reason::NoRoom { asked, free });
    }
    Ok(())
}

/// The pools that can take the disk, in random order, and why the others can't.
pub fn choose<'p>(pools: &'p [Candidate], ask: &Ask<'_>, rng: &mut impl Rng) -> (Vec<&'p Candidate>, Vec<Rejected>) {
    let mut fitting = Vec::new();
    let mut rejected = Vec::new();
    for pool in pools {
        match judge(pool, ask) {
            Ok(()) => fitting.push(pool),
            Err(reason) => rejected.push(Rejected { pool: pool.name.clone(), reason }),
        }
    }
    fitting.shuffle(rng);
    (fitting, rejected)
}

/// The error when no pool takes a disk: for root admins with each pool's reason.
pub fn shortage(disk: &str, rejected: &[Rejected]) -> ApiError {
    if rejected.is_empty() {
        return ApiError::capacity(format!(
            "no primary storage for {disk}: the zone has none that the host could reach"
        ));
    }
    let reasons: Vec<String> = rejected.iter().map(|r| format!("{} {}", r.pool, r.reason)).collect();
    ApiError::capacity(format!("no primary storage for {disk}: {}", reasons.join("; ")))
}

/// Bytes as the database's conditional update compares them.
fn as_real(bytes: i64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool() -> Candidate {
        Candidate {
            id: 1,
            uuid: "u".into(),
            name: "PS0".into(),
            state: PoolState::Up,
            reach: Reach::Cluster(1),
            hypervisor: None,
            tags: vec!["ssd".into(), "blue".into()],
            capacity: 100,
            allocated: 0,
            used: 0,
            overcommit: 2.0,
            has_template: true,
            mounted: true,
        }
    }

    fn ask(tags: &[String]) -> Ask<'_> {
        Ask {
            bytes: 10,
            template_bytes: 0,
            tags,
            local: false,
            cluster: 1,
            host: Some(1),
            hypervisor: "Simulator",
            threshold: 1.0,
            used_threshold: 1.0,
        }
    }

    // covers: STO-025, VM-048
    #[test]
    fn each_reason_is_told() {
        let red = ["red".to_owned()];
        let ssd = ["ssd".to_owned()];
        assert_eq!(judge(&pool(), &ask(&ssd)), Ok(()));
        assert_eq!(judge(&pool(), &ask(&red)), Err(Reason::Tags(red.to_vec())));
        assert_eq!(judge(&pool(), &Ask { cluster: 2, ..ask(&[]) }), Err(Reason::OutOfReach));
        assert_eq!(judge(&pool(), &Ask { local: true, ..ask(&[]) }), Err(Reason::Locality));
        let local = Candidate { reach: Reach::Host(7), ..pool() };
        assert_eq!(judge(&local, &Ask { local: true, ..ask(&[]) }), Err(Reason::OutOfReach));
        assert_eq!(judge(&local, &Ask { local: true, host: Some(7), ..ask(&[]) }), Ok(()));
        let kvm = Candidate { reach: Reach::Zone, hypervisor: Some("KVM".into()), ..pool() };
        assert_eq!(judge(&kvm, &ask(&[])), Err(Reason::Hypervisor("KVM".into())));
        let down = Candidate { state: PoolState::Disabled, ..pool() };
        assert_eq!(judge(&down, &ask(&[])), Err(Reason::State(PoolState::Disabled)));
        assert_eq!(judge(&pool(), &Ask { bytes: 200, ..ask(&[]) }), Ok(()));
        assert_eq!(judge(&pool(), &Ask { bytes: 201, ..ask(&[]) }), Err(Reason::NoRoom { asked: 201, free: 200 }));
        let full = Candidate { used: 95, ..pool() };
        assert_eq!(judge(&full, &Ask { used_threshold: 0.85, ..ask(&[]) }), Err(Reason::DeviceFull));
        let bare = Candidate { has_template: false, ..pool() };
        assert_eq!(
            judge(&bare, &Ask { bytes: 150, template_bytes: 60, ..ask(&[]) }),
            Err(Reason::NoRoom { asked: 210, free: 200 })
        );
    }

    #[test]
    fn root_admins_read_every_reason() {
        let e = shortage("ROOT-1", &[Rejected { pool: "PS0".into(), reason: Reason::Taken }]);
        assert_eq!(e.code, 533);
        assert!(e.text_for(true).contains("PS0 was filled by others"));
        assert!(!e.text_for(false).contains("PS0"));
    }

    proptest! {
        #[test]
        fn what_is_chosen_always_fits(
            capacity in 0i64..1_000_000, allocated in 0i64..3_000_000, bytes in 0i64..1_000_000, factor in 1.0f64..20.0,
            threshold in 0.1f64..1.0, seed in any::<u64>(),
        ) {
            let pools = [Candidate { capacity, allocated, overcommit: factor, ..pool() }];
            let ask = Ask { bytes, threshold, ..ask(&[]) };
            let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
            let (fitting, rejected) = choose(&pools, &ask, &mut rng);
            prop_assert_eq!(fitting.len() + rejected.len(), 1);
            if !fitting.is_empty() {
                prop_assert!((allocated + bytes) as f64 <= capacity as f64 * factor * threshold);
            }
        }
    }
}
