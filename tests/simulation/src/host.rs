//! Simulated processes: their tasks go on only while they live and aren't paused, and their links may be cut.

use crate::scheduler::Scheduler;
use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Host>>> = const { RefCell::new(None) };
}

/// The process whose task is being run.
pub fn current() -> Option<Arc<Host>> {
    CURRENT.with(|c| c.borrow().clone())
}

/// A connection that can be cut.
#[derive(Debug)]
pub struct Link(watch::Sender<bool>);

impl Link {
    fn new() -> Link {
        Link(watch::channel(false).0)
    }

    /// Cuts or joins it.
    pub fn set(&self, cut: bool) {
        self.0.send_replace(cut);
    }

    /// Whether it is cut.
    pub fn is_cut(&self) -> bool {
        *self.0.borrow()
    }

    /// Whether it is this very link.
    pub fn is(&self, other: &Link) -> bool {
        std::ptr::eq(self, other)
    }

    /// Waits while it is cut; gives whether it was joined within `patience`.
    pub async fn joined(&self, patience: Duration) -> bool {
        let mut state = self.0.subscribe();
        if !*state.borrow_and_update() {
            return true;
        }
        let joined = state.wait_for(|cut| !*cut);
        tokio::time::timeout(patience, joined).await.is_ok()
    }

    /// Waits until it has been cut for `patience` on end.
    pub async fn lost(&self, patience: Duration) {
        let mut state = self.0.subscribe();
        loop {
            if state.wait_for(|cut| *cut).await.is_err() {
                return std::future::pending().await;
            }
            if tokio::time::timeout(patience, state.wait_for(|cut| !*cut)).await.is_err() {
                return;
            }
        }
    }
}

/// One incarnation of a process.
pub struct Host {
    /// Its name, which no other incarnation has.
    pub name: String,
    /// Its number.
    pub number: u64,
    /// To the database.
    pub database: Link,
    /// To etcd.
    pub etcd: Link,
    /// To the others.
    pub network: Link,
    scheduler: Arc<Scheduler>,
    dead: AtomicBool,
    paused: AtomicBool,
}

impl Host {
    /// A process that runs.
    pub fn new(scheduler: &Arc<Scheduler>, name: String, number: u64) -> Arc<Host> {
        Arc::new(Host {
            name,
            number,
            database: Link::new(),
            etcd: Link::new(),
            network: Link::new(),
            scheduler: scheduler.clone(),
            dead: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        })
    }

    /// Kills it: none of its tasks does anything any more.
    pub fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.scheduler.stir(self);
    }

    /// Stops its tasks where they are, or lets them go on.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
        self.scheduler.stir(self);
    }

    /// Whether it was killed.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Whether it stands still.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Starts `work` as a task of the process.
    pub fn spawn(self: &Arc<Host>, work: impl Future<Output = ()> + Send + 'static) -> oneshot::Receiver<()> {
        self.scheduler.add(self, Box::pin(work))
    }
}

/// The current process is another one until dropped.
pub(crate) struct Within(Option<Arc<Host>>);

impl Within {
    pub(crate) fn new(host: &Arc<Host>) -> Within {
        Within(CURRENT.with(|c| c.borrow_mut().replace(host.clone())))
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        let before = self.0.take();
        CURRENT.with(|c| *c.borrow_mut() = before);
    }
}
