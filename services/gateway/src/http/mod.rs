//! The HTTP side: listeners, the query API, the plan endpoint, the integration port.

mod answer;
mod api;
mod connections;
mod exchange;
mod login;
mod room;
mod server;
mod stalls;
mod turns;

pub use answer::{Answer, Content, retry_after};
pub use connections::serve;
pub use exchange::{Exchange, KEY_NAME};
pub use room::{Place, Room};
pub use server::{Limits, Listener, Port};
