//! The simulated database server: one transaction at a time, faults between statements, at commits, and of connections.

use crate::host::Host;
use crate::sim::{Purpose, Sim, bytes, lock, mix};
use crate::sqlite::Sqlite;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::inline::{Inline, InlineRow, InlineTx};
use store::{Db, Error, Result, Value};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, oneshot};

/// How long a transaction waits for another one.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The server.
pub struct Database {
    sim: Arc<Sim>,
    data: Arc<Mutex<Sqlite>>,
    turn: Arc<Turn<()>>,
    open: Mutex<Option<Session>>,
    next: AtomicU64,
    /// The process whose next commit gets lost.
    losing: AtomicU64,
}

/// The transaction that is open.
struct Session {
    id: u64,
    host: Option<u64>,
    _turn: OwnedMutexGuard<()>,
}

impl Database {
    /// A server over `data`, which belongs to this run until it ends.
    pub fn new(sim: &Arc<Sim>, data: Arc<Mutex<Sqlite>>) -> Arc<Database> {
        Arc::new(Database {
            sim: sim.clone(),
            data,
            turn: Arc::default(),
            open: Mutex::new(None),
            next: AtomicU64::new(1),
            losing: AtomicU64::new(0),
        })
    }

    /// The next commit of `host` gets lost before it takes place.
    #[cfg(test)]
    pub fn lose_commit(&self, host: &Host) {
        self.losing.store(host.number, Ordering::SeqCst);
    }

    /// A connection of `host`; without one nothing ever goes wrong.
    pub fn connect(self: &Arc<Database>, host: Option<Arc<Host>>) -> Db {
        Db::inline(Arc::new(Client { server: self.clone(), host }))
    }

    /// Rolls back what `host` has open, as a server does whose client is gone, after `wait`.
    pub fn forget(self: &Arc<Database>, host: &Arc<Host>, wait: Duration) {
        let id = lock(&self.open).as_ref().filter(|s| s.host == Some(host.number)).map(|s| s.id);
        if let Some(id) = id {
            self.abort_later(id, wait);
        }
    }

    fn run(&self, host: u64, text: &str, args: &[Value]) -> Result<(Vec<InlineRow>, u64)> {
        let answer = lock(&self.data).run(text, args);
        let mut hash = bytes(text.as_bytes());
        for arg in args {
            hash = match arg {
                Value::Null => mix(hash, 1),
                Value::Int(v) => mix(hash, v.cast_unsigned()),
                Value::Real(v) => mix(hash, v.to_bits()),
                Value::Text(v) => mix(hash, bytes(v.as_bytes())),
                Value::Bytes(v) => mix(hash, bytes(v)),
            };
        }
        let size = answer.as_ref().map_or(u64::MAX, |(rows, affected)| mix(rows.len() as u64, *affected));
        self.sim.event("sql", &[host, hash, size], || {
            let result = match &answer {
                Ok((rows, affected)) if rows.is_empty() => format!("{affected} rows"),
                Ok((rows, _)) => format!("{} rows: {:?}", rows.len(), rows.first().map(|r| short(&r.values))),
                Err(e) => e.to_string(),
            };
            format!("[{host}] {text} {} -> {result}", short(args))
        });
        answer
    }

    /// Whether the transaction is still open.
    fn has(&self, id: u64) -> bool {
        lock(&self.open).as_ref().is_some_and(|s| s.id == id)
    }

    fn close(&self, id: u64, statement: &str) -> Result<()> {
        let session = {
            let mut open = lock(&self.open);
            if open.as_ref().is_none_or(|s| s.id != id) {
                return Err(Error::Unavailable("the connection is gone".into()));
            }
            open.take()
        };
        let host = session.as_ref().and_then(|s| s.host).unwrap_or_default();
        self.run(host, statement, &[]).map(drop)
    }

    fn abort(&self, id: u64) {
        let _ = self.close(id, "ROLLBACK"); // it may have ended by now
    }

    fn abort_later(self: &Arc<Database>, id: u64, wait: Duration) {
        let server = self.clone();
        self.sim.spawn(async move {
            tokio::time::sleep(wait).await;
            server.abort(id);
        });
    }
}

