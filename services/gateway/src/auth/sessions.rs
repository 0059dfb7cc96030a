//! Login sessions. Ids and keys leave the process only in the login's answer; elsewhere there are digests.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::ApiError;
use coord::{Coord, Notice};
use moka::future::Cache;
use store::{Db, now_micros};

use super::fences::Fences;
use crate::gates::Gates;
use crate::store::sessions::{self, SessionRow};

/// The topic of ended sessions; the payload is the digest of the id.
pub const TOPIC: &str = "sessions";
/// A cached session is read again after this time.
const KEPT: Duration = Duration::from_secs(30);
/// How far the database may lag behind a session's last use.
const TOUCH: i64 = 60_000_000;
const MOST: u64 = 50_000;

/// A session in use.
pub struct Session {
    id_hash: String,
    key_hash: String,
    /// Whose it is.
    pub user_id: i64,
    idle_micros: i64,
    last_used: AtomicI64,
    written: AtomicI64,
}

/// What a new session's owner gets.
pub struct NewSession {
    /// The id, for the cookie.
    pub id: String,
    /// The key that each request must carry.
    pub key: String,
}

struct Loaded {
    since: u64,
    session: Option<Arc<Session>>,
}

/// All sessions.
pub struct Sessions {
    db: Db,
    coord: Coord,
    idle: Duration,
    gates: Arc<Gates>,
    cache: Cache<String, Arc<Loaded>>,
    fences: Fences<String>,
}

impl Session {
    /// Whether this is the session's key.
    pub fn has_key(&self, key: &str) -> bool {
        constant_time::verify_slices_are_equal(hash(key).as_bytes(), self.key_hash.as_bytes()).is_ok()
    }

    fn is_idle(&self, now: i64) -> bool {
        now.saturating_sub(self.last_used.load(Ordering::Relaxed)) > self.idle_micros
    }
}

impl Sessions {
    /// Sessions that end after `idle` without a request.
    pub fn new(db: Db, coord: Coord, idle: Duration, gates: Arc<Gates>) -> Sessions {
        let cache = Cache::builder().max_capacity(MOST).time_to_live(KEPT).build();
        Sessions { db, coord, idle, gates, cache, fences: Fences::default() }
    }

    /// How long a session may be idle.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// Takes note of a session that ended elsewhere.
    pub fn notice(&self, notice: Notice) {
        match notice {
            Notice::Message(id_hash) => self.fences.raise(id_hash),
            Notice::Missed => self.fences.raise_all(),
        }
    }

    /// Begins a session.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn begin(&self, user_id: i64, remote_address: String) -> Result<NewSession, ApiError> {
        let new = NewSession { id: random::<32>()?, key: random::<20>()? };
        let now = now_micros();
        let row = SessionRow {
            id_hash: hash(&new.id),
            key_hash: hash(&new.key),
            user_id,
            remote_address,
            created: now,
            last_used: now,
            idle_micros: i64::try_from(self.idle.as_micros()).unwrap_or(i64::MAX / 4),
        };
        sessions::insert(&self.db, &row).await?;
        Ok(new)
    }

    /// The living session with this id, for a request from this address. Finding it counts as use.
    ///
    /// # Errors
    /// Those of the database; 503 when too many ask.
    pub async fn find(&self, id: &str, from: IpAddr) -> Result<Option<Arc<Session>>, ApiError> {
        let id_hash = hash(id);
        let mut again = false;
        loop {
            let load = async {
                let _pass = self.gates.stranger(from).await?;
                let since = self.fences.now();
                let row = sessions::find(&self.db, &id_hash).await?;
                Ok::<_, ApiError>(Arc::new(Loaded { since, session: row.map(|r| Arc::new(live(r))) }))
            };
            let loaded = self.cache.try_get_with_by_ref(&id_hash, load).await.map_err(Arc::unwrap_or_clone)?;
            if !self.fences.hold(loaded.since, [id_hash.clone()]) {
                self.cache.invalidate(&id_hash).await;
                continue;
            }
            let Some(session) = &loaded.session else { return Ok(None) };
            let now = now_micros();
            if session.is_idle(now) {
                // Another replica may have served it meanwhile: the database knows.
                if std::mem::replace(&mut again, true) {
                    self.end(session).await?;
                    return Ok(None);
                }
                self.cache.invalidate(&id_hash).await;
                continue;
            }
            self.touch(session, now).await;
            return Ok(Some(session.clone()));
        }
    }

    async fn touch(&self, session: &Session, now: i64) {
        session.last_used.fetch_max(now, Ordering::Relaxed);
        let written = session.written.load(Ordering::Relaxed);
        let due = now - written > TOUCH.min(session.idle_micros / 4);
        // One request of many writes.
        if due
            && session.written.compare_exchange(written, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            && let Err(error) = sessions::touch(&self.db, &session.id_hash, now).await
        {
            tracing::warn!(%error, "a session's use couldn't be noted");
        }
    }

    /// Ends a session, on all replicas.
    ///
    /// # Errors
    /// Those of the database; this replica forgets it all the same.
    pub async fn end(&self, session: &Session) -> Result<(), ApiError> {
        let deleted = sessions::delete(&self.db, &session.id_hash).await;
        self.fences.raise(session.id_hash.clone());
        self.coord.publish(TOPIC, &session.id_hash);
        deleted
    }

    /// Removes the sessions that nobody uses any more.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn sweep(&self) -> Result<u64, ApiError> {
        sessions::delete_idle(&self.db, now_micros() - TOUCH).await
    }
}

