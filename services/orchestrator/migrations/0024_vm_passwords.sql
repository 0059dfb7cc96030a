-- The password that a VM's guest fetches from its router, sealed (see model::sealed); NULL: its template can't set passwords.
ALTER TABLE vms ADD COLUMN password_sealed TEXT;
