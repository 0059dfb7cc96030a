//! What the contract says when something with files, images or downloads goes wrong.

use contract::ApiError;
use images::{DownloadError, Error, ToolError};
use std::io::ErrorKind;

/// The system refuses something with a file of ours.
pub(super) fn io_error(error: std::io::Error) -> ApiError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            ApiError::failed("There is no room left on the storage: free some and try again")
        }
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            ApiError::failed(format!("The host may not write to the storage: {error}"))
        }
        _ => ApiError::unavailable(format!("The storage doesn't do what it should: {error}")),
    }
}

/// Work on an image in a pool failed.
pub(super) fn image_error(error: Error) -> ApiError {
    match error {
        Error::Refused { refusal, .. } => ApiError::param(format!("The image is refused: {refusal}")),
        Error::Damaged { corruptions, .. } => ApiError::param(format!("The image is damaged: {corruptions} faults")),
        Error::Shrink { now, wanted, .. } => {
            ApiError::param(format!("A disk of {now} bytes can't be made smaller ({wanted} bytes)"))
        }
        Error::Size(bytes) => ApiError::param(format!("A disk can't have {bytes} bytes")),
        Error::Name(name) => ApiError::param(format!("{name:?} can't be the name of an image")),
        Error::OtherFolder(_) => ApiError::internal(error.to_string()),
        Error::Tool(error) => tool_error(error),
        Error::Io { reason, .. } => io_error(reason),
    }
}

fn tool_error(error: ToolError) -> ApiError {
    match error {
        ToolError::Missing(program) => ApiError::failed(format!("The host has no program {program}: install it")),
        // QEMU's words for a file that another process has open.
        ToolError::Failed { ref said, .. } if said.contains(" lock") => {
            ApiError::concurrent("The disk is in use on a host").with_internal(error.to_string())
        }
        ToolError::Failed { ref said, .. } if said.contains("No space left") => io_error(ErrorKind::StorageFull.into()),
        error => ApiError::internal(error.to_string()),
    }
}

/// An image from outside failed: what a tool can't do with it is the image's fault.
pub(super) fn foreign_error(error: Error) -> ApiError {
    match error {
        Error::Tool(ToolError::Failed { said, .. }) if !said.contains("No space left") => {
            ApiError::param("The image can't be read: it is damaged").with_internal(said)
        }
        Error::Tool(
            error @ (ToolError::Nonsense { .. }
            | ToolError::Flood { .. }
            | ToolError::Deadline { .. }
            | ToolError::Signal { .. }),
        ) => {
            ApiError::param("The image can't be read: it takes more than an image may").with_internal(error.to_string())
        }
        error => image_error(error),
    }
}

/// A download gave nothing.
pub(super) fn download_error(error: DownloadError) -> ApiError {
    match error {
        DownloadError::Broken { .. } => ApiError::concurrent(format!("The download failed: {error}")),
        DownloadError::Client(_) => ApiError::internal(error.to_string()),
        DownloadError::File(error) => image_error(error),
        DownloadError::Url
        | DownloadError::Redirect(_)
        | DownloadError::Forbidden(_)
        | DownloadError::Status(_)
        | DownloadError::TooLarge { .. }
        | DownloadError::Encoding
        | DownloadError::Checksum { .. } => ApiError::param(format!("The download failed: {error}")),
    }
}
