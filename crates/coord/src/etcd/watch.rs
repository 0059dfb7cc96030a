//! Watches of keys.

use super::wire::{Client, pb};
use crate::CoordError;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// A watch under way.
pub(crate) struct Watch {
    answers: tonic::Streaming<pb::WatchResponse>,
    /// Dropping it would end the watch.
    _requests: mpsc::Sender<pb::WatchRequest>,
}

/// Why a watch ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Revisions from before this one are gone.
    Compacted(i64),
    /// The connection broke, or the server ended it.
    Broken(CoordError),
}

/// What a watch saw.
pub(crate) struct Seen {
    /// All up to this revision has been seen; 0: no news of that.
    pub revision: i64,
    pub events: Vec<pb::Event>,
}

impl Watch {
    /// Watches from `revision` on.
    pub async fn open(client: &Client, key: &str, range_end: Vec<u8>, revision: i64) -> Result<Watch, Ended> {
        let (requests, stream) = mpsc::channel(1);
        let create = pb::WatchCreateRequest {
            key: key.as_bytes().to_vec(),
            range_end,
            start_revision: revision,
            progress_notify: true,
        };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The server answers the call itself only with its first message: the request must be there already.
        if requests.try_send(request).is_err() {
            return Err(Ended::Broken(CoordError::Unavailable("the watch ended at once".into())));
        }
        let opened = client.watch_client().watch(ReceiverStream::new(stream)).await;
        let answers = opened.map_err(|status| Ended::Broken(status.into()))?.into_inner();
        Ok(Watch { answers, _requests: requests })
    }

    /// The next events; none when only the revision went on.
    pub async fn next(&mut self) -> Result<Seen, Ended> {
        match self.answers.message().await {
            Ok(Some(answer)) if answer.compact_revision > 0 => Err(Ended::Compacted(answer.compact_revision)),
            Ok(Some(answer)) if answer.canceled => {
                Err(Ended::Broken(CoordError::Unavailable(format!("the watch was ended: {}", answer.cancel_reason))))
            }
            Ok(Some(answer)) => {
                // The header's revision runs ahead of events that are still to come, except on a progress notice.
                let revision = match answer.events.last().and_then(|e| e.kv.as_ref()) {
                    Some(kv) => kv.mod_revision,
                    None if answer.created => 0,
                    None => answer.header.map_or(0, |h| h.revision),
                };
                Ok(Seen { revision, events: answer.events })
            }
            Ok(None) => Err(Ended::Broken(CoordError::Unavailable("the watch's stream ended".into()))),
            Err(status) => Err(Ended::Broken(status.into())),
        }
    }
}

/// Whether the event says that its key is gone.
pub(crate) fn is_delete(event: &pb::Event) -> bool {
    event.r#type == i32::from(pb::event::EventType::Delete)
}
