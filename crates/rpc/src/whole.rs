//! Requests that come to their end though nobody waits for them any more.
//!
//! A handler whose caller went away (a killed gateway, a line that was cut) is dropped by the server wherever it waits. One that has
//! reserved something by then must still come to where it keeps it or gives it back. Only lists are dropped: what nobody waits for,
//! nobody should pay for.

use http::Request;
use std::future::{Future, pending};
use std::pin::Pin;
use std::task::{Context, Poll};
use tower::{Layer, Service};
use tracing::Instrument as _;

/// Puts [`Whole`] around a server's routes.
#[derive(Clone, Copy, Debug)]
pub struct WholeLayer;

impl<S> Layer<S> for WholeLayer {
    type Service = Whole<S>;

    fn layer(&self, inner: S) -> Whole<S> {
        Whole(inner)
    }
}

/// Routes whose requests, but for lists, run in tasks of their own.
#[derive(Clone, Debug)]
pub struct Whole<S>(S);

impl<S, B> Service<Request<B>> for Whole<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let lists = is_list(request.uri().path());
        let answer = self.0.call(request);
        if lists {
            return Box::pin(answer);
        }
        Box::pin(async move {
            match tokio::spawn(answer.in_current_span()).await {
                Ok(answer) => answer,
                Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                // The process ends, and with it the line.
                Err(_) => pending().await,
            }
        })
    }
}

/// Whether `/package.Service/Method` is one that lists, by the names of our contract.
fn is_list(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|method| method.starts_with("List"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::Arc;
    use tokio::sync::{Notify, mpsc};

    #[tokio::test]
    async fn a_caller_that_leaves_stops_lists_only() {
        for (path, ends) in [("/arcus.compute.v1.VirtualMachines/Deploy", true), ("/arcus.infra.v1.Pods/List", false)] {
            let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let (done, mut dones) = mpsc::unbounded_channel::<()>();
            let work = (begun.clone(), go.clone(), done);
            let routes = tower::service_fn(move |_: Request<()>| {
                let (begun, go, done) = work.clone();
                async move {
                    begun.notify_one();
                    go.notified().await;
                    done.send(()).ok();
                    Ok::<_, Infallible>(())
                }
            });
            let mut served = WholeLayer.layer(routes);
            let caller = tokio::spawn(served.call(Request::builder().uri(path).body(()).unwrap()));
            begun.notified().await;
            caller.abort();
            assert!(caller.await.unwrap_err().is_cancelled());
            drop(served);
            go.notify_one();
            // The last sender goes with the handler, at its end or when it is dropped.
            assert_eq!(dones.recv().await.is_some(), ends, "{path}");
        }
    }
}
