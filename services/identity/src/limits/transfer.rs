//! Counting what has another owner for that one: reservations keep their names and amounts, and change the account.

use super::reserve::{ATTEMPTS, Halt, short_account};
use super::{Limits, chain};
use crate::resource::Resource;
use crate::store::limits::{self as store, Move, Of, Share};
use crate::store::{Source, accounts};
use ::store::Tx;
use contract::ApiError;
use contract_identity::{FormerHolder, TransferResponse};
use jobs::StepKey;
use std::collections::{BTreeMap, BTreeSet};

/// What is to be counted for whom: with each amount the account that gets it.
struct Plan {
    handed: Vec<(Share, i64)>,
    moves: Vec<Move>,
}

impl Plan {
    /// Writes it; an error that says nothing when a condition doesn't hold any more.
    async fn write(&self, tx: &mut Tx) -> Result<(), Halt> {
        let shares: Vec<(&Share, i64)> = self.handed.iter().map(|(share, to)| (share, *to)).collect();
        let whole = shares.is_empty() || store::hand_over(tx, &shares).await?;
        if whole && (self.moves.is_empty() || store::apply(tx, &self.moves).await?) {
            return Ok(());
        }
        Err(Halt::Look)
    }
}

impl Limits {
    /// Counts what these holders are counted with for `account` and the domains above it, in one commit, and says whose it was.
    /// A domain above both is counted as before, and its limit can't be short.
    ///
    /// # Errors
    /// 535 naming the limit that is short; 431 when the account has been removed.
    pub async fn transfer(
        &self,
        key: &StepKey,
        holders: &[String],
        account: i64,
    ) -> Result<TransferResponse, ApiError> {
        for _ in 0..ATTEMPTS {
            let shares = store::shares(&self.node.db, holders).await?;
            let wanted: Vec<(Share, i64)> =
                shares.into_iter().filter(|s| s.account != account).map(|s| (s, account)).collect();
            // A repeat is answered with what was stored, whatever could be planned now.
            let plan = self.handover(wanted, true).await;
            let mut look = false;
            let done = jobs::effect!(self.node.db, *key, |tx| {
                look = false;
                let plan = match &plan {
                    Ok(Some(plan)) => plan,
                    Ok(None) => {
                        look = true;
                        return Err(again());
                    }
                    Err(error) => return Err(error.clone()),
                };
                match plan.write(tx).await {
                    Ok(()) => Ok(answer(plan)),
                    Err(Halt::Failed(error)) => Err(error),
                    Err(Halt::Look) => {
                        look = true;
                        Err(again())
                    }
                }
            })
            .await;
            match done {
                Err(_) if look => tokio::task::yield_now().await,
                done => return done,
            }
        }
        Err(again())
    }

