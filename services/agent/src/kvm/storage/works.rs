//! Long work on images: orders come, listen for a while, and come again. There is one work for a place.

use contract::ApiError;
use contract_agent::ImageState;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longest time that an order listens.
const MOST: Duration = Duration::from_secs(600);

/// A store's URL and a path in it.
pub(super) type Place = (String, String);

/// Where work stands.
#[derive(Clone, Debug)]
enum Stand {
    Going(ImageState),
    Ended(Result<ImageState, ApiError>),
}

/// What is told while work goes on.
#[derive(Clone, Debug)]
pub(super) struct Reporter(watch::Sender<Stand>);

impl Reporter {
    pub fn tell(&self, state: ImageState) {
        self.0.send_replace(Stand::Going(state));
    }
}

#[derive(Debug)]
struct Work {
    /// What was ordered.
    what: String,
    stand: watch::Receiver<Stand>,
    stop: CancellationToken,
}

/// All long work of this host. Dropping it ends the work, and what is there stays to be gone on with.
#[derive(Debug, Default)]
pub(super) struct Works {
    table: Mutex<HashMap<Place, Arc<Work>>>,
    stop: CancellationToken,
}

impl Drop for Works {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Works {
    fn table(&self) -> MutexGuard<'_, HashMap<Place, Arc<Work>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens to the work on a place for `patience`, and starts it when there is none. `what` tells orders apart.
    ///
    /// # Errors
    /// The work's, once; 530, transient: other work goes on at the place.
    pub async fn listen<F>(
        &self,
        place: Place,
        what: String,
        patience: Duration,
        start: impl FnOnce(Reporter) -> F,
    ) -> Result<ImageState, ApiError>
    where
        F: Future<Output = Result<ImageState, ApiError>> + Send + 'static,
    {
        let work = self.join(&place, what, start)?;
        let mut stand = work.stand.clone();
        let ended = async {
            loop {
                if let Stand::Ended(result) = &*stand.borrow_and_update() {
                    return result.clone();
                }
                if stand.changed().await.is_err() {
                    return Err(ApiError::internal("work on an image ended without a word"));
                }
            }
        };
        match tokio::time::timeout(patience.min(MOST), ended).await {
            Ok(result) => {
                self.forget(&place, &work);
                result
            }
            Err(_) => match &*work.stand.borrow() {
                Stand::Going(state) => Ok(state.clone()),
                // In this very moment: the next order hears it.
                Stand::Ended(Ok(state)) => Ok(state.clone()),
                Stand::Ended(Err(error)) => Err(error.clone()),
            },
        }
    }

    fn join<F>(&self, place: &Place, what: String, start: impl FnOnce(Reporter) -> F) -> Result<Arc<Work>, ApiError>
    where
        F: Future<Output = Result<ImageState, ApiError>> + Send + 'static,
    {
        let mut table = self.table();
        if let Some(work) = table.get(place) {
            let (is_over, failed) = match &*work.stand.borrow() {
                Stand::Going(_) => (work.stand.has_changed().is_err(), true),
                Stand::Ended(result) => (true, result.is_err()),
            };
            // What failed is told once. What went well is looked up again: the image may have been removed since.
            if work.what == what && (failed || !is_over) {
                return Ok(work.clone());
            }
            if !is_over {
                return Err(ApiError::concurrent(format!("Other work goes on for the image {}", place.1)));
            }
        }
        let begun = ImageState { path: place.1.clone(), ..ImageState::default() };
        let (tell, stand) = watch::channel(Stand::Going(begun));
        let stop = self.stop.child_token();
        let work = Arc::new(Work { what, stand, stop: stop.clone() });
        let job = start(Reporter(tell.clone()));
        tokio::spawn(async move {
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => Err(ApiError::concurrent("The work on the image was ended")),
                result = job => result,
            };
            tell.send_replace(Stand::Ended(result));
        });
        table.insert(place.clone(), work.clone());
        Ok(work)
    }

    fn forget(&self, place: &Place, work: &Arc<Work>) {
        let mut table = self.table();
        if table.get(place).is_some_and(|known| Arc::ptr_eq(known, work)) {
            table.remove(place);
        }
    }

    /// Ends the work on a place, and waits until it has.
    pub async fn end(&self, place: &Place) {
        let work = self.table().remove(place);
        let Some(work) = work else { return };
        work.stop.cancel();
        let mut stand = work.stand.clone();
        // Its sender goes with it, whatever becomes of it.
        let _ = stand.wait_for(|stand| matches!(stand, Stand::Ended(_))).await;
    }
}
