//! Taking a host's capacity: the database decides.

use crate::store::placement as rows;
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

/// To whom a host must still be dedicated when its capacity is taken: groups, as [`crate::store::placement::HostRow`] has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The host, its cluster or its pod.
    pub host: Option<i64>,
    /// Its zone.
    pub zone: Option<i64>,
}

/// Takes `amount` of `host` for `vm`, if it still has it, accepts VMs, and is dedicated as `terms` say. A VM that holds something
/// already (on any host) keeps it and takes nothing more: a repeat of the step is harmless.
///
/// Gives whether it was taken.
pub async fn reserve(tx: &mut Tx, vm: i64, host: i64, amount: Amount, terms: Terms) -> Result<bool, ApiError> {
    if !rows::take(tx, host, amount, Some(terms)).await? {
        return Ok(false);
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
