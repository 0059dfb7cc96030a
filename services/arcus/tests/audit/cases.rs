//! A corruption for each check over the database.

/// How a check is made to tell.
pub struct Case {
    /// The check.
    pub check: &'static str,
    /// What breaks the invariant.
    pub corrupt: &'static [&'static str],
    /// A query for the resource that is named.
    pub resource: &'static str,
    /// Other checks that this breaks, too.
    pub related: &'static [&'static str],
}

const fn case(
    check: &'static str,
    corrupt: &'static [&'static str],
    resource: &'static str,
    related: &'static [&'static str],
) -> Case {
    Case { check, corrupt, resource, related }
}

const JOB: &str = "SELECT 'job/' || uuid FROM jobs WHERE id = (SELECT MAX(id) FROM jobs)";
const RUNS: &str = "SELECT 'vm/' || uuid FROM vms WHERE name = 't-first'";
const OFF: &str = "SELECT 'vm/' || uuid FROM vms WHERE name = 'off'";
const HOST: &str = "SELECT 'host/' || uuid FROM hosts WHERE id = (SELECT MIN(id) FROM hosts)";
const NETWORK: &str = "SELECT 'network/' || uuid FROM networks WHERE name = 't-network'";
const SECOND: &str = "SELECT 'network/' || uuid FROM networks WHERE name = 'second'";
const ROUTER: &str = "SELECT 'router/' || uuid FROM routers WHERE removed IS NULL";
const OFF_NIC: &str = "SELECT 'nic/' || uuid FROM nics WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 'off')";
const OFF_ROOT: &str = "SELECT 'volume/' || uuid FROM volumes WHERE kind = 'ROOT' AND name = (SELECT 'ROOT-' || id FROM vms WHERE name = 'off')";
const DATA: &str = "SELECT 'volume/' || uuid FROM volumes WHERE name = 'data'";
const SNAT: &str = "SELECT 'address/' || ip FROM ip_addresses WHERE is_source_nat = 1";
const FORWARD: &str = "SELECT 'rule/' || uuid FROM firewall_rules WHERE purpose = 'PortForwarding'";
const BALANCER: &str = "SELECT 'rule/' || uuid FROM firewall_rules WHERE purpose = 'LoadBalancing'";
const MEMBER: &str = "SELECT 'member/' || id FROM lb_members";
const STICKINESS: &str = "SELECT 'stickiness/' || uuid FROM lb_stickiness";
/// The template that was registered, and its copy.
const OWN_TEMPLATE: &str = "SELECT 'template/' || uuid FROM templates WHERE name = 'sample'";
const OWN_COPY: &str =
    "SELECT 'templatecopy/' || template_id || '/store/' || store_id FROM template_store_refs WHERE template_id >= 200";
const SNAPSHOT: &str = "SELECT 'snapshot/' || uuid FROM snapshots";
const TENANT: &str = "SELECT 'account/' || uuid FROM accounts WHERE name = 'tenant'";

