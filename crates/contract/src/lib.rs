//! The vocabulary that all of Arcus shares: the messages of `arcus.api.v1`, the error type, and what a request of the
//! contract can say about itself. The other areas' crates are generated over this one.

pub mod api;
mod check;
pub mod descriptor;
mod error;
mod page;
mod request;
pub mod secret;

pub use api::{Access, Caller, Execution, Form, Ref, RoleType};
pub use check::{check, is_uuid, refs};
pub use error::{ApiError, INTERNAL_TEXT};
pub use page::Page;
pub use request::{CommandInfo, ParamInfo, RefParam, Request, Value, Values, WireType};
