//! Counting resources before they are made, and giving them back.

use super::{Ceilings, Limits, chain};
use crate::resource::Resource;
use crate::store::limits::{self as store, Held, Move, Of};
use crate::store::{Source, accounts, domains};
use ::store::Error;
use contract::ApiError;
use std::collections::BTreeMap;

/// Attempts before the caller is told to try later.
pub(super) const ATTEMPTS: usize = 40;

/// Why an attempt was given up.
pub(super) enum Halt {
    /// A condition didn't hold, or nobody knows whether the commit took place: look again.
    Look,
    Failed(ApiError),
}

impl From<Error> for Halt {
    fn from(e: Error) -> Self {
        match e {
            Error::Unique { .. } | Error::CommitUnknown(_) => Halt::Look,
            other => Halt::Failed(other.into()),
        }
    }
}

/// Decided moves: the counters, and what the holder is counted with before and after, by type.
struct Plan {
    moves: Vec<Move>,
    fresh: Vec<(i32, i64)>,
    changed: Vec<(i32, i64, i64)>,
}

impl Limits {
    /// Counts `holder` with these amounts, for an account and the domains above it; types that aren't named stay as they
    /// are. Asking again changes nothing; other amounts replace the former ones. `reserver` is the replica that is about to
    /// make the holder. One commit.
    ///
    /// # Errors
    /// 535 naming the limit that is short; 530 when the holder has given everything back before.
    pub async fn reserve(
        &self,
        holder: &str,
        account: i64,
        amounts: &[(Resource, i64)],
        reserver: &str,
    ) -> Result<(), ApiError> {
        let mut wanted: BTreeMap<i32, (Resource, i64)> = BTreeMap::new();
        for (resource, amount) in amounts {
            if *amount < 0 {
                return Err(ApiError::internal(format!(
                    "{holder} can't be counted with {amount} of {}",
                    resource.name()
                )));
            }
            wanted.entry(resource.number()).or_insert((*resource, 0)).1 += amount;
        }
        for _ in 0..ATTEMPTS {
            let (row, held) =
                tokio::try_join!(accounts::find(&self.node.db, account), store::held(&self.node.db, holder))?;
            let Some(row) = row.filter(|r| !r.removed) else {
                return Err(ApiError::param("The account that is to own the resource has been removed"));
            };
            if held.ended {
                return Err(ApiError::concurrent(format!("{holder} has been given up")));
            }
            if held.account.is_some_and(|a| a != account) {
                return Err(ApiError::internal(format!("{holder} is counted for another account")));
            }
            let Some(plan) = self.plan(&row, &held, wanted.values().copied()).await? else {
                continue;
            };
            if plan.moves.is_empty() && plan.fresh.is_empty() {
                return Ok(());
            }
            match self.commit(holder, account, &plan, reserver).await {
                Ok(()) => return Ok(()),
                Err(Halt::Failed(e)) => return Err(e),
                Err(Halt::Look) => {}
            }
            tokio::task::yield_now().await;
        }
        Err(ApiError::concurrent("The resource limits are being changed: try again"))
    }

    /// `None`: a counter had to be made first, decide again.
    async fn plan(
        &self,
        account: &accounts::AccountRow,
        held: &Held,
        wanted: impl Iterator<Item = (Resource, i64)>,
    ) -> Result<Option<Plan>, ApiError> {
        let above = chain(&account.domain_path);
        let ceilings = self.owners_of(account, &above).await?;
        let root_admin = account.kind == 1;
        let mut plan = Plan { moves: Vec::new(), fresh: Vec::new(), changed: Vec::new() };
        for (resource, amount) in wanted {
            let kind = resource.number();
            let add = match held.amounts.get(&kind) {
                Some(old) if *old == amount => continue,
                Some(old) => {
                    plan.changed.push((kind, *old, amount));
                    amount - old
                }
                None => {
                    plan.fresh.push((kind, amount));
                    amount
                }
            };
            if add == 0 {
                continue;
            }
            let of = Of::Account(account.id);
            let count = ceilings.count(of, resource).ok_or_else(|| {
                ApiError::internal(format!("account {} has no count of {}", account.id, resource.name()))
            })?;
            let max = ceilings.account(account.id, root_admin, resource);
            if add > 0 && max.is_some_and(|m| count.used.saturating_add(add) > m) {
                return Err(short_account(account, resource, max, count.used, add));
            }
            plan.moves.push(Move { slot: (of, kind), add, max, epoch: count.epoch });
            for n in 1..=above.len() {
                let id = above[n - 1];
                let max = ceilings.checked_at(&above[..n], resource);
                let Some(count) = ceilings.count(Of::Domain(id), resource) else {
                    if max.is_some() {
                        self.begin_counting(id, kind).await?;
                        return Ok(None);
                    }
                    continue;
                };
                // As in 4.11, root administrators are counted but not held back.
                let max = max.filter(|_| !root_admin);
                if add > 0 && max.is_some_and(|m| count.used.saturating_add(add) > m) {
                    return Err(self.short_domain(id, resource, max, count.used, add).await?);
                }
                plan.moves.push(Move { slot: (Of::Domain(id), kind), add, max, epoch: count.epoch });
            }
        }
        Ok(Some(plan))
    }

