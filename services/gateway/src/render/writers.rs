//! Large answers, written by threads of their own: a task that writes for milliseconds holds up all others at each of their
//! steps, however small those are.

use std::sync::Arc;

use bytes::Bytes;
use contract::ApiError;
use tokio::sync::Semaphore;

use super::Style;
use crate::catalogue::{Catalogue, Entry};
use crate::gates::cores;

/// Messages up to this size are written at once: that takes about as long as to hand them over.
const SMALL: usize = 16 * 1024;

/// Who writes answers.
pub struct Writers {
    catalogue: Arc<Catalogue>,
    /// One for each core: more would only make each of them slower.
    places: Arc<Semaphore>,
}

impl Writers {
    /// Writers of answers of this contract.
    pub fn new(catalogue: Arc<Catalogue>) -> Writers {
        Writers { catalogue, places: Arc::new(Semaphore::new(cores())) }
    }

    /// The text of a command's answer, or of its plan.
    ///
    /// # Errors
    /// 530 when the message isn't what the contract says.
    pub async fn write(&self, entry: &Entry, plan: bool, message: Bytes, style: Style) -> Result<String, ApiError> {
        if message.len() <= SMALL {
            return text(&self.catalogue, entry, plan, &message, style);
        }
        // It is never closed.
        let place = self.places.clone().acquire_owned().await.ok();
        let (catalogue, index) = (self.catalogue.clone(), entry.index);
        let written = tokio::task::spawn_blocking(move || {
            let _place = place;
            let entry = catalogue.entries().get(index).ok_or_else(|| ApiError::internal("no such command"))?;
            text(&catalogue, entry, plan, &message, style)
        });
        written.await.map_err(|e| ApiError::internal(format!("an answer wasn't written: {e}")))?
    }
}

fn text(catalogue: &Catalogue, entry: &Entry, plan: bool, message: &[u8], style: Style) -> Result<String, ApiError> {
    match &entry.plan {
        Some(call) if plan => super::plan(catalogue, entry, call.result, message, style),
        _ => super::answer(catalogue, entry, message, style),
    }
}
