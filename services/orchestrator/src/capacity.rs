//! What zones, pods and clusters have, and how much of it is in use: a constant number of queries, then sums.

use crate::host::shown_percent;
use crate::store::capacity::{self as rows, Figure, Within, kind};
use crate::world::World;
use ::store::Db;
use contract::{ApiError, Page};
use contract_infra::{Capacity, ListCapacityRequest, ListCapacityResponse};
use model::names::Named;
use rpc::Cx;
use std::collections::{BTreeMap, HashMap};

/// The level at which figures are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Zone,
    Pod,
    Cluster,
}

const IN_ZONE: &[i32] = &[
    kind::MEMORY,
    kind::CPU,
    kind::STORAGE,
    kind::STORAGE_ALLOCATED,
    kind::PUBLIC_IP,
    kind::PRIVATE_IP,
    kind::SECONDARY_STORAGE,
    kind::VLAN,
    kind::DIRECT_IP,
    kind::LOCAL_STORAGE,
];
const IN_POD: &[i32] =
    &[kind::MEMORY, kind::CPU, kind::STORAGE, kind::STORAGE_ALLOCATED, kind::PRIVATE_IP, kind::LOCAL_STORAGE];
const IN_CLUSTER: &[i32] = &[kind::MEMORY, kind::CPU, kind::STORAGE, kind::STORAGE_ALLOCATED, kind::LOCAL_STORAGE];

/// Name of a type, as 4.11 writes it.
fn name(kind: i32) -> &'static str {
    match kind {
        kind::MEMORY => "MEMORY",
        kind::CPU => "CPU",
        kind::STORAGE => "STORAGE",
        kind::STORAGE_ALLOCATED => "STORAGE_ALLOCATED",
        kind::PUBLIC_IP => "VIRTUAL_NETWORK_PUBLIC_IP",
        kind::PRIVATE_IP => "PRIVATE_IP",
        kind::SECONDARY_STORAGE => "SECONDARY_STORAGE",
        kind::VLAN => "VLAN",
        kind::DIRECT_IP => "DIRECT_ATTACHED_PUBLIC_IP",
        kind::LOCAL_STORAGE => "LOCAL_STORAGE",
        _ => "UNKNOWN",
    }
}

/// How many VLANs "100-200,300-400" has.
fn vlan_count(text: &str) -> i64 {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
            Some(last.trim().parse::<i64>().ok()? - first.trim().parse::<i64>().ok()? + 1)
        })
        .filter(|n| *n > 0)
        .sum()
}

/// Lists capacity.
pub async fn list(world: &World, cx: &Cx, r: ListCapacityRequest) -> Result<ListCapacityResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let within = Within { zone: cx.refs.id("zoneid")?, pod: cx.refs.id("podid")?, cluster: cx.refs.id("clusterid")? };
    let level = match (within.cluster, within.pod) {
        (Some(_), _) => Level::Cluster,
        (None, Some(_)) => Level::Pod,
        (None, None) => Level::Zone,
    };
    let by_usage = match r.sort_by.as_deref().filter(|s| !s.is_empty()) {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("usage") => true,
        Some(word) => return Err(ApiError::param(format!("Only sortby=usage is supported, not {word}"))),
    };
    let db = &world.node.db;
    let mut summed = summed(db, within, level, r.r#type).await?;
    if let Some(keyword) = r.keyword.as_deref().filter(|k| !k.is_empty()) {
        let keyword = keyword.to_uppercase();
        summed.retain(|f| name(f.kind).contains(&keyword));
    }
    if by_usage {
        // Of the whole set, then cut into pages.
        summed.sort_by(|a, b| share(b).total_cmp(&share(a)));
    }
    let names = rows::places(db, &summed).await?;
    let count = i64::try_from(summed.len()).unwrap_or(i64::MAX);
    let capacity = cut(summed, page).iter().map(|f| message(f, &names)).collect();
    Ok(ListCapacityResponse { count: Some(count), capacity })
}

fn cut(figures: Vec<Figure>, page: Page) -> Vec<Figure> {
    let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let take = page.limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(usize::MAX));
    figures.into_iter().skip(skip).take(take).collect()
}

/// The capacities of zones, for lists of them.
pub async fn of_zones(db: &Db, ids: &[i64]) -> Result<HashMap<i64, Vec<Capacity>>, ApiError> {
    of(db, Level::Zone, ids, |f| Some(f.zone)).await
}

/// The capacities of pods, for lists of them.
pub async fn of_pods(db: &Db, ids: &[i64]) -> Result<HashMap<i64, Vec<Capacity>>, ApiError> {
    of(db, Level::Pod, ids, |f| f.pod).await
}

/// The capacities of clusters, for lists of them.
pub async fn of_clusters(db: &Db, ids: &[i64]) -> Result<HashMap<i64, Vec<Capacity>>, ApiError> {
    of(db, Level::Cluster, ids, |f| f.cluster).await
}

async fn of(
    db: &Db,
    level: Level,
    ids: &[i64],
    place: fn(&Figure) -> Option<i64>,
) -> Result<HashMap<i64, Vec<Capacity>>, ApiError> {
    let wanted: std::collections::HashSet<i64> = ids.iter().copied().collect();
    let mut figures = summed(db, Within::default(), level, None).await?;
    figures.retain(|f| place(f).is_some_and(|id| wanted.contains(&id)));
    let names = rows::places(db, &figures).await?;
    let mut found: HashMap<i64, Vec<Capacity>> = HashMap::new();
    for figure in &figures {
        if let Some(id) = place(figure) {
            found.entry(id).or_default().push(message(figure, &names));
        }
    }
    Ok(found)
}

