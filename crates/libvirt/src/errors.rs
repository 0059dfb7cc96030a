//! What can go wrong: the daemon's own errors, a lost connection, bytes that make no sense.

use crate::domain::DomainRef;
use crate::message::Lost;
use crate::wire::{Decode, Decoder, WireError};
use std::path::PathBuf;
use thiserror::Error;

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

codes! {
    /// libvirt's error numbers (`virErrorNumber`, `VIR_ERR_…`).
    pub struct ErrorCode {
        OK = 0, INTERNAL_ERROR = 1, NO_MEMORY = 2, NO_SUPPORT = 3, UNKNOWN_HOST = 4, NO_CONNECT = 5, INVALID_CONN = 6,
        INVALID_DOMAIN = 7, INVALID_ARG = 8, OPERATION_FAILED = 9, OS_TYPE = 16, NO_KERNEL = 17, NO_ROOT = 18, NO_SOURCE = 19,
        NO_TARGET = 20, NO_NAME = 21, NO_OS = 22, NO_DEVICE = 23, DRIVER_FULL = 25, CALL_FAILED = 26, XML_ERROR = 27,
        DOM_EXIST = 28, OPERATION_DENIED = 29, OPEN_FAILED = 30, READ_FAILED = 31, PARSE_FAILED = 32, CONF_SYNTAX = 33,
        WRITE_FAILED = 34, XML_DETAIL = 35, SYSTEM_ERROR = 38, RPC = 39, GNUTLS_ERROR = 40, NO_DOMAIN = 42, NO_NETWORK = 43,
        INVALID_MAC = 44, AUTH_FAILED = 45, NO_STORAGE_POOL = 49, NO_STORAGE_VOL = 50, OPERATION_INVALID = 55, NO_INTERFACE = 57,
        NO_SECRET = 66, CONFIG_UNSUPPORTED = 67, OPERATION_TIMEOUT = 68, MIGRATE_PERSIST_FAILED = 69, HOOK_SCRIPT_FAILED = 70,
        INVALID_DOMAIN_SNAPSHOT = 71, NO_DOMAIN_SNAPSHOT = 72, INVALID_STREAM = 73, ARGUMENT_UNSUPPORTED = 74,
        STORAGE_PROBE_FAILED = 75, SNAPSHOT_REVERT_RISKY = 77, OPERATION_ABORTED = 78, AUTH_CANCELLED = 79,
        NO_DOMAIN_METADATA = 80, MIGRATE_UNSAFE = 81, OVERFLOW = 82, BLOCK_COPY_ACTIVE = 83, OPERATION_UNSUPPORTED = 84, SSH = 85,
        AGENT_UNRESPONSIVE = 86, RESOURCE_BUSY = 87, ACCESS_DENIED = 88, DBUS_SERVICE = 89, CPU_INCOMPATIBLE = 91,
        XML_INVALID_SCHEMA = 92, MIGRATE_FINISH_OK = 93, AUTH_UNAVAILABLE = 94, AGENT_UNSYNCED = 97, DEVICE_MISSING = 99,
        NO_DOMAIN_CHECKPOINT = 103, NO_DOMAIN_BACKUP = 104, NO_HOSTNAME = 108, CHECKPOINT_INCONSISTENT = 109,
        MULTIPLE_DOMAINS = 110, AGENT_COMMAND_TIMEOUT = 112, AGENT_COMMAND_FAILED = 113,
    }

    /// Which part of libvirt an error comes from (`virErrorDomain`, `VIR_FROM_…`).
    pub struct ErrorSource {
        NONE = 0, XML = 5, RPC = 7, CONF = 9, QEMU = 10, NET = 11, REMOTE = 13, LXC = 17, STORAGE = 18, NETWORK = 19, DOMAIN = 20,
        SECURITY = 24, SECRET = 30, CPU = 31,
    }
}

/// An error that the daemon answered with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("libvirt: {message} ({code:?})")]
pub struct RemoteError {
    /// What kind.
    pub code: ErrorCode,
    /// Where in libvirt.
    pub source_part: ErrorSource,
    /// What libvirt says. For people: it changes between versions.
    pub message: String,
    /// 1 warning, 2 error.
    pub level: i32,
}

