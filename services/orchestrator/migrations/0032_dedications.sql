-- Zones, pods, clusters and hosts that are kept for a domain (and those below it) or for one account of it. `group_id` is the
-- affinity group whose VMs go there. `zone_id`, `pod_id`, `cluster_id` say where the resource is; of a dedicated zone,
-- `former_domain_id` is the domain that it was private to before.
CREATE TABLE IF NOT EXISTS dedications (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  kind VARCHAR(16) NOT NULL,
  resource_id BIGINT NOT NULL,
  zone_id BIGINT NOT NULL,
  pod_id BIGINT,
  cluster_id BIGINT,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  account_id BIGINT,
  group_id BIGINT NOT NULL,
  former_domain_id BIGINT,
  created BIGINT NOT NULL
);
CREATE UNIQUE INDEX dedications_resource ON dedications (kind, resource_id);
CREATE INDEX dedications_group ON dedications (group_id);
CREATE INDEX dedications_zone ON dedications (zone_id);
-- What `dedications` say of a host, where whoever takes capacity sees it in the same UPDATE: the group of the narrowest of
-- host, cluster and pod, and that of the zone.
ALTER TABLE host_capacity ADD COLUMN dedicated_to BIGINT;
ALTER TABLE host_capacity ADD COLUMN zone_dedicated_to BIGINT;
CREATE INDEX host_capacity_dedicated ON host_capacity (dedicated_to);
