//! SSH key pairs. The private half is made, answered once, and never kept.

mod der;
mod public;
mod rsa;

use crate::fact;
use crate::store::key_pairs::{self as rows, KeyPairRow, Taken};
use crate::world::World;
use ::store::Tx;
use config::keys;
use contract::ApiError;
use contract::api::Success;
use contract_compute::{
    CreateSshKeyPairRequest, CreatedSshKeyPair, DeleteSshKeyPairRequest, ListSshKeyPairsRequest,
    ListSshKeyPairsResponse, RegisterSshKeyPairRequest, SshKeyPair,
};
use model::scope::owner_for_create;
use model::{ListScope, Owner, ScopeRequest};
use public::PublicKey;
use rpc::Cx;

/// Longest name.
const NAME_LIMIT: usize = 255;

/// Makes a key pair and answers its private key.
pub async fn create(world: &World, cx: &Cx, r: CreateSshKeyPairRequest) -> Result<CreatedSshKeyPair, ApiError> {
    let owner = owner(world, cx, r.account.as_deref()).await?;
    let name = checked_name(r.name())?;
    let keyed = cx.caller.idempotency_key.as_deref().is_some_and(|k| !k.is_empty());
    // Making a key takes long: don't, for a name that can't be had. A repeat of a request finds its own.
    if !keyed && rows::find(&world.node.db, owner.account_id, &name).await?.is_some() {
        return Err(taken(Taken::Name, &name, ""));
    }
    let bits = world.node.settings.get(keys::SSH_KEY_LENGTH);
    let pair = tokio::task::spawn_blocking(move || rsa::generate(bits))
        .await
        .map_err(|e| ApiError::internal(format!("making an SSH key failed: {e}")))??;
    let id = world.node.db.next_id("ssh_keypair").await?;
    // What the transaction answers is kept for repeats of the request: there the private key is sealed, and only where a
    // repeat can come at all.
    let context = format!("ssh_keypairs.private_key:{}/{name}", owner.account_id);
    let sealed = keyed.then(|| world.node.vault.seal(&context, pair.private_pem.expose().as_bytes()));
    let mut answer = jobs::mutate!(world.node.db, cx.caller, "create-ssh-key-pair", |tx| {
        let row = insert(tx, cx, id, &owner, &name, &pair.public).await?;
        Ok(CreatedSshKeyPair {
            private_key: sealed.clone(),
            name: Some(row.name),
            account: Some(row.account),
            domain_id: Some(row.domain_uuid),
            domain: Some(row.domain),
            fingerprint: Some(row.fingerprint),
            ..CreatedSshKeyPair::default()
        })
    })
    .await?;
    answer.private_key = Some(match &answer.private_key {
        Some(sealed) => String::from_utf8(world.node.vault.open_sealed(&context, sealed)?)
            .map_err(|_| ApiError::internal("a sealed SSH key is no text"))?,
        None => pair.private_pem.expose().clone(),
    });
    Ok(answer)
}

/// Registers the public half of a key pair.
pub async fn register(world: &World, cx: &Cx, r: RegisterSshKeyPairRequest) -> Result<SshKeyPair, ApiError> {
    let owner = owner(world, cx, r.account.as_deref()).await?;
    let name = checked_name(r.name())?;
    let key = PublicKey::parse(r.public_key())?;
    let id = world.node.db.next_id("ssh_keypair").await?;
    jobs::mutate!(world.node.db, cx.caller, "register-ssh-key-pair", |tx| {
        Ok(message(insert(tx, cx, id, &owner, &name, &key).await?))
    })
    .await
}

/// Deletes a key pair of an account; VMs keep the key that they have.
pub async fn delete(world: &World, cx: &Cx, r: DeleteSshKeyPairRequest) -> Result<Success, ApiError> {
    let owner = owner(world, cx, r.account.as_deref()).await?;
    let name = r.name().to_owned();
    jobs::mutate!(world.node.db, cx.caller, "delete-ssh-key-pair", |tx| {
        if !rows::delete(tx, owner.account_id, &name).await? {
            return Err(ApiError::param(format!(
                "A key pair with name '{name}' does not exist for account {} in specified domain id",
                r.account.as_deref().unwrap_or(&cx.caller.account_name)
            )));
        }
        Ok(Success { success: true, ..Success::default() })
    })
    .await
}

/// Lists key pairs.
pub async fn list(world: &World, cx: &Cx, r: ListSshKeyPairsRequest) -> Result<ListSshKeyPairsResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let domain = cx.refs.living("domainid")?.and_then(|e| e.owner.clone());
    let db = &world.node.db;
    let request = ScopeRequest {
        account: r.account.as_deref().filter(|a| !a.is_empty()),
        domain: domain.as_ref().map(|o| (o.domain_id, o.domain_path.as_str())),
        list_all: r.list_all == Some(true),
        recursive: r.is_recursive == Some(true),
        by_id: false,
    };
    let scope = ListScope::of(db, &cx.caller, &request).await?;
    fn given(v: &Option<String>) -> Option<&str> {
        v.as_deref().filter(|v| !v.is_empty())
    }
    let (found, count) = rows::list(db, &scope, given(&r.name), given(&r.fingerprint), given(&r.keyword), page).await?;
    Ok(ListSshKeyPairsResponse { count: Some(count), ssh_key_pair: found.into_iter().map(message).collect() })
}

async fn owner(world: &World, cx: &Cx, account: Option<&str>) -> Result<Owner, ApiError> {
    let domain = cx.refs.living("domainid")?.and_then(|e| e.owner.clone());
    let domain = domain.as_ref().map(|o| (o.domain_id, o.domain_path.as_str()));
    owner_for_create(&world.node.db, &cx.caller, account.filter(|a| !a.is_empty()), domain).await
}

async fn insert(
    tx: &mut Tx,
    cx: &Cx,
    id: i64,
    owner: &Owner,
    name: &str,
    key: &PublicKey,
) -> Result<KeyPairRow, ApiError> {
    let fingerprint = key.fingerprint();
    if let Some(what) = rows::insert(tx, id, owner, name, &fingerprint, &key.line()).await? {
        return Err(taken(what, name, &fingerprint));
    }
    let what = format!("registering ssh keypair. Name: {name}");
    fact::completed(tx, &cx.caller, "REGISTER.SSH.KEYPAIR", &what, ("SSHKeyPair", name)).await?;
    rows::find(&mut *tx, owner.account_id, name)
        .await?
        .ok_or_else(|| ApiError::internal("the account of a key pair doesn't exist"))
}

fn taken(what: Taken, name: &str, fingerprint: &str) -> ApiError {
    ApiError::param(match what {
        Taken::Name => format!("A key pair with name '{name}' already exists."),
        Taken::Key => format!("A key pair with key fingerprint '{fingerprint}' already exists."),
    })
}

fn checked_name(name: &str) -> Result<String, ApiError> {
    match name.trim() {
        "" => Err(ApiError::param("Please specify a name for the key pair.")),
        name if name.chars().count() > NAME_LIMIT => {
            Err(ApiError::param("The name of a key pair has at most 255 characters."))
        }
        name => Ok(name.to_owned()),
    }
}

fn message(k: KeyPairRow) -> SshKeyPair {
    SshKeyPair {
        name: Some(k.name),
        account: Some(k.account),
        domain_id: Some(k.domain_uuid),
        domain: Some(k.domain),
        fingerprint: Some(k.fingerprint),
        ..SshKeyPair::default()
    }
}
