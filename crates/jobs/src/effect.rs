//! Receivers of keyed calls: an effect takes place once, and not at all once it has been undone.
//!
//! The effect's row is written first, so that a repeat waits for the first call and then answers the same. Only the job's
//! current worker gets in: the row is inserted from the job's own row, where epoch and state must fit. So a worker that
//! was replaced can't do or undo anything, wherever it calls.

use crate::backoff::Backoff;
use crate::key::StepKey;
use contract::ApiError;
use std::future::Future;
use std::marker::PhantomData;
use store::{Db, Error, Sql, Tx, now_micros};

/// Attempts before the caller is told to try later.
const ATTEMPTS: u32 = 12;

/// Does what a keyed call asks for, once: `effect!(db, key, |tx| { …; Ok(response) }).await?`.
///
/// The response is a prost message; a repeat answers the stored one. A late worker, or a call that has been undone
/// already, gets 530/4300. The body may run several times, with no effect but in `tx`.
#[macro_export]
macro_rules! effect {
    ($db:expr, $key:expr, |$tx:ident| $body:expr) => {
        async {
            let mut effect = $crate::Effect::new(&$db, &$key);
            loop {
                match effect.begin().await {
                    Err(e) => break Err(e),
                    Ok($crate::Receive::Known(answer)) => break Ok(answer),
                    Ok($crate::Receive::Run(mut owned, ())) => {
                        let outcome = {
                            let $tx: &mut $crate::Tx = &mut owned;
                            effect.within(async { $body }).await
                        };
                        if let Some(result) = effect.finish(owned, outcome).await {
                            break result;
                        }
                    }
                }
            }
        }
    };
}

/// Undoes what a keyed call did, or makes sure that it never will:
/// `undo_effect!(db, key, |tx, done: Option<Response>| { …; Ok(()) }).await?`.
///
/// `done` is what the call answered, when it took place. A repeat does nothing.
#[macro_export]
macro_rules! undo_effect {
    ($db:expr, $key:expr, |$tx:ident, $done:ident : Option<$t:ty>| $body:expr) => {
        async {
            let mut effect = $crate::UndoEffect::<$t>::new(&$db, &$key);
            loop {
                match effect.begin().await {
                    Err(e) => break Err(e),
                    Ok($crate::Receive::Known(())) => break Ok(()),
                    Ok($crate::Receive::Run(mut owned, done)) => {
                        let outcome = {
                            let $tx: &mut $crate::Tx = &mut owned;
                            let $done: Option<$t> = done;
                            effect.within(async { $body }).await
                        };
                        if let Some(result) = effect.finish(owned, outcome).await {
                            break result;
                        }
                    }
                }
            }
        }
    };
}

/// What a macro goes on with.
#[doc(hidden)]
pub enum Receive<K, D> {
    /// Nothing is to be done.
    Known(K),
    /// The body is to run.
    Run(Tx, D),
}

/// Attempts of one receiver.
struct Tries<'d> {
    db: &'d Db,
    key: StepKey,
    backoff: Backoff,
    attempts: u32,
}

enum Inserted {
    Yes,
    Exists,
}

impl<'d> Tries<'d> {
    fn new(db: &'d Db, key: &StepKey) -> Self {
        Tries { db, key: key.clone(), backoff: Backoff::new(), attempts: 0 }
    }

    async fn again(&mut self, e: Error) -> Result<(), ApiError> {
        self.attempts += 1;
        if self.attempts > ATTEMPTS {
            return Err(e.into());
        }
        tokio::time::sleep(self.backoff.conflict()).await;
        Ok(())
    }

