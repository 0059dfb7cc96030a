-- The ISO in a virtual machine's CD drive (storage's templates); NULL: the drive is empty. It stays there while the machine is
-- stopped. Whoever sets it holds the claim template/ID, shared.
ALTER TABLE vms ADD COLUMN iso_id BIGINT;
CREATE INDEX vms_iso ON vms (iso_id);
