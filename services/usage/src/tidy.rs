//! Archiving and deleting events and alerts: by ids, by type, by dates; what the caller may see, and nothing else.

use crate::store::events::{self as rows, Tidied};
use contract::ApiError;
use contract::api::{Caller, Success};
use events::{ALERT_TYPES, alert_number};
use model::{ListScope, ScopeRequest};
use node::Node;

/// Which entries a command names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// These; empty: whichever fit the rest.
    pub ids: Vec<i64>,
    /// Of this type.
    pub kind: Option<String>,
    /// No earlier than this, UTC µs.
    pub from: Option<i64>,
    /// No later than this, UTC µs: whole seconds, all of the last one included.
    pub until: Option<i64>,
}

impl Wish {
    /// Refuses what says nothing (4.11).
    fn check(&self) -> Result<(), ApiError> {
        if self.ids.is_empty() && self.kind.is_none() && self.until.is_none() {
            return Err(ApiError::param("either ids, type or enddate must be specified"));
        }
        if self.from.is_some() && self.until.is_none() {
            return Err(ApiError::param("enddate must be specified with startdate parameter"));
        }
        Ok(())
    }

    fn filter(self, types: Option<Vec<String>>, not_types: Vec<&'static str>) -> rows::Wanted {
        let until = self.until.map(|t| t.saturating_add(999_999));
        rows::Wanted { ids: self.ids, types, not_types, from: self.from, until }
    }
}

/// Archives or deletes events that `caller` may see. Alerts are left alone unless their ids or their type are given: they
/// have commands of their own.
///
/// # Errors
/// 431 when nothing is named; 530, and nothing is changed, when one of the ids isn't the caller's or is archived.
pub(crate) async fn events(node: &Node, caller: &Caller, wish: Wish, how: Tidied) -> Result<Success, ApiError> {
    wish.check()?;
    let asked = ScopeRequest { account: None, domain: None, list_all: true, recursive: true, by_id: true };
    let scope = ListScope::of(&node.db, caller, &asked).await?;
    let spared = if wish.ids.is_empty() && wish.kind.is_none() { ALERT_TYPES.to_vec() } else { Vec::new() };
    let types = wish.kind.as_deref().map(|k| vec![k.to_uppercase()]);
    run(node, caller, Some(&scope), wish.filter(types, spared), how, "Events").await
}

/// Archives or deletes alerts. `type` is the number of a type, or its name.
///
/// # Errors
/// 431 when nothing is named, or a type that there isn't; 530, and nothing is changed, when one of the ids is no alert that
/// lists show.
pub(crate) async fn alerts(node: &Node, caller: &Caller, wish: Wish, how: Tidied) -> Result<Success, ApiError> {
    wish.check()?;
    let types = match wish.kind.as_deref() {
        None => ALERT_TYPES.iter().map(|t| (*t).to_owned()).collect(),
        Some(word) => vec![alert_type(word)?],
    };
    run(node, caller, None, wish.filter(Some(types), Vec::new()), how, "Alerts").await
}

fn alert_type(word: &str) -> Result<String, ApiError> {
    let word = word.trim();
    let by_number = word.parse::<usize>().ok().and_then(|n| ALERT_TYPES.get(n).copied());
    let named = word.to_uppercase();
    match by_number {
        Some(name) => Ok(name.to_owned()),
        None if alert_number(&named).is_some() => Ok(named),
        None => Err(ApiError::param(format!("{word} is no type of alerts"))),
    }
}

async fn run(
    node: &Node,
    caller: &Caller,
    scope: Option<&ListScope>,
    wanted: rows::Wanted,
    how: Tidied,
    what: &str,
) -> Result<Success, ApiError> {
    jobs::mutate!(node.db, caller, "tidy-events", |tx| {
        let done = rows::tidy(tx, scope, &wanted, how).await?;
        if done < wanted.distinct_ids() {
            let verb = if how == Tidied::Archived { "archive" } else { "delete" };
            return Err(ApiError::failed(format!(
                "Unable to {verb} {what}, one or more parameters has invalid values"
            )));
        }
        Ok(Success { success: true, display_text: None })
    })
    .await
}
