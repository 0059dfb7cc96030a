//! The HTTP side: listeners, the query API, the plan endpoint, the integration port.

mod answer;
mod api;
mod exchange;
mod login;
mod server;

pub use server::{Limits, Listener, Port, serve};
