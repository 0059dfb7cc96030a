//! What volumes, templates and snapshots count against the limits of their owners, in identity. A reservation is named by the UUID of
//! what it is for.

use crate::Storage;
use crate::store::copies::{self, Wanted};
use crate::store::template_writes;
use contract::ApiError;
use contract::api::Caller;
use contract_identity::limits_client::LimitsClient;
use contract_identity::{ReleaseRequest, ReserveRequest, ReserveResponse, ResourceAmount};
use futures::future::join_all;

/// Resource types (enums.json).
const VOLUME: i32 = 2;
const SNAPSHOT: i32 = 3;
const TEMPLATE: i32 = 4;
const PRIMARY_STORAGE: i32 = 10;
const SECONDARY_STORAGE: i32 = 11;

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
    join_all(volume_uuids.iter().map(|uuid| release(s, caller, key(uuid)))).await;
}

async fn release(s: &Storage, caller: &Caller, key: String) {
    let request = ReleaseRequest { key: key.clone(), items: Vec::new() };
    if let Err(error) = client(s).release(rpc::cx::repeatable(caller, request)).await {
        tracing::warn!(reservation = key, %error, "limits are given back later");
    }
}

/// One more of `kind`, with `bytes` on secondary storage.
async fn reserve_image(
    s: &Storage,
    caller: &Caller,
    key: String,
    kind: i32,
    account: i64,
    bytes: i64,
) -> Result<ReserveResponse, ApiError> {
    let one = ResourceAmount { r#type: kind, amount: 1 };
    let items = vec![one, ResourceAmount { r#type: SECONDARY_STORAGE, amount: bytes }];
    let request = ReserveRequest { reserver: s.node.replica.clone(), key, account_id: account, items };
    Ok(client(s).reserve(rpc::cx::repeatable(caller, request)).await?.into_inner())
}

/// The name of a template's reservation.
pub fn template_key(uuid: &str) -> String {
    format!("template:{uuid}")
}

/// Counts a template whose copies have `bytes` in all: one template, however many copies.
///
/// # Errors
/// 535 when a limit is reached.
pub async fn reserve_template(
    s: &Storage,
    caller: &Caller,
    uuid: &str,
    account: i64,
    bytes: i64,
) -> Result<ReserveResponse, ApiError> {
    reserve_image(s, caller, template_key(uuid), TEMPLATE, account, bytes).await
}

/// Counts what the rows of a template's copies say.
///
/// # Errors
/// 535 when a limit is reached.
pub async fn recount_template(s: &Storage, caller: &Caller, w: &Wanted) -> Result<(), ApiError> {
    loop {
        let bytes = copies::held(&s.node.db, w.copy.template_id, None).await?;
        match reserve_template(s, caller, &w.uuid, w.owner.account_id, bytes).await {
            // Everything was given back: the template was deleted meanwhile.
            Err(error)
                if error.code == 530 && template_writes::find(&s.node.db, w.copy.template_id).await?.is_none() =>
            {
                return Ok(());
            }
            counted => counted?,
        };
        // Another copy may have changed meanwhile, and been counted before: the last one to count sees all.
        if copies::held(&s.node.db, w.copy.template_id, None).await? == bytes {
            return Ok(());
        }
    }
}

/// Gives back what a template counted. What fails is left to identity, as for volumes.
pub async fn give_back_template(s: &Storage, caller: &Caller, uuid: &str) {
    release(s, caller, template_key(uuid)).await;
}

/// The name of a snapshot's reservation.
pub fn snapshot_key(uuid: &str) -> String {
    format!("snapshot:{uuid}")
}

/// Counts a snapshot of `bytes`.
///
/// # Errors
/// 535 when a limit is reached.
pub async fn reserve_snapshot(
    s: &Storage,
    caller: &Caller,
    uuid: &str,
    account: i64,
    bytes: i64,
) -> Result<ReserveResponse, ApiError> {
    reserve_image(s, caller, snapshot_key(uuid), SNAPSHOT, account, bytes).await
}

/// Gives back what a snapshot counted. What fails is left to identity, as for volumes.
pub async fn give_back_snapshot(s: &Storage, caller: &Caller, uuid: &str) {
    release(s, caller, snapshot_key(uuid)).await;
}

fn client(s: &Storage) -> LimitsClient<rpc::PeerChannel> {
    LimitsClient::new(s.node.peers.identity())
}
