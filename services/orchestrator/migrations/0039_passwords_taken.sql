-- The last password that a VM's guest took from its router, by its id (see model::sealed::password_id): no router offers it again.
ALTER TABLE vms ADD COLUMN password_taken VARCHAR(64);
