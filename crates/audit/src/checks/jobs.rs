//! Jobs, their journals, claims, effects and answers; sequences of numbers.

use super::{check, ids, numbers, texts};
use crate::check::Check;
use crate::check::Settle::{Moment, Round, Work};
use crate::check::Severity::{Grave, Late, Leak};

/// `ids.next` is the next number of a kind: no row has it or a higher one.
macro_rules! sequence {
    ($($kind:literal => $table:literal),* $(,)?) => {
        concat!("SELECT 'sequence/' || q.kind, 'would give ' || q.next || ' next, and there is a row with the number ' || q.top, NULL FROM (",
            sequence!(@ $($kind => $table),*), ") q WHERE q.top >= q.next")
    };
    (@ $kind:literal => $table:literal $(, $more:literal => $rest:literal)*) => {
        concat!("SELECT i.kind, i.next, (SELECT MAX(t.id) FROM ", $table, " t) AS top FROM ids i WHERE i.kind = '", $kind, "'"
            $(, " UNION ALL SELECT i.kind, i.next, (SELECT MAX(t.id) FROM ", $rest, " t) AS top FROM ids i WHERE i.kind = '", $more, "'")*)
    };
}

pub(super) const CHECKS: &[Check] = &[
    check(
        "job-parked",
        Late,
        Moment,
        None,
        "A job can't go on: its code changed under it, or it killed its workers three times.",
        "Read its error; run the version that accepted it, or unpark or cancel it.",
        "SELECT 'job/' || j.uuid, j.kind || ' is parked at ' || COALESCE(j.step, 'its beginning'), NULL FROM jobs j \
         WHERE {live:j} AND j.state = 'Parked'",
    ),
    check(
        "job-state",
        Grave,
        Moment,
        ids("jobs"),
        "A job's row contradicts itself: an ended one without an end, a failed one without a reason, an unknown state.",
        "Compare its journal with what it did; set `state`, `ended` and `error` to what is true.",
        "SELECT 'job/' || j.uuid, 'is ' || j.state || CASE WHEN j.ended IS NULL THEN ', hasn''t ended' ELSE ', has ended' END || \
         CASE WHEN j.error IS NULL THEN ', without an error' ELSE ', with an error' END, NULL FROM jobs j WHERE {page:j.id} AND \
         NOT ((j.state = 'Done' AND j.ended IS NOT NULL AND j.error IS NULL) OR \
         (j.state = 'Failed' AND j.ended IS NOT NULL AND j.error IS NOT NULL) OR \
         (j.state IN ('Waiting', 'Running', 'Undoing', 'Parked') AND j.ended IS NULL))",
    ),
    check(
        "job-overdue",
        Late,
        Work,
        None,
        "A step is two minutes past its deadline, and has neither ended nor been taken back.",
        "See what the step waits for (a host, a service); the job goes on by itself once that answers.",
        "SELECT 'job/' || j.uuid, j.kind || ' should have left ' || COALESCE(j.step, 'its step') || ' by now', COALESCE(j.step, '') \
         FROM jobs j WHERE {live:j} AND j.state IN ('Running', 'Undoing') AND j.deadline < {now-120s}",
    ),
    check(
        "job-unowned",
        Late,
        Round,
        None,
        "A job that could run belongs to no replica.",
        "Start a replica of its service that knows its kind and version.",
        "SELECT 'job/' || j.uuid, j.kind || ' of ' || j.service || ' is ' || j.state || ' and nobody works on it', '' || j.seq \
         FROM jobs j WHERE {live:j} AND j.state IN ('Running', 'Undoing') AND j.owner IS NULL",
    ),
    check(
        "job-unclaimed",
        Grave,
        Moment,
        None,
        "A job works on resources whose exclusive claims it doesn't hold: another job may work on them at the same time.",
        "Stop the service that runs it, give the job its claims (`claims.exclusive`), start the service.",
        "SELECT 'job/' || j.uuid, j.kind || ' holds ' || COALESCE(h.n, 0) || ' exclusive claims, not as many as it needs', NULL \
         FROM jobs j LEFT JOIN (SELECT c.exclusive AS id, COUNT(*) AS n FROM claims c WHERE c.exclusive <> 0 GROUP BY c.exclusive) h \
         ON h.id = j.id WHERE {held:j} AND \
         COALESCE(h.n, 0) * 4 <> LENGTH(j.claims) - LENGTH(REPLACE(j.claims, '\"x\":', ''))",
    ),
    check(
        "claim-leaked",
        Leak,
        Moment,
        texts("claims", "resource"),
        "A resource is held by a job that has ended or waits: nobody can work on it.",
        "Set `exclusive` to 0 in its row of `claims`; whoever waits is then granted it within a minute.",
        "SELECT 'claim/' || c.resource, 'is held by job ' || c.exclusive || ', which is not at work', NULL FROM claims c \
         WHERE {page:c.resource} AND c.exclusive <> 0 AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = c.exclusive \
         AND j.state IN ('Running', 'Undoing', 'Parked'))",
    ),
    check(
        "claim-shared",
        Leak,
        Moment,
        texts("claims", "resource"),
        "The number of those who share a resource isn't that of the jobs at work that share it.",
        "Set `shared` in its row of `claims` to that number.",
        "SELECT 'claim/' || c.resource, 'is shared by ' || c.shared || ' holders, and by ' || COUNT(j.id) || ' jobs at work', NULL \
         FROM claims c LEFT JOIN jobs j ON {held:j} AND INSTR(j.claims, '\"s\":\"' || c.resource || '\"') > 0 \
         WHERE {page:c.resource} AND c.shared <> 0 GROUP BY c.resource, c.shared HAVING c.shared <> COUNT(j.id)",
    ),
    check(
        "claim-conflict",
        Grave,
        Moment,
        texts("claims", "resource"),
        "A resource is held exclusively and shared at the same time.",
        "Stop its services; find which of the jobs at work may go on; correct the row of `claims`.",
        "SELECT 'claim/' || c.resource, 'is held by job ' || c.exclusive || ' and shared by ' || c.shared || ' others', NULL \
         FROM claims c WHERE {page:c.resource} AND ((c.exclusive <> 0 AND c.shared <> 0) OR c.shared < 0 OR c.waiting < c.waiting_x)",
    ),
    check(
        "claim-waiting",
        Grave,
        Moment,
        texts("claims", "resource"),
        "The number of those who wait for a resource isn't that of their tickets: somebody may wait for ever.",
        "Set `waiting` and `waiting_x` in its row of `claims` to the number of tickets in `claim_queue`.",
        "SELECT 'claim/' || s.resource, 'counts ' || s.waiting || ' waiting, and has ' || s.n || ' tickets', NULL FROM (SELECT \
         c.resource, c.waiting, c.waiting_x, (SELECT COUNT(*) FROM claim_queue q WHERE q.resource = c.resource) AS n, (SELECT COUNT(*) \
         FROM claim_queue q WHERE q.resource = c.resource AND q.is_exclusive <> 0) AS x FROM claims c WHERE {page:c.resource}) s \
         WHERE s.waiting <> s.n OR s.waiting_x <> s.x",
    ),
    check(
        "claim-queue-leaked",
        Leak,
        Moment,
        texts("claim_queue", "resource"),
        "A ticket of a job that doesn't wait, or for a resource that nobody keeps count of, holds up those behind it.",
        "Delete the ticket from `claim_queue`, and lower `waiting` (and `waiting_x`) in `claims`.",
        "SELECT 'claim/' || q.resource || '/' || q.ticket, 'is waited for by job ' || q.job_id || ', which doesn''t wait', NULL \
         FROM claim_queue q WHERE {page:q.resource} AND (NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = q.job_id \
         AND j.state = 'Waiting') OR NOT EXISTS (SELECT 1 FROM claims c WHERE c.resource = q.resource))",
    ),
    check(
        "step-leaked",
        Leak,
        Moment,
        numbers("job_steps", "job_id"),
        "The journal of a job that doesn't exist.",
        "Delete the rows from `job_steps`.",
        "SELECT 'job/' || s.job_id || '/' || s.name, 'is a step of a job that doesn''t exist', NULL FROM job_steps s \
         WHERE {page:s.job_id} AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = s.job_id)",
    ),
    check(
        "effect-leaked",
        Leak,
        Work,
        numbers("effects", "job_id"),
        "What a receiver did for a job that doesn't exist.",
        "Delete the rows from `effects`.",
        "SELECT 'effect/' || e.job_id || '/' || e.step, 'was done for a job that doesn''t exist', NULL FROM effects e \
         WHERE {page:e.job_id} AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = e.job_id)",
    ),
    check(
        "answer-late",
        Late,
        Round,
        None,
        "Answers of requests are kept for three days instead of one: nobody tidies up.",
        "See why the first replica of each service doesn't clean up (its log).",
        "SELECT 'answer/' || i.account_id || '/' || i.idem_key, 'should have been forgotten two days ago', NULL FROM idempotency i \
         WHERE i.created < {now-259200s} LIMIT 100",
    ),
    check(
        "sequence-behind",
        Grave,
        Moment,
        None,
        "A sequence of numbers is behind the rows that have them: new rows can't be written.",
        "Set `next` in `ids` beyond the highest number.",
        sequence!(
            "job" => "jobs", "vm" => "vms", "host" => "hosts", "zone" => "zones", "pod" => "pods", "cluster" => "clusters",
            "volume" => "volumes", "storage_pool" => "storage_pools", "template" => "templates", "snapshot" => "snapshots", "image_store" => "image_stores",
            "disk_offering" => "disk_offerings", "service_offering" => "service_offerings", "networks" => "networks",
            "nics" => "nics", "routers" => "routers", "ip_addresses" => "ip_addresses", "vlan_ranges" => "vlan_ranges",
            "physical_networks" => "physical_networks", "traffic_types" => "traffic_types",
            "network_providers" => "network_providers", "network_offerings" => "network_offerings", "domain" => "domains",
            "account" => "accounts", "user" => "users", "role" => "roles", "role_permission" => "role_permissions",
            "ssh_keypair" => "ssh_keypairs", "host_debt" => "host_debts", "affinity_group" => "affinity_groups",
            "dedication" => "dedications",
        ),
    ),
];