pub const CASES: &[Case] = &[
    case(
        "job-parked",
        &["UPDATE jobs SET state = 'Parked', ended = NULL, claims = '[]' WHERE id = (SELECT MAX(id) FROM jobs)"],
        JOB,
        &[],
    ),
    case("job-state", &["UPDATE jobs SET ended = NULL WHERE id = (SELECT MAX(id) FROM jobs)"], JOB, &[]),
    case(
        "job-overdue",
        &[
            "UPDATE jobs SET state = 'Running', ended = NULL, claims = '[]', owner = 'x', deadline = 1 WHERE id = (SELECT MAX(id) FROM jobs)",
        ],
        JOB,
        &[],
    ),
    case(
        "job-unowned",
        &["UPDATE jobs SET state = 'Running', ended = NULL, claims = '[]', owner = NULL, deadline = NULL \
           WHERE id = (SELECT MAX(id) FROM jobs)"],
        JOB,
        &[],
    ),
    case(
        "job-unclaimed",
        &[
            "UPDATE jobs SET state = 'Running', ended = NULL, claims = '[{\"x\":\"vm/1\"}]', owner = 'x', deadline = NULL \
           WHERE id = (SELECT MAX(id) FROM jobs)",
        ],
        JOB,
        &[],
    ),
    case(
        "claim-leaked",
        &["INSERT INTO claims (resource, exclusive, shared, waiting, waiting_x, next_ticket, version, stamp) \
           SELECT 'vm/999', MAX(id), 0, 0, 0, 1, 0, 0 FROM jobs"],
        "SELECT 'claim/vm/999'",
        &[],
    ),
    case(
        "claim-shared",
        &["INSERT INTO claims (resource, exclusive, shared, waiting, waiting_x, next_ticket, version, stamp) \
           VALUES ('network/999', 0, 2, 0, 0, 1, 0, 0)"],
        "SELECT 'claim/network/999'",
        &[],
    ),
    case(
        "claim-conflict",
        &["INSERT INTO claims (resource, exclusive, shared, waiting, waiting_x, next_ticket, version, stamp) \
           VALUES ('network/998', 5, 1, 0, 0, 1, 0, 0)"],
        "SELECT 'claim/network/998'",
        &["claim-leaked", "claim-shared"],
    ),
    case(
        "claim-waiting",
        &["INSERT INTO claims (resource, exclusive, shared, waiting, waiting_x, next_ticket, version, stamp) \
           VALUES ('vm/998', 0, 0, 1, 1, 2, 0, 0)"],
        "SELECT 'claim/vm/998'",
        &[],
    ),
    case(
        "claim-queue-leaked",
        &["INSERT INTO claim_queue (resource, ticket, job_id, is_exclusive) SELECT 'vm/997', 1, MAX(id), 1 FROM jobs"],
        "SELECT 'claim/vm/997/1'",
        &[],
    ),
    case(
        "step-leaked",
        &["INSERT INTO job_steps (job_id, name, seq_no, input_hash, undone) VALUES (999999, 'lost', 1, 'h', 0)"],
        "SELECT 'job/999999/lost'",
        &[],
    ),
    case(
        "effect-leaked",
        &["INSERT INTO effects (job_id, step, epoch, state, created) VALUES (999999, 'lost', 1, 'Done', 1)"],
        "SELECT 'effect/999999/lost'",
        &[],
    ),
    case(
        "answer-late",
        &["INSERT INTO idempotency (account_id, idem_key, request_hash, created) VALUES (2, 'old', 'h', 1)"],
        "SELECT 'answer/2/old'",
        &[],
    ),
    case("sequence-behind", &["UPDATE ids SET next = 1 WHERE kind = 'vm'"], "SELECT 'sequence/vm'", &[]),
    case(
        "outbox-twice",
        &["INSERT INTO outbox (id, seq, topic, kind, payload, created) \
           SELECT 'twice', MAX(seq), 'change', 'host', 'x', MAX(created) FROM outbox"],
        "SELECT 'outbox/' || seq FROM outbox WHERE id = 'twice'",
        &[],
    ),
    case(
        "outbox-range",
        &[
            "INSERT INTO outbox (id, seq, topic, kind, payload, created) SELECT 'beyond', h.seq + 5, 'change', 'host', 'x', \
           (SELECT MAX(created) FROM outbox) FROM outbox_head h",
        ],
        "SELECT 'outbox/beyond'",
        &[],
    ),
    case(
        "outbox-late",
        &[
            "INSERT INTO outbox (id, seq, topic, kind, payload, created) VALUES ('late', NULL, 'change', 'host', 'x', 1)",
        ],
        "SELECT 'outbox/late'",
        &[],
    ),
    case(
        "cursor-range",
        &["UPDATE outbox_cursors SET seq = 999999 WHERE consumer = 'event-archive'"],
        "SELECT 'consumer/event-archive'",
        &[],
    ),
    case(
        "consumer-late",
        &[
            "UPDATE outbox SET created = 1 WHERE seq IS NOT NULL",
            "UPDATE outbox_cursors SET seq = 0 WHERE consumer = 'event-archive'",
        ],
        "SELECT 'consumer/event-archive'",
        &[],
    ),
    case(
        "event-lost",
        &["DELETE FROM events WHERE id = (SELECT MIN(seq) FROM outbox WHERE topic = 'event')"],
        "SELECT 'event/' || MIN(seq) FROM outbox WHERE topic = 'event'",
        &[],
    ),
    case(
        "usage-lost",
        &["DELETE FROM usage_events WHERE id = (SELECT MIN(seq) FROM outbox WHERE topic = 'usage')"],
        "SELECT 'usage/' || MIN(seq) FROM outbox WHERE topic = 'usage'",
        &[],
    ),
    case(
        "event-range",
        &["UPDATE events SET id = 999999 WHERE id = (SELECT MAX(id) FROM events)"],
        "SELECT 'event/999999'",
        &["event-lost"],
    ),
    case(
        "usage-vm",
        &[
            "UPDATE vms SET changed = 1",
            "DELETE FROM outbox",
            "DELETE FROM usage_events WHERE type = 'VM.START' AND resource_id = (SELECT id FROM vms WHERE name = 't-first')",
        ],
        RUNS,
        &[],
    ),
    case(
        "usage-owner",
        &["UPDATE usage_events SET account_id = 999 WHERE id = (SELECT MAX(id) FROM usage_events)"],
        "SELECT 'usage/' || MAX(id) FROM usage_events",
        &[],
    ),
    case(
        "session-of-nobody",
        &["INSERT INTO sessions (id_hash, key_hash, user_id, remote_address, created, last_used, idle_micros) \
           VALUES ('h', 'k', 999, '127.0.0.1', 1, 1, 1)"],
        "SELECT 'session/h'",
        &[],
    ),
    case(
        "setting-of-nothing",
        &["INSERT INTO settings (name, scope, scope_id, value) VALUES ('x', 'zone', 999, '1')"],
        "SELECT 'setting/x/zone/999'",
        &[],
    ),
    case("tag-of-nothing", &["UPDATE tags SET resource_id = 999"], "SELECT 'tag/' || uuid FROM tags", &[]),
    case("tag-owner", &["UPDATE tags SET domain_path = '/9/'"], "SELECT 'tag/' || uuid FROM tags", &[]),
    case(
        "detail-of-nothing",
        &["INSERT INTO infra_details (resource_type, resource_id, name, value) VALUES ('Zone', 999, 'n', 'v')"],
        "SELECT 'detail/Zone/999/n'",
        &[],
    ),
    case(
        "certificate-valid",
        &[
            "INSERT INTO agents (uuid, kind, name, enrolment_key, enrolled, revoked) VALUES ('a', 'host', 'a', 'k', 1, 1)",
            "INSERT INTO issued_certificates (serial, subject, not_after, issued) VALUES ('s', 'arcus://host/a', 9999999999999999, 1)",
        ],
        "SELECT 'certificate/s'",
        &[],
    ),
    case(
        "duty-state",
        &["UPDATE duties SET epoch = 0 WHERE name = (SELECT MIN(name) FROM duties)"],
        "SELECT 'duty/' || MIN(name) FROM duties",
        &[],
    ),
    case(
        "domain-path",
        &["UPDATE domains SET level = 7 WHERE name = 'sub'"],
        "SELECT 'domain/' || uuid FROM domains WHERE name = 'sub'",
        &[],
    ),
    case(
        "account-domain",
        &["UPDATE accounts SET domain_path = '/9/' WHERE name = 'tenant'"],
        TENANT,
        &["user-account"],
    ),
    case("account-role", &["UPDATE accounts SET role_id = 999 WHERE name = 'tenant'"], TENANT, &[]),
    case(
        "role-rule",
        &["UPDATE role_permissions SET role_id = 999 WHERE id = (SELECT MIN(id) FROM role_permissions)"],
        "SELECT 'rule/' || uuid FROM role_permissions WHERE role_id = 999",
        &[],
    ),
    case(
        "user-account",
        &["UPDATE users SET account_id = 999 WHERE username = 'tenant'"],
        "SELECT 'user/' || uuid FROM users WHERE username = 'tenant'",
        &[],
    ),
    case("half-removed", &["UPDATE zones SET live_key = NULL"], "SELECT 'zone/' || uuid FROM zones", &[]),
    case("vm-owner", &["UPDATE vms SET account_id = 999 WHERE name = 'off'"], OFF, &["limit-missing-vm", "vm-parts"]),
    case("volume-owner", &["UPDATE volumes SET domain_path = '/9/' WHERE name = 'data'"], DATA, &[]),
    case("network-owner", &["UPDATE networks SET domain_path = '/9/' WHERE name = 't-network'"], NETWORK, &[]),
    case("router-owner", &["UPDATE routers SET domain_path = '/9/'"], ROUTER, &[]),
    case(
        "nic-owner",
        &["UPDATE nics SET domain_path = '/9/' WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 'off')"],
        OFF_NIC,
        &[],
    ),
    case("address-owner", &["UPDATE ip_addresses SET domain_path = '/9/' WHERE is_source_nat = 1"], SNAT, &[]),
    case(
        "template-owner",
        &["UPDATE templates SET account_id = 999 WHERE id = (SELECT MIN(id) FROM templates)"],
        "SELECT 'template/' || uuid FROM templates WHERE account_id = 999",
        &[],
    ),
    case(
        "key-pair-owner",
        &["UPDATE ssh_keypairs SET account_id = 999"],
        "SELECT 'keypair/' || uuid FROM ssh_keypairs",
        &[],
    ),
    case(
        "instance-group-owner",
        &["UPDATE instance_groups SET account_id = 999"],
        "SELECT 'instancegroup/' || uuid FROM instance_groups",
        &[],
    ),
    case(
        "limit-count",
        &["UPDATE resource_counts SET used = used + 1 WHERE slot = 'account/2/0'"],
        "SELECT 'count/account/2/0'",
        &[],
    ),
    case(
        "limit-domain-count",
        &[
            "INSERT INTO resource_counts (slot, owner_kind, owner_id, type, used, epoch) VALUES ('domain/1/0', 'domain', 1, 0, 99, 0)",
        ],
        "SELECT 'count/domain/1/0'",
        &[],
    ),
    case(
        "limit-of-nobody",
        &[
            "INSERT INTO resource_limits (slot, owner_kind, owner_id, type, max) VALUES ('account/999/0', 'account', 999, 0, 5)",
        ],
        "SELECT 'limit/account/999/0'",
        &[],
    ),
    case(
        "limit-uncounted",
        &["DELETE FROM resource_counts WHERE slot = 'account/2/5'"],
        "SELECT 'account/' || uuid FROM accounts WHERE id = 2",
        &[],
    ),
    case(
        "limit-leaked-vm",
        &["INSERT INTO limit_reservations (holder, type, account_id, amount, reserved_by, created) \
           VALUES ('vm:11111111-1111-4111-8111-111111111111', 0, 2, 0, '', 1)"],
        "SELECT 'vm:11111111-1111-4111-8111-111111111111/0'",
        &[],
    ),
    case(
        "limit-leaked-volume",
        &["INSERT INTO limit_reservations (holder, type, account_id, amount, reserved_by, created) \
           VALUES ('volume:11111111-1111-4111-8111-111111111111', 2, 2, 0, '', 1)"],
        "SELECT 'volume:11111111-1111-4111-8111-111111111111/2'",
        &[],
    ),
    case(
        "limit-leaked-address",
        &["INSERT INTO limit_reservations (holder, type, account_id, amount, reserved_by, created) \
           VALUES ('ip:11111111-1111-4111-8111-111111111111:h', 1, 2, 0, '', 1)"],
        "SELECT 'ip:11111111-1111-4111-8111-111111111111:h/1'",
        &[],
    ),
    case(
        "limit-leaked-network",
        &["INSERT INTO limit_reservations (holder, type, account_id, amount, reserved_by, created) \
           VALUES ('network:11111111-1111-4111-8111-111111111111', 6, 2, 0, '', 1)"],
        "SELECT 'network:11111111-1111-4111-8111-111111111111/6'",
        &[],
    ),
    case(
        "limit-unseen",
        &["INSERT INTO limit_reservations (holder, type, account_id, amount, reserved_by, created) \
           VALUES ('volume:22222222-1111-4111-8111-111111111111', 2, 2, 0, 'dead', 1)"],
        "SELECT 'volume:22222222-1111-4111-8111-111111111111/2'",
        &[],
    ),
    case("limit-missing-vm", &["UPDATE vms SET cpu = cpu + 1 WHERE name = 'off'"], OFF, &[]),
    case(
        "limit-missing-vm",
        &["UPDATE limit_reservations SET account_id = (SELECT id FROM accounts WHERE name = 'tenant') WHERE holder = \
           (SELECT limits_key FROM vms WHERE name = 't-first')"],
        RUNS,
        &["limit-count"],
    ),
    case("limit-missing-volume", &["UPDATE volumes SET size = size + 1 WHERE name = 'data'"], DATA, &[]),
    case(
        "limit-missing-address",
        &[
            "UPDATE ip_addresses SET holder = 'other' WHERE is_source_nat = 1",
            "UPDATE limit_reservations SET reserved_by = '' WHERE holder LIKE 'ip:%'",
        ],
        SNAT,
        &["limit-leaked-address"],
    ),
    case(
        "limit-missing-network",
        &[
            "UPDATE networks SET uuid = '33333333-1111-4111-8111-111111111111' WHERE name = 't-network'",
            "UPDATE limit_reservations SET reserved_by = '' WHERE holder LIKE 'network:%'",
        ],
        NETWORK,
        &["limit-leaked-network"],
    ),
    case(
        "place-parent",
        &["UPDATE clusters SET pod_id = 999"],
        "SELECT 'cluster/' || uuid FROM clusters WHERE id = (SELECT MIN(id) FROM clusters)",
        &[],
    ),
    case("host-connection", &["UPDATE hosts SET status = 'Up', hub = NULL"], HOST, &[]),
    case(
        "host-capacity",
        &["UPDATE host_capacity SET vms = vms + 1 WHERE host_id = (SELECT MIN(id) FROM hosts)"],
        HOST,
        &[],
    ),
    case(
        "affinity-apart",
        &[
            "INSERT INTO affinity_group_vms (group_id, vm_id) SELECT g.id, v.id FROM affinity_groups g, vms v \
             WHERE g.name = 'apart' AND v.name IN ('t-first', 'off')",
            "INSERT INTO vm_capacity (vm_id, host_id, cpu_mhz, memory, taken) SELECT o.id, t.host_id, 0, 0, 1 FROM vms o, vms t \
             WHERE o.name = 'off' AND t.name = 't-first'",
        ],
        "SELECT 'affinity/' || uuid FROM affinity_groups WHERE name = 'apart'",
        &["host-capacity", "vm-capacity"],
    ),
    case(
        "affinity-together",
        &[
            "INSERT INTO affinity_group_vms (group_id, vm_id) SELECT g.id, v.id FROM affinity_groups g, vms v \
             WHERE g.name = 'near' AND v.name IN ('t-first', 'off')",
            "INSERT INTO vm_capacity (vm_id, host_id, cpu_mhz, memory, taken) SELECT o.id, h.id, 0, 0, 1 FROM vms o, vms t, hosts h \
             WHERE o.name = 'off' AND t.name = 't-first' AND h.id <> t.host_id",
        ],
        "SELECT 'affinity/' || uuid FROM affinity_groups WHERE name = 'near'",
        &["host-capacity", "vm-capacity"],
    ),
    case(
        "affinity-member",
        &["INSERT INTO affinity_group_vms (group_id, vm_id) SELECT id, 999 FROM affinity_groups WHERE name = 'near'"],
        "SELECT 'affinity/' || uuid FROM affinity_groups WHERE name = 'near'",
        &[],
    ),
    case(
        "affinity-owner",
        &["UPDATE affinity_groups SET account_id = 999 WHERE name = 'near'"],
        "SELECT 'affinity/' || uuid FROM affinity_groups WHERE name = 'near'",
        &[],
    ),
    case(
        "dedication-host",
        &["UPDATE host_capacity SET zone_dedicated_to = 999 WHERE host_id = (SELECT MIN(id) FROM hosts)"],
        HOST,
        &[],
    ),
    case(
        "dedication-group",
        &["UPDATE dedications SET group_id = 999"],
        "SELECT 'dedication/' || uuid FROM dedications",
        &["dedication-host"],
    ),
    case(
        "dedication-resource",
        &["UPDATE dedications SET resource_id = 999"],
        "SELECT 'dedication/' || uuid FROM dedications",
        &["dedication-host"],
    ),
    case(
        "host-overfull",
        &["UPDATE host_capacity SET cpu_total_mhz = 1 WHERE vms > 0"],
        "SELECT 'host/' || h.uuid FROM hosts h JOIN host_capacity k ON k.host_id = h.id WHERE k.vms > 0",
        &[],
    ),
    case(
        "host-capacity-row",
        &["UPDATE host_capacity SET zone_id = 999 WHERE host_id = (SELECT MIN(id) FROM hosts)"],
        HOST,
        &[],
    ),
    case(
        "host-accepting",
        &["UPDATE hosts SET resource_state = 'Disabled' WHERE id = (SELECT MIN(h.id) FROM hosts h)"],
        HOST,
        &[],
    ),
    case(
        "host-maintained",
        &[
            "UPDATE hosts SET resource_state = 'Maintenance' WHERE id = (SELECT MIN(host_id) FROM host_capacity WHERE vms > 0)",
            "UPDATE host_capacity SET accepting = 0 WHERE vms > 0",
        ],
        "SELECT 'host/' || uuid FROM hosts WHERE resource_state = 'Maintenance'",
        &[],
    ),
    case(
        "host-emptied",
        &[
            "UPDATE hosts SET resource_state = 'ErrorInMaintenance' WHERE id = (SELECT MIN(h.id) FROM hosts h)",
            "UPDATE host_capacity SET accepting = 0 WHERE host_id = (SELECT MIN(id) FROM hosts)",
        ],
        HOST,
        &[],
    ),
    case(
        "evacuation-lost",
        &[
            "INSERT INTO host_evacuations (vm_id, host_id, way, attempts, not_before) SELECT id, 999, 'Move', 0, 0 FROM vms \
           WHERE name = 'off'",
        ],
        OFF,
        &[],
    ),
    case(
        "host-address",
        &[
            "INSERT INTO pod_ips (pod_id, ip_number, ip, zone_id, holder, taken) SELECT id, 1, '0.0.0.1', zone_id, 'host/none', 1 FROM pods",
        ],
        "SELECT 'address/0.0.0.1'",
        &[],
    ),
    case(
        "debt-unpaid",
        &["INSERT INTO host_debts (id, host_id, vm_uuid, command, created) VALUES (1, 999, 'u', 'x', 1)"],
        "SELECT 'debt/1'",
        &[],
    ),
    case(
        "os-type",
        &["UPDATE os_types SET category_id = 999 WHERE id = (SELECT MIN(id) FROM os_types)"],
        "SELECT 'ostype/' || uuid FROM os_types WHERE category_id = 999",
        &[],
    ),
    case(
        "offering-domain",
        &["UPDATE service_offerings SET domain_id = 999 WHERE id = (SELECT MIN(id) FROM service_offerings)"],
        "SELECT 'serviceoffering/' || uuid FROM service_offerings WHERE domain_id = 999",
        &[],
    ),
    case(
        "absence-leaked",
        &[
            "INSERT INTO host_absences (host_id, conn_epoch, verdict, reason, alerted, looks, looked) VALUES (999, 1, 'Dead', 'x', 0, 1, 1)",
        ],
        "SELECT 'absence/999'",
        &[],
    ),
    case("vm-transitional", &["UPDATE vms SET state = 'Stopping' WHERE name = 't-first'"], RUNS, &[]),
    case("vm-host", &["UPDATE vms SET host_id = (SELECT MIN(id) FROM hosts) WHERE name = 'off'"], OFF, &["vm-place"]),
    case("vm-place", &["UPDATE vms SET cluster_id = 999 WHERE name = 't-first'"], RUNS, &[]),
    case(
        "vm-capacity",
        &["INSERT INTO vm_capacity (vm_id, host_id, cpu_mhz, memory, taken) SELECT 999, MIN(id), 0, 0, 1 FROM hosts"],
        "SELECT 'vm/999'",
        &["host-capacity"],
    ),
    case(
        "vm-move",
        &[
            "INSERT INTO vm_moves (vm_id, host_id, cpu_mhz, memory, taken) SELECT id, host_id, 0, 0, 1 FROM vms WHERE name = 't-first'",
        ],
        RUNS,
        &["host-capacity"],
    ),
    case(
        "vm-without-capacity",
        &["DELETE FROM vm_capacity WHERE vm_id = (SELECT id FROM vms WHERE name = 't-first')"],
        RUNS,
        &["host-capacity"],
    ),
    case("vm-capacity-amount", &["UPDATE vm_capacity SET cpu_mhz = cpu_mhz + 1"], RUNS, &["host-capacity"]),
    case(
        "vm-name-leaked",
        &["INSERT INTO vm_names (network_id, name_lower, vm_id) VALUES (999, 'lost', 999)"],
        "SELECT 'name/999/lost'",
        &[],
    ),
    case("vm-group", &["UPDATE vms SET group_id = 999 WHERE name = 't-first'"], RUNS, &[]),
    case("vm-iso", &["UPDATE vms SET iso_id = template_id WHERE name = 't-first'"], RUNS, &[]),
    case(
        "vm-parts",
        &["UPDATE nics SET account_id = 999 WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 't-first')"],
        RUNS,
        &["nic-owner"],
    ),
    case(
        "vm-without-nic",
        &[
            "UPDATE nics SET removed = 1, live_network = NULL, live_mac = NULL WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 't-first')",
        ],
        RUNS,
        &["member-lost", "rule-machine"],
    ),
    case(
        "vm-without-root",
        &["UPDATE volumes SET kind = 'DATADISK' WHERE vm_id = (SELECT id FROM vms WHERE name = 't-first')"],
        RUNS,
        &[],
    ),
    case(
        "vm-destroyed",
        &["UPDATE vms SET destroyed = NULL WHERE name = 'gone'"],
        "SELECT 'vm/' || uuid FROM vms WHERE name = 'gone'",
        &[],
    ),
    case("vm-reference", &["UPDATE vms SET service_offering_id = 999 WHERE name = 'off'"], OFF, &[]),
    case("vm-generation", &["UPDATE vms SET generation = 0 WHERE name = 't-first'"], RUNS, &[]),
    case(
        "restart-leaked",
        &[
            "INSERT INTO vm_restarts (vm_id, cause, host_id, weight, attempts, not_before, created) VALUES (999, 'Host', 1, 1, 0, 1, 1)",
        ],
        "SELECT 'restart/999'",
        &[],
    ),
    case(
        "vlan-leaked",
        &["INSERT INTO vnets (physical_network_id, vnet, slot, network_id, taken) VALUES (200, 1, 0, 999, 1)"],
        "SELECT 'vlan/200/1'",
        &[],
    ),
    case("vlan-unheld", &["DELETE FROM vnets"], NETWORK, &[]),
    case(
        "vlan-twice",
        &[
            "UPDATE networks SET vnet = (SELECT w.vnet FROM networks w WHERE w.name = 't-network') WHERE name = 'second'",
        ],
        "SELECT 'vlan/' || physical_network_id || '/' || vnet FROM networks WHERE name = 't-network'",
        &["vlan-unheld"],
    ),
    case("network-transitional", &["UPDATE networks SET state = 'Shutdown' WHERE name = 'second'"], SECOND, &[]),
    case("network-router", &["UPDATE networks SET state = 'Implemented' WHERE name = 'second'"], SECOND, &[]),
    case("network-reference", &["UPDATE networks SET offering_id = 999 WHERE name = 'second'"], SECOND, &[]),
    case(
        "router-leaked",
        &["UPDATE routers SET live_network = NULL"],
        ROUTER,
        &["network-router", "network-transitional"],
    ),
    case("router-generation", &["UPDATE routers SET applied = generation + 5"], ROUTER, &[]),
    case(
        "router-behind",
        &["UPDATE hosts SET status = 'Up', hub = 'x'", "UPDATE routers SET applied = 0, touched = 1"],
        ROUTER,
        &[],
    ),
    case("router-host", &["UPDATE routers SET host_id = 999"], ROUTER, &[]),
    case(
        "leftover-wanted",
        &[
            "INSERT INTO router_leftovers (router_uuid, host_id, created) SELECT uuid, host_id, 9999999999999999 FROM routers",
        ],
        ROUTER,
        &[],
    ),
    case(
        "leftover-late",
        &[
            "UPDATE hosts SET status = 'Up', hub = 'x'",
            "INSERT INTO router_leftovers (router_uuid, host_id, created) SELECT 'lost', MIN(id), 1 FROM hosts",
        ],
        "SELECT 'router/lost'",
        &[],
    ),
    case(
        "physical-parent",
        &["UPDATE traffic_types SET physical_network_id = 999 WHERE id = (SELECT MIN(t.id) FROM traffic_types t)"],
        "SELECT 'traffictype/' || uuid FROM traffic_types WHERE physical_network_id = 999",
        &[],
    ),
    case(
        "nic-leaked",
        &["UPDATE nics SET vm_id = 999 WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 'off')"],
        OFF_NIC,
        &[],
    ),
    case(
        "nic-network",
        &[
            "UPDATE nics SET network_id = 999, live_network = 999 WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 'off')",
        ],
        OFF_NIC,
        &[],
    ),
    case(
        "nic-key",
        &["UPDATE nics SET live_mac = 'x' WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 'off')"],
        OFF_NIC,
        &[],
    ),
    case(
        "nic-plugged",
        &["UPDATE nics SET state = 'Reserved', host_id = 1 WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 'off')"],
        OFF_NIC,
        &[],
    ),
    case(
        "address-twice",
        &["UPDATE nics SET ip = (SELECT n.ip FROM nics n JOIN vms v ON v.id = n.vm_id WHERE v.name = 't-first') \
           WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 'off')"],
        "SELECT 'address/' || network_id || '/' || ip FROM nics WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 'off')",
        &[],
    ),
    case(
        "mac-twice",
        &["UPDATE nics SET mac = (SELECT n.mac FROM nics n JOIN vms v ON v.id = n.vm_id WHERE v.name = 't-first') \
           WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 'off')"],
        "SELECT 'mac/' || mac FROM nics WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 'off')",
        &["nic-key"],
    ),
    case(
        "nic-lease",
        &["UPDATE nics SET lease_generation = 99999 WHERE vm_uuid = (SELECT uuid FROM vms WHERE name = 'off')"],
        OFF_NIC,
        &[],
    ),
    case(
        "address-state",
        &[
            "UPDATE ip_addresses SET account_id = 5 WHERE state = 'Free' AND ip_number = (SELECT MAX(i.ip_number) FROM ip_addresses i WHERE i.state = 'Free')",
        ],
        "SELECT 'address/' || ip FROM ip_addresses WHERE state = 'Free' AND account_id = 5",
        &[],
    ),
    case("address-stuck", &["UPDATE ip_addresses SET state = 'Releasing' WHERE is_source_nat = 1"], SNAT, &[]),
    case(
        "public-address-leaked",
        &["UPDATE ip_addresses SET network_id = 999 WHERE is_source_nat = 1"],
        SNAT,
        &["router-address"],
    ),
    case("source-nat-twice", &["UPDATE ip_addresses SET is_source_nat = 1 WHERE state = 'Allocated'"], NETWORK, &[]),
    case("router-address", &["UPDATE routers SET public_ip = '9.9.9.9'"], ROUTER, &[]),
    case("address-range", &["UPDATE ip_addresses SET ip_number = 1 WHERE is_source_nat = 1"], SNAT, &[]),
    case("static-nat", &["UPDATE ip_addresses SET is_static_nat = 1, vm_id = 999 WHERE is_source_nat = 1"], SNAT, &[]),
    case(
        "volume-leaked",
        &[
            "UPDATE volumes SET vm_id = 999, slot = '999/0' WHERE kind = 'ROOT' AND vm_id = (SELECT id FROM vms WHERE name = 'off')",
        ],
        OFF_ROOT,
        &["vm-without-root"],
    ),
    case(
        "volume-slot",
        &["UPDATE volumes SET slot = 'x' WHERE kind = 'ROOT' AND vm_id = (SELECT id FROM vms WHERE name = 'off')"],
        OFF_ROOT,
        &[],
    ),
    case(
        "volume-pool",
        &["UPDATE volumes SET path = NULL WHERE kind = 'ROOT' AND vm_id = (SELECT id FROM vms WHERE name = 'off')"],
        OFF_ROOT,
        &[],
    ),
    case(
        "volume-transitional",
        &[
            "UPDATE volumes SET state = 'Creating' WHERE kind = 'ROOT' AND vm_id = (SELECT id FROM vms WHERE name = 'off')",
        ],
        OFF_ROOT,
        &[],
    ),
    case("volume-reference", &["UPDATE volumes SET zone_id = 999 WHERE name = 'data'"], DATA, &[]),
    case(
        "pool-capacity",
        &["UPDATE storage_pools SET allocated_bytes = allocated_bytes + 1"],
        "SELECT 'storagepool/' || uuid FROM storage_pools",
        &[],
    ),
    case(
        "pool-place",
        &["UPDATE storage_pools SET pod_id = 999"],
        "SELECT 'storagepool/' || uuid FROM storage_pools",
        &[],
    ),
    case(
        "pool-host-leaked",
        &["INSERT INTO pool_hosts (pool_id, host_id, local_path, created) VALUES (999, 999, '/x', 1)"],
        "SELECT 'poolhost/999/999'",
        &[],
    ),
    case(
        "deletion-of-living",
        &[
            "INSERT INTO pending_deletions (path, volume_uuid, pool_id, tries, not_before, created) SELECT path, uuid, pool_id, 0, 1, \
           9999999999999999 FROM volumes WHERE kind = 'ROOT' AND vm_id = (SELECT id FROM vms WHERE name = 'off')",
        ],
        OFF_ROOT,
        &[],
    ),
    case(
        "deletion-late",
        &[
            "INSERT INTO pending_deletions (path, volume_uuid, pool_id, tries, not_before, created) VALUES ('p', 'u', 999, 0, 1, 1)",
        ],
        "SELECT 'deletion/p'",
        &[],
    ),
    case(
        "template-copy",
        &["UPDATE template_store_refs SET store_id = 999"],
        "SELECT 'templatecopy/' || template_id || '/store/999' FROM template_store_refs",
        &[],
    ),
    case(
        "template-os-type",
        &["UPDATE templates SET os_type_id = 999 WHERE id = (SELECT MIN(t.id) FROM templates t)"],
        "SELECT 'template/' || uuid FROM templates WHERE os_type_id = 999",
        &[],
    ),
    case(
        "rule-address",
        &[
            "UPDATE firewall_rules SET ip_id = (SELECT MIN(id) FROM ip_addresses WHERE state = 'Free') WHERE purpose = 'PortForwarding'",
        ],
        FORWARD,
        &[],
    ),
    case(
        "rule-network",
        &["UPDATE firewall_rules SET network_id = 999 WHERE purpose = 'PortForwarding'"],
        FORWARD,
        &["rule-address", "rule-machine"],
    ),
    case("rule-machine", &["UPDATE firewall_rules SET vm_id = 999 WHERE purpose = 'PortForwarding'"], FORWARD, &[]),
    case("rule-late", &["UPDATE firewall_rules SET state = 'Revoke' WHERE purpose = 'PortForwarding'"], FORWARD, &[]),
    case(
        "rule-related",
        &["UPDATE firewall_rules SET related_id = 999 WHERE purpose = 'Firewall' AND start_port = 2222"],
        "SELECT 'rule/' || uuid FROM firewall_rules WHERE related_id = 999",
        &[],
    ),
    case(
        "rule-overlap",
        &["UPDATE firewall_rules SET start_port = 70, end_port = 90 WHERE purpose = 'PortForwarding'"],
        "SELECT 'rule/' || uuid FROM firewall_rules WHERE purpose IN ('PortForwarding', 'LoadBalancing') ORDER BY id DESC LIMIT 1",
        &[],
    ),
    case(
        "static-nat-shared",
        &["UPDATE ip_addresses SET is_static_nat = 1, vm_id = (SELECT id FROM vms WHERE name = 't-first') WHERE id = \
           (SELECT ip_id FROM firewall_rules WHERE purpose = 'PortForwarding')"],
        FORWARD,
        &[],
    ),
    case("balancer-lost", &["DELETE FROM load_balancers"], BALANCER, &[]),
    case(
        "balancer-leaked",
        &[
            "INSERT INTO load_balancers (rule_id, name, name_lower, algorithm, private_port) VALUES (999, 'x', 'x', 'source', 80)",
        ],
        "SELECT 'balancer/999'",
        &[],
    ),
    case("balancer-state", &["DELETE FROM lb_members"], BALANCER, &[]),
    case(
        "balancer-late",
        &["UPDATE firewall_rules SET state = 'Revoke' WHERE purpose = 'LoadBalancing'"],
        BALANCER,
        &[],
    ),
    case("member-lost", &["UPDATE lb_members SET nic_id = 999"], MEMBER, &[]),
    case("member-late", &["UPDATE lb_members SET state = 'Revoke'"], MEMBER, &[]),
    case("stickiness-lost", &["UPDATE lb_stickiness SET rule_id = 999"], STICKINESS, &[]),
    case("stickiness-late", &["UPDATE lb_stickiness SET state = 'Add'"], STICKINESS, &[]),
    case(
        "template-copy-state",
        &["UPDATE template_store_refs SET physical_size = 0 WHERE template_id >= 200"],
        OWN_COPY,
        &[],
    ),
    case("template-copy-unwanted", &["UPDATE template_zones SET removed = 1 WHERE template_id >= 200"], OWN_COPY, &[]),
    case(
        "template-copy-late",
        &["UPDATE template_store_refs SET state = 'Creating', download_state = 'DOWNLOAD_IN_PROGRESS', changed = 1 \
           WHERE template_id >= 200"],
        OWN_COPY,
        &[],
    ),
    case(
        "template-share",
        &["UPDATE template_shares SET account_id = 999"],
        "SELECT 'templateshare/' || template_id || '/999' FROM template_shares",
        &[],
    ),
    case(
        "image-deletion-of-living",
        &[
            "INSERT INTO image_deletions (path, store_id, tries, not_before, created) SELECT path, store_id, 0, 9999999999999999, \
           9999999999999999 FROM template_store_refs WHERE template_id >= 200",
        ],
        "SELECT 'image/' || path FROM template_store_refs WHERE template_id >= 200",
        &[],
    ),
    case(
        "image-deletion-late",
        &["INSERT INTO image_deletions (path, store_id, tries, not_before, created) VALUES ('p', 1, 9, 1, 1)"],
        "SELECT 'image/p'",
        &[],
    ),
    case(
        "limit-leaked-template",
        &["INSERT INTO limit_reservations (holder, type, account_id, amount, reserved_by, created) \
           VALUES ('template:11111111-1111-4111-8111-111111111111', 4, 2, 0, '', 1)"],
        "SELECT 'template:11111111-1111-4111-8111-111111111111/4'",
        &[],
    ),
    case(
        "limit-missing-template",
        &["UPDATE template_store_refs SET held_bytes = held_bytes + 1 WHERE template_id >= 200"],
        OWN_TEMPLATE,
        &[],
    ),
    case(
        "snapshot-state",
        &["UPDATE snapshots SET state = 'Error', removed = 1"],
        SNAPSHOT,
        &["limit-leaked-snapshot"],
    ),
    case("snapshot-reference", &["UPDATE snapshots SET volume_id = 999"], SNAPSHOT, &[]),
    case("snapshot-owner", &["UPDATE snapshots SET domain_path = '/1/999/'"], SNAPSHOT, &[]),
    case("snapshot-transitional", &["UPDATE snapshots SET state = 'BackingUp', physical_size = 0"], SNAPSHOT, &[]),
    case(
        "image-deletion-of-snapshot",
        &[
            "INSERT INTO image_deletions (path, store_id, tries, not_before, created) SELECT path, store_id, 0, 9999999999999999, \
           9999999999999999 FROM snapshots",
        ],
        "SELECT 'image/' || path FROM snapshots",
        &[],
    ),
    case(
        "limit-leaked-snapshot",
        &["UPDATE snapshots SET state = 'Destroyed', removed = 1"],
        "SELECT 'snapshot:' || uuid || '/3' FROM snapshots",
        &[],
    ),
    case(
        "limit-missing-snapshot",
        &["UPDATE snapshots SET held_bytes = held_bytes + 1, physical_size = physical_size + 1"],
        SNAPSHOT,
        &[],
    ),
];
