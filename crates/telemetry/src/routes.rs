//! The HTTP routes that operators and their tools ask.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Answers whether the process can serve: `Err` says what is missing.
pub type Health = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// `/metrics` (OpenMetrics), `/readyz` (200 or 503: can it serve?) and `/healthz` (200: does the process answer?).
pub fn routes(health: Health) -> Router {
    let metrics = || async {
        ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], crate::metrics::text())
    };
    let ready = move || {
        let health = health.clone();
        async move {
            match health().await {
                Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
            }
        }
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/readyz", get(ready))
        .route("/healthz", get(|| async { "ok\n" }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    async fn ask(router: Router, path: &str) -> (StatusCode, String) {
        let answer = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn health_and_metrics_answer() {
        crate::metrics::counters("route_test", "Test").get_or_create(&Vec::new()).inc();
        let well = routes(Arc::new(|| Box::pin(async { Ok(()) })));
        assert_eq!(ask(well.clone(), "/readyz").await, (StatusCode::OK, "ok\n".into()));
        assert!(ask(well.clone(), "/metrics").await.1.contains("arcus_route_test_total{} 1"));
        let ill = routes(Arc::new(|| Box::pin(async { Err("the database doesn't answer".into()) })));
        assert_eq!(ask(ill.clone(), "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(ill, "/healthz").await.0, StatusCode::OK);
    }
}
