//! Users as answers show them.

use crate::store::users::UserRow;
use contract_identity::User;

/// A user. `seen_from`: for lists, the caller's domain. The secret key is shown by getUserKeys only.
pub fn user(row: &UserRow, seen_from: Option<i64>) -> User {
    User {
        id: Some(row.uuid.clone()),
        username: Some(row.username.clone()),
        first_name: Some(row.first_name.clone()),
        last_name: Some(row.last_name.clone()),
        email: row.email.clone(),
        created: Some(row.created),
        state: Some(row.state.clone()),
        account: Some(row.account_name.clone()),
        account_type: Some(row.account_type),
        user_source: Some(row.source.clone()),
        role_id: Some(row.role_uuid.clone()),
        role_type: Some(row.role_type.clone()),
        role_name: Some(row.role_name.clone()),
        domain_id: Some(row.domain_uuid.clone()),
        domain: Some(row.domain_name.clone()),
        timezone: row.timezone.clone(),
        api_key: row.api_key.clone(),
        account_id: Some(row.account_uuid.clone()),
        is_caller_child_domain: Some(seen_from.is_some_and(|d| d != row.domain_id)),
        is_default: Some(row.is_default),
        ..User::default()
    }
}
