//! What can go wrong in coordination.

/// An error of coordination.
#[derive(Debug, thiserror::Error)]
pub enum CoordError {
    /// etcd doesn't answer.
    #[error("etcd is not available: {0}")]
    Unavailable(String),
    /// The configuration can't work.
    #[error("coordination is set up wrongly: {0}")]
    Config(String),
}

impl From<CoordError> for contract::ApiError {
    fn from(e: CoordError) -> Self {
        match e {
            CoordError::Unavailable(_) => contract::ApiError::unavailable(e.to_string()),
            CoordError::Config(_) => contract::ApiError::internal(e.to_string()),
        }
    }
}
