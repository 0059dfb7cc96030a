//! Synchronous mutations: one transaction each, answered the same when asked again with the same idempotency key.
//!
//! A row of `idempotency` commits with the mutation. With the caller's key it is written first, so that a repeat waits for
//! the first request. Without one it is written last, under a key of our own, and tells whether a COMMIT whose answer was
//! lost took place.

use crate::backoff::Backoff;
use contract::ApiError;
use contract::api::Caller;
use std::future::Future;
use std::marker::PhantomData;
use store::{Db, Error, Sql, Tx, now_micros};

/// Attempts before the caller is told to try later.
const ATTEMPTS: u32 = 20;

/// A synchronous mutation: `mutate!(db, caller, "create-zone", |tx| { …; Ok(message) }).await?`.
///
/// The message (prost) is the answer. The body may run several times, with no effect but in `tx`.
#[macro_export]
macro_rules! mutate {
    ($db:expr, $caller:expr, $name:expr, |$tx:ident| $body:expr) => {
        async {
            let mut mutation = $crate::Mutation::new(&$db, &$caller, $name);
            loop {
                match mutation.begin().await {
                    Err(e) => break Err(e),
                    Ok($crate::Receive::Known(answer)) => break Ok(answer),
                    Ok($crate::Receive::Run(mut owned, ())) => {
                        let outcome = {
                            let $tx: &mut $crate::Tx = &mut owned;
                            mutation.within(async { $body }).await
                        };
                        if let Some(result) = mutation.finish(owned, outcome).await {
                            break result;
                        }
                    }
                }
            }
        }
    };
}

/// The state of [`mutate!`] between attempts.
#[doc(hidden)]
pub struct Mutation<'d, M> {
    db: &'d Db,
    name: &'static str,
    account: i64,
    key: String,
    keyed: bool,
    hash: Vec<u8>,
    backoff: Backoff,
    attempts: u32,
    message: PhantomData<fn() -> M>,
}

impl<'d, M: prost::Message + Default> Mutation<'d, M> {
    /// Prepares.
    pub fn new(db: &'d Db, caller: &Caller, name: &'static str) -> Self {
        let given = caller.idempotency_key.clone().filter(|k| !k.is_empty());
        let keyed = given.is_some();
        // A caller's key can't be taken for one of ours.
        let key = given.map_or_else(|| format!("~{}", model::new_uuid()), |k| format!("={k}"));
        let (account, hash) = (caller.account_id, caller.request_hash.clone());
        Mutation { db, name, account, key, keyed, hash, backoff: Backoff::new(), attempts: 0, message: PhantomData }
    }

