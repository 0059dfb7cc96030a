//! Virtual machines: what a deployment asks for ([`order`]), the jobs that carry VMs through their states ([`deploy`],
//! [`start`], [`stop`], [`reboot`], [`scale`], [`restore`], [`assign`], [`migrate`], [`destroy`], [`expunge`]), what answers show of them ([`view`]), and what looks after
//! them: [`sweep`] ends destroyed ones, [`power`] follows what hosts report, [`ha`] sees to those whose host died.
//!
//! While a job owns a VM (an exclusive claim on `vm/ID`) nothing else changes it. A VM in a transitional state always has
//! a job.

pub mod access;
pub mod approach;
pub mod assign;
pub mod boot;
mod debts;
pub mod deploy;
pub mod destroy;
pub mod expunge;
pub mod ha;
pub mod iso;
pub mod migrate;
pub mod name_cache;
pub mod names;
pub mod nic;
pub mod order;
pub mod plan;
pub mod power;
pub mod reboot;
mod reports;
pub mod restore;
pub mod scale;
pub mod start;
pub mod stop;
pub mod submit;
pub mod sweep;
pub mod update;
pub mod usage;
pub mod view;
mod world;

pub use world::VmWorld;

/// Makes an engine run the jobs of VMs.
pub fn register(builder: jobs::Builder, world: &std::sync::Arc<VmWorld>) -> jobs::Builder {
    builder
        .register::<deploy::Deploy>(world.clone())
        .register::<start::Start>(world.clone())
        .register::<stop::Stop>(world.clone())
        .register::<reboot::Reboot>(world.clone())
        .register::<migrate::Migrate>(world.clone())
        .register::<scale::Scale>(world.clone())
        .register::<restore::Restore>(world.clone())
        .register::<assign::Assign>(world.clone())
        .register::<destroy::Destroy>(world.clone())
        .register::<expunge::Expunge>(world.clone())
        .register::<access::Reset>(world.clone())
        .register::<access::Tell>(world.clone())
        .register::<crate::affinity::CreateGroup>(world.clone())
        .register::<crate::affinity::DeleteGroup>(world.clone())
        .register::<crate::affinity::JoinGroups>(world.clone())
        .register::<crate::dedication::Dedicate>(world.clone())
        .register::<crate::dedication::Release>(world.clone())
        .register::<nic::AddNic>(world.clone())
        .register::<iso::ChangeIso>(world.clone())
        .register::<nic::RemoveNic>(world.clone())
        .register::<nic::DefaultNic>(world.clone())
        .register::<power::PowerCheck>(world.clone())
        .register::<ha::lost::Lost>(world.clone())
        .register::<ha::restart::Restart>(world.clone())
}

/// Starts what looks after VMs in the background: following hosts' reports, expunging what was destroyed.
pub fn start(world: &VmWorld) {
    crate::dedication::start(world);
    let node = &world.node;
    node.spawn("vm-power", reports::follow(world.clone()));
    node.spawn("placement-index", crate::placement::follow(node.clone(), world.index.clone()));
    let sweeper = world.clone();
    node.duty("vm-sweep", move |term| sweep::run(sweeper.clone(), term));
    node.spawn("host-debts", debts::collect(world.clone()));
    let keeper = world.clone();
    node.duty("vm-ha", move |term| ha::run(keeper.clone(), term));
}

/// Expunges a destroyed VM without waiting for its delay.
///
/// # Errors
/// When another job owns it.
pub async fn expunge_now(world: &VmWorld, vm: i64) -> Result<(), contract::ApiError> {
    let row = deploy::row(world, vm).await?;
    sweep::expunge(world, &row, None).await
}

/// The claim that a job on a VM needs.
pub fn claim(vm: i64) -> jobs::Claim {
    jobs::Claim::Exclusive(format!("vm/{vm}"))
}

/// The claim of a job that uses a network without changing it.
pub fn network_claim(network: i64) -> jobs::Claim {
    jobs::Claim::Shared(format!("network/{network}"))
}

/// The claim of a job that adds to what an account owns.
pub fn account_claim(account: i64) -> jobs::Claim {
    jobs::Claim::Shared(format!("account/{account}"))
}
