-- Agents of machines that no host was added for yet: addHost binds them. The replica that holds an agent's line (`hub`) writes the
-- row when the agent says hello and removes it when it goes away. Whoever adds the host removes it with the host's commit.
CREATE TABLE IF NOT EXISTS waiting_agents (
  agent_uuid VARCHAR(40) NOT NULL PRIMARY KEY,
  hub VARCHAR(64) NOT NULL,
  since BIGINT NOT NULL,
  guid VARCHAR(255) NOT NULL,
  name VARCHAR(255) NOT NULL,
  hypervisor VARCHAR(32) NOT NULL,
  hypervisor_version VARCHAR(64) NOT NULL,
  agent_version VARCHAR(64) NOT NULL,
  private_ip VARCHAR(40) NOT NULL,
  private_mac VARCHAR(40) NOT NULL,
  sockets BIGINT NOT NULL,
  cpus BIGINT NOT NULL,
  cpu_mhz BIGINT NOT NULL,
  memory BIGINT NOT NULL,
  memory_reserved BIGINT NOT NULL,
  capabilities VARCHAR(255) NOT NULL
);
