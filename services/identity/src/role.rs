//! Roles and their rules: making, changing, ordering. Only root administrators come here.

use crate::notify::{self, Changed};
use crate::store::roles::{self, RoleRow, RuleRow};
use crate::{Identity, event, role_type, rules};
use ::store::Tx;
use contract::api::Success;
use contract::{ApiError, Caller, CommandInfo, RoleType};
use contract_identity::{
    CREATE_ROLE, CREATE_ROLE_PERMISSION, CreateRolePermissionRequest, CreateRoleRequest, DELETE_ROLE,
    DELETE_ROLE_PERMISSION, Role, RolePermission, UPDATE_ROLE, UPDATE_ROLE_PERMISSION, UpdateRoleRequest,
};
use model::Owner;
use std::collections::HashSet;

impl Identity {
    /// Makes a role without rules.
    ///
    /// # Errors
    /// 431 for a type that isn't one, and for a name that another role has.
    pub async fn create_role(&self, caller: &Caller, request: &CreateRoleRequest) -> Result<Role, ApiError> {
        root_only(caller)?;
        let kind = kind(request.r#type())?;
        let role = RoleRow {
            id: self.node.db.next_id("role").await?,
            uuid: model::new_uuid(),
            name: request.name().to_owned(),
            kind: role_type::name(kind).to_owned(),
            description: request.description.clone(),
            is_default: false,
            removed: false,
        };
        // A role without rules gives what its kind may do anyway.
        self.may_give(caller, &role).await?;
        jobs::mutate!(self.node.db, *caller, "create-role", |tx| {
            free_name(tx, &role).await?;
            roles::insert(tx, &role).await?;
            note(tx, caller, &CREATE_ROLE, "creating Role", &role).await?;
            Ok(shown(&role))
        })
        .await
    }

    /// Changes a role's name, description, or, while nobody has it, its type.
    ///
    /// # Errors
    /// 431 for a type that isn't one or can't be changed, and for a name that another role has.
    pub async fn update_role(&self, caller: &Caller, id: i64, request: &UpdateRoleRequest) -> Result<Role, ApiError> {
        root_only(caller)?;
        let new_kind = request.r#type.as_deref().filter(|t| !t.is_empty()).map(kind).transpose()?;
        if new_kind.is_some() && self.role_row(id).await?.is_default {
            return Err(ApiError::param("The type of a default role can't be changed"));
        }
        jobs::mutate!(self.node.db, *caller, "update-role", |tx| {
            let mut role = self.role_again(tx, id).await?;
            if let Some(kind) = new_kind.map(role_type::name).filter(|k| *k != role.kind) {
                if roles::accounts_with(tx, id).await? > 0 {
                    return Err(ApiError::param(
                        "Found accounts that have role in use, won't allow to update role type",
                    ));
                }
                kind.clone_into(&mut role.kind);
            }
            if let Some(name) = request.name.as_deref().filter(|n| !n.is_empty()) {
                name.clone_into(&mut role.name);
                free_name(tx, &role).await?;
            }
            role.description = request.description.clone().or(role.description);
            roles::update(tx, &role).await?;
            notify::after(tx, &self.node.coord, Changed::Role(id));
            note(tx, caller, &UPDATE_ROLE, "updating Role", &role).await?;
            Ok(shown(&role))
        })
        .await
    }

    /// Removes a role that nobody has, and its rules.
    ///
    /// # Errors
    /// 531 for a built-in role and one that is in use.
    pub async fn delete_role(&self, caller: &Caller, id: i64) -> Result<Success, ApiError> {
        root_only(caller)?;
        jobs::mutate!(self.node.db, *caller, "delete-role", |tx| {
            let role = self.role_again(tx, id).await?;
            if role.is_default {
                return Err(ApiError::permission("Default roles cannot be deleted"));
            }
            if roles::accounts_with(tx, id).await? > 0 {
                return Err(ApiError::permission("Found accounts that have role in use, won't allow to delete role"));
            }
            roles::remove(tx, id).await?;
            notify::after(tx, &self.node.coord, Changed::Role(id));
            note(tx, caller, &DELETE_ROLE, "deleting Role", &role).await?;
            Ok(success())
        })
        .await
    }

    /// Roles that the caller may see: those of type Admin are for root administrators.
    ///
    /// # Errors
    /// 431 for a type that isn't one.
    pub async fn list_roles(
        &self,
        caller: &Caller,
        id: Option<i64>,
        name: Option<&str>,
        of_kind: Option<&str>,
    ) -> Result<Vec<Role>, ApiError> {
        let of_kind = of_kind.filter(|t| !t.is_empty()).map(kind).transpose()?.map(role_type::name);
        let name = name.filter(|n| !n.is_empty());
        let found = roles::list(&self.node.db, id, name, of_kind).await?;
        let hidden = |r: &&RoleRow| caller.role() != RoleType::Admin && r.kind == role_type::name(RoleType::Admin);
        Ok(found.iter().filter(|r| !hidden(r)).map(shown).collect())
    }

    /// Adds a rule after the others.
    ///
    /// # Errors
    /// 431 for a rule or a permission that isn't one, and for a rule that the role has already.
    pub async fn create_rule(
        &self,
        caller: &Caller,
        role: i64,
        request: &CreateRolePermissionRequest,
    ) -> Result<RolePermission, ApiError> {
        root_only(caller)?;
        let pattern = request.rule();
        if !rules::is_valid(pattern) {
            let text = format!("Invalid rule: {pattern}. Only letters, digits and the wildcard * are allowed");
            return Err(ApiError::param(text));
        }
        let permission = permission(request.permission())?;
        let id = self.node.db.next_id("role_permission").await?;
        jobs::mutate!(self.node.db, *caller, "create-role-permission", |tx| {
            // The role first: rules that come at the same time follow one another.
            let role = self.role_again(tx, role).await?;
            let others = roles::rules(&mut *tx, Some(role.id)).await?;
            if others.iter().any(|other| other.rule.eq_ignore_ascii_case(pattern)) {
                return Err(ApiError::param(format!("The role {} has a rule for {pattern} already", role.name)));
            }
            let order = others.last().map_or(0, |last| last.order + 1);
            let rule = RuleRow {
                id,
                uuid: model::new_uuid(),
                role_id: role.id,
                rule: pattern.to_owned(),
                permission: permission.to_owned(),
                description: request.description.clone(),
                order,
            };
            roles::insert_rules(tx, std::slice::from_ref(&rule)).await?;
            notify::after(tx, &self.node.coord, Changed::Role(role.id));
            note(tx, caller, &CREATE_ROLE_PERMISSION, "creating Role Permission", &role).await?;
            Ok(shown_rule(&rule, &role))
        })
        .await
    }

    /// Puts the rules of a role in another order: all of them are named.
    ///
    /// # Errors
    /// 431 when rules are missing, named twice, or of another role.
    pub async fn order_rules(&self, caller: &Caller, role: i64, order: &[i64]) -> Result<Success, ApiError> {
        root_only(caller)?;
        jobs::mutate!(self.node.db, *caller, "order-role-permissions", |tx| {
            let role = self.role_again(tx, role).await?;
            let known: HashSet<i64> = roles::rules(&mut *tx, Some(role.id)).await?.iter().map(|r| r.id).collect();
            let named: HashSet<i64> = order.iter().copied().collect();
            if named != known || named.len() != order.len() {
                return Err(ApiError::param("ruleorder must name each rule of the role once: list them again"));
            }
            for (place, rule) in (0..).zip(order) {
                roles::set_order(tx, *rule, place).await?;
            }
            notify::after(tx, &self.node.coord, Changed::Role(role.id));
            note(tx, caller, &UPDATE_ROLE_PERMISSION, "updating Role Permission order", &role).await?;
            Ok(success())
        })
        .await
    }

    /// Changes what a rule does with what it matches.
    ///
    /// # Errors
    /// 431 when the rule is of another role, or for a permission that isn't one.
    pub async fn set_permission(&self, caller: &Caller, role: i64, rule: i64, to: &str) -> Result<Success, ApiError> {
        root_only(caller)?;
        let to = permission(to)?;
        jobs::mutate!(self.node.db, *caller, "update-role-permission", |tx| {
            let role = self.role_again(tx, role).await?;
            if !roles::rules(&mut *tx, Some(role.id)).await?.iter().any(|r| r.id == rule) {
                return Err(ApiError::param("The rule belongs to another role"));
            }
            roles::set_permission(tx, rule, to).await?;
            notify::after(tx, &self.node.coord, Changed::Role(role.id));
            note(tx, caller, &UPDATE_ROLE_PERMISSION, "updating Role Permission", &role).await?;
            Ok(success())
        })
        .await
    }

    /// Deletes a rule.
    ///
    /// # Errors
    /// 431 when it is gone.
    pub async fn delete_rule(&self, caller: &Caller, rule: i64) -> Result<Success, ApiError> {
        root_only(caller)?;
        let gone = || ApiError::param("The rule has been deleted");
        let row = roles::rule(&self.node.db, rule).await?.ok_or_else(gone)?;
        jobs::mutate!(self.node.db, *caller, "delete-role-permission", |tx| {
            let role = self.role_again(tx, row.role_id).await?;
            if !roles::delete_rule(tx, rule).await? {
                return Err(gone());
            }
            notify::after(tx, &self.node.coord, Changed::Role(role.id));
            note(tx, caller, &DELETE_ROLE_PERMISSION, "deleting Role Permission", &role).await?;
            Ok(success())
        })
        .await
    }

    /// The rules of a role, or of all roles, in order.
    ///
    /// # Errors
    /// 531 for callers that aren't root administrators.
    pub async fn list_rules(&self, caller: &Caller, role: Option<i64>) -> Result<Vec<RolePermission>, ApiError> {
        root_only(caller)?;
        let found = roles::rules(&self.node.db, role).await?;
        let of = found.iter().map(|r| r.role_id).collect();
        let of = roles::of_ids(&mut crate::store::Source::Db(&self.node.db), of).await?;
        Ok(found.iter().filter_map(|rule| of.get(&rule.role_id).map(|role| shown_rule(rule, role))).collect())
    }

    async fn role_row(&self, id: i64) -> Result<RoleRow, ApiError> {
        let found = roles::find(&self.node.db, id).await?.filter(|r| !r.removed);
        found.ok_or_else(|| ApiError::param("Invalid role id provided"))
    }

    /// The role, locked for this transaction.
    async fn role_again(&self, tx: &mut Tx, id: i64) -> Result<RoleRow, ApiError> {
        roles::touch(tx, id).await?;
        let found = roles::find(tx, id).await?.filter(|r| !r.removed);
        found.ok_or_else(|| ApiError::param("Invalid role id provided"))
    }
}

fn root_only(caller: &Caller) -> Result<(), ApiError> {
    if caller.is_root_admin() {
        return Ok(());
    }
    Err(ApiError::permission("Restricted API called by an user account who is not a root admin"))
}

fn kind(name: &str) -> Result<RoleType, ApiError> {
    role_type::parse(name).ok_or_else(|| ApiError::param("Invalid role type provided"))
}

fn permission(text: &str) -> Result<&'static str, ApiError> {
    ["allow", "deny"]
        .into_iter()
        .find(|p| p.eq_ignore_ascii_case(text))
        .ok_or_else(|| ApiError::param(format!("Invalid permission: {text}. Give allow or deny")))
}