    /// Opens an attempt, or gives what was answered before.
    ///
    /// # Errors
    /// 431 when the key belongs to another request.
    pub async fn begin(&mut self) -> Result<crate::effect::Receive<M, ()>, ApiError> {
        use crate::effect::Receive;
        loop {
            let mut tx = match self.db.begin().await {
                Ok(tx) => tx,
                Err(e) if e.is_retry() => {
                    self.again(e).await?;
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            if !self.keyed {
                return Ok(Receive::Run(tx, ()));
            }
            let error = match self.insert(&mut tx, None).await {
                Ok(true) => return Ok(Receive::Run(tx, ())),
                Ok(false) => match self.stored(&mut tx).await {
                    Ok((hash, answer)) => {
                        tx.rollback().await;
                        return self.known(&hash, &answer).map(Receive::Known);
                    }
                    Err(e) => e,
                },
                Err(e) => e,
            };
            self.rolled_back(tx, error).await?;
        }
    }

    /// Gives the body's type to inference.
    pub async fn within(&self, body: impl Future<Output = Result<M, ApiError>>) -> Result<M, ApiError> {
        body.await
    }

    /// Commits, or asks for another attempt.
    pub async fn finish(&mut self, tx: Tx, outcome: Result<M, ApiError>) -> Option<Result<M, ApiError>> {
        self.end(tx, outcome).await.transpose()
    }

    async fn end(&mut self, mut tx: Tx, outcome: Result<M, ApiError>) -> Result<Option<M>, ApiError> {
        if tx.must_retry() {
            let conflict = Error::Retry(format!("transaction {} met a conflict too often", self.name));
            return self.rolled_back(tx, conflict).await.map(|()| None);
        }
        let message = match outcome {
            Ok(message) => message,
            Err(e) => {
                tx.rollback().await;
                return Err(e);
            }
        };
        let answer = message.encode_to_vec();
        let written = if self.keyed {
            self.answer(&mut tx, answer).await
        } else {
            match self.insert(&mut tx, Some(answer)).await {
                // An earlier attempt took place after all: its COMMIT came to one node of a cluster after another was asked.
                Ok(false) => match self.stored(&mut tx).await {
                    Ok((_, answer)) => {
                        tx.rollback().await;
                        return Ok(Some(M::decode(answer.as_slice())?));
                    }
                    Err(e) => Err(e),
                },
                other => other.map(drop),
            }
        };
        if let Err(e) = written {
            return self.rolled_back(tx, e).await.map(|()| None);
        }
        match tx.commit().await {
            Ok(()) => Ok(Some(message)),
            Err(e) if e.is_retry() => self.again(e).await.map(|()| None),
            Err(e @ Error::CommitUnknown(_)) => self.resolve(e, message).await,
            Err(e) => Err(e.into()),
        }
    }

    /// Finds out whether a COMMIT took place: inserting the same key waits for a COMMIT that is still under way.
    async fn resolve(&mut self, mut error: Error, message: M) -> Result<Option<M>, ApiError> {
        tracing::warn!(transaction = self.name, %error, "the answer to a commit was lost; reading back");
        loop {
            self.attempts += 1;
            if self.attempts > ATTEMPTS {
                return Err(error.into());
            }
            tokio::time::sleep(self.backoff.trouble()).await;
            let mut tx = match self.db.begin().await {
                Ok(tx) => tx,
                Err(e) => {
                    error = e;
                    continue;
                }
            };
            let found = match self.insert(&mut tx, None).await {
                Ok(true) => Ok(None),
                // Our own key can only be there with our commit; the caller's may be there with that of a repeat that
                // came by another replica meanwhile.
                Ok(false) if self.keyed => self.stored(&mut tx).await.map(Some),
                Ok(false) => Ok(Some((self.hash.clone(), message.encode_to_vec()))),
                Err(e) => Err(e),
            };
            tx.rollback().await;
            match found {
                Ok(None) => return Ok(None),
                Ok(Some((hash, answer))) => return self.known(&hash, &answer).map(Some),
                Err(e) => error = e,
            }
        }
    }

    /// The stored answer, if it is one to this request.
    fn known(&self, hash: &[u8], answer: &[u8]) -> Result<M, ApiError> {
        if hash == self.hash {
            return Ok(M::decode(answer)?);
        }
        let text = "The idempotency key was used for another request within the last day: use a new key.";
        Err(ApiError::param(text))
    }

    async fn insert(&self, tx: &mut Tx, answer: Option<Vec<u8>>) -> Result<bool, Error> {
        let sql =
            "INSERT INTO idempotency (account_id, idem_key, request_hash, answer, created) VALUES (?, ?, ?, ?, ?)";
        let sql =
            Sql::new(sql).bind(self.account).bind(&self.key).bind(self.hash.clone()).bind(answer).bind(now_micros());
        match tx.exec(sql).await {
            Ok(_) => Ok(true),
            Err(Error::Unique { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn answer(&self, tx: &mut Tx, answer: Vec<u8>) -> Result<(), Error> {
        let sql = Sql::new("UPDATE idempotency SET answer = ? WHERE account_id = ? AND idem_key = ?");
        match tx.exec(sql.bind(answer).bind(self.account).bind(&self.key)).await? {
            1 => Ok(()),
            _ => Err(lost()),
        }
    }

    async fn stored(&self, tx: &mut Tx) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let sql = Sql::new("SELECT request_hash, answer FROM idempotency WHERE account_id = ? AND idem_key = ?");
        let row = tx.one(sql.bind(self.account).bind(&self.key)).await?;
        Ok((row.at(0)?, row.at::<Option<Vec<u8>>>(1)?.unwrap_or_default()))
    }

    async fn again(&mut self, e: Error) -> Result<(), ApiError> {
        self.attempts += 1;
        if self.attempts > ATTEMPTS {
            return Err(e.into());
        }
        tokio::time::sleep(self.backoff.conflict()).await;
        Ok(())
    }

    async fn rolled_back(&mut self, tx: Tx, e: Error) -> Result<(), ApiError> {
        tx.rollback().await;
        if e.is_retry() { self.again(e).await } else { Err(e.into()) }
    }
}

/// What the caller's idempotency key was answered before, if it was: for handlers that do costly or failing work before
/// their [`mutate!`]. A repeat that is under way at the same time is still settled by `mutate!` itself.
///
/// # Errors
/// 431 when the key belongs to another request.
pub async fn answered<M: prost::Message + Default>(db: &Db, caller: &Caller) -> Result<Option<M>, ApiError> {
    let Some(key) = caller.idempotency_key.as_deref().filter(|k| !k.is_empty()) else { return Ok(None) };
    let sql = Sql::new("SELECT request_hash, answer FROM idempotency WHERE account_id = ? AND idem_key = ?")
        .bind(caller.account_id)
        .bind(format!("={key}"));
    let Some(row) = db.optional(sql).await? else { return Ok(None) };
    if row.at::<Vec<u8>>(0)? != caller.request_hash {
        return Err(ApiError::param(
            "The idempotency key was used for another request within the last day: use a new key.",
        ));
    }
    let answer: Option<Vec<u8>> = row.at(1)?;
    answer.map(|bytes| M::decode(bytes.as_slice()).map_err(ApiError::from)).transpose()
}

/// A cluster may roll a transaction back without saying so; what was written first is gone then.
pub(crate) fn lost() -> Error {
    Error::Retry("the transaction was rolled back by the database".into())
}
