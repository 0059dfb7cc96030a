//! Who reaches whom: exactly as the rules say.

use crate::network::OUTSIDE;
use crate::world::{Vm, World, text};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use testkit::guest::{Guest, talk};
use testkit::{Process, until_ok, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);

/// A public address of the network.
pub async fn address(world: &World) -> (String, String) {
    let made = world.run("associateIpAddress", &[("networkid", world.id("net"))]).await;
    (text(&made, "/ipaddress/id"), text(&made, "/ipaddress/ipaddress"))
}

async fn open(world: &World, address: &str, first: &str, last: &str) -> String {
    let params = [
        ("ipaddressid", address),
        ("protocol", "tcp"),
        ("startport", first),
        ("endport", last),
        ("cidrlist", "0.0.0.0/0"),
    ];
    text(&world.run("createFirewallRule", &params).await, "/firewallrule/id")
}

async fn forward(world: &World, address: &str, vm: &Vm, public: &str, private: &str) -> String {
    let params = [
        ("ipaddressid", address),
        ("virtualmachineid", vm.id.as_str()),
        ("protocol", "tcp"),
        ("publicport", public),
        ("privateport", private),
        ("openfirewall", "false"),
    ];
    text(&world.run("createPortForwardingRule", &params).await, "/portforwardingrule/id")
}

/// A forwarded port. Afterwards the guest's ports 7 (echo), 22 and 2323 are reached by the address that is given.
// covers: NET-221
pub async fn forwarding(world: &World, vm: &Vm) -> (String, String) {
    let (id, ip) = address(world).await;
    let echo = format!("{ip}:1007");
    assert!(!world.echoes(&echo).await, "no rules");
    forward(world, &id, vm, "1007", "7").await;
    assert!(!world.echoes(&echo).await, "forwarded, and the firewall is shut");
    let rule = open(world, &id, "1000", "1010").await;
    world.reached(&echo).await;
    assert!(!world.echoes(&format!("{ip}:1008")).await, "a port that isn't forwarded");
    assert!(!world.echoes(&format!("{}:7", vm.ip)).await, "by the guest's own address");
    world.run("deleteFirewallRule", &[("id", &rule)]).await;
    assert!(!world.echoes(&echo).await, "the firewall is shut again");
    open(world, &id, "1", "65535").await;
    world.reached(&echo).await;
    forward(world, &id, vm, "2323", "2323").await;
    forward(world, &id, vm, "22", "22").await;
    forward(world, &id, vm, "80", "80").await;
    (id, ip)
}

/// A public address by whose `port` a guest's echo is reached, its shell at 2323, and what numbers lines at 12007.
pub async fn reach(world: &World, vm: &Vm, port: &str) -> String {
    let (id, ip) = address(world).await;
    forward(world, &id, vm, port, "7").await;
    forward(world, &id, vm, "12007", "2007").await;
    forward(world, &id, vm, "2323", "2323").await;
    open(world, &id, "1", "65535").await;
    world.reached(&format!("{ip}:{port}")).await;
    ip
}

/// A public address whose pings a guest itself answers.
pub async fn pinged(world: &World, vm: &Vm) -> IpAddr {
    let (id, ip) = address(world).await;
    world.run("enableStaticNat", &[("ipaddressid", &id), ("virtualmachineid", &vm.id)]).await;
    let params = [
        ("ipaddressid", id.as_str()),
        ("protocol", "icmp"),
        ("icmptype", "-1"),
        ("icmpcode", "-1"),
        ("cidrlist", "0.0.0.0/0"),
    ];
    world.run("createFirewallRule", &params).await;
    ip.parse().unwrap()
}

/// A guest that is reached by a public address.
pub async fn shell(world: &World, ip: &str) -> Guest {
    Guest::at(&world.network.outside(), SocketAddr::new(ip.parse().unwrap(), 2323)).await
}

