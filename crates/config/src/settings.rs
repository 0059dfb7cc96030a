//! The values in force.

use crate::{Key, Scope, Setting, SettingValue, find, registry, store, validate};
use ::store::{Db, Tx};
use contract::ApiError;
use coord::Coord;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// The topic of changes; the payload is the setting's name.
const TOPIC: &str = "settings";
/// How often the version is read in case that a nudge was lost. Changes must be seen within a second.
const POLL: Duration = Duration::from_millis(700);

/// Encrypts values at rest; the vault of the node.
pub trait Seal: Send + Sync {
    /// Encrypts `plain`, bound to `context`.
    fn seal(&self, context: &str, plain: &str) -> String;
    /// Decrypts what [`Seal::seal`] gave.
    ///
    /// # Errors
    /// When it was sealed by another key or for another context.
    fn open(&self, context: &str, sealed: &str) -> Result<String, ApiError>;
}

/// All settings. Cheap to clone.
#[derive(Clone)]
pub struct Settings {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    coord: Coord,
    seal: Option<Arc<dyn Seal>>,
    values: RwLock<Values>,
    /// Rises with each change made by this process: a read that began before must not overwrite it.
    generation: AtomicU64,
    changes: watch::Sender<u64>,
}

/// What differs from the registry. `None`: a text that was cleared.
#[derive(Default)]
pub(crate) struct Values {
    pub version: i64,
    pub by_scope: HashMap<Scope, HashMap<&'static str, Option<String>>>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

impl Settings {
    /// Reads all settings and follows their changes until the last clone is dropped.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn load(db: &Db, coord: &Coord) -> Result<Settings, ApiError> {
        Self::load_sealed(db, coord, None).await
    }

    /// As [`Settings::load`], with `seal` for the values that are encrypted at rest. Without it these can't be set.
    ///
    /// # Errors
    /// Those of the database, and values that can't be decrypted.
    pub async fn load_sealed(db: &Db, coord: &Coord, seal: Option<Arc<dyn Seal>>) -> Result<Settings, ApiError> {
        store::prepare(db).await?;
        // Subscribed before reading, so that no change falls in between.
        let mut nudges = coord.subscribe(TOPIC);
        let values = store::read(db, seal.as_deref()).await?;
        let inner = Arc::new(Inner {
            db: db.clone(),
            coord: coord.clone(),
            seal,
            values: RwLock::new(values),
            generation: AtomicU64::new(0),
            changes: watch::channel(0).0,
        });
        let weak = Arc::downgrade(&inner);
        tokio::spawn(async move {
            loop {
                let nudged = tokio::time::timeout(POLL, nudges.next()).await.is_ok();
                if !refresh(&weak, nudged).await {
                    return;
                }
            }
        });
        Ok(Settings { inner })
    }

    /// The global value.
    pub fn get<T: SettingValue>(&self, key: Key<T>) -> T {
        self.get_in(key, Scope::Global)
    }

    /// The value in a scope; where the scope has none, the global one.
    pub fn get_in<T: SettingValue>(&self, key: Key<T>, scope: Scope) -> T {
        let values = self.inner.values.read().unwrap_or_else(PoisonError::into_inner);
        let set = values.find(key.name, scope).or_else(|| values.find(key.name, Scope::Global));
        let unset = || find(key.name).and_then(Setting::unset_value);
        // What is stored was checked when it was set; whatever else is there counts as unset.
        match set {
            Some(value) => T::read(value.as_deref()).or_else(|| if value.is_some() { T::read(unset()) } else { None }),
            None => T::read(unset()),
        }
        .unwrap_or_else(T::unset)
    }

    /// The value of any setting as text, for lists; `None` when it has none.
    pub fn text(&self, setting: &Setting, scope: Scope) -> Option<String> {
        let values = self.inner.values.read().unwrap_or_else(PoisonError::into_inner);
        match values.find(setting.name, scope).or_else(|| values.find(setting.name, Scope::Global)) {
            Some(value) => value.clone(),
            None => setting.unset_value().map(str::to_owned),
        }
    }

