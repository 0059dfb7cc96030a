//! What volumes count against the limits of their owners, in identity. A volume's reservation is named by its UUID.

use crate::Storage;
use contract::ApiError;
use contract::api::Caller;
use contract_identity::limits_client::LimitsClient;
use contract_identity::{ReleaseRequest, ReserveRequest, ReserveResponse, ResourceAmount};
use futures::future::join_all;

/// Resource types (enums.json).
const VOLUME: i32 = 2;
const PRIMARY_STORAGE: i32 = 10;

/// The name of a volume's reservation.
pub fn key(volume_uuid: &str) -> String {
    format!("volume:{volume_uuid}")
}

/// Counts a new volume.
///
/// # Errors
/// 535 when a limit is reached.
pub async fn reserve(
    s: &Storage,
    caller: &Caller,
    volume_uuid: &str,
    account: i64,
    bytes: i64,
) -> Result<(), ApiError> {
    let request = ReserveRequest {
        reserver: s.node.replica.clone(),
        key: key(volume_uuid),
        account_id: account,
        items: vec![
            ResourceAmount { r#type: VOLUME, amount: 1 },
            ResourceAmount { r#type: PRIMARY_STORAGE, amount: bytes },
        ],
    };
    client(s).reserve(rpc::cx::repeatable(caller, request)).await?;
    Ok(())
}

/// Counts a volume with another size.
///
/// # Errors
/// 535 when a limit is reached.
pub async fn resize(
    s: &Storage,
    caller: &Caller,
    volume_uuid: &str,
    account: i64,
    bytes: i64,
) -> Result<ReserveResponse, ApiError> {
    let items = vec![ResourceAmount { r#type: PRIMARY_STORAGE, amount: bytes }];
    let request =
        ReserveRequest { key: key(volume_uuid), account_id: account, items, reserver: s.node.replica.clone() };
    Ok(client(s).reserve(rpc::cx::repeatable(caller, request)).await?.into_inner())
}

/// Gives back what volumes that are gone counted. What fails is left to identity, which gives reservations of holders that
/// don't exist back by itself.
pub async fn give_back(s: &Storage, caller: &Caller, volume_uuids: &[String]) {
    join_all(volume_uuids.iter().map(|uuid| async move {
        let request = ReleaseRequest { key: key(uuid), items: Vec::new() };
        if let Err(error) = client(s).release(rpc::cx::repeatable(caller, request)).await {
            tracing::warn!(volume = uuid, %error, "limits are given back later");
        }
    }))
    .await;
}

fn client(s: &Storage) -> LimitsClient<rpc::PeerChannel> {
    LimitsClient::new(s.node.peers.identity())
}
