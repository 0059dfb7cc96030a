//! Logs, traces and metrics.
//!
//! * [`init`]: logs as text or JSON, and traces to an OTLP collector, once a process.
//! * [`propagate`]: a trace goes on across processes by the W3C `traceparent`.
//! * [`metrics`]: counters, gauges and histograms by name, and the routes that show them.

mod logs;
pub mod metrics;
pub mod propagate;
mod routes;

pub use logs::{Guard, LogFormat, Options, TelemetryError, init};
pub use routes::{Health, routes};

/// gRPC metadata that names the request in whose course a call is made.
pub const REQUEST_ID: &str = "arcus-request-id";
/// gRPC metadata that begins with the number of the job whose step a call is.
pub const JOB: &str = "arcus-job";
