//! For what secrets are sealed that more than one service opens: the context that the vault is given.

/// The password of a VM's guest (`vms.password_sealed`): the orchestrator seals it, the network service opens it for the router.
pub fn vm_password(vm_uuid: &str) -> String {
    format!("vms.password:{vm_uuid}")
}

/// How much of a sealed password is its id.
const PASSWORD_ID: usize = 24;

/// What tells a password of a VM's guest from its other ones (`vms.password_taken`, `SUBSTR(password_sealed, -24)` in statements): the end of
/// the sealed text, where its seal is. Each time that it is sealed it looks different: a guest takes each reset, even to the same word.
pub fn password_id(sealed: &str) -> String {
    let skip = sealed.chars().count().saturating_sub(PASSWORD_ID);
    sealed.chars().skip(skip).collect()
}