/// All figures of a level, by place and type. A zone shows every type, even where it has nothing of it.
async fn summed(db: &Db, within: Within, level: Level, only: Option<i32>) -> Result<Vec<Figure>, ApiError> {
    let kinds = match level {
        Level::Zone => IN_ZONE,
        Level::Pod => IN_POD,
        Level::Cluster => IN_CLUSTER,
    };
    let wants = |some: &[i32]| some.iter().any(|k| kinds.contains(k) && only.is_none_or(|o| o == *k));
    let mut figures = Vec::new();
    if wants(&[kind::MEMORY, kind::CPU]) {
        figures.extend(rows::hosts(db, within).await?);
    }
    if wants(&[kind::STORAGE, kind::STORAGE_ALLOCATED, kind::LOCAL_STORAGE]) {
        figures.extend(rows::pools(db, within).await?);
    }
    if wants(&[kind::PUBLIC_IP]) {
        figures.extend(rows::public_ips(db, within).await?);
    }
    if wants(&[kind::PRIVATE_IP]) {
        figures.extend(rows::private_ips(db, within).await?);
    }
    if wants(&[kind::SECONDARY_STORAGE]) {
        figures.extend(rows::image_stores(db, within).await?);
    }
    if wants(&[kind::VLAN]) {
        figures.extend(rows::vlans(db, within, vlan_count).await?);
    }
    if wants(&[kind::DIRECT_IP]) {
        figures.extend(rows::direct_ips(db, within).await?);
    }
    if level == Level::Zone {
        for zone in rows::zones(db, within).await? {
            figures.extend(kinds.iter().map(|kind| Figure {
                kind: *kind,
                zone,
                pod: None,
                cluster: None,
                used: 0,
                total: 0,
            }));
        }
    }
    figures.retain(|f| kinds.contains(&f.kind) && only.is_none_or(|o| o == f.kind));
    Ok(sums(figures, level))
}

fn sums(figures: Vec<Figure>, level: Level) -> Vec<Figure> {
    let mut by_place: BTreeMap<(i64, Option<i64>, Option<i64>, i32), Figure> = BTreeMap::new();
    for mut figure in figures {
        match level {
            Level::Zone => (figure.pod, figure.cluster) = (None, None),
            Level::Pod if figure.pod.is_none() => continue,
            Level::Pod => figure.cluster = None,
            Level::Cluster if figure.cluster.is_none() => continue,
            Level::Cluster => {}
        }
        let key = (figure.zone, figure.pod, figure.cluster, figure.kind);
        let sum = by_place.entry(key).or_insert(Figure { used: 0, total: 0, ..figure });
        sum.used += figure.used;
        sum.total += figure.total;
    }
    by_place.into_values().collect()
}

#[allow(clippy::cast_precision_loss)] // capacities are far below 2^53
fn share(f: &Figure) -> f64 {
    if f.total > 0 { f.used as f64 / f.total as f64 } else { 0.0 }
}

fn message(f: &Figure, [zones, pods, clusters]: &[HashMap<i64, Named>; 3]) -> Capacity {
    let named = |names: &HashMap<i64, Named>, id: Option<i64>| {
        id.and_then(|id| names.get(&id)).map(|n| (n.uuid.clone(), n.name.clone())).unzip()
    };
    let (zone_id, zone_name) = named(zones, Some(f.zone));
    let (pod_id, pod_name) = named(pods, f.pod);
    let (cluster_id, cluster_name) = named(clusters, f.cluster);
    Capacity {
        r#type: Some(f.kind),
        name: Some(name(f.kind).to_owned()),
        zone_id,
        zone_name,
        pod_id,
        pod_name,
        cluster_id,
        cluster_name,
        capacity_allocated: Some(f.used),
        capacity_used: Some(f.used),
        capacity_total: Some(f.total),
        percent_used: Some(shown_percent(share(f))),
        ..Capacity::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vlans_are_counted() {
        assert_eq!(vlan_count("100-1500"), 1401);
        assert_eq!(vlan_count("100-200, 300-400,7"), 203);
        assert_eq!(vlan_count(""), 0);
        assert_eq!(vlan_count("9-3,x"), 0);
    }

    proptest! {
        /// Summing loses nothing, at whatever level.
        #[test]
        fn sums_are_whole(figures in prop::collection::vec((0i32..3, 1i64..3, 1i64..4, 1i64..5, 0i64..1000, 0i64..1000), 0..40)) {
            let figures: Vec<Figure> = figures
                .into_iter()
                .map(|(kind, zone, pod, cluster, used, total)| Figure { kind, zone, pod: Some(pod), cluster: Some(cluster), used, total })
                .collect();
            let whole: i64 = figures.iter().map(|f| f.total - f.used).sum();
            for level in [Level::Zone, Level::Pod, Level::Cluster] {
                let summed = sums(figures.clone(), level);
                prop_assert_eq!(summed.iter().map(|f| f.total - f.used).sum::<i64>(), whole);
            }
        }
    }
}
