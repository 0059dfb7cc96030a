//! The tags that hosts carry, as answers show them.

use crate::store::hosts as rows;
use crate::world::World;
use contract::ApiError;
use contract_infra::{HostTag, ListHostTagsRequest, ListHostTagsResponse};

/// Lists the tags of all hosts: an entry for each tag of each host, as in 4.11. One query.
///
/// # Errors
/// 431 when `page` and `pagesize` don't fit together.
pub async fn list(world: &World, r: ListHostTagsRequest) -> Result<ListHostTagsResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let keyword = r.keyword.map(|k| k.to_lowercase()).filter(|k| !k.is_empty());
    let carried = rows::tags(&world.node.db).await?;
    let all: Vec<(i64, &str)> = carried
        .iter()
        .flat_map(|(host, tags)| tags.split(',').map(move |tag| (*host, tag)))
        .filter(|(_, tag)| !tag.is_empty() && keyword.as_ref().is_none_or(|k| tag.to_lowercase().contains(k)))
        .collect();
    let count = i64::try_from(all.len()).unwrap_or(i64::MAX);
    let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let take = page.limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(usize::MAX));
    // A tag has no id in 4.11 either.
    let shown =
        |(host, tag): (i64, &str)| HostTag { host_id: Some(host), name: Some(tag.to_owned()), ..HostTag::default() };
    Ok(ListHostTagsResponse {
        count: Some(count),
        host_tag: all.into_iter().skip(skip).take(take).map(shown).collect(),
    })
}
