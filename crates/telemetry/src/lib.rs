//! Logs, traces, metrics