fn live(row: SessionRow) -> Session {
    Session {
        id_hash: row.id_hash,
        key_hash: row.key_hash,
        user_id: row.user_id,
        idle_micros: row.idle_micros,
        last_used: AtomicI64::new(row.last_used),
        written: AtomicI64::new(row.last_used),
    }
}

/// Random bytes as text for URLs and cookies.
fn random<const N: usize>() -> Result<String, ApiError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| ApiError::internal("the system has no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// SHA-256 in base64. Ids and keys are random, so a plain digest is enough.
fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn sessions(db: &testkit::TestDb, coord: &Coord, idle: Duration) -> Sessions {
        let db = Db::connect(&store::DbConfig::new(db.url())).await.unwrap();
        db.migrate(crate::MIGRATIONS).await.unwrap();
        let catalogue = crate::catalogue::Catalogue::embedded().unwrap();
        let gates = Arc::new(Gates::new(&catalogue, &crate::gates::Queues::default()));
        Sessions::new(db, coord.clone(), idle, gates)
    }

    testkit::databases! {
        async fn a_session_lives_until_it_is_ended(db: testkit::TestDb) {
            let coord = Coord::local();
            let (one, two) = (
                sessions(&db, &coord, Duration::from_secs(60)).await,
                sessions(&db, &coord, Duration::from_secs(60)).await,
            );
            let mut ended = coord.subscribe(TOPIC);
            let new = one.begin(7, "192.0.2.1".into()).await.unwrap();
            for replica in [&one, &two] {
                let found = replica.find(&new.id, HERE).await.unwrap().unwrap();
                assert_eq!(found.user_id, 7);
                assert!(found.has_key(&new.key) && !found.has_key("wrong") && !found.has_key(""));
            }
            assert!(one.find("other", HERE).await.unwrap().is_none());
            let session = one.find(&new.id, HERE).await.unwrap().unwrap();
            one.end(&session).await.unwrap();
            assert!(one.find(&new.id, HERE).await.unwrap().is_none());
            two.notice(ended.next().await);
            assert!(two.find(&new.id, HERE).await.unwrap().is_none());
        }

        async fn an_idle_session_ends(db: testkit::TestDb) {
            let coord = Coord::local();
            let short = sessions(&db, &coord, Duration::from_millis(1)).await;
            let new = short.begin(7, String::new()).await.unwrap();
            testkit::wait_until(|| async { short.find(&new.id, HERE).await.unwrap().is_none() }, Duration::from_secs(5)).await;
            assert_eq!(short.sweep().await.unwrap(), 0);
        }
    }
}
