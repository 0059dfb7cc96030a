//! A trace across processes: the W3C `traceparent` in gRPC metadata and HTTP headers.
//!
//! All of this does nothing, at next to no cost, while no traces are exported.

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{AsciiMetadataKey, MetadataMap};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Puts the present span into the metadata of an outgoing call.
pub fn inject(metadata: &mut MetadataMap) {
    let context = tracing::Span::current().context();
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(&context, &mut Outgoing(metadata));
    }
}

/// Makes `span` go on with the trace that an incoming call's metadata carries.
pub fn follow(span: &tracing::Span, metadata: &MetadataMap) {
    if metadata.contains_key("traceparent") {
        adopt(span, &Incoming(metadata));
    }
}

/// As [`follow`], for HTTP headers.
pub fn follow_headers(span: &tracing::Span, headers: &http::HeaderMap) {
    if headers.contains_key("traceparent") {
        adopt(span, &Headers(headers));
    }
}

/// The span of an incoming gRPC call, for `Server::trace_fn`: goes on with the caller's trace, and puts the request's id
/// and, for calls of a job's step, the job's number into every log line of the handler.
pub fn call_span<B>(request: &http::Request<B>) -> tracing::Span {
    let text = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    let span = tracing::info_span!(
        "call",
        path = request.uri().path(),
        request_id = text(crate::REQUEST_ID),
        job_id = text(crate::JOB).and_then(|key| key.split('.').next()),
    );
    follow_headers(&span, request.headers());
    span
}

fn adopt(span: &tracing::Span, carrier: &dyn Extractor) {
    let parent: Context = TraceContextPropagator::new().extract(carrier);
    if parent.span().span_context().is_valid() {
        // Fails only where no layer exports traces, and then nobody follows them.
        let _ = span.set_parent(parent);
    }
}

struct Outgoing<'m>(&'m mut MetadataMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (AsciiMetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

struct Incoming<'m>(&'m MetadataMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new() // only `get` is used by this propagator
    }
}

struct Headers<'m>(&'m http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn a_trace_goes_on_in_the_next_process() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        let mut metadata = MetadataMap::new();
        inject(&mut metadata);
        assert!(metadata.is_empty(), "no span, no parent");
        let near = tracing::info_span!("near");
        near.in_scope(|| inject(&mut metadata));
        let sent = metadata.get("traceparent").unwrap().to_str().unwrap().to_owned();
        let far = tracing::info_span!("far");
        follow(&far, &metadata);
        let trace = |span: &tracing::Span| span.context().span().span_context().trace_id().to_string();
        assert_eq!(trace(&far), trace(&near));
        assert!(sent.contains(&trace(&near)));
    }
}
