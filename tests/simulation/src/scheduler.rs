//! Which task goes on: one of those that can, as the seed says.
//!
//! All tasks of a run are here, not in tokio: tokio wakes the waiters of some channels in an order of its own dice.
//! What is left to tokio is time.

use crate::dice::Dice;
use crate::host::{Host, Within};
use crate::sim::lock;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::oneshot;

/// In which order tasks go on that can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Any.
    Random,
    /// The oldest task first.
    Oldest,
    /// The youngest task first.
    Youngest,
}

/// The tasks of a run.
pub struct Scheduler {
    order: Order,
    dice: Mutex<Dice>,
    tasks: Mutex<Tasks>,
    wakes: Arc<Mutex<Wakes>>,
}

#[derive(Default)]
struct Tasks {
    next: u64,
    all: BTreeMap<u64, Task>,
}

struct Task {
    host: Arc<Host>,
    /// None while it is polled.
    work: Option<BoxFuture<'static, ()>>,
    waker: Waker,
    done: Option<oneshot::Sender<()>>,
    held: bool,
}

#[derive(Default)]
struct Wakes {
    ready: BTreeSet<u64>,
    dispatcher: Option<Waker>,
}

struct Alarm {
    id: u64,
    wakes: Arc<Mutex<Wakes>>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut wakes = lock(&self.wakes);
        wakes.ready.insert(self.id);
        if let Some(dispatcher) = wakes.dispatcher.take() {
            drop(wakes);
            dispatcher.wake();
        }
    }
}

impl Scheduler {
    /// Without tasks.
    pub fn new(order: Order, dice: Dice) -> Scheduler {
        Scheduler { order, dice: Mutex::new(dice), tasks: Mutex::default(), wakes: Arc::default() }
    }

    /// Adds a task of `host`; the receiver tells when it has ended, however.
    pub fn add(&self, host: &Arc<Host>, work: BoxFuture<'static, ()>) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel();
        let id = {
            let mut tasks = lock(&self.tasks);
            tasks.next += 1;
            let id = tasks.next;
            let waker = Waker::from(Arc::new(Alarm { id, wakes: self.wakes.clone() }));
            let task = Task { host: host.clone(), work: Some(work), waker, done: Some(done), held: false };
            tasks.all.insert(id, task);
            id
        };
        Arc::new(Alarm { id, wakes: self.wakes.clone() }).wake();
        ended
    }

    /// Has the tasks of `host` looked at: it was killed, or goes on.
    pub fn stir(&self, host: &Host) {
        let found: Vec<Waker> = {
            let mut tasks = lock(&self.tasks);
            let dead = host.is_dead();
            let theirs = tasks.all.values_mut().filter(|t| t.host.number == host.number && (t.held || dead));
            theirs
                .map(|t| {
                    t.held = false;
                    t.waker.clone()
                })
                .collect()
        };
        found.into_iter().for_each(Waker::wake);
    }

    /// Lets tasks go on until none can.
    fn go(&self, cx: &mut Context<'_>) {
        loop {
            let id = {
                let mut wakes = lock(&self.wakes);
                let picked = match self.order {
                    Order::Oldest => wakes.ready.first().copied(),
                    Order::Youngest => wakes.ready.last().copied(),
                    Order::Random if wakes.ready.len() > 1 => {
                        let n = lock(&self.dice).within(0, wakes.ready.len() as u64);
                        wakes.ready.iter().nth(n as usize).copied()
                    }
                    Order::Random => wakes.ready.first().copied(),
                };
                let Some(id) = picked else {
                    wakes.dispatcher = Some(cx.waker().clone());
                    return;
                };
                wakes.ready.remove(&id);
                id
            };
            self.poll(id);
        }
    }

    fn poll(&self, id: u64) {
        let (host, mut work, waker) = {
            let mut tasks = lock(&self.tasks);
            let Some(task) = tasks.all.get_mut(&id) else { return };
            if task.host.is_paused() && !task.host.is_dead() {
                task.held = true;
                return;
            }
            let Some(work) = task.work.take() else { return };
            (task.host.clone(), work, task.waker.clone())
        };
        let _within = Within::new(&host);
        let ended = host.is_dead() || work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if ended {
            drop(work);
            let task = lock(&self.tasks).all.remove(&id);
            if let Some(done) = task.and_then(|t| t.done) {
                let _ = done.send(()); // nobody may care
            }
        } else if let Some(task) = lock(&self.tasks).all.get_mut(&id) {
            task.work = Some(work);
        }
    }

    /// Drops all tasks, and those that this makes.
    pub fn clear(&self) {
        loop {
            let Some((_, task)) = lock(&self.tasks).all.pop_first() else { return };
            let _within = Within::new(&task.host);
            drop(task);
        }
    }
}

/// Runs the tasks for as long as it is polled.
pub struct Dispatcher(pub Arc<Scheduler>);

impl Future for Dispatcher {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.go(cx);
        Poll::Pending
    }
}
