//! Users and what is shown of them.

use super::source::Source;
use model::{ListScope, Owner, Page, Paged};
use store::{Db, Result, Row, Sql, Tx, now_micros};

/// A user, with what answers show of account, domain and role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name to log in with.
    pub username: String,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// E-mail address.
    pub email: Option<String>,
    /// Time zone.
    pub timezone: Option<String>,
    /// "enabled", "disabled", "locked".
    pub state: String,
    /// Where it comes from: "native".
    pub source: String,
    /// Public key.
    pub api_key: Option<String>,
    /// Secret key, sealed.
    pub secret_key: Option<String>,
    /// Whether it came with the installation.
    pub is_default: bool,
    /// Whether it completed a registration link.
    pub registered: bool,
    /// When it was created, UTC µs.
    pub created: i64,
    /// Its account.
    pub account_id: i64,
    /// Its domain.
    pub domain_id: i64,
    /// The domain's path of numbers.
    pub domain_path: String,
    /// Whether it is gone.
    pub removed: bool,
    /// UUID of the account.
    pub account_uuid: String,
    /// Name of the account.
    pub account_name: String,
    /// Type of the account.
    pub account_type: i32,
    /// State of the account.
    pub account_state: String,
    /// UUID of the domain.
    pub domain_uuid: String,
    /// Name of the domain.
    pub domain_name: String,
    /// State of the domain.
    pub domain_state: String,
    /// Number of the role.
    pub role_id: i64,
    /// UUID of the role.
    pub role_uuid: String,
    /// Name of the role.
    pub role_name: String,
    /// Type of the role.
    pub role_type: String,
}

impl UserRow {
    /// Its account as an owner of things.
    pub fn owner(&self) -> Owner {
        Owner { account_id: self.account_id, domain_id: self.domain_id, domain_path: self.domain_path.clone() }
    }
}

/// The built-in user of the system account.
pub const SYSTEM: i64 = 1;

const COLUMNS: &str = "u.id, u.uuid, u.username, u.first_name, u.last_name, u.email, u.timezone, u.state, u.source, u.api_key, \
     u.secret_key, u.is_default, u.registered, u.created, u.account_id, u.domain_id, u.domain_path, u.removed, \
     a.uuid AS account_uuid, a.name AS account_name, a.type AS account_type, a.state AS account_state, d.uuid AS domain_uuid, \
     d.name AS domain_name, d.state AS domain_state, a.role_id, r.uuid AS role_uuid, r.name AS role_name, r.type AS role_type";
const TABLES: &str = " FROM users u JOIN accounts a ON a.id = u.account_id JOIN domains d ON d.id = u.domain_id \
                      JOIN roles r ON r.id = a.role_id";

fn read(r: &Row) -> Result<UserRow> {
    Ok(UserRow {
        id: r.get("id")?,
        uuid: r.get("uuid")?,
        username: r.get("username")?,
        first_name: r.get("first_name")?,
        last_name: r.get("last_name")?,
        email: r.get("email")?,
        timezone: r.get("timezone")?,
        state: r.get("state")?,
        source: r.get("source")?,
        api_key: r.get("api_key")?,
        secret_key: r.get("secret_key")?,
        is_default: r.get("is_default")?,
        registered: r.get("registered")?,
        created: r.get("created")?,
        account_id: r.get("account_id")?,
        domain_id: r.get("domain_id")?,
        domain_path: r.get("domain_path")?,
        removed: r.get::<Option<i64>>("removed")?.is_some(),
        account_uuid: r.get("account_uuid")?,
        account_name: r.get("account_name")?,
        account_type: r.get("account_type")?,
        account_state: r.get("account_state")?,
        domain_uuid: r.get("domain_uuid")?,
        domain_name: r.get("domain_name")?,
        domain_state: r.get("domain_state")?,
        role_id: r.get("role_id")?,
        role_uuid: r.get("role_uuid")?,
        role_name: r.get("role_name")?,
        role_type: r.get("role_type")?,
    })
}

fn select(condition: &str) -> Sql {
    Sql::new(&format!("SELECT {COLUMNS}{TABLES} WHERE {condition}"))
}

fn live_key(domain: i64, name: &str) -> String {
    format!("{domain}/{}", name.to_lowercase())
}

/// A user by number, removed ones included.
pub async fn find<'a>(from: impl Into<Source<'a>>, id: i64) -> Result<Option<UserRow>> {
    from.into().optional(select("u.id = ?").bind(id)).await?.map(|r| read(&r)).transpose()
}

/// The living user with this API key.
pub async fn by_api_key(db: &Db, key: &str) -> Result<Option<UserRow>> {
    db.optional(select("u.api_key = ? AND u.removed IS NULL").bind(key)).await?.map(|r| read(&r)).transpose()
}

