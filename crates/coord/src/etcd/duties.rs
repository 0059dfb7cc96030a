//! Elections: who creates the duty's key, on its lease, leads until the key is gone.

use super::session::{Session, Sessions};
use super::watch::{Ended, Watch, is_delete};
use super::wire::{Client, absent, has_value, nonce, pb, written_at};
use crate::CoordError;
use crate::backend::Leadership;
use pb::request_op::Request as Op;
use pb::response_op::Response as Answer;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// The value of a duty's key.
#[derive(Serialize, Deserialize)]
struct Holder {
    member: String,
    /// Tells this candidature from all others.
    nonce: String,
}

/// What a try to get the key came to.
enum Try {
    /// It is ours, written at this revision.
    Won(i64),
    /// Somebody else's; watch from this revision on.
    Held(i64),
}

/// Waits until the key is ours.
pub(crate) async fn campaign(
    client: &Client,
    sessions: &Sessions,
    key: String,
    candidate: &str,
) -> Result<Leadership, CoordError> {
    let holder = Holder { member: candidate.to_owned(), nonce: nonce() };
    let value = serde_json::to_vec(&holder).map_err(|e| CoordError::Config(e.to_string()))?;
    loop {
        let session = sessions.get().await?;
        match try_once(client, &session, &key, &value).await {
            Ok(Try::Won(revision)) => return Ok(hold(client.clone(), &session, key, revision)),
            Ok(Try::Held(revision)) => tokio::select! {
                biased;
                () = session.lost.cancelled() => {}
                _ = gone(client, &key, revision) => {}
            },
            Err(error) => {
                tracing::debug!(key, %error, "the election can't be held now");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Tries to create the key. The call runs on its own, so that a candidate who withdraws meanwhile leaves no key behind.
async fn try_once(client: &Client, session: &Arc<Session>, key: &str, value: &[u8]) -> Result<Try, CoordError> {
    let (sender, receiver) = oneshot::channel();
    let (client, session, key, value) = (client.clone(), session.clone(), key.to_owned(), value.to_vec());
    store::chance::spawn(async move {
        let tried = create(&client, &key, &value, session.lease).await;
        // A try that failed may have taken place, too.
        if let Err(Ok(Try::Won(_)) | Err(_)) = sender.send(tried) {
            session.delete_if(&client, &key, has_value(&key, value)).await;
        }
    });
    receiver.await.unwrap_or_else(|_| Err(CoordError::Unavailable("the election was cut off".into())))
}

async fn create(client: &Client, key: &str, value: &[u8], lease: i64) -> Result<Try, CoordError> {
    let put = pb::PutRequest { key: key.as_bytes().to_vec(), value: value.to_vec(), lease };
    let read = pb::RangeRequest { key: key.as_bytes().to_vec(), range_end: Vec::new() };
    let txn = pb::TxnRequest {
        compare: vec![absent(key)],
        success: vec![pb::RequestOp { request: Some(Op::RequestPut(put)) }],
        failure: vec![pb::RequestOp { request: Some(Op::RequestRange(read)) }],
    };
    let answer = client.txn(txn).await?;
    let revision = answer.header.map_or(0, |h| h.revision);
    if answer.succeeded {
        return Ok(Try::Won(revision));
    }
    let found = answer.responses.into_iter().find_map(|r| match r.response {
        Some(Answer::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    });
    Ok(match found {
        // An earlier try of ours took place although its answer was lost.
        Some(kv) if kv.value == value && kv.lease == lease => Try::Won(kv.mod_revision),
        _ => Try::Held(revision + 1),
    })
}

/// Returns when the key was deleted, or can't be watched from `revision` on.
async fn gone(client: &Client, key: &str, revision: i64) -> Result<(), Ended> {
    let mut watch = Watch::open(client, key, Vec::new(), revision).await?;
    loop {
        if watch.next().await?.events.iter().any(is_delete) {
            return Ok(());
        }
    }
}

fn hold(client: Client, session: &Arc<Session>, key: String, revision: i64) -> Leadership {
    let (lost, resign) = (session.lost.child_token(), CancellationToken::new());
    let session = session.clone();
    let leadership = Leadership::new(lost.clone(), resign.clone());
    store::chance::spawn(async move {
        tokio::select! {
            biased;
            () = lost.cancelled() => return, // the key goes with the lease
            () = deposed(&client, &key, revision) => {
                lost.cancel();
                return;
            }
            () = resign.cancelled() => lost.cancel(),
        }
        session.delete_if(&client, &key, written_at(&key, revision)).await;
    });
    leadership
}

/// Returns when the key is no longer the one that was written at `revision`.
async fn deposed(client: &Client, key: &str, revision: i64) {
    loop {
        if let Ok(found) = client.range(key.as_bytes(), Vec::new()).await {
            if found.kvs.first().map(|kv| kv.mod_revision) != Some(revision) {
                return;
            }
            let next = found.header.map_or(0, |h| h.revision) + 1;
            if gone(client, key, next).await.is_ok() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
