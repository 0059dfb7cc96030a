//! Domains as answers show them.

use super::usage::{Usage, fill};
use crate::Identity;
use crate::limits::chain;
use crate::resource::Resource;
use crate::store::Source;
use crate::store::domains::{self as store, DomainRow};
use crate::store::limits::{self, Of};
use contract::ApiError;
use contract_identity::Domain;
use std::collections::{HashMap, HashSet};

/// How much of a domain is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Details {
    /// Names and place only.
    Min,
    /// Limits and totals too.
    All,
}

/// Domains, in the order given.
///
/// # Errors
/// Those of the database.
pub async fn domains(
    id: &Identity,
    from: &mut Source<'_>,
    rows: &[DomainRow],
    details: Details,
) -> Result<Vec<Domain>, ApiError> {
    let parents = store::of_ids(from, rows.iter().filter_map(|r| r.parent).collect()).await?;
    let with_children = store::with_children(from, rows.iter().map(|r| r.id).collect()).await?;
    let mut shown: Vec<Domain> = rows
        .iter()
        .map(|row| Domain {
            id: Some(row.uuid.clone()),
            name: Some(row.name.clone()),
            level: i32::try_from(row.level).ok(),
            parent_domain_id: row.parent.and_then(|p| parents.get(&p)).map(|p| p.uuid.clone()),
            parent_domain_name: row.parent.and_then(|p| parents.get(&p)).map(|p| p.name.clone()),
            has_child: Some(with_children.contains(&row.id)),
            network_domain: row.network_domain.clone(),
            path: Some(row.name_path.clone()),
            state: Some(row.state.clone()),
            ..Domain::default()
        })
        .collect();
    if details == Details::Min {
        return Ok(shown);
    }
    let all: HashSet<i64> = rows.iter().flat_map(|r| chain(&r.path)).collect();
    let owners: Vec<Of> = all.into_iter().map(Of::Domain).collect();
    let ceilings = id.limits.ceilings(from, &owners).await?;
    let totals = totals(from, rows).await?;
    for (row, domain) in rows.iter().zip(&mut shown) {
        let chain = chain(&row.path);
        let usage = |resource: Resource| Usage {
            resource,
            max: ceilings.domain(&chain, resource),
            used: totals.get(&(row.id, resource.number())).copied().unwrap_or(0),
        };
        fill!(*domain, usage);
    }
    Ok(shown)
}

/// What domains use, with all that is below them.
pub async fn totals(from: &mut Source<'_>, rows: &[DomainRow]) -> Result<HashMap<(i64, i32), i64>, ApiError> {
    // Only those that lie below no other: the rest is part of theirs.
    let mut paths: Vec<&str> = rows.iter().map(|r| r.path.as_str()).collect();
    paths.sort_unstable();
    paths.dedup_by(|below, above| below.starts_with(*above));
    let wanted: HashSet<i64> = rows.iter().map(|r| r.id).collect();
    let mut totals = HashMap::new();
    for (path, kind, used) in limits::sums(from, &paths).await? {
        for id in chain(&path).into_iter().filter(|id| wanted.contains(id)) {
            *totals.entry((id, kind)).or_insert(0) += used;
        }
    }
    Ok(totals)
}
