//! Domains, accounts, users, roles, and whose everything is.

use super::{check, ids, texts};
use crate::check::Check;
use crate::check::Settle::{Moment, Round};
use crate::check::Severity::Grave;

/// Rows whose owner doesn't exist, was removed, or lies in another domain than the row says.
macro_rules! owner {
    ($kind:literal, $uuid:literal, $table:literal, $key:literal, $condition:literal) => {
        concat!(
            "SELECT '", $kind, "/' || ", $uuid, ", 'is of account ' || x.account_id || ' in domain ' || x.domain_path || \
             CASE WHEN a.id IS NULL THEN ', which doesn''t exist' WHEN a.removed IS NOT NULL THEN ', which was removed' \
             ELSE ', which is in ' || a.domain_path END, NULL FROM ", $table, " x LEFT JOIN accounts a ON a.id = x.account_id \
             WHERE {page:x.", $key, "} AND ", $condition, " AND (a.id IS NULL OR a.removed IS NOT NULL OR a.domain_id <> x.domain_id \
             OR a.domain_path <> x.domain_path) AND {free:'account/' || x.account_id}"
        )
    };
}

const OWNER: &str = "Something belongs to an account that doesn't exist, was removed, or lies in another domain than noted: \
                     nobody sees it, or the wrong people do.";
const GIVE: &str = "Correct account and domain of the row, or have an administrator remove the resource.";

