-- Which section of a router's spec changed last, each by the generation that brought the change: a change of rules sends and
-- applies its own sections only. `spec_generation` stays for what concerns all of it.
ALTER TABLE routers ADD COLUMN interfaces_generation BIGINT NOT NULL DEFAULT 0;
ALTER TABLE routers ADD COLUMN nat_generation BIGINT NOT NULL DEFAULT 0;
ALTER TABLE routers ADD COLUMN firewall_generation BIGINT NOT NULL DEFAULT 0;
ALTER TABLE routers ADD COLUMN balancers_generation BIGINT NOT NULL DEFAULT 0;
