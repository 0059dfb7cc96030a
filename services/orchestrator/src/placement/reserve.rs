//! Taking a host's capacity: the database decides.

use crate::store::{occupancy, placement as rows};
use contract::ApiError;
use store::Tx;

/// What a VM takes of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Amount {
    /// MHz over all its CPUs.
    pub cpu_mhz: i64,
    /// Bytes.
    pub memory: i64,
}

impl Amount {
    /// The same, given back.
    #[must_use]
    pub fn negated(self) -> Amount {
        Amount { cpu_mhz: -self.cpu_mhz, memory: -self.memory }
    }
}

/// With whom a VM shares its host (IAM-070 to 073).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// With anyone: not on a host that an account has to itself.
    #[default]
    Anyone,
    /// With anyone, and on a host that this account has to itself.
    With(i64),
    /// With VMs of this account only that ask for the same: from now on it has the host to itself.
    Alone(i64),
}

/// What must hold of a host when its capacity is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The group that it, its cluster or its pod is dedicated to, as [`crate::store::placement::HostRow`] has it.
    pub host: Option<i64>,
    /// The one that its zone is dedicated to.
    pub zone: Option<i64>,
    /// With whom it may be shared.
    pub keep: Keep,
    /// VMs that were stopped since then (UTC µs) still count there.
    pub since: i64,
}

/// Takes `amount` of `host` for `vm`, if it still has it, accepts VMs, and is as `terms` say. A VM that holds something
/// already (on any host) keeps it and takes nothing more: a repeat of the step is harmless.
///
/// Gives whether it was taken.
pub async fn reserve(tx: &mut Tx, vm: i64, host: i64, amount: Amount, terms: Terms) -> Result<bool, ApiError> {
    if !rows::take(tx, host, amount, Some(terms)).await? {
        return Ok(false);
    }
    if let Keep::Alone(account) = terms.keep {
        // Nobody else takes of the host until `tx` ends, so what is seen now stays.
        if !occupancy::is_alone(tx, vm, host, account, terms.since).await? {
            rows::give(tx, host, amount).await?;
            return Ok(false);
        }
        rows::keep(tx, host, account).await?;
    }
    rows::hold(tx, vm, host, amount).await?;
    Ok(true)
}

/// Gives back what `vm` holds, and tells of which host. Nothing held: nothing happens.
pub async fn free(tx: &mut Tx, vm: i64) -> Result<Option<(i64, Amount)>, ApiError> {
    let Some((host, amount)) = rows::held(tx, vm).await? else {
        return Ok(None);
    };
    // The row is the proof: only who deletes it gives back.
    if rows::drop_hold(tx, vm, host).await? {
        rows::give(tx, host, amount).await?;
        Ok(Some((host, amount)))
    } else {
        Ok(None)
    }
}
