//! Logs and the export of traces.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::io::IsTerminal as _;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, with the fields of all enclosing spans.
    Json,
}

/// What [`init`] sets up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Name of the service in traces.
    pub service: String,
    /// Form of the log.
    pub format: LogFormat,
    /// What is logged ("info,store=debug"); `ARCUS_LOG` overrides it.
    pub filter: Option<String>,
    /// URL of an OTLP collector (gRPC); none: traces stay here.
    pub otlp: Option<String>,
}

/// Why telemetry can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter can't be read.
    #[error("the log filter {0:?} can't be read: {1}")]
    Filter(String, String),
    /// The exporter can't be set up.
    #[error("traces can't be exported: {0}")]
    Export(String),
    /// Something else in this process has set logging up before.
    #[error("logging is set up already")]
    Twice,
}

/// Sends what is left when it is dropped: keep it until the end of the process.
#[derive(Debug)]
#[must_use = "traces that are under way are lost without it"]
pub struct Guard(Option<SdkTracerProvider>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take()
            && let Err(error) = provider.shutdown()
        {
            tracing::debug!(%error, "the last traces could not be sent");
        }
    }
}

/// Sets logging, and the export of traces, up for this process.
///
/// # Errors
/// A filter that can't be read, an exporter that can't be built, or a second call.
pub fn init(options: &Options) -> Result<Guard, TelemetryError> {
    let directives =
        std::env::var("ARCUS_LOG").ok().or_else(|| options.filter.clone()).unwrap_or_else(|| "info".into());
    let filter = EnvFilter::try_new(&directives).map_err(|e| TelemetryError::Filter(directives, e.to_string()))?;
    let provider = options.otlp.as_deref().map(|url| export(&options.service, url)).transpose()?;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let traces = provider.as_ref().map(|p| tracing_opentelemetry::layer().with_tracer(p.tracer("arcus")));
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match options.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(traces)
        .with(lines)
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    Ok(Guard(provider))
}

fn export(service: &str, url: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(url)
        .build()
        .map_err(|e| TelemetryError::Export(e.to_string()))?;
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}
