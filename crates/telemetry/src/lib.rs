//! Logs, traces and metrics.
//!
//! * [`init`]: logs as text or JSON, and traces to an OTLP collector, once a process.
//! * [`propagate`]: a trace goes on across processes by the W3C `traceparent`.
//! * [`metrics`]: counters, gauges and histograms by name, and the routes that show them.
//! * [`request_span!`], [`job_span!`]: spans whose fields every log line below them carries.

mod logs;
pub mod metrics;
pub mod propagate;
mod routes;

pub use logs::{Guard, LogFormat, Options, TelemetryError, init};
pub use routes::{Health, routes};

/// The span of one request: `request_span!(caller.request_id, caller.command)`.
#[macro_export]
macro_rules! request_span {
    ($request_id:expr, $command:expr) => {
        ::tracing::info_span!("request", request_id = %$request_id, command = %$command)
    };
}

/// The span of one run of a job: `job_span!(job_id, kind)`.
#[macro_export]
macro_rules! job_span {
    ($job_id:expr, $kind:expr) => {
        ::tracing::info_span!("job", job_id = %$job_id, kind = %$kind)
    };
}