    /// Counts it for the former accounts again, whatever they may have by now. What was given back meanwhile stays given back.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn take_back(&self, key: &StepKey) -> Result<(), ApiError> {
        for _ in 0..ATTEMPTS {
            let mut look = false;
            let done = jobs::undo_effect!(self.node.db, *key, |tx, done: Option<TransferResponse>| {
                look = false;
                let former: BTreeMap<String, i64> =
                    done.unwrap_or_default().former.into_iter().map(|f| (f.key, f.account_id)).collect();
                let holders: Vec<String> = former.keys().cloned().collect();
                if holders.is_empty() {
                    return Ok(());
                }
                let shares = store::shares(&self.node.db, &holders).await?;
                let back = shares.into_iter().filter_map(|s| former.get(&s.holder).map(|to| (s.clone(), *to)));
                let wanted = back.filter(|(s, to)| s.account != *to).collect();
                let Some(plan) = self.handover(wanted, false).await? else {
                    look = true;
                    return Err(again());
                };
                match plan.write(tx).await {
                    Ok(()) => Ok(()),
                    Err(Halt::Failed(error)) => Err(error),
                    Err(Halt::Look) => {
                        look = true;
                        Err(again())
                    }
                }
            })
            .await;
            match done {
                Err(_) if look => tokio::task::yield_now().await,
                done => return done,
            }
        }
        Err(again())
    }

    /// Plans it. `None`: a counter had to be made first, decide again.
    async fn handover(&self, handed: Vec<(Share, i64)>, limited: bool) -> Result<Option<Plan>, ApiError> {
        // What each account gets and gives, by type.
        let mut gets: BTreeMap<(i64, i32), i64> = BTreeMap::new();
        for (share, to) in &handed {
            *gets.entry((share.account, share.kind)).or_default() -= share.amount;
            *gets.entry((*to, share.kind)).or_default() += share.amount;
        }
        let accounts: BTreeSet<i64> = gets.keys().map(|(account, _)| *account).collect();
        let mut moves: Vec<Move> = Vec::new();
        for id in accounts {
            let found = accounts::find(&self.node.db, id).await?;
            let loses = handed.iter().any(|(share, _)| share.account == id);
            let row = match found.filter(|row| !row.removed) {
                Some(row) => row,
                // What is counted for it goes from no count: those of removed accounts are gone.
                None if loses => continue,
                None => return Err(ApiError::param("The account that is to own the resource has been removed")),
            };
            let above = chain(&row.domain_path);
            let ceilings = self.owners_of(&row, &above).await?;
            let root_admin = row.kind == 1;
            for ((_, kind), add) in gets.iter().filter(|((account, _), add)| *account == id && **add != 0) {
                let Some(resource) = Resource::of(*kind) else { continue };
                let of = Of::Account(id);
                let count = ceilings
                    .count(of, resource)
                    .ok_or_else(|| ApiError::internal(format!("account {id} has no count of {}", resource.name())))?;
                let max = ceilings.account(id, root_admin, resource).filter(|_| limited && *add > 0);
                if max.is_some_and(|m| count.used.saturating_add(*add) > m) {
                    return Err(short_account(&row, resource, max, count.used, *add));
                }
                moves.push(Move { slot: (of, *kind), add: *add, max, epoch: count.epoch });
                for n in 1..=above.len() {
                    let domain = Of::Domain(above[n - 1]);
                    let max = ceilings.checked_at(&above[..n], resource);
                    let Some(count) = ceilings.count(domain, resource) else {
                        // What goes back was counted nowhere here; and no count is begun while it is being written.
                        if max.is_some() && limited {
                            self.begin_counting(above[n - 1], *kind).await?;
                            return Ok(None);
                        }
                        continue;
                    };
                    let max = max.filter(|_| limited && !root_admin);
                    moves.push(Move { slot: (domain, *kind), add: *add, max, epoch: count.epoch });
                }
            }
        }
        let moves = merged(moves);
        self.fits(&moves).await?;
        Ok(Some(Plan { handed, moves }))
    }

    /// Whether the domains have room for what they get in all.
    async fn fits(&self, moves: &[Move]) -> Result<(), ApiError> {
        let limited = moves.iter().filter(|m| m.add > 0 && m.max.is_some());
        for m in limited {
            let (Of::Domain(id), Some(resource)) = (m.slot.0, Resource::of(m.slot.1)) else { continue };
            let figures = self.ceilings(&mut Source::Db(&self.node.db), &[m.slot.0]).await?;
            let used = figures.count(m.slot.0, resource).map_or(0, |count| count.used);
            if m.max.is_some_and(|max| used.saturating_add(m.add) > max) {
                return Err(self.short_domain(id, resource, m.max, used, m.add).await?);
            }
        }
        Ok(())
    }
}

/// One move for each counter: what comes and goes is set off. The limit is that of what comes.
fn merged(moves: Vec<Move>) -> Vec<Move> {
    let mut by_slot: BTreeMap<(Of, i32), Move> = BTreeMap::new();
    for m in moves {
        match by_slot.get_mut(&m.slot) {
            Some(known) => {
                known.max = if known.add > 0 { known.max } else { m.max };
                known.add += m.add;
            }
            None => drop(by_slot.insert(m.slot, m)),
        }
    }
    by_slot.into_values().filter(|m| m.add != 0).map(|m| Move { max: m.max.filter(|_| m.add > 0), ..m }).collect()
}

fn answer(plan: &Plan) -> TransferResponse {
    let former: BTreeMap<&String, i64> = plan.handed.iter().map(|(share, _)| (&share.holder, share.account)).collect();
    let one = |(key, account): (&String, i64)| FormerHolder { key: key.clone(), account_id: account };
    TransferResponse { former: former.into_iter().map(one).collect() }
}

fn again() -> ApiError {
    ApiError::concurrent("The resource limits are being changed: try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_above_both_is_left_alone() {
        let of = |slot, add, max| Move { slot: (slot, 0), add, max, epoch: 1 };
        let (a, b, d, e) = (Of::Account(1), Of::Account(2), Of::Domain(1), Of::Domain(2));
        let all = vec![of(a, -3, None), of(d, -3, None), of(b, 3, Some(5)), of(d, 3, Some(2)), of(e, 3, Some(9))];
        assert_eq!(merged(all), [of(a, -3, None), of(b, 3, Some(5)), of(e, 3, Some(9))]);
    }
}