/// No other role may have the role's name.
async fn free_name(tx: &mut Tx, role: &RoleRow) -> Result<(), ApiError> {
    match roles::is_taken(tx, &role.name, role.id).await? {
        true => Err(ApiError::param(format!("There is a role named {} already", role.name))),
        false => Ok(()),
    }
}

fn success() -> Success {
    Success { success: true, display_text: None }
}

fn shown(role: &RoleRow) -> Role {
    Role {
        id: Some(role.uuid.clone()),
        name: Some(role.name.clone()),
        r#type: Some(role.kind.clone()),
        description: role.description.clone(),
        ..Role::default()
    }
}

fn shown_rule(rule: &RuleRow, role: &RoleRow) -> RolePermission {
    RolePermission {
        id: Some(rule.uuid.clone()),
        role_id: Some(role.uuid.clone()),
        role_name: Some(role.name.clone()),
        rule: Some(rule.rule.clone()),
        permission: Some(rule.permission.clone()),
        description: rule.description.clone(),
        ..RolePermission::default()
    }
}

async fn note(tx: &mut Tx, caller: &Caller, command: &CommandInfo, what: &str, role: &RoleRow) -> ::store::Result<()> {
    let done = format!("Successfully completed {what}. Role Id: {}", role.uuid);
    event::completed(tx, caller, &command.event, done, &Owner::caller(caller), ("Role", &role.uuid)).await
}
