use crate::world::{World, as_, code, err, new_account, ok};
use contract::api::RoleType;
use contract_identity::{
    CreateAccountRequest, CreateRolePermissionRequest, CreateRoleRequest, DeleteAccountRequest,
    DeleteRolePermissionRequest, DeleteRoleRequest, ListRolePermissionsRequest, ListRolesRequest, Role,
    RoleRulesRequest, UpdateRolePermissionRequest, UpdateRoleRequest,
};
use coord::Notice;
use std::time::Duration;

fn role(name: &str, kind: &str) -> CreateRoleRequest {
    CreateRoleRequest { name: Some(name.into()), r#type: Some(kind.into()), description: Some("d".into()) }
}

fn rule(role: &Role, rule: &str, permission: &str) -> CreateRolePermissionRequest {
    CreateRolePermissionRequest {
        role_id: role.id.clone(),
        rule: Some(rule.into()),
        permission: Some(permission.into()),
        description: Some("why".into()),
    }
}

testkit::databases! {
    // covers: IAM-041, IAM-042, IAM-044, IAM-051
    async fn roles_and_ordered_rules(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let made = ok(w.roles().create(as_(&root, role("ops", "User")))).await;
        assert_eq!((made.name(), made.r#type(), made.description()), ("ops", "User", "d"));
        assert_eq!(code(w.roles().create(as_(&root, role("x", "Foo")))).await, 431);
        assert_eq!(code(w.roles().create(as_(&root, CreateRoleRequest { name: Some("x".into()), ..Default::default() }))).await, 431);
        let named = ListRolesRequest { name: Some("ops".into()), ..Default::default() };
        assert_eq!(ok(w.roles().list(as_(&root, named))).await.role, std::slice::from_ref(&made));
        let mut ids = Vec::new();
        for (pattern, permission) in [("listVirtualMachines", "deny"), ("list*", "ALLOW"), ("*", "deny")] {
            let got = ok(w.roles().create_permission(as_(&root, rule(&made, pattern, permission)))).await;
            assert_eq!((got.rule(), got.role_name(), got.description()), (pattern, "ops", "why"));
            ids.push(got.id.unwrap());
        }
        assert_eq!(code(w.roles().create(as_(&root, role("OPS", "Admin")))).await, 431, "it is there already");
        assert_eq!(code(w.roles().create_permission(as_(&root, rule(&made, "LIST*", "deny")))).await, 431);
        let bad = err(w.roles().create_permission(as_(&root, rule(&made, "list-*", "allow")))).await;
        assert_eq!(bad.code, 431);
        assert_eq!(code(w.roles().create_permission(as_(&root, rule(&made, "list*", "maybe")))).await, 431);
        let number = w.number("roles", made.id()).await;
        let patterns = async || {
            let answer = w.authority().role_rules(RoleRulesRequest { role_id: number }).await.unwrap().into_inner();
            answer.role.unwrap().rules.into_iter().map(|r| (r.rule, r.allow)).collect::<Vec<_>>()
        };
        assert_eq!(patterns().await, [("listVirtualMachines".into(), false), ("list*".into(), true), ("*".into(), false)]);
        let order = |ids: &[&String]| UpdateRolePermissionRequest {
            role_id: made.id.clone(), rule_order: ids.iter().map(|i| (*i).clone()).collect(), ..Default::default()
        };
        let mut told = w.node.coord.subscribe("identity");
        ok(w.roles().update_permission(as_(&root, order(&[&ids[1], &ids[0], &ids[2]])))).await;
        let notice = tokio::time::timeout(Duration::from_secs(10), told.next()).await.unwrap();
        assert_eq!(notice, Notice::Message(format!("role/{number}")));
        assert_eq!(patterns().await, [("list*".into(), true), ("listVirtualMachines".into(), false), ("*".into(), false)]);
        let listed = ok(w.roles().list_permissions(as_(&root, ListRolePermissionsRequest { role_id: made.id.clone() }))).await;
        let listed: Vec<_> = listed.role_permission.iter().map(|r| r.id().to_owned()).collect();
        assert_eq!(listed, [ids[1].clone(), ids[0].clone(), ids[2].clone()]);
        assert_eq!(code(w.roles().update_permission(as_(&root, order(&[&ids[1], &ids[0]])))).await, 431, "one is missing");
        assert_eq!(code(w.roles().update_permission(as_(&root, order(&[&ids[1], &ids[0], &ids[0]])))).await, 431);
        // One rule flipped; not together with an order.
        let flip = UpdateRolePermissionRequest {
            role_id: made.id.clone(), rule_id: Some(ids[2].clone()), permission: Some("allow".into()), ..Default::default()
        };
        ok(w.roles().update_permission(as_(&root, flip.clone()))).await;
        assert_eq!(patterns().await[2], ("*".into(), true));
        let both = UpdateRolePermissionRequest { rule_order: ids.clone(), ..flip.clone() };
        assert_eq!(code(w.roles().update_permission(as_(&root, both))).await, 431);
        let other = ok(w.roles().create(as_(&root, role("other", "User")))).await;
        let foreign = UpdateRolePermissionRequest { role_id: other.id.clone(), ..flip };
        assert_eq!(code(w.roles().update_permission(as_(&root, foreign))).await, 431);
        ok(w.roles().delete_permission(as_(&root, DeleteRolePermissionRequest { id: Some(ids[0].clone()) }))).await;
        assert_eq!(patterns().await, [("list*".into(), true), ("*".into(), true)]);
        assert_eq!(code(w.roles().delete_permission(as_(&root, DeleteRolePermissionRequest { id: Some(ids[0].clone()) }))).await, 431);
        let update = UpdateRoleRequest { id: made.id.clone(), name: Some("ops2".into()), ..Default::default() };
        let shown = ok(w.roles().update(as_(&root, update))).await;
        assert_eq!((shown.name(), shown.description()), ("ops2", "d"));
        let taken = UpdateRoleRequest { id: made.id.clone(), name: Some("other".into()), ..Default::default() };
        assert_eq!(code(w.roles().update(as_(&root, taken))).await, 431);
        ok(w.roles().create(as_(&root, role("ops", "User")))).await; // the name is free again
    }

    // covers: IAM-043, IAM-052, IAM-053, IAM-054
    async fn roles_in_use_stay(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let made = ok(w.roles().create(as_(&root, role("helpdesk", "DomainAdmin")))).await;
        ok(w.roles().create_permission(as_(&root, rule(&made, "list*", "allow")))).await;
        let mut request = new_account("help", 0, None);
        (request.account_type, request.role_id) = (None, made.id.clone());
        let account = ok(w.accounts().create(as_(&root, request))).await;
        assert_eq!((account.account_type(), account.role_type(), account.role_name()), (2, "DomainAdmin", "helpdesk"));
        let help = w.caller_of(&account).await;
        assert_eq!(help.role(), RoleType::DomainAdmin);
        let delete = |r: &Role| DeleteRoleRequest { id: r.id.clone() };
        let retype = |r: &Role| UpdateRoleRequest { id: r.id.clone(), r#type: Some("User".into()), ..Default::default() };
        assert_eq!(code(w.roles().delete(as_(&root, delete(&made)))).await, 531);
        assert_eq!(code(w.roles().update(as_(&root, retype(&made)))).await, 431);
        for built_in in ok(w.roles().list(as_(&root, ListRolesRequest::default()))).await.role.iter().take(4) {
            assert_eq!(code(w.roles().delete(as_(&root, delete(built_in)))).await, 531);
            assert_eq!(code(w.roles().update(as_(&root, retype(built_in)))).await, 431);
        }
        // Others than root admins neither see roles of type Admin nor change any.
        let seen = ok(w.roles().list(as_(&help, ListRolesRequest::default()))).await;
        assert!(seen.role.iter().all(|r| r.r#type() != "Admin") && seen.role.len() == 4);
        assert_eq!(code(w.roles().create(as_(&help, role("x", "User")))).await, 531);
        assert_eq!(code(w.roles().create_permission(as_(&help, rule(&made, "*", "allow")))).await, 531);
        assert_eq!(code(w.roles().list_permissions(as_(&help, ListRolePermissionsRequest::default()))).await, 531);
        let job = ok(w.accounts().delete(as_(&root, DeleteAccountRequest { id: account.id, custom_job_id: None }))).await;
        w.job::<contract::api::Success>(job).await.unwrap();
        assert_eq!(ok(w.roles().update(as_(&root, retype(&made)))).await.r#type(), "User");
        assert!(ok(w.roles().delete(as_(&root, delete(&made)))).await.success);
        let left = w.node.db.one("SELECT COUNT(*) FROM role_permissions WHERE role_id > 4".into()).await.unwrap();
        assert_eq!(left.at::<i64>(0).unwrap(), 0);
    }

    async fn nobody_gives_more_rights_than_he_has(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d = w.make_domain(&root, "d", None).await;
        let admin = w.caller_of(&w.make_account(&root, "ad", 2, Some(&d)).await).await;
        let weak = ok(w.roles().create(as_(&root, role("weak", "User")))).await;
        ok(w.roles().create_permission(as_(&root, rule(&weak, "listZones", "allow")))).await;
        let strong = ok(w.roles().create(as_(&root, role("strong", "User")))).await;
        ok(w.roles().create_permission(as_(&root, rule(&strong, "add*", "allow")))).await;
        let with = |name: &str, r: &Role| CreateAccountRequest {
            account_type: None, role_id: r.id.clone(), ..new_account(name, 0, Some(&d))
        };
        assert_eq!(code(w.accounts().create(as_(&admin, with("a", &weak)))).await, 200);
        let error = err(w.accounts().create(as_(&admin, with("b", &strong)))).await;
        assert_eq!(error.code, 531);
        assert!(error.text.contains("the role strong allows add"), "{error}");
        // Nor does he get hold of an account that has more.
        let above = ok(w.accounts().create(as_(&root, with("c", &strong)))).await;
        let keys = contract_identity::RegisterUserKeysRequest { id: above.user[0].id.clone() };
        assert_eq!(code(w.users().register_keys(as_(&admin, keys))).await, 531);
    }
}
