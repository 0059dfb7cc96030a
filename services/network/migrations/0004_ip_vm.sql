-- The address of a VM with static NAT, for lists of VMs.
CREATE INDEX ip_addresses_vm ON ip_addresses (vm_id);