fn short(values: &[Value]) -> String {
    let one = |v: &Value| match v {
        Value::Null => "NULL".to_owned(),
        Value::Int(v) => v.to_string(),
        Value::Real(v) => v.to_string(),
        Value::Text(v) => format!("'{}'", v.chars().take(60).collect::<String>()),
        Value::Bytes(v) => {
            let text = String::from_utf8_lossy(v);
            format!("\"{}\"", text.chars().filter(|c| !c.is_control()).take(60).collect::<String>())
        }
    };
    format!("({})", values.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// A process's connections.
struct Client {
    server: Arc<Database>,
    host: Option<Arc<Host>>,
}

impl Client {
    /// A hop to or from the server.
    async fn hop(&self) -> Result<()> {
        let Some(host) = &self.host else { return Ok(()) };
        let sim = &self.server.sim;
        sim.hop(Purpose::Database, |r| r.database_delay).await;
        if host.database.is_cut() {
            let patience = Duration::from_millis(sim.dice(Purpose::Database).within(500, 8_000));
            if !host.database.joined(patience).await {
                return Err(Error::Unavailable("the connection timed out".into()));
            }
        }
        Ok(())
    }

    fn breaks(&self) -> Result<()> {
        let breaks = self.host.is_some() && self.server.sim.happens(Purpose::Database, |r| r.broken);
        if breaks { Err(Error::Unavailable("the connection broke".into())) } else { Ok(()) }
    }

    fn number(&self) -> u64 {
        self.host.as_ref().map_or(0, |h| h.number)
    }
}

impl Inline for Client {
    fn select(&self, text: String, args: Vec<Value>) -> BoxFuture<'_, Result<Vec<InlineRow>>> {
        async move {
            self.hop().await?;
            self.breaks()?;
            let rows = {
                // Between transactions: what has committed is seen, and nothing else.
                let Ok(_turn) = tokio::time::timeout(LOCK_WAIT, self.server.turn.lock()).await else {
                    return Err(Error::Unavailable("the database is too busy".into()));
                };
                self.server.run(self.number(), &text, &args)?.0
            };
            self.hop().await?;
            Ok(rows)
        }
        .boxed()
    }

    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn InlineTx>>> {
        async move {
            self.hop().await?;
            self.breaks()?;
            let turn = self.server.turn.clone().lock_owned();
            let Ok(turn) = tokio::time::timeout(LOCK_WAIT, turn).await else {
                return Err(Error::Retry("lock wait timeout".into()));
            };
            let id = self.server.next.fetch_add(1, Ordering::SeqCst);
            self.server.run(self.number(), "BEGIN IMMEDIATE", &[])?;
            let host = self.host.as_ref().map(|h| h.number);
            *lock(&self.server.open) = Some(Session { id, host, _turn: turn });
            let client = Client { server: self.server.clone(), host: self.host.clone() };
            // From here on, dropping rolls back.
            let tx = Transaction { client, id, ended: false, rolled_back: false };
            tx.client.hop().await?;
            Ok(Box::new(tx) as Box<dyn InlineTx>)
        }
        .boxed()
    }
}

/// A process's end of a transaction.
struct Transaction {
    client: Client,
    id: u64,
    /// Committed, rolled back, or about to be.
    ended: bool,
    /// The server has rolled it back and said so: further statements would be transactions of their own.
    rolled_back: bool,
}

impl Transaction {
    fn sim(&self) -> &Arc<Sim> {
        &self.client.server.sim
    }

    async fn commit_now(mut self) -> Result<()> {
        let Some(host) = self.client.host.clone() else {
            self.ended = true;
            return self.client.server.close(self.id, "COMMIT");
        };
        if self.rolled_back {
            self.sim().wrong(format!("{} commits what a deadlock has rolled back", host.name));
        }
        self.client.hop().await?;
        let sim = self.sim().clone();
        if sim.happens(Purpose::Database, |r| r.refused) {
            self.ended = true;
            sim.reach("a commit was refused");
            self.client.server.abort(self.id);
            self.client.hop().await?;
            return Err(Error::Retry("certification failed".into()));
        }
        // The server goes on whatever becomes of the client.
        self.ended = true;
        let (sender, receiver) = oneshot::channel();
        let (server, id) = (self.client.server.clone(), self.id);
        let told = server.losing.compare_exchange(host.number, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let lost = sim.happens(Purpose::Database, |r| r.commit_lost) || told;
        let (slow, arrives) = {
            let mut dice = sim.dice(Purpose::Database);
            (if lost { dice.within(0, 3_000) } else { 0 }, (!lost || dice.per_mille(600)) && !told)
        };
        let runner = sim.clone();
        runner.spawn(async move {
            sim.hop(Purpose::Database, |r| r.database_delay).await;
            tokio::time::sleep(Duration::from_millis(slow)).await;
            let dies_with_client = host.is_dead() && sim.dice(Purpose::Database).per_mille(500);
            if lost {
                sim.reach(if arrives { "the answer to a commit was lost" } else { "a commit was lost" });
            }
            let done = if arrives && !dies_with_client {
                server.close(id, "COMMIT")
            } else {
                server.abort(id);
                Err(Error::Unavailable("the connection broke".into()))
            };
            let _ = sender.send(done); // the client may be gone
        });
        if lost {
            let wait = self.sim().dice(Purpose::Database).within(0, 4_000);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            return Err(Error::Unavailable("the answer to a commit was lost".into()));
        }
        let done = receiver.await.unwrap_or_else(|_| Err(Error::Unavailable("the server is gone".into())));
        self.client.hop().await?;
        done
    }
}

impl InlineTx for Transaction {
    fn run(&mut self, text: String, args: Vec<Value>) -> BoxFuture<'_, Result<(Vec<InlineRow>, u64)>> {
        async move {
            let Some(host) = self.client.host.clone() else {
                return self.client.server.run(0, &text, &args);
            };
            if self.rolled_back {
                self.sim().wrong(format!("{} goes on after a deadlock: {text}", host.name));
            }
            self.client.hop().await?;
            if !self.client.server.has(self.id) {
                self.sim().reach("a transaction was taken from a process that stood still or was cut off");
                return Err(Error::Unavailable("the server has ended the connection".into()));
            }
            if let Err(broken) = self.client.breaks() {
                self.client.server.abort(self.id);
                return Err(broken);
            }
            if self.sim().happens(Purpose::Database, |r| r.deadlock) {
                self.sim().reach("a transaction met a deadlock");
                self.client.server.abort(self.id);
                self.rolled_back = true;
                self.client.hop().await?;
                return Err(Error::Retry("deadlock".into()));
            }
            let answer = self.client.server.run(host.number, &text, &args);
            self.client.hop().await?;
            answer
        }
        .boxed()
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        self.commit_now().boxed()
    }

    fn rollback(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        async move {
            let hopped = self.client.hop().await;
            if hopped.is_ok() {
                self.ended = true;
                self.client.server.abort(self.id);
            }
            hopped
        }
        .boxed()
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let server = &self.client.server;
        let cut = self.client.host.as_ref().is_some_and(|h| h.is_dead() || h.database.is_cut());
        if cut && server.has(self.id) {
            // The server doesn't know at once.
            let wait = self.sim().dice(Purpose::Database).within(0, 1_500);
            server.abort_later(self.id, Duration::from_millis(wait));
        } else {
            server.abort(self.id);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed set-up is a failed test
mod tests {
    use super::*;
    use crate::run::stage;
    use contract::api::{Caller, Success};

    /// Writes once, with an idempotency key.
    async fn write(db: Db, name: &'static str) -> String {
        let caller = Caller { account_id: 2, idempotency_key: Some("key".into()), ..Caller::default() };
        let written = jobs::mutate!(db, caller, "write", |tx| {
            tx.exec("INSERT INTO crafts (number, job, state) VALUES (1, 1, 'New')").await?;
            Ok(Success { success: true, display_text: Some(name.into()) })
        });
        written.await.unwrap().display_text.unwrap()
    }

    #[test]
    fn a_lost_commit_is_answered_as_the_repeat_was_that_came_by_another_replica() {
        stage(|sim, database| async move {
            let hosts = [1, 2].map(|n| Host::new(&sim.scheduler, format!("replica-{n}"), n));
            database.lose_commit(&hosts[0]);
            let answers = Arc::new(Mutex::new(Vec::new()));
            let mut ended = Vec::new();
            for (host, name) in hosts.iter().zip(["first", "second"]) {
                let (db, answers) = (database.connect(Some(host.clone())), answers.clone());
                ended.push(host.spawn(async move {
                    let answer = write(db, name).await;
                    lock(&answers).push(answer);
                }));
                // Until the first one's commit is under way, and won't come.
                while database.losing.load(Ordering::SeqCst) != 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            for one in ended {
                one.await.unwrap();
            }
            assert_eq!(*lock(&answers), ["second", "second"]);
            let db = database.connect(None);
            assert_eq!(db.all(store::Sql::new("SELECT job FROM crafts")).await.unwrap().len(), 1);
        });
    }
}
