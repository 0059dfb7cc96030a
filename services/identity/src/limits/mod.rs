//! Resource limits: what accounts and domains may have, and what they are counted with.
//!
//! Invariant: an account's count is the sum of its holders' reservations, and the count of a domain that is counted is the
//! sum over the accounts below it. Both move with the reservation, in one commit.

mod ceilings;
mod reserve;
mod sweep;
mod transfer;

pub use ceilings::{Ceilings, chain};
pub use sweep::FRESH;

use crate::resource::{self, Resource};
use crate::store::holdings::Tables;
use crate::store::limits::{self as store, Of};
use crate::store::{Source, accounts, domains};
use ::store::Error;
use contract::ApiError;
use node::Node;

/// Limits and counts. Cheap to clone.
#[derive(Clone)]
pub struct Limits {
    node: Node,
    tables: Tables,
}

impl Limits {
    /// Over the tables that are there.
    pub fn new(node: Node, tables: Tables) -> Limits {
        Limits { node, tables }
    }

    /// The limits in force for some owners.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn ceilings(&self, from: &mut Source<'_>, owners: &[Of]) -> Result<Ceilings, ApiError> {
        Ok(Ceilings::new(store::figures(from, owners).await?, &self.node.settings))
    }

    /// Sets an account's limit, in counted units; below 0: none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_account(
        &self,
        tx: &mut ::store::Tx,
        account: i64,
        resource: Resource,
        max: i64,
    ) -> Result<(), ApiError> {
        Ok(store::set_limit(tx, (Of::Account(account), resource.number()), max).await?)
    }

    /// Sets a domain's limit, in counted units; below 0: none. From then on the domain is counted, or no longer.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_domain(
        &self,
        tx: &mut ::store::Tx,
        domain: &domains::DomainRow,
        resource: Resource,
        max: i64,
    ) -> Result<(), ApiError> {
        let kind = resource.number();
        store::set_limit(tx, (Of::Domain(domain.id), kind), max).await?;
        let counted = store::figures(&mut Source::Tx(tx), &[Of::Domain(domain.id)]).await?.counts;
        let counted = counted.contains_key(&(Of::Domain(domain.id), kind));
        if max >= 0 && !counted {
            // Accounts and domains that are being added below must not be overlooked.
            domains::touch_subtree(tx, &domain.path).await?;
            store::open_domain(tx, domain.id, &domain.path, kind).await?;
        } else if max < 0 && counted {
            store::close_domain(tx, domain.id, kind).await?;
        }
        Ok(())
    }

    /// Counts for a domain on which a limit from the settings has come to bear.
    async fn begin_counting(&self, id: i64, kind: i32) -> Result<(), ApiError> {
        let Some(domain) = domains::find(&self.node.db, id).await? else {
            return Err(ApiError::internal(format!("domain {id} has no row")));
        };
        let begun = ::store::tx!(self.node.db, "count-domain", |tx| {
            domains::touch_subtree(tx, &domain.path).await?;
            store::open_domain(tx, domain.id, &domain.path, kind).await
        })
        .await;
        match begun {
            Err(Error::Unique { .. }) => Ok(()), // another request was faster
            other => Ok(other?),
        }
    }

    /// Forgets an account that is being removed: what is still counted for it goes from the counts above, too.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_account(&self, tx: &mut ::store::Tx, account: &accounts::AccountRow) -> Result<(), ApiError> {
        store::forget(tx, Of::Account(account.id)).await?;
        for id in chain(&account.domain_path) {
            if let Some(domain) = domains::find(&mut *tx, id).await? {
                for kind in store::counted(tx, id).await? {
                    store::recount_domain(tx, id, &domain.path, kind).await?;
                }
            }
        }
        Ok(())
    }

    /// Gives back what holders are counted with that are gone, and counts the account again.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn recount_account(&self, account: &accounts::AccountRow, kinds: &[Resource]) -> Result<(), ApiError> {
        self.give_back_lost(Some(account.id), FRESH).await?;
        ::store::tx!(self.node.db, "recount-account", |tx| {
            for resource in kinds {
                store::recount_account(tx, account.id, resource.number()).await?;
            }
            Ok::<_, Error>(())
        })
        .await?;
        // An account's count that was put right changes the sums above it.
        for id in chain(&account.domain_path) {
            if let Some(domain) = domains::find(&self.node.db, id).await? {
                self.recount_domain_row(&domain, kinds).await?;
            }
        }
        Ok(())
    }

    /// Counts a domain's accounts and the domain again.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn recount_domain(&self, domain: &domains::DomainRow, kinds: &[Resource]) -> Result<(), ApiError> {
        for account in accounts::subtree(&mut Source::Db(&self.node.db), &domain.path).await? {
            self.recount_account(&account, kinds).await?;
        }
        self.recount_domain_row(domain, kinds).await
    }

    async fn recount_domain_row(&self, domain: &domains::DomainRow, kinds: &[Resource]) -> Result<(), ApiError> {
        ::store::tx!(self.node.db, "recount-domain", |tx| {
            for resource in kinds {
                store::recount_domain(tx, domain.id, &domain.path, resource.number()).await?;
            }
            Ok::<_, Error>(())
        })
        .await?;
        Ok(())
    }
}

/// All kinds of resources as numbers.
pub fn all_kinds() -> impl Iterator<Item = i32> {
    resource::ALL.into_iter().map(Resource::number)
}
