//! Rows of other services.

use store::{Db, Migration, Sql, now_micros};

const fn of(owner: &'static str, file: &'static str, sql: &'static str) -> Migration {
    Migration { owner, file, sql }
}

/// Tables of other services that this one reads.
pub const OTHERS: [Migration; 6] = [
    of("identity", "0001_identity.sql", include_str!("../../../identity/migrations/0001_identity.sql")),
    of("orchestrator", "0001_topology.sql", include_str!("../../../orchestrator/migrations/0001_topology.sql")),
    of("orchestrator", "0002_hosts.sql", include_str!("../../../orchestrator/migrations/0002_hosts.sql")),
    of("orchestrator", "0003_catalogue.sql", include_str!("../../../orchestrator/migrations/0003_catalogue.sql")),
    of("orchestrator", "0010_vms.sql", include_str!("../../../orchestrator/migrations/0010_vms.sql")),
    of("orchestrator", "0042_isos.sql", include_str!("../../../orchestrator/migrations/0042_isos.sql")),
];

/// UUIDs that tests can tell.
pub fn uuid(kind: &str, id: i64) -> String {
    let tag = kind.bytes().fold(0u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
    format!("{tag:08x}-0000-4000-8000-{id:012}")
}

pub const ZONE: &str = "003923ac-0000-4000-8000-000000000001";
pub const POD: &str = "0001b245-0000-4000-8000-000000000001";

async fn run(db: &Db, statements: Vec<String>) {
    store::tx!(db, "rows", |tx| {
        for text in &statements {
            tx.exec(text.as_str()).await?;
        }
        Ok::<_, store::Error>(())
    })
    .await
    .unwrap();
}

/// A zone, a pod, two clusters with two hosts each, two domains, two accounts, an OS type.
pub async fn infra(db: &Db) {
    let now = now_micros();
    assert_eq!((uuid("zone", 1).as_str(), uuid("pod", 1).as_str()), (ZONE, POD));
    let mut sql = vec![
        format!(
            "INSERT INTO zones (id, uuid, name, name_lower, network_type, dns1, internal_dns1, dhcp_provider, security_groups, \
             local_storage, allocation_state, zone_token, sort_key, created) VALUES (1, '{ZONE}', 'Z', 'z', 'Advanced', '8.8.8.8', \
             '8.8.8.8', 'VirtualRouter', 0, 0, 'Enabled', 't', 0, {now})"
        ),
        format!(
            "INSERT INTO pods (id, uuid, name, name_lower, zone_id, gateway, netmask, cidr, start_ip, end_ip, allocation_state, \
             created) VALUES (1, '{POD}', 'POD0', 'pod0', 1, '172.16.0.1', '255.255.0.0', '172.16.0.0/16', '172.16.0.2', \
             '172.16.0.9', 'Enabled', {now})"
        ),
        format!(
            "INSERT INTO os_categories (id, uuid, name, name_lower, created) VALUES (1, '{}', 'CentOS', 'centos', {now})",
            uuid("oscat", 1)
        ),
        format!(
            "INSERT INTO os_types (id, uuid, category_id, name, name_lower, user_defined, created) VALUES (142, '{}', 1, \
             'CentOS 5.6 (64-bit)', 'centos 5.6 (64-bit)', 0, {now})",
            uuid("os", 142)
        ),
    ];
    for (id, path, name) in [(1, "/1/", "ROOT"), (5, "/1/5/", "sub")] {
        sql.push(format!(
            "INSERT INTO domains (id, uuid, name, name_lower, name_path, path, level, state, owner_account_id, changes, created) \
             VALUES ({id}, '{}', '{name}', '{name}', '{name}', '{path}', 0, 'Active', 1, 0, {now})",
            uuid("domain", id)
        ));
    }
    for (id, name, domain, path) in
        [(1, "system", 1, "/1/"), (2, "admin", 1, "/1/"), (3, "ann", 5, "/1/5/"), (4, "bob", 5, "/1/5/")]
    {
        sql.push(format!(
            "INSERT INTO accounts (id, uuid, name, name_lower, type, role_id, domain_id, domain_path, state, cleanup_needed, \
             is_default, changes, created) VALUES ({id}, '{}', '{name}', '{name}', 0, 1, {domain}, '{path}', 'enabled', 0, 0, 0, {now})",
            uuid("account", id)
        ));
    }
    for cluster in [1, 2] {
        sql.push(format!(
            "INSERT INTO clusters (id, uuid, name, name_lower, pod_id, zone_id, hypervisor, cluster_type, allocation_state, \
             managed_state, cpu_overcommit, memory_overcommit, created) VALUES ({cluster}, '{}', 'C{cluster}', 'c{cluster}', 1, 1, \
             'Simulator', 'CloudManaged', 'Enabled', 'Managed', 1, 1, {now})",
            uuid("cluster", cluster)
        ));
        for host in [cluster * 2 - 1, cluster * 2] {
            sql.push(format!(
                "INSERT INTO hosts (id, uuid, name, name_lower, guid, url, cluster_id, pod_id, zone_id, hypervisor, status, \
                 resource_state, cpu_cores, cpu_mhz, memory, capabilities, tags, conn_epoch, created) VALUES ({host}, '{}', \
                 'h{host}', 'h{host}', 'g{host}', 'http://sim/h{host}', {cluster}, 1, 1, 'Simulator', 'Up', 'Enabled', 64, 8000, \
                 274877906944, '', '', 1, {now})",
                uuid("host", host)
            ));
        }
    }
    run(db, sql).await;
}

/// A VM of account `account` ("ann" is 3) in a state, on a host or not.
pub async fn vm(db: &Db, id: i64, account: i64, state: &str, host: Option<i64>) -> String {
    let now = now_micros();
    let (domain, path) = if account < 3 { (1, "/1/") } else { (5, "/1/5/") };
    let on = host.map_or("NULL".to_owned(), |h| h.to_string());
    let uuid = uuid("vm", id);
    let sql = format!(
        "INSERT INTO vms (id, uuid, name, name_lower, display_name, display_lower, instance_name, state, account_id, domain_id, \
         domain_path, user_id, zone_id, host_id, last_host_id, template_id, hypervisor, service_offering_id, cpu, cpu_mhz, memory_mb, \
         details, display_vm, ha_enabled, dynamic_scaling, password_enabled, generation, limits_key, created, changed) VALUES \
         ({id}, '{uuid}', 'vm{id}', 'vm{id}', 'vm{id}', 'vm{id}', 'i-2-{id}-VM', '{state}', {account}, {domain}, '{path}', 1, 1, {on}, \
         {on}, 111, 'Simulator', 1, 1, 100, 128, '{{}}', 1, 0, 0, 0, 1, 'vm:{uuid}', {now}, {now})"
    );
    run(db, vec![sql]).await;
    uuid
}

/// Runs one statement.
pub async fn exec(db: &Db, sql: &str) {
    run(db, vec![sql.to_owned()]).await;
}

/// A job's row, for calls that carry its key. `state`: Running, Undoing.
pub async fn job(db: &Db, id: i64, state: &str) {
    let found = store::tx!(db, "job-state", |tx| {
        tx.exec(Sql::new("UPDATE jobs SET state = ? WHERE id = ?").bind(state).bind(id)).await
    })
    .await
    .unwrap();
    if found > 0 {
        return;
    }
    let sql = format!(
        "INSERT INTO jobs (id, uuid, service, kind, version, command, job_class, input, caller, account_id, user_id, domain_id, \
         domain_path, resource_owner, claims, state, seq, epoch, takeovers, cancel, event, description, created) VALUES ({id}, \
         'job-{id}', 'nobody', 'k', 1, '', '', '', '', 1, 1, 1, '/1/', '', '', '{state}', 0, 1, 0, 0, '', '', 0)"
    );
    run(db, vec![sql]).await;
}

pub const SECOND_ZONE: &str = "003923ac-0000-4000-8000-000000000002";

/// A second zone, with a cluster (9) and a host (9).
pub async fn second_zone(db: &Db) {
    let now = now_micros();
    let sql = vec![
        format!(
            "INSERT INTO zones (id, uuid, name, name_lower, network_type, dns1, internal_dns1, dhcp_provider, security_groups, \
             local_storage, allocation_state, zone_token, sort_key, created) VALUES (2, '{SECOND_ZONE}', 'Y', 'y', 'Advanced', \
             '8.8.8.8', '8.8.8.8', 'VirtualRouter', 0, 0, 'Enabled', 't2', 0, {now})"
        ),
        format!(
            "INSERT INTO clusters (id, uuid, name, name_lower, pod_id, zone_id, hypervisor, cluster_type, allocation_state, \
             managed_state, cpu_overcommit, memory_overcommit, created) VALUES (9, '{}', 'C9', 'c9', 9, 2, 'Simulator', \
             'CloudManaged', 'Enabled', 'Managed', 1, 1, {now})",
            uuid("cluster", 9)
        ),
        format!(
            "INSERT INTO hosts (id, uuid, name, name_lower, guid, url, cluster_id, pod_id, zone_id, hypervisor, status, \
             resource_state, cpu_cores, cpu_mhz, memory, capabilities, tags, conn_epoch, created) VALUES (9, '{}', 'h9', 'h9', 'g9', \
             'http://sim/h9', 9, 9, 2, 'Simulator', 'Up', 'Enabled', 64, 8000, 274877906944, '', '', 1, {now})",
            uuid("host", 9)
        ),
    ];
    run(db, sql).await;
}
