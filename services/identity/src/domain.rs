//! Domains: making, changing, listing.

use crate::notify::{self, Changed};
use crate::store::Source;
use crate::store::domains::{self, DomainRow, Filter};
use crate::view::Details;
use crate::{Identity, event, text, view};
use ::store::Error;
use contract::{ApiError, Caller, Page, RoleType};
use contract_identity::{CREATE_DOMAIN, CreateDomainRequest, Domain, UPDATE_DOMAIN, UpdateDomainRequest};
use model::Owner;

/// The root of the tree.
pub const ROOT: i64 = 1;

impl Identity {
    /// Makes a domain below `parent`.
    ///
    /// # Errors
    /// 431 for a name that is taken or can't be one, 531 when the parent is out of reach.
    pub async fn create_domain(
        &self,
        caller: &Caller,
        parent: i64,
        request: &CreateDomainRequest,
    ) -> Result<Domain, ApiError> {
        let parent = self.domain(parent).await?;
        self.may_administer(caller, &parent)?;
        let name = domain_name(request.name.as_deref())?;
        let id = self.node.db.next_id("domain").await?;
        let domain = DomainRow {
            id,
            uuid: text::new_uuid(request.domain_id.as_deref(), "domainid")?,
            name: name.to_owned(),
            name_path: format!("{}/{name}", parent.name_path),
            path: format!("{}{id}/", parent.path),
            parent: Some(parent.id),
            level: parent.level + 1,
            state: domains::ACTIVE.to_owned(),
            network_domain: text::network_domain(request.network_domain.as_deref())?.map(str::to_owned),
            removed: false,
        };
        fits(&domain.name_path, &domain.path)?;
        jobs::mutate!(self.node.db, *caller, "create-domain", |tx| {
            // The parent first: it must not go, nor get a limit, unseen.
            if !domains::touch(tx, parent.id).await? {
                let text =
                    format!("The domain cannot be created as the parent domain {} is being deleted", parent.name);
                return Err(ApiError::failed(text));
            }
            match domains::insert(tx, &domain, caller.account_id).await {
                Err(Error::Unique { key }) if key.contains("uuid") => return Err(taken_uuid(&domain.uuid)),
                Err(Error::Unique { .. }) => {
                    let text = format!("Domain with name {name} already exists for the parent id={}", parent.id);
                    return Err(ApiError::param(text));
                }
                other => other?,
            }
            let done = format!("Successfully completed creating Domain. Domain Name: {name}");
            event::completed(tx, caller, &CREATE_DOMAIN.event, done, &of(caller, &domain), ("Domain", &domain.uuid))
                .await?;
            self.domain_again(tx, &domain).await
        })
        .await
    }

    /// Changes a domain's name or DNS domain.
    ///
    /// # Errors
    /// 431 for a name that is taken or can't be one, 531 when the domain is out of reach.
    pub async fn update_domain(
        &self,
        caller: &Caller,
        id: i64,
        request: &UpdateDomainRequest,
    ) -> Result<Domain, ApiError> {
        let domain = self.domain(id).await?;
        self.may_administer(caller, &domain)?;
        let name = request.name.as_deref().map(|n| domain_name(Some(n))).transpose()?;
        if domain.is_root() && name.is_some() {
            return Err(ApiError::param("ROOT domain can not be edited with a new name"));
        }
        let network_domain = text::network_domain(request.network_domain.as_deref())?;
        if let Some(name) = name {
            let longest = domains::subtree(&mut Source::Db(&self.node.db), &domain.path).await?;
            let longest = longest.iter().map(|d| d.name_path.chars().count()).max().unwrap_or(0);
            if longest + name.chars().count() > text::NAME_PATH + domain.name.chars().count() {
                return Err(ApiError::param("The path of names of a domain below would be too long"));
            }
        }
        jobs::mutate!(self.node.db, *caller, "update-domain", |tx| {
            let Some(now) = domains::find(&mut *tx, id).await?.filter(DomainRow::is_active) else {
                return Err(ApiError::param("The domain is being deleted"));
            };
            if let Some(name) = name {
                match domains::rename(tx, &now, name).await {
                    Err(Error::Unique { .. }) => {
                        return Err(ApiError::param(format!(
                            "Failed to update domain id={}; domain with name {name} already exists in the system",
                            domain.uuid
                        )));
                    }
                    other => other?,
                }
            }
            if request.network_domain.is_some() {
                domains::set_network_domain(tx, id, network_domain).await?;
            }
            notify::after(tx, &self.node.coord, Changed::Domain(id));
            let done = format!("Successfully completed updating Domain. Domain Id: {}", domain.uuid);
            event::completed(tx, caller, &UPDATE_DOMAIN.event, done, &of(caller, &domain), ("Domain", &domain.uuid))
                .await?;
            self.domain_again(tx, &domain).await
        })
        .await
    }

    /// A domain as answers show it, read again within a transaction.
    async fn domain_again(&self, tx: &mut ::store::Tx, domain: &DomainRow) -> Result<Domain, ApiError> {
        let row = domains::find(&mut *tx, domain.id).await?.unwrap_or_else(|| domain.clone());
        let shown = view::domains(self, &mut Source::Tx(tx), &[row], Details::All).await?;
        shown.into_iter().next().ok_or_else(|| ApiError::internal("a domain can't be shown"))
    }

    /// A page of domains that the caller may see, and how many there are.
    ///
    /// # Errors
    /// 531 when a named domain is out of reach.
    pub async fn list_domains(
        &self,
        caller: &Caller,
        mut filter: Filter<'_>,
        list_all: bool,
        details: Details,
        page: Page,
    ) -> Result<(Vec<Domain>, i64), ApiError> {
        if let Some(id) = filter.id {
            // Removed ones are found by id, too, and then not listed.
            if let Some(domain) = domains::find(&self.node.db, id).await? {
                self.may_see(caller, &domain)?;
            }
        } else if caller.role() != RoleType::Admin {
            if list_all && caller.is_admin() {
                filter.below = Some(&caller.domain_path);
            } else {
                filter.id = Some(caller.domain_id);
            }
        }
        let (rows, count) = domains::page(&self.node.db, &filter, page).await?;
        let shown = view::domains(self, &mut Source::Db(&self.node.db), &rows, details).await?;
        Ok((shown, count))
    }

    fn may_see(&self, caller: &Caller, domain: &DomainRow) -> Result<(), ApiError> {
        if caller.domain_id == domain.id { Ok(()) } else { self.may_administer(caller, domain) }
    }
}

fn domain_name(name: Option<&str>) -> Result<&str, ApiError> {
    let name = text::filled(name, "The name of the domain")?;
    if name.contains('/') {
        return Err(ApiError::param("The name of a domain can't contain '/'"));
    }
    Ok(name)
}

fn fits(name_path: &str, path: &str) -> Result<(), ApiError> {
    if name_path.chars().count() > text::NAME_PATH || path.len() > text::ID_PATH {
        return Err(ApiError::param("The domain would lie too deep in the tree"));
    }
    Ok(())
}

/// 431: an id that the request wants a new entity to have.
pub fn taken_uuid(uuid: &str) -> ApiError {
    ApiError::param(format!("There is an entity with the id {uuid} already"))
}

/// What belongs to a domain rather than to an account is told to the caller's account in that domain's subtree.
fn of(caller: &Caller, domain: &DomainRow) -> Owner {
    Owner { account_id: caller.account_id, domain_id: domain.id, domain_path: domain.path.clone() }
}