/// The living user of this name. Case doesn't count.
pub async fn by_name(db: &Db, domain: i64, name: &str) -> Result<Option<UserRow>> {
    db.optional(select("u.live_key = ?").bind(live_key(domain, name))).await?.map(|r| read(&r)).transpose()
}

/// The hash of a user's password, and how often a login failed since the last that succeeded.
pub async fn password(db: &Db, id: i64) -> Result<Option<(String, i64)>> {
    let sql = Sql::new("SELECT password, login_attempts FROM users WHERE id = ? AND removed IS NULL").bind(id);
    db.optional(sql).await?.map(|r| Ok((r.at(0)?, r.at(1)?))).transpose()
}

/// The living users of accounts, by number.
pub async fn of_accounts(from: &mut Source<'_>, accounts: Vec<i64>) -> Result<Vec<UserRow>> {
    if accounts.is_empty() {
        return Ok(Vec::new());
    }
    let sql = select("u.removed IS NULL AND ").in_list("u.account_id", accounts).push(" ORDER BY u.id");
    from.all(sql).await?.iter().map(read).collect()
}

/// Which users a list shows.
#[derive(Clone, Debug)]
pub struct Filter<'a> {
    /// Owner filter.
    pub scope: ListScope,
    /// This one.
    pub id: Option<i64>,
    /// Whose account is of this type.
    pub account_type: Option<i64>,
    /// Of this name.
    pub username: Option<&'a str>,
    /// In this state.
    pub state: Option<&'a str>,
    /// One of whose names contains this.
    pub keyword: Option<&'a str>,
}

impl Filter<'_> {
    fn apply(&self, sql: Sql) -> Sql {
        let sql = sql.push(TABLES).push(" WHERE u.removed IS NULL AND u.account_id <> 1 AND a.type <> 5");
        let sql = self
            .scope
            .and(sql, "u.")
            .push_if(" AND u.id = ?", self.id)
            .push_if(" AND a.type = ?", self.account_type)
            .push_if(" AND u.username_lower = ?", self.username.map(str::to_lowercase))
            .push_if(" AND u.state = ?", self.state.map(str::to_lowercase));
        match self.keyword {
            Some(word) => {
                let sql = sql.push(" AND (").contains("u.username_lower", &word.to_lowercase());
                let sql = sql.push(" OR ").contains("u.first_name", word).push(" OR ").contains("u.last_name", word);
                let sql =
                    sql.push(" OR ").contains("u.email", word).push(" OR ").contains("u.state", &word.to_lowercase());
                sql.push(" OR ").contains("a.name_lower", &word.to_lowercase()).push(")")
            }
            None => sql,
        }
    }
}

/// A page of users, by number, and how many there are on all pages.
pub async fn page(db: &Db, filter: &Filter<'_>, page: Page) -> Result<(Vec<UserRow>, i64)> {
    let sql = filter.apply(Sql::new(&format!("SELECT {COLUMNS}"))).push(" ORDER BY u.id");
    let rows: Vec<UserRow> = db.all(page.apply(sql)).await?.iter().map(read).collect::<Result<_>>()?;
    let count = match page.proves_count(rows.len()) {
        Some(count) => count,
        None => db.one(filter.apply(Sql::new("SELECT COUNT(*)"))).await?.at(0)?,
    };
    Ok((rows, count))
}

/// A user to be added.
#[derive(Clone)]
pub struct NewUser {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name to log in with.
    pub username: String,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// E-mail address.
    pub email: Option<String>,
    /// Time zone.
    pub timezone: Option<String>,
    /// Hash of the password; empty: nobody can log in.
    pub password: String,
    /// Whose account it acts for.
    pub owner: Owner,
    /// Whether it comes with the installation.
    pub is_default: bool,
}

/// Adds a user, enabled.
pub async fn insert(tx: &mut Tx, user: &NewUser) -> Result<()> {
    tx.exec(
        Sql::new(
            "INSERT INTO users (id, uuid, username, username_lower, first_name, last_name, email, timezone, password, account_id, \
             domain_id, domain_path, live_key, state, source, login_attempts, registered, is_default, created) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'enabled', 'native', 0, 0, ?, ?)",
        )
        .bind(user.id)
        .bind(&user.uuid)
        .bind(&user.username)
        .bind(user.username.to_lowercase())
        .bind(&user.first_name)
        .bind(&user.last_name)
        .bind(user.email.clone())
        .bind(user.timezone.clone())
        .bind(&user.password)
        .bind(user.owner.account_id)
        .bind(user.owner.domain_id)
        .bind(&user.owner.domain_path)
        .bind(live_key(user.owner.domain_id, &user.username))
        .bind(user.is_default)
        .bind(now_micros()),
    )
    .await
    .map(drop)
}

