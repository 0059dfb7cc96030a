//! Consoles: an order to the host, and the stream that its agent then opens, brought together.

use crate::link::Link;
use crate::metrics;
use contract::ApiError;
use contract_agent::TunnelData;
use futures::{Stream, StreamExt as _, stream};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tunnel::{QUEUE, relay};

/// Consoles of one VM at a time.
const OF_A_VM: usize = 8;
/// How long a host may take to open a console.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The two ways of an open console. It ends when either is dropped, and when [`Console::ended`] fires.
pub struct Console {
    /// What comes from the host; ends with the console.
    pub from_host: mpsc::Receiver<TunnelData>,
    /// What goes to it; holds [`tunnel::QUEUE`] messages.
    pub to_host: mpsc::Sender<TunnelData>,
    /// Fires when it ends.
    pub ended: CancellationToken,
}

/// Tunnels that agents were ordered to open, and consoles that are open.
#[derive(Default)]
pub(crate) struct Tunnels(Mutex<State>);

#[derive(Default)]
struct State {
    /// By the tunnel's id: which agent may open it, and who waits for it.
    awaited: HashMap<String, Awaited>,
    open: HashMap<String, usize>,
}

struct Awaited {
    agent: String,
    come: oneshot::Sender<Come>,
}

/// What an agent's stream gives.
pub(crate) struct Come {
    from_host: Streaming<TunnelData>,
    to_host: mpsc::Sender<TunnelData>,
}

/// A VM's console is counted until this is dropped.
pub(crate) struct Place {
    tunnels: Arc<Tunnels>,
    vm: String,
}

/// A tunnel that was ordered; forgotten when dropped.
pub(crate) struct Ordered {
    tunnels: Arc<Tunnels>,
    /// What the agent must name.
    pub id: String,
    come: oneshot::Receiver<Come>,
}

impl Tunnels {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for one more console of this VM.
    ///
    /// # Errors
    /// 530 when it has as many as it may.
    pub fn place(self: &Arc<Self>, vm: &str) -> Result<Place, ApiError> {
        let mut state = self.state();
        let open = state.open.entry(vm.to_owned()).or_default();
        if *open >= OF_A_VM {
            return Err(ApiError::failed(format!(
                "{OF_A_VM} consoles of this virtual machine are open, and there can't be more: close one of them"
            )));
        }
        *open += 1;
        metrics::consoles(state.open.values().sum());
        Ok(Place { tunnels: self.clone(), vm: vm.to_owned() })
    }

    /// Prepares for the stream of this agent.
    pub fn order(self: &Arc<Self>, agent: &str) -> Ordered {
        // 128 bits of a cryptographic generator: nobody guesses them.
        let id = format!("{:032x}", rand::random::<u128>());
        let (send, come) = oneshot::channel();
        self.state().awaited.insert(id.clone(), Awaited { agent: agent.to_owned(), come: send });
        Ordered { tunnels: self.clone(), id, come }
    }

    /// Takes the stream of an agent that names a tunnel; gives what goes to the host.
    ///
    /// # Errors
    /// When nobody waits for that tunnel, or not for one of this agent. `agent`: none for parts of this process.
    pub fn come(
        &self,
        agent: Option<&str>,
        id: &str,
        from_host: Streaming<TunnelData>,
    ) -> Result<mpsc::Receiver<TunnelData>, Status> {
        let refused = || Status::permission_denied("nobody waits for such a tunnel");
        let awaited = {
            let mut state = self.state();
            let mine = |awaited: &Awaited| agent.is_none_or(|agent| agent == awaited.agent);
            match state.awaited.get(id).is_some_and(mine) {
                true => state.awaited.remove(id),
                false => None,
            }
        };
        let (to_host, messages) = mpsc::channel(QUEUE);
        let awaited = awaited.ok_or_else(refused)?;
        awaited.come.send(Come { from_host, to_host }).map_err(|_| refused())?;
        Ok(messages)
    }
}

impl Ordered {
    /// The agent's stream, when it comes in time.
    ///
    /// # Errors
    /// 534 when it doesn't.
    pub async fn come(mut self) -> Result<Come, ApiError> {
        let late = || ApiError::unavailable("the host was ordered to open a console, and its stream didn't come");
        tokio::time::timeout(PATIENCE, &mut self.come).await.map_err(|_| late())?.map_err(|_| late())
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        self.tunnels.state().awaited.remove(&self.id);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.tunnels.state();
        if let Some(open) = state.open.get_mut(&self.vm) {
            *open -= 1;
            if *open == 0 {
                state.open.remove(&self.vm);
            }
        }
        metrics::consoles(state.open.values().sum());
    }
}

impl Come {
    /// Makes it a console that ends with the line, too.
    pub fn console(self, link: Arc<Link>, place: Place) -> Console {
        let console = joined(self.from_host, self.to_host);
        let ended = console.ended.clone();
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = link.closed() => ended.cancel(),
                () = ended.cancelled() => {}
            }
        });
        console
    }
}

/// A console whose host's messages come by this stream, and go to that channel. Nothing waits here for anybody.
pub(crate) fn joined(
    from_host: impl Stream<Item = Result<TunnelData, Status>> + Send + 'static,
    to_host: mpsc::Sender<TunnelData>,
) -> Console {
    let ended = CancellationToken::new();
    let (passed, messages) = mpsc::channel(QUEUE);
    let (to_pass, mut sent) = mpsc::channel(QUEUE);
    let end = ended.clone();
    tokio::spawn(async move {
        let _ends = end.clone().drop_guard();
        tokio::select! {
            () = end.cancelled() => {}
            () = relay(from_host, passed) => {}
        }
    });
    let end = ended.clone();
    tokio::spawn(async move {
        let _ends = end.clone().drop_guard();
        let sent = stream::poll_fn(move |cx| sent.poll_recv(cx)).map(Ok);
        tokio::select! {
            () = end.cancelled() => {}
            () = relay(sent, to_host) => {}
        }
    });
    Console { from_host: messages, to_host: to_pass, ended }
}
