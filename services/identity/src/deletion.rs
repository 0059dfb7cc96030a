//! Jobs that remove accounts and domains.
//!
//! First nobody may add anything any more (the account is disabled, the domain inactive: committed and told), then what is
//! owned is given up ([`crate::clearing`]), then everything of identity's goes in one commit. A job that finds something left
//! opens up again; what has gone by then is gone.

use crate::Identity;
use crate::clearing::{clear, holdings_left};
use crate::notify::{self, Changed};
use crate::store::accounts::AccountRow;
use crate::store::limits::{self, Of};
use crate::store::{Source, accounts, domains, holdings, users};
use ::store::Tx;
use contract::ApiError;
use contract::api::Success;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How shutting out is taken back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Undo {
    /// The account gets this state again.
    Account(String),
    /// The domain and those below it are in use again.
    Domain,
}

/// Removes an account with its users and keys, and all that it owns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeleteAccount {
    /// The account.
    pub account: i64,
    /// Its state when the job was accepted.
    pub state: String,
}

impl Job for DeleteAccount {
    const KIND: &'static str = "account.delete";
    type World = Identity;
    type Undo = Undo;

    async fn run(self, world: Arc<Identity>, ctx: Ctx) -> Result<Finished, ApiError> {
        let undo = Undo::Account(self.state.clone());
        jobs::step!(ctx, "shut-out", undo: undo, |tx| {
            if !accounts::set_state(tx, self.account, "disabled").await? {
                return Err(ApiError::param("The account has been removed already"));
            }
            accounts::set_cleanup_needed(tx, self.account, true).await?;
            notify::after(tx, &world.node.coord, Changed::Account(self.account));
            Ok(())
        })
        .await?;
        let account = world.account_row(self.account).await?;
        let whose = format!("account {}", account.name);
        ctx.idle(clear(&world, &[account.id], &whose)).await?;
        nothing_left(&world, &[account.id], &whose).await?;
        jobs::finish!(ctx, |tx| {
            remove_account(&world, tx, &account).await?;
            Ok(success())
        })
        .await
    }

    async fn undo(self, world: Arc<Identity>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        jobs::undo_step!(cx, |tx| {
            if let Undo::Account(state) = &undo {
                accounts::set_state(tx, self.account, state).await?;
                accounts::set_cleanup_needed(tx, self.account, false).await?;
                notify::after(tx, &world.node.coord, Changed::Account(self.account));
            }
            Ok(())
        })
        .await
    }

    async fn abort(self, _: Arc<Identity>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Removes a domain; with `cleanup`, the accounts and domains in it too.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeleteDomain {
    /// The domain.
    pub domain: i64,
    /// Whether what is in it goes too.
    pub cleanup: bool,
}

impl Job for DeleteDomain {
    const KIND: &'static str = "domain.delete";
    type World = Identity;
    type Undo = Undo;

    async fn run(self, world: Arc<Identity>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        let domain = world.domain(self.domain).await?;
        jobs::step!(ctx, "shut-out", undo: Undo::Domain, |tx| {
            domains::set_state(tx, &domain.path, domains::INACTIVE).await?;
            told(&world, tx, &domain.path).await
        })
        .await?;
        let below = domains::subtree(&mut Source::Db(db), &domain.path).await?;
        let inside = accounts::subtree(&mut Source::Db(db), &domain.path).await?;
        if !self.cleanup && (below.len() > 1 || !inside.is_empty()) {
            return Err(ApiError::failed(format!(
                "Can't delete the domain {} because it has {} accounts and {} subdomains: delete them first, or give cleanup=true",
                domain.name,
                inside.len(),
                below.len() - 1
            )));
        }
        let ids: Vec<i64> = inside.iter().map(|a| a.id).collect();
        let whose = format!("domain {}", domain.name);
        ctx.idle(clear(&world, &ids, &whose)).await?;
        nothing_left(&world, &ids, &whose).await?;
        jobs::finish!(ctx, |tx| {
            for account in accounts::subtree(&mut Source::Tx(tx), &domain.path).await? {
                remove_account(&world, tx, &account).await?;
            }
            // The deepest first.
            for gone in &below {
                limits::forget(tx, Of::Domain(gone.id)).await?;
                domains::remove(tx, gone.id).await?;
                notify::after(tx, &world.node.coord, Changed::Domain(gone.id));
            }
            Ok(success())
        })
        .await
    }

    async fn undo(self, world: Arc<Identity>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let path = domains::find(&world.node.db, self.domain).await?.map(|d| d.path);
        jobs::undo_step!(cx, |tx| {
            if let (Undo::Domain, Some(path)) = (&undo, &path) {
                domains::set_state(tx, path, domains::ACTIVE).await?;
                told(&world, tx, path).await?;
            }
            Ok(())
        })
        .await
    }

    async fn abort(self, _: Arc<Identity>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

async fn told(world: &Identity, tx: &mut Tx, path: &str) -> Result<(), ApiError> {
    for domain in domains::subtree(&mut Source::Tx(tx), path).await? {
        notify::after(tx, &world.node.coord, Changed::Domain(domain.id));
    }
    Ok(())
}

async fn nothing_left(world: &Identity, accounts: &[i64], whose: &str) -> Result<(), ApiError> {
    let left = holdings::of_accounts(&world.node.db, &world.tables, accounts).await?;
    if left.is_empty() { Ok(()) } else { Err(holdings_left(&left, whose, None)) }
}

async fn remove_account(world: &Identity, tx: &mut Tx, account: &AccountRow) -> Result<(), ApiError> {
    for user in users::of_accounts(&mut Source::Tx(tx), vec![account.id]).await? {
        users::remove(tx, user.id).await?;
        notify::after(tx, &world.node.coord, Changed::User(user.id));
    }
    // What the account was counted with above it: nothing is left that holds it.
    world.limits.forget_account(tx, account).await?;
    accounts::remove(tx, account.id).await?;
    notify::after(tx, &world.node.coord, Changed::Account(account.id));
    Ok(())
}

fn success() -> Success {
    Success { success: true, display_text: None }
}