pub(super) const CHECKS: &[Check] = &[
    check(
        "domain-path",
        Grave,
        Moment,
        ids("domains"),
        "A domain isn't where its path says: subtrees are wrong.",
        "Set `path`, `level` and `parent` right, and `domain_path` of all that is in it.",
        "SELECT 'domain/' || d.uuid, d.name || ' has path ' || d.path || ' at level ' || d.level || '; its parent has ' || \
         COALESCE(p.path, 'none'), NULL FROM domains d LEFT JOIN domains p ON p.id = d.parent WHERE {page:d.id} AND \
         ((d.parent IS NULL AND (d.path <> '/' || d.id || '/' OR d.level <> 0)) OR (d.parent IS NOT NULL AND (p.id IS NULL OR \
         d.path <> p.path || d.id || '/' OR d.level <> p.level + 1 OR (d.removed IS NULL AND p.removed IS NOT NULL))))",
    ),
    check(
        "account-domain",
        Grave,
        Moment,
        ids("accounts"),
        "An account isn't in a living domain, or not where its path says.",
        "Set `domain_id` and `domain_path` of the account, and of all that it owns.",
        "SELECT 'account/' || a.uuid, a.name || ' is in domain ' || a.domain_path || '; that domain has ' || COALESCE(d.path, 'no row'), \
         NULL FROM accounts a LEFT JOIN domains d ON d.id = a.domain_id WHERE {page:a.id} AND a.removed IS NULL AND \
         (d.id IS NULL OR d.removed IS NOT NULL OR d.path <> a.domain_path)",
    ),
    check(
        "account-role",
        Grave,
        Moment,
        ids("accounts"),
        "An account has a role that doesn't exist: its users may do nothing, or are refused everything.",
        "Give it another role (updateAccount).",
        "SELECT 'account/' || a.uuid, a.name || ' has role ' || a.role_id || ', which doesn''t exist', NULL FROM accounts a \
         LEFT JOIN roles r ON r.id = a.role_id WHERE {page:a.id} AND a.removed IS NULL AND (r.id IS NULL OR r.removed IS NOT NULL)",
    ),
    check(
        "role-rule",
        Grave,
        Moment,
        ids("role_permissions"),
        "A rule of a role that doesn't exist.",
        "Delete it from `role_permissions`.",
        "SELECT 'rule/' || x.uuid, x.rule || ' belongs to role ' || x.role_id || ', which doesn''t exist', NULL FROM role_permissions x \
         LEFT JOIN roles r ON r.id = x.role_id WHERE {page:x.id} AND (r.id IS NULL OR r.removed IS NOT NULL)",
    ),
    check(
        "user-account",
        Grave,
        Moment,
        ids("users"),
        "A user isn't of a living account, or in another domain than it: who logs in gets another's rights, or none.",
        "Set account and domain of the user right, or remove it.",
        "SELECT 'user/' || u.uuid, u.username || ' is of account ' || u.account_id || ' in ' || u.domain_path || \
         CASE WHEN a.id IS NULL THEN ', which doesn''t exist' WHEN a.removed IS NOT NULL THEN ', which was removed' ELSE \
         ', which is in ' || a.domain_path END, NULL FROM users u LEFT JOIN accounts a ON a.id = u.account_id WHERE {page:u.id} \
         AND u.removed IS NULL AND (a.id IS NULL OR a.removed IS NOT NULL OR a.domain_id <> u.domain_id OR a.domain_path <> u.domain_path)",
    ),
    check(
        "half-removed",
        Grave,
        Moment,
        None,
        "Something was removed and still holds its name, or lives and doesn't: another of that name can't be made, or two can.",
        "Set `live_key` to NULL for what was removed, to the name's key for what lives.",
        concat!(
            "SELECT 'domain/' || x.uuid, 'lives and removed at once', NULL FROM domains x WHERE (x.removed IS NULL) = (x.live_key IS NULL) ",
            "UNION ALL SELECT 'account/' || x.uuid, 'lives and removed at once', NULL FROM accounts x WHERE (x.removed IS NULL) = (x.live_key IS NULL) ",
            "UNION ALL SELECT 'user/' || x.uuid, 'lives and removed at once', NULL FROM users x WHERE (x.removed IS NULL) = (x.live_key IS NULL) ",
            "UNION ALL SELECT 'zone/' || x.uuid, 'lives and removed at once', NULL FROM zones x WHERE (x.removed IS NULL) = (x.live_key IS NULL) ",
            "UNION ALL SELECT 'pod/' || x.uuid, 'lives and removed at once', NULL FROM pods x WHERE (x.removed IS NULL) = (x.live_key IS NULL) ",
            "UNION ALL SELECT 'cluster/' || x.uuid, 'lives and removed at once', NULL FROM clusters x WHERE (x.removed IS NULL) = (x.live_key IS NULL) ",
            "UNION ALL SELECT 'host/' || x.uuid, 'lives and removed at once', NULL FROM hosts x WHERE (x.removed IS NULL) = (x.live_key IS NULL) ",
            "UNION ALL SELECT 'storagepool/' || x.uuid, 'lives and removed at once', NULL FROM storage_pools x WHERE (x.removed IS NULL) = (x.live_key IS NULL) ",
            "UNION ALL SELECT 'imagestore/' || x.uuid, 'lives and removed at once', NULL FROM image_stores x WHERE (x.removed IS NULL) = (x.live_key IS NULL)",
        ),
    ),
    check("vm-owner", Grave, Moment, ids("vms"), OWNER, GIVE, owner!("vm", "x.uuid", "vms", "id", "x.removed IS NULL")),
    check(
        "volume-owner",
        Grave,
        Moment,
        ids("volumes"),
        OWNER,
        GIVE,
        owner!("volume", "x.uuid", "volumes", "id", "x.removed IS NULL"),
    ),
    check(
        "network-owner",
        Grave,
        Moment,
        ids("networks"),
        OWNER,
        GIVE,
        owner!("network", "x.uuid", "networks", "id", "x.removed IS NULL AND x.is_system = 0"),
    ),
    check(
        "router-owner",
        Grave,
        Moment,
        ids("routers"),
        OWNER,
        GIVE,
        owner!("router", "x.uuid", "routers", "id", "x.removed IS NULL"),
    ),
    check(
        "nic-owner",
        Grave,
        Moment,
        ids("nics"),
        OWNER,
        GIVE,
        owner!("nic", "x.uuid", "nics", "id", "x.removed IS NULL"),
    ),
    check(
        "address-owner",
        Grave,
        Moment,
        ids("ip_addresses"),
        OWNER,
        GIVE,
        owner!("address", "x.ip", "ip_addresses", "id", "x.removed IS NULL AND x.state <> 'Free'"),
    ),
    check(
        "template-owner",
        Grave,
        Moment,
        ids("templates"),
        OWNER,
        GIVE,
        owner!("template", "x.uuid", "templates", "id", "x.removed IS NULL"),
    ),
    check(
        "key-pair-owner",
        Grave,
        Moment,
        ids("ssh_keypairs"),
        OWNER,
        GIVE,
        owner!("keypair", "x.uuid", "ssh_keypairs", "id", "x.removed IS NULL"),
    ),
    check(
        "instance-group-owner",
        Grave,
        Round,
        ids("instance_groups"),
        OWNER,
        GIVE,
        owner!("instancegroup", "x.uuid", "instance_groups", "id", "x.removed IS NULL"),
    ),
    check(
        "tag-owner",
        Grave,
        Moment,
        texts("tags", "uuid"),
        OWNER,
        GIVE,
        owner!(
            "tag",
            "x.uuid",
            "tags",
            "uuid",
            "EXISTS (SELECT 1 FROM accounts l WHERE l.id = x.account_id AND l.removed IS NULL)"
        ),
    ),
];
