//! The invariants. A job under way may hold things that its entity doesn't show yet, so what a live job claims is left out.

use super::Check;

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        name: "vm-transitional",
        sql: "SELECT v.uuid || ' is ' || v.state || ' and no job works on it' FROM vms v WHERE v.removed IS NULL \
              AND v.state IN ('Starting', 'Stopping', 'Migrating', 'Expunging') AND NOT EXISTS (SELECT 1 FROM jobs j \
              WHERE j.instance_uuid = v.uuid AND j.state NOT IN ('Done', 'Failed'))",
    },
    Check {
        name: "job-parked",
        sql: "SELECT uuid || ' (' || kind || ') is parked at ' || COALESCE(step, '?') FROM jobs WHERE state = 'Parked'",
    },
    Check {
        name: "claim-leaked",
        sql: "SELECT c.resource || ' is held by job ' || c.exclusive || ', which has ended' FROM claims c WHERE c.exclusive <> 0 \
              AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = c.exclusive AND j.state NOT IN ('Done', 'Failed'))",
    },
    Check {
        name: "claim-shared-leaked",
        sql: "SELECT c.resource || ' is shared by ' || c.shared || ' holders, but no job is under way' FROM claims c \
              WHERE c.shared <> 0 AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.state NOT IN ('Done', 'Failed'))",
    },
    Check {
        name: "claim-queue-leaked",
        sql: "SELECT q.resource || ' is waited for by job ' || q.job_id || ', which has ended' FROM claim_queue q \
              WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = q.job_id AND j.state = 'Waiting')",
    },
    Check {
        name: "host-capacity",
        sql: "SELECT 'host ' || k.host_id || ' counts ' || k.cpu_used_mhz || ' MHz, ' || k.mem_used || ' bytes, ' || k.vms || \
              ' VMs; its VMs hold ' || COALESCE(s.cpu, 0) || ', ' || COALESCE(s.mem, 0) || ', ' || COALESCE(s.n, 0) \
              FROM host_capacity k LEFT JOIN (SELECT host_id, CAST(SUM(cpu_mhz) AS SIGNED) AS cpu, \
              CAST(SUM(memory) AS SIGNED) AS mem, COUNT(*) AS n FROM vm_capacity GROUP BY host_id) s ON s.host_id = k.host_id \
              WHERE k.cpu_used_mhz <> COALESCE(s.cpu, 0) OR k.mem_used <> COALESCE(s.mem, 0) OR k.vms <> COALESCE(s.n, 0)",
    },
    Check {
        name: "host-overfull",
        sql: "SELECT 'host ' || host_id || ' has given away more than it has' FROM host_capacity \
              WHERE cpu_used_mhz > cpu_total_mhz * cpu_overcommit OR mem_used > mem_total * mem_overcommit",
    },
    Check {
        name: "vm-capacity",
        sql: "SELECT v.uuid || ' is ' || v.state || ' and holds capacity of host ' || k.host_id FROM vm_capacity k \
              JOIN vms v ON v.id = k.vm_id WHERE (v.state NOT IN ('Starting', 'Running', 'Stopping', 'Migrating') \
              OR v.host_id IS NULL OR v.host_id <> k.host_id) AND NOT EXISTS (SELECT 1 FROM jobs j \
              WHERE j.instance_uuid = v.uuid AND j.state NOT IN ('Done', 'Failed'))",
    },
    Check {
        name: "vm-without-capacity",
        sql: "SELECT v.uuid || ' runs and holds no capacity' FROM vms v WHERE v.state = 'Running' AND v.removed IS NULL \
              AND NOT EXISTS (SELECT 1 FROM vm_capacity k WHERE k.vm_id = v.id)",
    },
    Check {
        name: "vm-name-leaked",
        sql: "SELECT 'name ' || n.name_lower || ' in network ' || n.network_id || ' belongs to no living VM' FROM vm_names n \
              WHERE NOT EXISTS (SELECT 1 FROM vms v WHERE v.id = n.vm_id AND v.removed IS NULL)",
    },
    Check {
        name: "nic-leaked",
        sql: "SELECT 'NIC ' || n.uuid || ' with ' || COALESCE(n.ip, 'no address') || ' belongs to VM ' || n.vm_id || \
              ', which is gone or failed' FROM nics n LEFT JOIN vms v ON v.id = n.vm_id WHERE n.vm_id IS NOT NULL \
              AND n.removed IS NULL AND (v.id IS NULL OR v.removed IS NOT NULL OR v.state = 'Error') AND NOT EXISTS \
              (SELECT 1 FROM jobs j WHERE j.instance_uuid = v.uuid AND j.state NOT IN ('Done', 'Failed'))",
    },
    Check {
        name: "vm-without-nic",
        sql: "SELECT v.uuid || ' runs without a NIC' FROM vms v WHERE v.state = 'Running' AND v.removed IS NULL \
              AND NOT EXISTS (SELECT 1 FROM nics n WHERE n.vm_id = v.id AND n.removed IS NULL)",
    },
    Check {
        name: "address-twice",
        sql: "SELECT ip || ' is given ' || COUNT(*) || ' times in network ' || network_id FROM nics WHERE removed IS NULL \
              AND ip IS NOT NULL GROUP BY network_id, ip HAVING COUNT(*) > 1",
    },
    Check {
        name: "mac-twice",
        sql: "SELECT mac || ' is given ' || COUNT(*) || ' times' FROM nics WHERE removed IS NULL GROUP BY mac HAVING COUNT(*) > 1",
    },
    Check {
        name: "vlan-leaked",
        sql: "SELECT 'VLAN ' || x.vnet || ' is held by network ' || x.network_id || ', which is gone' FROM vnets x \
              LEFT JOIN networks w ON w.id = x.network_id WHERE w.id IS NULL OR w.removed IS NOT NULL",
    },
    Check {
        name: "vlan-twice",
        sql: "SELECT 'VLAN ' || vnet || ' of physical network ' || physical_network_id || ' is given to ' || COUNT(*) || ' networks' \
              FROM networks WHERE removed IS NULL AND vnet IS NOT NULL AND specified_vlan = 0 AND is_system = 0 \
              GROUP BY physical_network_id, vnet HAVING COUNT(*) > 1",
    },
    Check {
        name: "public-address-leaked",
        sql: "SELECT i.ip || ' is ' || i.state || ' for network ' || i.network_id || ', which is gone' FROM ip_addresses i \
              LEFT JOIN networks w ON w.id = i.network_id WHERE i.removed IS NULL AND i.state <> 'Free' \
              AND i.network_id IS NOT NULL AND (w.id IS NULL OR w.removed IS NOT NULL)",
    },
    Check {
        name: "router-leaked",
        sql: "SELECT r.name || ' serves network ' || r.network_id || ', which is gone' FROM routers r \
              LEFT JOIN networks w ON w.id = r.network_id WHERE r.removed IS NULL AND (w.id IS NULL OR w.removed IS NOT NULL)",
    },
    Check {
        name: "volume-leaked",
        sql: "SELECT 'volume ' || o.uuid || ' belongs to VM ' || o.vm_id || ', which is gone or failed' FROM volumes o \
              LEFT JOIN vms v ON v.id = o.vm_id WHERE o.vm_id IS NOT NULL AND o.removed IS NULL \
              AND (v.id IS NULL OR v.removed IS NOT NULL OR v.state = 'Error') AND NOT EXISTS (SELECT 1 FROM jobs j \
              WHERE j.instance_uuid = v.uuid AND j.state NOT IN ('Done', 'Failed'))",
    },
    Check {
        name: "vm-without-root",
        sql: "SELECT v.uuid || ' runs without a ROOT volume' FROM vms v WHERE v.state = 'Running' AND v.removed IS NULL \
              AND NOT EXISTS (SELECT 1 FROM volumes o WHERE o.vm_id = v.id AND o.kind = 'ROOT' AND o.removed IS NULL)",
    },
    Check {
        name: "pool-capacity",
        sql: "SELECT 'pool ' || p.name || ' counts ' || p.allocated_bytes || ' bytes; its volumes and templates hold ' || \
              (COALESCE(o.bytes, 0) + COALESCE(t.bytes, 0)) FROM storage_pools p \
              LEFT JOIN (SELECT pool_id, CAST(SUM(size) AS SIGNED) AS bytes FROM volumes WHERE pool_id IS NOT NULL \
              AND removed IS NULL GROUP BY pool_id) o ON o.pool_id = p.id \
              LEFT JOIN (SELECT pool_id, CAST(SUM(size) AS SIGNED) AS bytes FROM template_pool_refs GROUP BY pool_id) t \
              ON t.pool_id = p.id WHERE p.removed IS NULL AND p.allocated_bytes <> COALESCE(o.bytes, 0) + COALESCE(t.bytes, 0)",
    },
    Check {
        name: "limit-count",
        sql: "SELECT c.slot || ' counts ' || c.used || '; its reservations hold ' || COALESCE(r.amount, 0) FROM resource_counts c \
              LEFT JOIN (SELECT account_id, type, CAST(SUM(amount) AS SIGNED) AS amount FROM limit_reservations \
              WHERE type >= 0 GROUP BY account_id, type) r ON r.account_id = c.owner_id AND r.type = c.type \
              WHERE c.owner_kind = 'account' AND c.used <> COALESCE(r.amount, 0)",
    },
    Check {
        name: "limit-leaked-vm",
        sql: "SELECT l.holder || ' is counted and doesn''t exist' FROM limit_reservations l WHERE l.type = 0 \
              AND l.holder LIKE 'vm:%' AND NOT EXISTS (SELECT 1 FROM vms v WHERE v.limits_key = l.holder \
              AND v.removed IS NULL AND v.state NOT IN ('Destroyed', 'Error', 'Expunging')) AND NOT EXISTS \
              (SELECT 1 FROM jobs j WHERE j.state NOT IN ('Done', 'Failed'))",
    },
    Check {
        name: "limit-leaked-volume",
        sql: "SELECT l.holder || ' is counted and doesn''t exist' FROM limit_reservations l WHERE l.type = 2 \
              AND l.holder LIKE 'volume:%' AND NOT EXISTS (SELECT 1 FROM volumes o WHERE 'volume:' || o.uuid = l.holder \
              AND o.removed IS NULL) AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.state NOT IN ('Done', 'Failed'))",
    },
];
