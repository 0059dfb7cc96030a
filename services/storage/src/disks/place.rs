//! Putting one disk on a pool, as part of a transaction.

use crate::choice::{self, Ask, Candidate, Reason, Rejected};
use crate::store::{pools, template_copies};
use config::{Scope, Settings, keys};
use contract::ApiError;
use store::Tx;

/// How full pools may become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Share of the promisable bytes that may be promised.
    pub allocated: f64,
    /// Share of the device's bytes above which it counts as full.
    pub used: f64,
}

impl Thresholds {
    /// Those of a zone.
    pub fn of(settings: &Settings, zone: i64) -> Thresholds {
        let scope = Scope::Zone(zone);
        Thresholds {
            allocated: settings.get_in(keys::POOL_ALLOCATED_DISABLE_THRESHOLD, scope),
            used: settings.get_in(keys::POOL_USED_DISABLE_THRESHOLD, scope),
        }
    }
}

/// Near which host a disk is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// The host.
    pub host: i64,
    /// Its cluster.
    pub cluster: i64,
    /// Its hypervisor.
    pub hypervisor: String,
}

/// What a disk needs of a pool.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Name, for errors.
    pub name: &'a str,
    /// Bytes.
    pub bytes: i64,
    /// Its template and the bytes that this costs where it doesn't lie yet.
    pub template: Option<(i64, i64)>,
    /// Tags that the pool must have.
    pub tags: &'a [String],
    /// Whether it must lie on the host itself.
    pub local: bool,
}

/// Takes the bytes of a disk from one of `pools` (as they were read before the transaction), and notes the template there.
///
/// # Errors
/// 533 with each pool's reason.
pub async fn take_place<'p>(
    tx: &mut Tx,
    pools: &'p [Candidate],
    near: &Near,
    wanted: &Wanted<'_>,
    thresholds: Thresholds,
) -> Result<&'p Candidate, ApiError> {
    let ask = Ask {
        bytes: wanted.bytes,
        template_bytes: wanted.template.map_or(0, |(_, bytes)| bytes),
        tags: wanted.tags,
        local: wanted.local,
        cluster: near.cluster,
        host: Some(near.host),
        hypervisor: &near.hypervisor,
        threshold: thresholds.allocated,
        used_threshold: thresholds.used,
    };
    let (fitting, mut rejected) = choice::choose(pools, &ask, &mut rand::rng());
    for pool in fitting {
        if !pools::take(tx, pool.id, ask.cost(pool), thresholds.allocated).await? {
            rejected.push(Rejected { pool: pool.name.clone(), reason: Reason::Taken });
            continue;
        }
        let Some((template, bytes)) = wanted.template else { return Ok(pool) };
        if pool.has_template {
            if template_copies::lies(tx, template, pool.id).await? {
                return Ok(pool);
            }
            // It was removed since the pools were read: it comes again, and costs.
            if !pools::take(tx, pool.id, bytes, thresholds.allocated).await? {
                pools::give_back(tx, pool.id, wanted.bytes).await?;
                rejected.push(Rejected { pool: pool.name.clone(), reason: Reason::Taken });
                continue;
            }
        }
        if !pools::note_template(tx, template, pool.id, bytes).await? {
            // Another disk of this template came first, and paid for it.
            pools::give_back(tx, pool.id, bytes).await?;
        }
        return Ok(pool);
    }
    Err(choice::shortage(wanted.name, &rejected))
}
