//! What hosts are told of an image store.

use crate::Storage;
use crate::store::images::{self, Site};
use contract::ApiError;
use contract_agent::ImageStore;
use std::collections::{BTreeMap, HashMap};

/// Seals what only hosts may know of a store.
///
/// # Errors
/// Never for texts.
pub fn seal(s: &Storage, store_uuid: &str, details: &BTreeMap<String, String>) -> Result<Option<String>, ApiError> {
    if details.is_empty() {
        return Ok(None);
    }
    let plain = serde_json::to_vec(details).map_err(|e| ApiError::internal(format!("details of a store: {e}")))?;
    Ok(Some(s.node.vault.seal(&context(store_uuid), &plain)))
}

/// A store as an order names it.
///
/// # Errors
/// 530 when its details can't be opened.
pub fn open(s: &Storage, site: &Site) -> Result<ImageStore, ApiError> {
    let details: HashMap<String, String> = match &site.details_sealed {
        None => HashMap::new(),
        Some(sealed) => {
            let plain = s.node.vault.open_sealed(&context(&site.uuid), sealed)?;
            serde_json::from_slice(&plain)
                .map_err(|e| ApiError::internal(format!("the details of image store {}: {e}", site.uuid)))?
        }
    };
    Ok(ImageStore { uuid: site.uuid.clone(), url: site.url.clone(), details })
}

/// The living store with this number, as an order names it; none when it is gone.
///
/// # Errors
/// 530 when its details can't be opened; those of the database.
pub async fn find(s: &Storage, store: i64) -> Result<Option<ImageStore>, ApiError> {
    match images::site(&s.node.db, store).await? {
        Some(site) => open(s, &site).map(Some),
        None => Ok(None),
    }
}

/// Where the details stand: they open only for their own store.
fn context(store_uuid: &str) -> String {
    format!("image_stores.details_sealed:{store_uuid}")
}
