//! Which planner places a VM, and what it must know: read where the place is decided.

use super::VmWorld;
use crate::placement::{Algorithm, Limits, Mode, Planner, Private, Resource, Strategy, Wanted};
use crate::store::vms::VmRow;
use crate::store::{Reader, occupancy};
use config::{Settings, keys};
use contract::ApiError;
use store::{Db, Row, Sql, Tx, now_micros};

/// The planner of that name.
///
/// # Errors
/// 431 when there is none.
pub fn named(name: Option<&str>) -> Result<Option<Planner>, ApiError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    let found = Planner::named(name);
    found.map(Some).ok_or_else(|| ApiError::param(format!("Can't find a planner by name {name}")))
}

/// VMs that were stopped since this moment still count where they ran.
pub fn since(settings: &Settings) -> i64 {
    let seconds = settings.get(keys::CAPACITY_SKIPCOUNTING_HOURS).clamp(0, i64::from(i32::MAX));
    now_micros() - seconds * 1_000_000
}

/// The strategy for a VM. When it minds what else the account has, nobody else places a VM of the account until `tx` ends.
///
/// # Errors
/// Those of the database.
pub async fn in_turn(world: &VmWorld, tx: &mut Tx, vm: &VmRow, wanted: &Wanted) -> Result<Strategy, ApiError> {
    let strategy = begin(world, occupancy::planner_of(&mut *tx, vm.service_offering_id).await?, wanted);
    if minds_others(&strategy) {
        occupancy::turn(tx, wanted.account).await?;
    }
    know(strategy, Source::Tx(tx), vm, wanted).await
}

/// The same as of now, without waiting for others: for what is shown.
///
/// # Errors
/// Those of the database.
pub async fn as_of_now(world: &VmWorld, vm: &VmRow, wanted: &Wanted) -> Result<Strategy, ApiError> {
    let db = &world.node.db;
    let strategy = begin(world, occupancy::planner_of(db, vm.service_offering_id).await?, wanted);
    know(strategy, Source::Db(db), vm, wanted).await
}

/// Whether a VM of that offering has its host for its account only.
///
/// # Errors
/// Those of the database.
pub async fn is_strict(world: &VmWorld, tx: &mut Tx, vm: &VmRow) -> Result<bool, ApiError> {
    let (planner, mode) = occupancy::planner_of(&mut *tx, vm.service_offering_id).await?;
    let planner = planner.as_deref().and_then(Planner::named).unwrap_or_else(|| default_planner(&world.node.settings));
    Ok(planner == Planner::ImplicitDedication && Mode::parse(mode.as_deref()).unwrap_or_default() == Mode::Strict)
}

fn default_planner(settings: &Settings) -> Planner {
    Planner::named(settings.get(keys::VM_DEPLOYMENT_PLANNER).trim()).unwrap_or_default()
}

/// What was asked for comes first, then the offering's, then the setting's.
fn begin(world: &VmWorld, (planner, mode): (Option<String>, Option<String>), wanted: &Wanted) -> Strategy {
    let settings = &world.node.settings;
    let offered = planner.as_deref().and_then(Planner::named);
    let planner = wanted.planner.or(offered).unwrap_or_else(|| default_planner(settings));
    let bounded = planner != Planner::SkipHeuristics && settings.get(keys::CLUSTER_THRESHOLD_ENABLED);
    let aside = settings.get(keys::IMPLICIT_HOST_TAGS);
    Strategy {
        planner,
        mode: Mode::parse(mode.as_deref()).unwrap_or_default(),
        algorithm: Algorithm::parse(&settings.get(keys::VM_ALLOCATION_ALGORITHM)),
        resource: Resource::parse(&settings.get(keys::HOST_CAPACITY_TYPE_TO_ORDER_CLUSTERS)),
        limits: if bounded { Limits::Set(settings.clone()) } else { Limits::None },
        weight: settings.get(keys::VM_USER_DISPERSION_WEIGHT).clamp(0.0, 1.0),
        aside: aside.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        start: rand::random::<u32>() as usize,
        ..Strategy::default()
    }
}

fn minds_others(strategy: &Strategy) -> bool {
    strategy.planner.minds_others() || strategy.algorithm == Algorithm::UserDispersing
}

async fn know(
    mut strategy: Strategy,
    mut source: Source<'_>,
    vm: &VmRow,
    wanted: &Wanted,
) -> Result<Strategy, ApiError> {
    let (account, zone, since) = (wanted.account, wanted.zone, wanted.since);
    if minds_others(&strategy) {
        strategy.mine = occupancy::of_account(&mut source, account, zone, vm.id).await?;
    }
    if strategy.planner == Planner::ImplicitDedication {
        let own = occupancy::own(&mut source, account, vm.id, since).await?;
        let taken = occupancy::taken(&mut source, zone, vm.id, since).await?;
        strategy.private = Private { own, taken };
    }
    Ok(strategy)
}

/// Where it is read from.
enum Source<'s> {
    Db(&'s Db),
    Tx(&'s mut Tx),
}

impl Reader for &mut Source<'_> {
    async fn rows(self, sql: Sql) -> store::Result<Vec<Row>> {
        match self {
            Source::Db(db) => db.all(sql).await,
            Source::Tx(tx) => tx.all(sql).await,
        }
    }
}
