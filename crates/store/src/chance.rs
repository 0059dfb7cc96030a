//! Where the wall clock, random bits and tasks come from: the system.
//!
//! Under the feature `simulation` a thread can be given a [`World`] instead, so that a run can be repeated exactly. What
//! else the program does must then depend on nothing but these, tokio's clock, and the order of tasks.

#[cfg(feature = "simulation")]
pub use simulated::{World, enter};

/// Wall-clock time as the database keeps it: microseconds since 1970 UTC.
pub fn now_micros() -> i64 {
    #[cfg(feature = "simulation")]
    if let Some(now) = simulated::with(|w| w.now_micros()) {
        return now;
    }
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

/// Random bits under simulation. None: ask the system.
#[inline]
pub fn simulated_bits() -> Option<u128> {
    #[cfg(feature = "simulation")]
    return simulated::with(|w| w.bits());
    #[cfg(not(feature = "simulation"))]
    None
}

/// Whether the simulation has switched the safeguard `name` off, to see that it finds out. Never in production.
#[inline]
pub fn is_broken(name: &str) -> bool {
    #[cfg(feature = "simulation")]
    return simulated::with(|w| w.is_broken(name)).unwrap_or(false);
    #[cfg(not(feature = "simulation"))]
    {
        let _ = name;
        false
    }
}

/// A task of the process that is being run: under simulation, of the simulated process, which may die or stand still.
#[cfg(not(feature = "simulation"))]
pub fn placed<F: Future<Output = ()> + Send + 'static>(work: F) -> F {
    work
}

/// A task of the process that is being run: under simulation, of the simulated process, which may die or stand still.
#[cfg(feature = "simulation")]
pub fn placed(work: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
    use futures::future::{Either, FutureExt as _};
    if simulated::is_entered() {
        let work = work.boxed();
        // Without a world there is nothing that could have taken the task.
        Either::Left(simulated::with(|w| w.place(work)).unwrap_or_else(|| std::future::pending().boxed()))
    } else {
        Either::Right(work)
    }
}

/// Spawns a task of this process.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(placed(work))
}

#[cfg(feature = "simulation")]
mod simulated {
    use futures::future::BoxFuture;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// What a simulated process gets instead of the system's.
    pub trait World {
        /// The wall clock.
        fn now_micros(&self) -> i64;
        /// The next random bits.
        fn bits(&self) -> u128;
        /// A task as one of the simulated process that is being run.
        fn place(&self, work: BoxFuture<'static, ()>) -> BoxFuture<'static, ()>;
        /// Whether a safeguard is switched off.
        fn is_broken(&self, name: &str) -> bool;
    }

    thread_local! {
        static WORLD: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
    }

    /// Gives this thread a world, or takes it away.
    pub fn enter(world: Option<Rc<dyn World>>) {
        WORLD.with(|w| *w.borrow_mut() = world);
    }

    pub(super) fn is_entered() -> bool {
        WORLD.with(|w| w.borrow().is_some())
    }

    pub(super) fn with<T>(f: impl FnOnce(&dyn World) -> T) -> Option<T> {
        let world = WORLD.with(|w| w.borrow().clone());
        world.map(|w| f(w.as_ref()))
    }
}