    async fn open(&mut self) -> Result<Tx, ApiError> {
        loop {
            match self.db.begin().await {
                Ok(tx) => return Ok(tx),
                Err(e) if e.is_retry() => self.again(e).await?,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Inserts the effect's row from the job's row; `Err(None)` asks for another attempt.
    async fn insert(&mut self, tx: &mut Tx, effect_state: &str, job_state: &str) -> Result<Inserted, Error> {
        let sql = Sql::new(
            "INSERT INTO effects (job_id, step, epoch, state, undo_data, created) \
             SELECT id, ?, epoch, ?, ?, ? FROM jobs WHERE id = ?",
        )
        .bind(self.key.step())
        .bind(effect_state)
        .bind(self.key.undo_data())
        .bind(now_micros())
        .bind(self.key.job());
        let sql = if store::chance::is_broken("effect-fence") {
            sql
        } else {
            sql.push(" AND epoch = ? AND state = ?").bind(self.key.epoch()).bind(job_state)
        };
        match tx.exec(sql).await {
            Ok(0) => Err(Error::NoRow),
            Ok(_) => Ok(Inserted::Yes),
            Err(Error::Unique { .. }) => Ok(Inserted::Exists),
            Err(e) => Err(e),
        }
    }

    fn late(&self) -> ApiError {
        ApiError::concurrent(format!("{} comes from a worker that has been replaced, or too late", self.key))
    }

    async fn stored(&self, tx: &mut Tx) -> Result<(String, Option<Vec<u8>>), Error> {
        let sql = Sql::new("SELECT state, result FROM effects WHERE job_id = ? AND step = ?");
        let row = tx.one(sql.bind(self.key.job()).bind(self.key.step())).await?;
        Ok((row.at(0)?, row.at(1)?))
    }

    /// After a body: commits. `Ok(false)` asks for another attempt, which finds out whether a lost COMMIT took place.
    async fn commit(&mut self, tx: Tx) -> Result<bool, ApiError> {
        match tx.commit().await {
            Ok(()) => Ok(true),
            Err(e) if e.is_retry() || matches!(e, Error::CommitUnknown(_)) => self.again(e).await.map(|()| false),
            Err(e) => Err(e.into()),
        }
    }

    async fn rolled_back(&mut self, tx: Tx, e: Error) -> Result<(), ApiError> {
        tx.rollback().await;
        match e {
            Error::NoRow => Err(self.late()),
            e if e.is_retry() => self.again(e).await,
            e => Err(e.into()),
        }
    }
}

/// The state of [`crate::effect!`] between attempts.
#[doc(hidden)]
pub struct Effect<'d, M> {
    tries: Tries<'d>,
    message: PhantomData<fn() -> M>,
}

impl<'d, M: prost::Message + Default> Effect<'d, M> {
    /// Prepares.
    pub fn new(db: &'d Db, key: &StepKey) -> Self {
        Effect { tries: Tries::new(db, key), message: PhantomData }
    }

    /// Opens an attempt, or gives what was answered before.
    pub async fn begin(&mut self) -> Result<Receive<M, ()>, ApiError> {
        if self.tries.key.is_undo() {
            return Err(ApiError::internal("an undo came where something is to be done"));
        }
        loop {
            let mut tx = self.tries.open().await?;
            let error = match self.tries.insert(&mut tx, "Done", "Running").await {
                Ok(Inserted::Yes) => return Ok(Receive::Run(tx, ())),
                Ok(Inserted::Exists) => match self.tries.stored(&mut tx).await {
                    Ok((state, result)) => {
                        tx.rollback().await;
                        if state != "Done" {
                            return Err(ApiError::concurrent(format!("{} has been undone", self.tries.key)));
                        }
                        return Ok(Receive::Known(M::decode(result.unwrap_or_default().as_slice())?));
                    }
                    Err(e) => e,
                },
                Err(e) => e,
            };
            self.tries.rolled_back(tx, error).await?;
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
        let conflict = || Error::Retry("an effect met a conflict too often".into());
        if tx.must_retry() {
            return self.tries.rolled_back(tx, conflict()).await.map(|()| None);
        }
        let message = match outcome {
            Ok(message) => message,
            Err(e) => {
                tx.rollback().await;
                return Err(e);
            }
        };
        let sql = Sql::new("UPDATE effects SET result = ? WHERE job_id = ? AND step = ?");
        let sql = sql.bind(message.encode_to_vec()).bind(self.tries.key.job()).bind(self.tries.key.step());
        let error = match tx.exec(sql).await {
            Ok(1) => None,
            Ok(_) => Some(crate::mutate::lost()),
            Err(e) => Some(e),
        };
        if let Some(e) = error {
            return self.tries.rolled_back(tx, e).await.map(|()| None);
        }
        Ok(self.tries.commit(tx).await?.then_some(message))
    }
}

/// The state of [`crate::undo_effect!`] between attempts.
#[doc(hidden)]
pub struct UndoEffect<'d, M> {
    tries: Tries<'d>,
    message: PhantomData<fn() -> M>,
}

impl<'d, M: prost::Message + Default> UndoEffect<'d, M> {
    /// Prepares.
    pub fn new(db: &'d Db, key: &StepKey) -> Self {
        UndoEffect { tries: Tries::new(db, key), message: PhantomData }
    }

    /// Opens an attempt; gives what was answered when the effect took place.
    pub async fn begin(&mut self) -> Result<Receive<(), Option<M>>, ApiError> {
        if !self.tries.key.is_undo() {
            return Err(ApiError::internal("something to be done came where an undo belongs"));
        }
        loop {
            let mut tx = self.tries.open().await?;
            match self.mark(&mut tx).await {
                Ok(Some(None)) => {
                    tx.rollback().await;
                    return Ok(Receive::Known(()));
                }
                Ok(Some(Some(done))) => return Ok(Receive::Run(tx, Some(M::decode(done.as_slice())?))),
                Ok(None) => return Ok(Receive::Run(tx, None)),
                Err(e) => self.tries.rolled_back(tx, e).await?,
            }
        }
    }

    /// Turns the effect into a tombstone. None: it never took place; `Some(None)`: it was undone before.
    async fn mark(&mut self, tx: &mut Tx) -> Result<Option<Option<Vec<u8>>>, Error> {
        let key = &self.tries.key;
        let sql = Sql::new(
            "UPDATE effects SET state = 'Undone', epoch = ? WHERE job_id = ? AND step = ? AND state = 'Done' \
             AND EXISTS (SELECT 1 FROM jobs WHERE id = ? AND epoch = ? AND state = 'Undoing')",
        );
        let sql = sql.bind(key.epoch()).bind(key.job()).bind(key.step()).bind(key.job()).bind(key.epoch());
        if tx.exec(sql).await? == 1 {
            return Ok(Some(Some(self.tries.stored(tx).await?.1.unwrap_or_default())));
        }
        match self.tries.insert(tx, "Undone", "Undoing").await? {
            Inserted::Yes => Ok(None),
            Inserted::Exists => match self.tries.stored(tx).await?.0.as_str() {
                "Undone" => Ok(Some(None)),
                // It took place between the two statements.
                _ => Err(Error::Retry("the effect took place just now".into())),
            },
        }
    }

    /// Gives the body's type to inference.
    pub async fn within(&self, body: impl Future<Output = Result<(), ApiError>>) -> Result<(), ApiError> {
        body.await
    }

    /// Commits, or asks for another attempt.
    pub async fn finish(&mut self, tx: Tx, outcome: Result<(), ApiError>) -> Option<Result<(), ApiError>> {
        self.end(tx, outcome).await.transpose()
    }

    async fn end(&mut self, tx: Tx, outcome: Result<(), ApiError>) -> Result<Option<()>, ApiError> {
        if tx.must_retry() {
            let conflict = Error::Retry("an undo met a conflict too often".into());
            return self.tries.rolled_back(tx, conflict).await.map(|()| None);
        }
        if let Err(e) = outcome {
            tx.rollback().await;
            return Err(e);
        }
        Ok(self.tries.commit(tx).await?.then_some(()))
    }
}
