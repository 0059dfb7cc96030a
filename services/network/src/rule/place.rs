//! Writing rules, and taking them away. Whoever writes a rule writes the network's row first: of two rivals for a port the
//! second sees the first.

use super::{Purpose, conflict};
use crate::store::ips::{self, PublicIp};
use crate::store::rules::{self, Rule};
use crate::store::{networks, nics};
use contract::ApiError;
use store::{Db, Tx};

/// The first of `count` numbers for new rules.
///
/// # Errors
/// Those of the database.
pub async fn numbers(db: &Db, count: i64) -> Result<i64, ApiError> {
    Ok(db.next_ids("firewall_rules", count).await?)
}

/// Writes new rules of one network, of any purpose: checks that the network and the address live, that the address may be
/// used so, and that no other rule is in the way. `conserve`: whether the network's offering lets one address carry several
/// services.
///
/// # Errors
/// 431 or 537 that says what is in the way; 530 when the network or the address went meanwhile.
pub async fn place(tx: &mut Tx, network: i64, conserve: bool, new: &[Rule]) -> Result<(), ApiError> {
    if !networks::touch(tx, network).await? {
        return Err(ApiError::param("the network has been removed".to_owned()));
    }
    for rule in new {
        let others = match rule.ip_id {
            Some(ip) => {
                let ip = serving(tx, ip, network).await?;
                let others = rules::of_ip_in(tx, ip.id).await?;
                check_use(&ip, rule.purpose, conserve, &others)?;
                others
            }
            None => rules::egress_in(tx, network).await?,
        };
        conflict::check(rule, &others)?;
        if let Some(target) = &rule.target {
            pin(tx, target.vm_id, network, &target.ip).await?;
        }
        rules::insert(tx, rule).await?;
    }
    Ok(())
}

/// The address, if it still serves the network.
///
/// # Errors
/// 431 when it doesn't.
pub async fn serving(tx: &mut Tx, ip: i64, network: i64) -> Result<PublicIp, ApiError> {
    let gone = || ApiError::param("the public address has been released".to_owned());
    let ip = ips::one_in(tx, ip).await?.ok_or_else(gone)?;
    if ip.state != "Allocated" || ip.network_id != Some(network) {
        return Err(ApiError::param(format!(
            "IP address {} is {} and can't have rules of that network now",
            ip.ip, ip.state
        ))
        .with_entity(&ip.uuid, "ipaddressid"));
    }
    Ok(ip)
}

/// Writes a VM's interface in the network, so that whoever takes it away waits and then sees what was made for it.
///
/// # Errors
/// 431 when the VM has no such interface any more.
pub async fn pin(tx: &mut Tx, vm: i64, network: i64, ip: &str) -> Result<(), ApiError> {
    if nics::pin(tx, vm, network, ip).await? {
        return Ok(());
    }
    Err(ApiError::param("Vm doesn't belong to network associated with ipAddress".to_owned()))
}

/// Whether an address may have rules of this purpose, beside what it has.
///
/// # Errors
/// 431 or 537 that says why not, as 4.11.
pub fn check_use(ip: &PublicIp, purpose: Purpose, conserve: bool, others: &[Rule]) -> Result<(), ApiError> {
    let refuse = |text: String| Err(ApiError::param(text).with_entity(&ip.uuid, "ipaddressid"));
    match purpose {
        Purpose::Firewall => return Ok(()),
        Purpose::PortForwarding if ip.is_static_nat => {
            return refuse(format!(
                "Unable to create port forwarding rule; ip id={} has static nat enabled: {} stands for one VM",
                ip.uuid, ip.ip
            ));
        }
        Purpose::LoadBalancing if ip.is_static_nat => {
            return Err(ApiError::conflict(format!(
                "Can't do load balance on ip address: {}: it has static NAT",
                ip.ip
            ))
            .with_entity(&ip.uuid, "publicipid"));
        }
        Purpose::StaticNat if ip.is_source_nat || !ip.is_static_nat || ip.vm_id.is_none() => {
            return Err(ApiError::conflict(format!(
                "Can't do static nat on ip address: {}: enable static NAT for a VM first",
                ip.ip
            ))
            .with_entity(&ip.uuid, "ipaddressid"));
        }
        _ => {}
    }
    if conserve {
        return Ok(());
    }
    match others_use(ip, others).into_iter().find(|used| *used != purpose.service()) {
        Some(used) => refuse(format!(
            "The IP {} is already used as {used} rather than {}: the network's offering (conserve mode off) gives an address \
             one service",
            ip.ip,
            purpose.service()
        )),
        None => Ok(()),
    }
}

/// The services that an address is used for; the firewall's is no use of its own.
fn others_use(ip: &PublicIp, others: &[Rule]) -> Vec<&'static str> {
    let mut used: Vec<&'static str> = Vec::new();
    if ip.is_source_nat {
        used.push("SourceNat");
    }
    if ip.is_static_nat {
        used.push(Purpose::StaticNat.service());
    }
    used.extend(others.iter().map(|r| r.purpose).filter(|p| *p != Purpose::Firewall).map(Purpose::service));
    used
}

/// Whether an address may stand for a VM.
///
/// # Errors
/// 431 or 537 that says why not, as 4.11.
pub fn check_static(ip: &PublicIp, others: &[Rule]) -> Result<(), ApiError> {
    if ip.is_source_nat {
        return Err(ApiError::param(format!("Can't enable static, ip address {} is a sourceNat ip address", ip.ip))
            .with_entity(&ip.uuid, "ipaddressid"));
    }
    for purpose in [Purpose::PortForwarding, Purpose::LoadBalancing] {
        if !ip.is_static_nat
            && let Some(rule) = others.iter().find(|r| r.purpose == purpose)
        {
            return Err(ApiError::conflict(format!(
                "Failed to enable static nat for the ip address {} as it already has {purpose} rules assigned",
                ip.ip
            ))
            .with_entity(&rule.uuid, "rule"));
        }
    }
    Ok(())
}