/// The key that the VM was deployed with opens it from outside.
pub fn log_in(world: &World, ip: &str) -> String {
    let key = world.folder("key");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = world.network.outside_command("ssh");
    for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "PasswordAuthentication=no"] {
        command.args(["-o", option]);
    }
    let user = format!("root@{ip}");
    let output = command.args(["-F", "none", "-i"]).arg(key).args([&user, "hostname"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What guests send leaves when a rule says so, with the network's own address.
pub async fn egress(world: &World, guest: &Guest) {
    let command = ["busybox", "nc", "-ll", "-p", "7000", "-e", "/bin/cat"].map(str::to_owned);
    let prefix = world.network.outside().prefix;
    let command: Vec<String> = prefix.into_iter().chain(command).collect();
    let server = Process::start(&command, &world.folder("outside.log"), None);
    let up = || async {
        talk(&world.network.outside(), "127.0.0.1:7000".parse().unwrap(), b"x", Duration::from_secs(3)).await.is_some()
    };
    wait_until(up, PATIENCE).await;
    let script = format!("echo hello | timeout 3 nc -w 2 {OUTSIDE} 7000");
    let gets = || async { guest.try_run(&script).await.unwrap().output == "hello" };
    assert!(!gets().await, "no egress rule");
    let params = [
        ("networkid", world.id("net")),
        ("protocol", "tcp"),
        ("startport", "7000"),
        ("endport", "7000"),
        ("cidrlist", "10.1.1.0/24"),
    ];
    let rule = text(&world.run("createEgressFirewallRule", &params).await, "/firewallrule/id");
    let let_out = || async { if gets().await { Ok(()) } else { Err("an egress rule".to_owned()) } };
    until_ok(let_out, PATIENCE).await;
    world.run("deleteEgressFirewallRule", &[("id", &rule)]).await;
    assert!(!gets().await, "none again");
    drop(server);
}

/// A public address that is a guest's own.
pub async fn static_nat(world: &World, vm: &Vm) {
    let (id, ip) = address(world).await;
    let echo = format!("{ip}:7");
    world.run("enableStaticNat", &[("ipaddressid", &id), ("virtualmachineid", &vm.id)]).await;
    assert!(!world.echoes(&echo).await, "the firewall is shut");
    open(world, &id, "7", "7").await;
    world.reached(&echo).await;
    world.run("disableStaticNat", &[("ipaddressid", &id)]).await;
    assert!(!world.echoes(&echo).await, "it is nobody's");
    world.run("disassociateIpAddress", &[("id", &id)]).await;
}

/// Two guests behind one address.
pub async fn balancing(world: &World, vms: [(&Vm, &str); 2]) {
    let (id, ip) = address(world).await;
    open(world, &id, "80", "80").await;
    let params = [
        ("publicipid", id.as_str()),
        ("name", "web"),
        ("algorithm", "roundrobin"),
        ("publicport", "80"),
        ("privateport", "80"),
        ("openfirewall", "false"),
    ];
    let rule = text(&world.run("createLoadBalancerRule", &params).await, "/loadbalancer/id");
    let members = format!("{},{}", vms[0].0.id, vms[1].0.id);
    world.run("assignToLoadBalancerRule", &[("id", &rule), ("virtualmachineids", &members)]).await;
    let page = || async {
        let address = format!("{ip}:80").parse().unwrap();
        let request = b"GET / HTTP/1.0\r\n\r\n";
        let page = talk(&world.network.outside(), address, request, Duration::from_secs(5)).await.unwrap_or_default();
        String::from_utf8_lossy(&page).lines().last().unwrap_or_default().to_owned()
    };
    // A server that is slow to answer is no rule that is wrong.
    let served = || async {
        until_ok(|| async { Some(page().await).filter(|p| !p.is_empty()).ok_or_else(String::new) }, PATIENCE).await
    };
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        seen.insert(served().await);
    }
    assert_eq!(seen, vms.iter().map(|(_, name)| (*name).to_owned()).collect(), "both serve");
    world.run("removeFromLoadBalancerRule", &[("id", &rule), ("virtualmachineids", &vms[0].0.id)]).await;
    for _ in 0..4 {
        assert_eq!(served().await, vms[1].1, "the other alone");
    }
    world.run("deleteLoadBalancerRule", &[("id", &rule)]).await;
    assert_eq!(page().await, "");
    let left = world.api.call("listLoadBalancerRules", &[("listall", "true")]).await.unwrap();
    assert_eq!(left.get("loadbalancerrule"), None::<&Value>, "{left}");
    world.run("disassociateIpAddress", &[("id", &id)]).await;
}
