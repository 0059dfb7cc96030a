//! The usage service: the archive of events, and the facts that accounting will be made of.
//!
//! It writes nothing that users ask for: all it knows comes from the outbox ([`events`]), row by row, exactly once.
//! It also runs the duty that numbers the outbox.

mod api;
mod archive;
mod database;
mod event_types;
mod metering;
mod purge;
mod store;
mod tidy;

use ::store::Migration;
use contract::ApiError;
use contract_usage::alerts_server::AlertsServer;
use contract_usage::events_server::EventsServer;
use events::Consumer;
use node::Node;
use std::future::Future;
use std::time::Duration;
use tonic::service::Routes;

/// The service's own tables.
pub const MIGRATIONS: &[Migration] = &[
    Migration { owner: "usage", file: "0001_events.sql", sql: include_str!("../migrations/0001_events.sql") },
    Migration {
        owner: "usage",
        file: "0002_usage_events.sql",
        sql: include_str!("../migrations/0002_usage_events.sql"),
    },
    Migration {
        owner: "usage",
        file: "0003_database_nodes.sql",
        sql: include_str!("../migrations/0003_database_nodes.sql"),
    },
];

/// Starts a replica: its background work runs on `node`; the routes are its gRPC services.
///
/// # Errors
/// Those of the database.
pub async fn start(node: Node) -> Result<Routes, ApiError> {
    let (db, coord, member, stop) = (node.db.clone(), node.coord.clone(), node.replica.clone(), node.stop.clone());
    node.spawn("outbox-sequencer", async move { events::run_sequencer(&db, &coord, &member, stop).await });
    consume(&node, "event-archive", |consumer| async move { consumer.only(&["event"]).run(&archive::Archive).await });
    consume(&node, "usage-events", |consumer| async move { consumer.only(&["usage"]).run(&metering::Metering).await });
    let purging = node.clone();
    node.duty("event-purge", move |term| purge::run(purging.clone(), term));
    let watching = node.clone();
    node.duty("database-watch", move |term| database::watch(watching.clone(), term));
    Ok(Routes::new(EventsServer::new(api::Events::new(node.clone())))
        .add_service(AlertsServer::new(api::Alerts::new(node))))
}

/// Runs the consumer `name` as a duty: all replicas could (the cursor keeps them apart), but they would only race.
fn consume<Fut>(node: &Node, name: &'static str, run: fn(Consumer) -> Fut)
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let (db, coord) = (node.db.clone(), node.coord.clone());
    node.duty(name, move |_term| {
        let (db, coord) = (db.clone(), coord.clone());
        async move {
            loop {
                match Consumer::new(&db, &coord, name).await {
                    Ok(consumer) => run(consumer).await,
                    Err(error) => tracing::warn!(consumer = name, %error, "the consumer can't start; trying again"),
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    });
}