    /// Sets a value as part of `tx`; after the commit this process sees it at once and the others within a second.
    /// An empty value, or `null`, clears a text and gives anything else its default back.
    ///
    /// # Errors
    /// 431 for a name that isn't known, a scope that the setting hasn't, a value that it doesn't take.
    pub async fn set(&self, tx: &mut Tx, name: &str, value: &str, scope: Scope) -> Result<(), ApiError> {
        let setting =
            find(name).ok_or_else(|| ApiError::param(format!("Config parameter with name {name} doesn't exist")))?;
        if setting.name != name {
            tracing::warn!(name, real = setting.name, "a setting was named as the documentation misspells it");
        }
        if scope != Scope::Global && setting.scope != scope.kind() {
            return Err(ApiError::param(format!("Invalid scope id provided for the parameter {name}")));
        }
        let change = self.change(setting, value, scope)?;
        store::write(tx, setting, scope, &change, self.inner.seal.as_deref()).await?;
        let inner = self.inner.clone();
        tx.after_commit(move || inner.apply(setting.name, scope, change));
        Ok(())
    }

    /// Gives a global setting its first value as part of `tx`, unless it has one: of replicas that start together one does.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub async fn set_first(&self, tx: &mut Tx, name: &'static str, value: &str) -> Result<(), ApiError> {
        if store::lock_and_look(tx, name).await? {
            return Ok(());
        }
        self.set(tx, name, value, Scope::Global).await
    }

    fn change(&self, setting: &'static Setting, value: &str, scope: Scope) -> Result<Change, ApiError> {
        if value.is_empty() || value == "null" {
            validate::check_clear(setting)?;
            let text = setting.kind == crate::Kind::Text && scope == Scope::Global;
            return Ok(if text { Change::Clear } else { Change::Default });
        }
        validate::check(setting, value)?;
        if setting.encrypted && self.inner.seal.is_none() {
            return Err(ApiError::internal(format!("no key to encrypt {} with", setting.name)));
        }
        // Numbers may come with blanks around them, which 4.11 takes away as well.
        let text = if setting.kind == crate::Kind::Text { value } else { value.trim() };
        Ok(Change::Set(text.to_owned()))
    }

    /// All settings that may be listed, by name.
    pub fn registry(&self) -> &'static [Setting] {
        registry::listed()
    }

    /// Counts changes: for those who must act on one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }
}

/// What setting a value means.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Set(String),
    /// No value, though the default may be one.
    Clear,
    /// As if never set.
    Default,
}

impl Values {
    fn find(&self, name: &str, scope: Scope) -> Option<&Option<String>> {
        self.by_scope.get(&scope)?.get(name)
    }
}

impl Inner {
    fn apply(&self, name: &'static str, scope: Scope, change: Change) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        {
            let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
            let scoped = values.by_scope.entry(scope).or_default();
            match change {
                Change::Set(value) => scoped.insert(name, Some(value)),
                Change::Clear => scoped.insert(name, None),
                Change::Default => scoped.remove(name),
            };
        }
        self.changes.send_modify(|n| *n += 1);
        self.coord.publish(TOPIC, name);
    }
}

/// Reads the values again when they have changed; false when nobody uses them any more.
async fn refresh(weak: &Weak<Inner>, nudged: bool) -> bool {
    let Some(inner) = weak.upgrade() else {
        return false;
    };
    let known = inner.values.read().unwrap_or_else(PoisonError::into_inner).version;
    let generation = inner.generation.load(Ordering::SeqCst);
    let read = async {
        if !nudged && store::version(&inner.db).await? == known {
            return Ok(None);
        }
        store::read(&inner.db, inner.seal.as_deref()).await.map(Some)
    };
    match read.await {
        Ok(None) => {}
        Ok(Some(values)) => {
            let mut current = inner.values.write().unwrap_or_else(PoisonError::into_inner);
            // A change of our own came in between: what was read may lack it. Its nudge makes us read again.
            if inner.generation.load(Ordering::SeqCst) == generation && values.version >= current.version {
                let changed = values.version != current.version;
                *current = values;
                drop(current);
                if changed {
                    inner.changes.send_modify(|n| *n += 1);
                }
            }
        }
        Err(error) => {
            tracing::warn!(%error, "settings can't be read again; the known values stay in force")
        }
    }
    true
}
