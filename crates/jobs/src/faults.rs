//! Faults at named points, for the harness. In production there are none and nothing is counted.

use contract::ApiError;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The step, call, undo or commit fails there.
    Fail,
    /// The process dies there.
    Kill,
}

/// Which points were passed, and what is to happen at which; each fault happens once.
#[derive(Debug, Default)]
pub struct Faults {
    planned: Mutex<BTreeMap<String, Fault>>,
    trace: Mutex<Vec<String>>,
    killed: CancellationToken,
}

impl Faults {
    /// Faults to come.
    pub fn planned(faults: impl IntoIterator<Item = (String, Fault)>) -> Faults {
        Faults { planned: Mutex::new(faults.into_iter().collect()), ..Faults::default() }
    }

    /// The points passed so far, in order.
    pub fn trace(&self) -> Vec<String> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Planned faults that have not happened.
    pub fn left(&self) -> BTreeMap<String, Fault> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a [`Fault::Kill`] has happened.
    pub async fn killed(&self) {
        self.killed.cancelled().await;
    }

    pub(crate) fn kill_token(&self) -> CancellationToken {
        self.killed.clone()
    }

    /// Passes a point.
    pub(crate) async fn pass(&self, point: &str) -> Result<(), ApiError> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).push(point.to_owned());
        let fault = self.planned.lock().unwrap_or_else(PoisonError::into_inner).remove(point);
        match fault {
            None => Ok(()),
            Some(Fault::Fail) => Err(ApiError::failed(format!("fault: {point}"))),
            Some(Fault::Kill) => {
                self.killed.cancel();
                std::future::pending().await
            }
        }
    }
}
