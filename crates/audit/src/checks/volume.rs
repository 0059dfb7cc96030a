//! Pools, volumes, templates and their copies.

use super::{check, ids, texts};
use crate::check::Check;
use crate::check::Settle::{Moment, Round, Work};
use crate::check::Severity::{Grave, Late, Leak};

pub(super) const CHECKS: &[Check] = &[
    check(
        "volume-leaked",
        Leak,
        Moment,
        ids("volumes"),
        "A volume belongs to a machine that is gone or failed.",
        "Detach and delete it; a ROOT volume: set `vm_id`, `device_id` and `slot` to NULL, then deleteVolume.",
        "SELECT 'volume/' || o.uuid, o.name || ' belongs to machine ' || o.vm_id || ', which is gone or failed', '' || o.changed \
         FROM volumes o LEFT JOIN vms v ON v.id = o.vm_id WHERE {page:o.id} AND o.vm_id IS NOT NULL AND o.removed IS NULL \
         AND (v.id IS NULL OR v.removed IS NOT NULL OR v.state = 'Error') AND {free:'vm/' || o.vm_id} AND {free:'volume/' || o.id}",
    ),
    check(
        "volume-slot",
        Grave,
        Moment,
        ids("volumes"),
        "A volume is attached to a machine and not at a device of it, or the other way round: two disks may share a device.",
        "Set `slot` to \"machine/device\" where it is attached, else to NULL.",
        "SELECT 'volume/' || o.uuid, o.name || ' is of machine ' || COALESCE('' || o.vm_id, 'none') || ' at ' || COALESCE(o.slot, 'no device'), \
         '' || o.changed FROM volumes o WHERE {page:o.id} AND ((o.removed IS NULL AND o.vm_id IS NOT NULL AND \
         COALESCE(o.slot, '') <> o.vm_id || '/' || COALESCE(o.device_id, -1)) OR ((o.removed IS NOT NULL OR o.vm_id IS NULL) AND o.slot IS NOT NULL))",
    ),
    check(
        "volume-pool",
        Grave,
        Moment,
        ids("volumes"),
        "A volume lies on a pool that is gone, or is Ready without a place, or has a place and no bytes yet.",
        "See where the bytes are (the check of pools lists them); set `pool_id`, `path` and `state` to that.",
        "SELECT 'volume/' || o.uuid, o.name || ' is ' || o.state || ' on pool ' || COALESCE(p.name, '' || o.pool_id, 'none') || ' at ' || \
         COALESCE(o.path, 'no path'), '' || o.changed FROM volumes o LEFT JOIN storage_pools p ON p.id = o.pool_id WHERE {page:o.id} \
         AND o.removed IS NULL AND ((o.pool_id IS NOT NULL AND (p.id IS NULL OR p.removed IS NOT NULL OR o.path IS NULL)) \
         OR (o.pool_id IS NULL AND o.state = 'Ready') OR (o.pool_id IS NOT NULL AND o.state = 'Allocated')) AND {free:'volume/' || o.id} \
         AND {free:'vm/' || o.vm_id}",
    ),
    check(
        "volume-transitional",
        Late,
        Work,
        ids("volumes"),
        "A volume is being made, resized or deleted, and no job does it: it is stuck.",
        "See whether its bytes are there and how large; set `state` to Ready or Allocated.",
        "SELECT 'volume/' || o.uuid, o.name || ' is ' || o.state || ' and no job works on it', '' || o.changed FROM volumes o \
         WHERE {page:o.id} AND o.removed IS NULL AND o.state IN ('Creating', 'Resizing', 'Destroy', 'Expunging', 'Expunged') \
         AND {free:'volume/' || o.id} AND {free:'vm/' || o.vm_id}",
    ),
    check(
        "volume-reference",
        Grave,
        Moment,
        ids("volumes"),
        "A volume refers to a zone, template or offering that has no row.",
        "Correct the reference.",
        "SELECT 'volume/' || o.uuid, o.name || ' refers to a zone, template or offering that doesn''t exist', '' || o.changed FROM volumes o \
         WHERE {page:o.id} AND o.removed IS NULL AND (NOT EXISTS (SELECT 1 FROM zones x WHERE x.id = o.zone_id) OR \
         (o.template_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM templates x WHERE x.id = o.template_id)) OR \
         (o.disk_offering_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM disk_offerings x WHERE x.id = o.disk_offering_id)))",
    ),
    check(
        "pool-capacity",
        Grave,
        Moment,
        ids("storage_pools"),
        "What a pool counts as promised isn't what its volumes and templates hold: it is over-filled, or room is lost.",
        "Set `allocated_bytes` of it to that sum.",
        "SELECT 'storagepool/' || s.uuid, s.name || ' counts ' || s.allocated_bytes || ' bytes; its volumes hold ' || s.disks || \
         ' and its templates ' || s.images, NULL FROM (SELECT p.uuid, p.name, p.allocated_bytes, (SELECT CAST(COALESCE(SUM(o.size), 0) AS SIGNED) \
         FROM volumes o WHERE o.pool_id = p.id AND o.removed IS NULL) AS disks, (SELECT CAST(COALESCE(SUM(t.size), 0) AS SIGNED) \
         FROM template_pool_refs t WHERE t.pool_id = p.id) AS images FROM storage_pools p WHERE {page:p.id} AND p.removed IS NULL) s \
         WHERE s.allocated_bytes <> s.disks + s.images",
    ),
    check(
        "pool-place",
        Grave,
        Moment,
        None,
        "A pool or image store is in a zone, pod or cluster that is gone.",
        "Delete it, or correct its place.",
        "SELECT 'storagepool/' || p.uuid, p.name || ' is in a zone, pod or cluster that is gone', NULL FROM storage_pools p \
         WHERE p.removed IS NULL AND (NOT EXISTS (SELECT 1 FROM zones x WHERE x.id = p.zone_id AND x.removed IS NULL) OR \
         (p.cluster_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM clusters x WHERE x.id = p.cluster_id AND x.removed IS NULL)) OR \
         (p.pod_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pods x WHERE x.id = p.pod_id AND x.removed IS NULL))) UNION ALL \
         SELECT 'imagestore/' || p.uuid, p.name || ' is in a zone that is gone', NULL FROM image_stores p WHERE p.removed IS NULL \
         AND p.zone_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM zones x WHERE x.id = p.zone_id AND x.removed IS NULL)",
    ),
    check(
        "pool-host-leaked",
        Leak,
        Moment,
        None,
        "A host that has no row, or a pool that is gone, is noted as a way to a pool.",
        "Delete it from `pool_hosts`.",
        "SELECT 'poolhost/' || x.pool_id || '/' || x.host_id, 'is a way to a pool that is gone or from a host that doesn''t exist', NULL \
         FROM pool_hosts x WHERE NOT EXISTS (SELECT 1 FROM storage_pools p WHERE p.id = x.pool_id AND p.removed IS NULL) \
         OR NOT EXISTS (SELECT 1 FROM hosts h WHERE h.id = x.host_id)",
    ),
    check(
        "deletion-of-living",
        Grave,
        Moment,
        texts("pending_deletions", "path"),
        "The bytes of a living volume are to be deleted.",
        "Delete the row from `pending_deletions` at once.",
        "SELECT 'volume/' || o.uuid, 'is alive, and its bytes at ' || d.path || ' are to be deleted', NULL FROM pending_deletions d \
         JOIN volumes o ON o.uuid = d.volume_uuid WHERE {page:d.path} AND o.removed IS NULL AND o.path = d.path AND o.pool_id = d.pool_id",
    ),
    check(
        "deletion-late",
        Late,
        Round,
        texts("pending_deletions", "path"),
        "Bytes couldn't be deleted for a day, or lie on a pool that is gone.",
        "See `last_error`; connect a host that reaches the pool, or delete the row and the bytes by hand.",
        "SELECT 'deletion/' || d.path, 'of volume ' || d.volume_uuid || ' on pool ' || d.pool_id || ' was tried ' || d.tries || ' times', NULL \
         FROM pending_deletions d WHERE {page:d.path} AND (d.created < {now-86400s} OR NOT EXISTS (SELECT 1 FROM storage_pools p \
         WHERE p.id = d.pool_id AND p.removed IS NULL))",
    ),
    check(
        "template-copy",
        Grave,
        Moment,
        None,
        "A copy of a template that has no row, or on a pool, store or zone that is gone.",
        "Delete the row; of a copy on a pool, subtract its size from `allocated_bytes`.",
        "SELECT 'templatecopy/' || x.template_id || '/pool/' || x.pool_id, 'is of a template or on a pool that is gone', NULL \
         FROM template_pool_refs x WHERE NOT EXISTS (SELECT 1 FROM templates t WHERE t.id = x.template_id) OR NOT EXISTS (SELECT 1 \
         FROM storage_pools p WHERE p.id = x.pool_id AND p.removed IS NULL) UNION ALL \
         SELECT 'templatecopy/' || x.template_id || '/store/' || x.store_id, 'is of a template or on a store that is gone', NULL \
         FROM template_store_refs x WHERE NOT EXISTS (SELECT 1 FROM templates t WHERE t.id = x.template_id) OR NOT EXISTS (SELECT 1 \
         FROM image_stores s WHERE s.id = x.store_id AND s.removed IS NULL) UNION ALL \
         SELECT 'templatecopy/' || x.template_id || '/zone/' || x.zone_id, 'is of a template or in a zone that doesn''t exist', NULL \
         FROM template_zones x WHERE NOT EXISTS (SELECT 1 FROM templates t WHERE t.id = x.template_id) OR NOT EXISTS (SELECT 1 \
         FROM zones z WHERE z.id = x.zone_id)",
    ),
    check(
        "template-os-type",
        Grave,
        Moment,
        ids("templates"),
        "A template is of a guest OS type that has no row: deploys of it fail.",
        "updateTemplate with another OS type.",
        "SELECT 'template/' || t.uuid, t.name || ' is of OS type ' || t.os_type_id || ', which doesn''t exist', NULL FROM templates t \
         WHERE {page:t.id} AND t.removed IS NULL AND NOT EXISTS (SELECT 1 FROM os_types x WHERE x.id = t.os_type_id)",
    ),
];