/// What updateUser may change.
#[derive(Clone, Default)]
pub struct Change {
    /// Name to log in with.
    pub username: Option<String>,
    /// First name.
    pub first_name: Option<String>,
    /// Last name.
    pub last_name: Option<String>,
    /// E-mail address.
    pub email: Option<String>,
    /// Time zone.
    pub timezone: Option<String>,
    /// Hash of the password.
    pub password: Option<String>,
}

/// Changes a user. Tells whether it is alive.
pub async fn update(tx: &mut Tx, user: &UserRow, change: &Change) -> Result<bool> {
    let name = change.username.as_deref();
    let sql = Sql::new("UPDATE users SET is_default = is_default")
        .push_if(", username = ?", name)
        .push_if(", username_lower = ?", name.map(str::to_lowercase))
        .push_if(", live_key = ?", name.map(|n| live_key(user.domain_id, n)))
        .push_if(", first_name = ?", change.first_name.as_deref())
        .push_if(", last_name = ?", change.last_name.as_deref())
        .push_if(", email = ?", change.email.as_deref())
        .push_if(", timezone = ?", change.timezone.as_deref())
        .push_if(", password = ?", change.password.as_deref())
        .push(" WHERE id = ? AND removed IS NULL")
        .bind(user.id);
    Ok(tx.exec(sql).await? > 0)
}

/// Replaces the keys; the secret one is sealed. Tells whether the user is alive.
pub async fn set_keys(tx: &mut Tx, id: i64, api_key: &str, sealed: &str) -> Result<bool> {
    let sql = Sql::new("UPDATE users SET api_key = ?, secret_key = ? WHERE id = ? AND removed IS NULL");
    Ok(tx.exec(sql.bind(api_key).bind(sealed).bind(id)).await? > 0)
}

/// Gives keys to a user that has none.
pub async fn set_keys_if_none(tx: &mut Tx, id: i64, api_key: &str, sealed: &str) -> Result<()> {
    let sql = Sql::new("UPDATE users SET api_key = ?, secret_key = ? WHERE id = ? AND api_key IS NULL");
    tx.exec(sql.bind(api_key).bind(sealed).bind(id)).await.map(drop)
}

/// Sets the state; failed logins are forgotten. Tells whether the user is alive.
pub async fn set_state(tx: &mut Tx, id: i64, state: &str) -> Result<bool> {
    let sql = Sql::new("UPDATE users SET state = ?, login_attempts = 0 WHERE id = ? AND removed IS NULL");
    Ok(tx.exec(sql.bind(state).bind(id)).await? > 0)
}

/// Whether any living user of the account is enabled.
pub async fn any_enabled(tx: &mut Tx, account: i64) -> Result<bool> {
    let sql = Sql::new("SELECT id FROM users WHERE account_id = ? AND removed IS NULL AND state = 'enabled' LIMIT 1");
    Ok(tx.optional(sql.bind(account)).await?.is_some())
}

/// Counts a failed login; at `allowed` ones the user is disabled. Tells whether that has just happened.
pub async fn count_failure(tx: &mut Tx, id: i64, allowed: i64) -> Result<bool> {
    tx.exec(Sql::new("UPDATE users SET login_attempts = login_attempts + 1 WHERE id = ?").bind(id)).await?;
    let sql =
        Sql::new("UPDATE users SET state = 'disabled' WHERE id = ? AND login_attempts >= ? AND state = 'enabled'");
    Ok(tx.exec(sql.bind(id).bind(allowed)).await? > 0)
}

/// Forgets failed logins.
pub async fn forget_failures(tx: &mut Tx, id: i64) -> Result<()> {
    tx.exec(Sql::new("UPDATE users SET login_attempts = 0 WHERE id = ?").bind(id)).await.map(drop)
}

/// Gives a user to another account of its domain.
pub async fn move_to(tx: &mut Tx, id: i64, account: i64) -> Result<bool> {
    let sql = Sql::new("UPDATE users SET account_id = ? WHERE id = ? AND removed IS NULL");
    Ok(tx.exec(sql.bind(account).bind(id)).await? > 0)
}

/// Removes a user; its keys and its password stop working.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE users SET removed = ?, live_key = NULL, api_key = NULL, secret_key = NULL, password = '' \
         WHERE id = ? AND removed IS NULL",
    );
    Ok(tx.exec(sql.bind(now_micros()).bind(id)).await? > 0)
}
