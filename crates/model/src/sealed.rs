//! For what secrets are sealed that more than one service opens: the context that the vault is given.

/// The password of a VM's guest (`vms.password_sealed`): the orchestrator seals it, the network service opens it for the router.
pub fn vm_password(vm_uuid: &str) -> String {
    format!("vms.password:{vm_uuid}")
}
