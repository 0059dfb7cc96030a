//! Accounts as answers show them.

use super::usage::{Usage, fill};
use super::user;
use crate::Identity;
use crate::resource::Resource;
use crate::store::accounts::AccountRow;
use crate::store::limits::Of;
use crate::store::{Source, accounts as store, holdings, roles, users};
use contract::ApiError;
use contract_identity::Account;
use std::collections::HashMap;

/// Accounts, in the order given: with users, limits, totals.
///
/// # Errors
/// Those of the database.
pub async fn accounts(id: &Identity, from: &mut Source<'_>, rows: &[AccountRow]) -> Result<Vec<Account>, ApiError> {
    let ids: Vec<i64> = rows.iter().map(|r| r.id).collect();
    let owners: Vec<Of> = ids.iter().map(|id| Of::Account(*id)).collect();
    let ceilings = id.limits.ceilings(from, &owners).await?;
    let domains = crate::store::domains::of_ids(from, rows.iter().map(|r| r.domain_id).collect()).await?;
    let roles = roles::of_ids(from, rows.iter().map(|r| r.role_id).collect()).await?;
    let details = store::details(from, ids.clone()).await?;
    let vms = holdings::vms_by_state(from, &id.tables, ids.clone()).await?;
    let mut users_of: HashMap<i64, Vec<_>> = HashMap::new();
    for row in users::of_accounts(from, ids).await? {
        users_of.entry(row.account_id).or_default().push(user(&row, None));
    }
    let shown = rows.iter().map(|row| {
        let role = roles.get(&row.role_id);
        let domain = domains.get(&row.domain_id);
        let (stopped, running) = vms.get(&row.id).copied().unwrap_or_default();
        let mut account = Account {
            id: Some(row.uuid.clone()),
            name: Some(row.name.clone()),
            account_type: Some(row.kind),
            role_id: role.map(|r| r.uuid.clone()),
            role_type: role.map(|r| r.kind.clone()),
            role_name: role.map(|r| r.name.clone()),
            domain_id: domain.map(|d| d.uuid.clone()),
            domain: domain.map(|d| d.name.clone()),
            vm_stopped: Some(stopped),
            vm_running: Some(running),
            state: Some(row.state.clone()),
            is_cleanup_required: row.cleanup_needed.then_some(true),
            user: users_of.remove(&row.id).unwrap_or_default(),
            network_domain: row.network_domain.clone(),
            account_details: details.get(&row.id).cloned().unwrap_or_default().into_iter().collect(),
            is_default: Some(row.is_default),
            ..Account::default()
        };
        let usage = |resource: Resource| Usage {
            resource,
            max: ceilings.account(row.id, row.kind == 1, resource),
            used: ceilings.count(Of::Account(row.id), resource).map_or(0, |c| c.used),
        };
        fill!(account, usage);
        account
    });
    Ok(shown.collect())
}
