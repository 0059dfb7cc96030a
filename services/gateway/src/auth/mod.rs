//! Who calls, and whether they may: signatures, sessions, roles, source addresses, rates.

mod authority;
mod fences;
mod principal;
mod roles;
mod sessions;
pub mod signature;
mod throttle;

pub use authority::{Authority, Login, TOPIC as IDENTITY_TOPIC};
pub use principal::Principal;
pub use roles::Decision;
pub use sessions::{NewSession, Session, Sessions, TOPIC as SESSIONS_TOPIC};
pub use throttle::Throttle;