    pub(super) async fn owners_of(&self, account: &accounts::AccountRow, above: &[i64]) -> Result<Ceilings, ApiError> {
        let owners: Vec<Of> =
            std::iter::once(Of::Account(account.id)).chain(above.iter().map(|id| Of::Domain(*id))).collect();
        self.ceilings(&mut Source::Db(&self.node.db), &owners).await
    }

    async fn commit(&self, holder: &str, account: i64, plan: &Plan, reserver: &str) -> Result<(), Halt> {
        ::store::tx!(self.node.db, "reserve", |tx| {
            // Own rows first: who comes second with the same holder stops here.
            if !plan.fresh.is_empty() {
                store::hold(tx, holder, account, &plan.fresh, reserver).await?;
            }
            for (kind, old, new) in &plan.changed {
                if !store::hold_instead(tx, holder, *kind, *old, *new).await? {
                    return Err(Halt::Look);
                }
            }
            if !plan.moves.is_empty() && !store::apply(tx, &plan.moves).await? {
                return Err(Halt::Look);
            }
            Ok::<_, Halt>(())
        })
        .await
    }

    /// Gives back what `holder` is counted with: these types, or everything and for good when none is named.
    /// Asking again changes nothing. One commit.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn release(&self, holder: &str, only: &[Resource]) -> Result<(), ApiError> {
        for _ in 0..ATTEMPTS {
            let held = store::held(&self.node.db, holder).await?;
            let going: Vec<(i32, i64)> = held
                .amounts
                .iter()
                .filter(|(kind, _)| only.is_empty() || only.iter().any(|r| r.number() == **kind))
                .map(|(kind, amount)| (*kind, *amount))
                .collect();
            let for_good = only.is_empty() && !held.ended;
            if going.is_empty() && !for_good {
                return Ok(());
            }
            let moves = match held.account {
                Some(id) => self.moves_back(id, &going).await?,
                None => Vec::new(),
            };
            let done = ::store::tx!(self.node.db, "release", |tx| {
                if for_good {
                    store::end(tx, holder, held.account.unwrap_or(0)).await?;
                }
                if !going.is_empty() && !store::let_go(tx, holder, &going).await? {
                    return Err(Halt::Look);
                }
                if !moves.is_empty() && !store::apply(tx, &moves).await? {
                    return Err(Halt::Look);
                }
                Ok::<_, Halt>(())
            })
            .await;
            match done {
                Ok(()) => return Ok(()),
                Err(Halt::Failed(e)) => return Err(e),
                Err(Halt::Look) => tokio::task::yield_now().await,
            }
        }
        Err(ApiError::concurrent("The resource limits are being changed: try again"))
    }

    async fn moves_back(&self, account: i64, going: &[(i32, i64)]) -> Result<Vec<Move>, ApiError> {
        let Some(row) = accounts::find(&self.node.db, account).await? else {
            return Ok(Vec::new());
        };
        let above = chain(&row.domain_path);
        let ceilings = self.owners_of(&row, &above).await?;
        let owners = std::iter::once(Of::Account(account)).chain(above.into_iter().map(Of::Domain));
        let mut moves = Vec::new();
        for of in owners {
            for (kind, amount) in going.iter().filter(|(_, amount)| *amount > 0) {
                let count = Resource::of(*kind).and_then(|r| ceilings.count(of, r));
                if let Some(count) = count {
                    moves.push(Move { slot: (of, *kind), add: -amount, max: None, epoch: count.epoch });
                }
            }
        }
        Ok(moves)
    }

    pub(super) async fn short_domain(
        &self,
        id: i64,
        resource: Resource,
        max: Option<i64>,
        used: i64,
        add: i64,
    ) -> Result<ApiError, ApiError> {
        let domain = domains::find(&self.node.db, id).await?;
        let (uuid, name) = domain.map_or_else(Default::default, |d| (d.uuid, d.name_path));
        let error = ApiError::limit(format!(
            "Maximum number of resources of type '{}' for domain {name} has been exceeded: {}",
            resource.name(),
            figures(resource, max, used, add)
        ));
        Ok(error.with_entity(uuid, "domain"))
    }
}

pub(super) fn short_account(
    account: &accounts::AccountRow,
    resource: Resource,
    max: Option<i64>,
    used: i64,
    add: i64,
) -> ApiError {
    ApiError::limit(format!(
        "Maximum number of resources of type '{}' for account name={} has been exceeded: {}",
        resource.name(),
        account.name,
        figures(resource, max, used, add)
    ))
    .with_entity(&account.uuid, "account")
}

fn figures(resource: Resource, max: Option<i64>, used: i64, add: i64) -> String {
    let unit = match resource {
        Resource::Memory => " MiB",
        Resource::PrimaryStorage | Resource::SecondaryStorage => " bytes",
        _ => "",
    };
    format!("limit {}{unit}, in use {used}{unit}, wanted {add}{unit}", max.unwrap_or(-1))
}
