//! The lease of this process. Whether it is lost is decided by this process's own monotonic clock.

use super::wire::{Client, pb};
use crate::CoordError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Between tries to give a key up.
const RETRY: Duration = Duration::from_millis(200);

/// One lease, from its grant until it is lost.
#[derive(Debug)]
pub(crate) struct Session {
    pub lease: i64,
    pub lost: CancellationToken,
}

impl Session {
    /// Deletes `key` if `compare` holds, however long etcd takes to say that it has: a key that stayed would live as long
    /// as this process. Once the lease has ended, the key has gone with it.
    pub async fn delete_if(&self, client: &Client, key: &str, compare: pb::Compare) {
        let delete = async {
            while let Err(error) = client.delete_if(key, compare.clone()).await {
                tracing::debug!(key, %error, "can't be given up yet");
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            biased;
            () = self.lost.cancelled() => {}
            () = delete => {}
        }
    }
}

/// The present session, if there is one.
#[derive(Clone)]
pub(crate) struct Sessions {
    current: watch::Receiver<Option<Arc<Session>>>,
    patience: Duration,
}

impl Sessions {
    /// Gets the first lease, and keeps one from then on until `end`.
    pub async fn start(client: Client, ttl: Duration, end: CancellationToken) -> Result<Sessions, CoordError> {
        let (first, valid_until) = grant(&client, ttl).await?;
        let (sender, current) = watch::channel(Some(first.clone()));
        store::chance::spawn(keep(client, ttl, end, sender, first, valid_until));
        Ok(Sessions { current, patience: ttl })
    }

    /// The present session; waits for one.
    pub async fn get(&self) -> Result<Arc<Session>, CoordError> {
        let mut current = self.current.clone();
        match current.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(session)) => Ok(session.clone()),
            _ => Err(CoordError::Unavailable("coordination has ended".into())),
        }
    }

    /// How long a lease lasts, while there is none.
    pub fn missing(&self) -> Option<Duration> {
        self.current.borrow().is_none().then_some(self.patience)
    }

    /// As [`Sessions::get`], for at most one lease time.
    pub async fn get_soon(&self) -> Result<Arc<Session>, CoordError> {
        timeout(self.patience, self.get())
            .await
            .unwrap_or_else(|_| Err(CoordError::Unavailable("etcd gives no lease".into())))
    }
}

async fn grant(client: &Client, ttl: Duration) -> Result<(Arc<Session>, Instant), CoordError> {
    let sent = Instant::now();
    let granted = client.grant(ttl).await?;
    // The server may give more than was asked for; we count by the shorter one.
    let valid_until = sent + ttl.min(Duration::from_secs(granted.ttl.max(1).unsigned_abs()));
    Ok((Arc::new(Session { lease: granted.id, lost: CancellationToken::new() }), valid_until))
}

async fn keep(
    client: Client,
    ttl: Duration,
    end: CancellationToken,
    sender: watch::Sender<Option<Arc<Session>>>,
    first: Arc<Session>,
    first_valid_until: Instant,
) {
    let (mut session, mut valid_until) = (first, first_valid_until);
    loop {
        let ended = tokio::select! {
            biased;
            () = end.cancelled() => true,
            () = keep_alive(&client, session.lease, ttl, valid_until) => false,
        };
        sender.send_replace(None);
        session.lost.cancel();
        if ended {
            // Leaving in order: the others needn't wait for the lease to run out.
            let _ = client.revoke(session.lease).await;
            return;
        }
        tracing::warn!("the lease in etcd is lost: duties pause until there is a new one");
        (session, valid_until) = loop {
            let renewed = tokio::select! {
                biased;
                () = end.cancelled() => return,
                renewed = renew(&client, ttl) => renewed,
            };
            match renewed {
                Ok(granted) => break granted,
                Err(error) => {
                    tracing::debug!(%error, "no new lease yet");
                    crate::duty::pause(&end).await;
                }
            }
        };
        tracing::info!("there is a new lease in etcd");
        sender.send_replace(Some(session.clone()));
    }
}

async fn renew(client: &Client, ttl: Duration) -> Result<(Arc<Session>, Instant), CoordError> {
    client.authenticate().await?;
    grant(client, ttl).await
}

/// Returns when the lease is lost: the server says so, or it may have run out for all we know.
async fn keep_alive(client: &Client, lease: i64, ttl: Duration, mut valid_until: Instant) {
    let beat = ttl / 3;
    loop {
        let (requests, stream) = mpsc::channel(4);
        let sent = Instant::now();
        // The server answers the call itself only with its first message: the request must be there already.
        if requests.try_send(pb::LeaseKeepAliveRequest { id: lease }).is_err() {
            return;
        }
        let mut lessor = client.lease_client();
        let opened = timeout_at(valid_until, lessor.lease_keep_alive(ReceiverStream::new(stream))).await;
        let mut answers = match opened {
            Err(_) => return,
            Ok(Err(_)) => {
                if timeout_at(valid_until, tokio::time::sleep(beat / 4)).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(Ok(answers)) => answers.into_inner(),
        };
        let mut sent = sent;
        loop {
            match timeout_at(valid_until.min(sent + beat), answers.message()).await {
                Ok(Ok(Some(answer))) if answer.ttl <= 0 => return,
                Ok(Ok(Some(_))) => valid_until = sent + ttl,
                _ if Instant::now() >= valid_until => return,
                _ => break, // a new stream
            }
            tokio::time::sleep(beat).await;
            sent = Instant::now();
            if requests.try_send(pb::LeaseKeepAliveRequest { id: lease }).is_err() {
                break;
            }
        }
    }
}