impl Decode for RemoteError {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (code, source_part, message, level) = <(ErrorCode, ErrorSource, Option<String>, i32)>::decode(from)?;
        // The rest has been kept for old clients only: a domain, three texts, two numbers, a network.
        let _domain = Option::<DomainRef>::decode(from)?;
        let _texts = <(Option<String>, Option<String>, Option<String>)>::decode(from)?;
        let _numbers = <(i32, i32)>::decode(from)?;
        if bool::decode(from)? {
            let _network = (from.string()?, from.uuid()?);
        }
        Ok(RemoteError { code, source_part, message: message.unwrap_or_default(), level })
    }
}

/// Why a call didn't succeed.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// Nobody listens on the socket, or it may not be opened.
    #[error("cannot connect to libvirt at {path}: {reason}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The daemon wants a login that this client can't do (SASL).
    #[error("libvirt wants an authentication that is not supported here: {0}")]
    Authentication(String),
    /// The connection is gone. **Whether the call was carried out is unknown**; connect again and look.
    #[error("the connection to libvirt is lost: {0}")]
    Lost(#[from] Lost),
    /// The daemon refused.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// An answer that isn't what the protocol says; the connection goes on.
    #[error("an answer of libvirt makes no sense: {0}")]
    Malformed(WireError),
    /// A value that can't be sent: text with NUL, or too long. Nothing was sent.
    #[error("cannot be sent to libvirt: {0}")]
    BadArgument(WireError),
    /// A stream brought more than the caller allows, or faster than it was read.
    #[error("a stream of libvirt brought more than {0} bytes")]
    TooMuch(usize),
}

impl Error {
    /// The daemon's error number, if it is the daemon's error.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Remote(e) => Some(e.code),
            _ => None,
        }
    }

    /// No such domain.
    pub fn is_no_domain(&self) -> bool {
        self.code() == Some(ErrorCode::NO_DOMAIN)
    }

    /// Nobody knows whether the call was carried out.
    pub fn is_lost(&self) -> bool {
        matches!(self, Error::Lost(_))
    }

    /// The domain isn't in the state that the call needs (already running, not running).
    pub fn is_wrong_state(&self) -> bool {
        self.code() == Some(ErrorCode::OPERATION_INVALID)
    }

    /// There is no such device.
    pub fn is_no_device(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::DEVICE_MISSING | ErrorCode::NO_DEVICE))
    }

    /// There is no such metadata.
    pub fn is_no_metadata(&self) -> bool {
        self.code() == Some(ErrorCode::NO_DOMAIN_METADATA)
    }

    /// The guest agent doesn't answer: not installed, not started yet, or hanging.
    pub fn is_agent_silent(&self) -> bool {
        matches!(
            self.code(),
            Some(ErrorCode::AGENT_UNRESPONSIVE | ErrorCode::AGENT_UNSYNCED | ErrorCode::AGENT_COMMAND_TIMEOUT)
        )
    }

    /// Somebody else's work on the domain is in the way: worth another try.
    pub fn is_busy(&self) -> bool {
        matches!(
            self.code(),
            Some(ErrorCode::OPERATION_TIMEOUT | ErrorCode::RESOURCE_BUSY | ErrorCode::BLOCK_COPY_ACTIVE)
        )
    }

    /// This libvirt or hypervisor can't do it.
    pub fn is_unsupported(&self) -> bool {
        let Error::Remote(e) = self else { return false };
        match e.code {
            ErrorCode::NO_SUPPORT
            | ErrorCode::OPERATION_UNSUPPORTED
            | ErrorCode::ARGUMENT_UNSUPPORTED
            | ErrorCode::CONFIG_UNSUPPORTED => true,
            // An older daemon, asked for a procedure that it doesn't know.
            ErrorCode::RPC => e.message.contains("unknown procedure"),
            _ => false,
        }
    }
}
