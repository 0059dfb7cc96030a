//! The agent as a service of systemd, by the unit of `deploy/`.

use crate::site::{Guests, PATIENCE, Site};
use serde_json::Value;

/// What runs of a VM and its router, with process ids: what no end of the agent may touch.
async fn runs(site: &Site) -> String {
    let pids = "do echo $name $(pidof $name); done; grep -c /var/lib/arcus/mnt /proc/mounts; ip netns";
    site.host.run(&format!("for name in {} dnsmasq; {pids}", site.guests.process())).await
}

/// The guide's chapters 4 and 5.
pub async fn install(site: &Site) {
    let checked = site.host.try_run("arcus agent check --config /etc/arcus/arcus.toml --json", PATIENCE).await.unwrap();
    let told: Value = serde_json::from_str(&checked.stdout).unwrap_or_else(|e| panic!("{e}: {checked:?}"));
    assert!(checked.status == 0 && told["passes"] == true, "{told:#}");
    let verdict = |name: &str| {
        let all = told["checks"].as_array().unwrap();
        let found = all.iter().find(|c| c["check"] == name).unwrap_or_else(|| panic!("no {name} in {told:#}"));
        found["verdict"].as_str().unwrap().to_owned()
    };
    for name in ["root", "system", "libvirt", "8021q", "vxlan", "guest device", "public device", "endpoint"] {
        assert_eq!(verdict(name), "ok", "{name}: {told:#}");
    }
    let special = match site.guests {
        Guests::Machines => [("qemu", "ok"), ("acceleration", "ok")],
        Guests::Containers => [("lxc", "ok"), ("containers", "ok")],
    };
    for (name, wanted) in special {
        assert_eq!(verdict(name), wanted, "{name}: {told:#}");
    }
    assert_eq!(verdict("service"), "warn", "it isn't installed yet");
    site.host.run("systemd-analyze verify /opt/deploy/arcus-agent.service").await;
    site.host.run("install -m 644 /opt/deploy/arcus-agent.service /etc/systemd/system/; systemctl daemon-reload").await;
    site.host.run("systemctl enable --now arcus-agent").await;
    site.host.until("systemctl is-active arcus-agent", PATIENCE).await;
    let owner = "stat -c '%a %U' /var/lib/arcus /var/lib/arcus/agent";
    assert_eq!(site.host.run(owner).await, "755 root\n755 root");
    site.done("the agent is a service");
}

/// Killed, restarted, stopped and started: what it started goes on.
pub async fn ends(site: &Site) {
    let before = runs(site).await;
    let guests = format!("{} ", site.guests.process());
    assert!(before.contains(&guests) && before.contains("dnsmasq "), "{before}");
    let pid = site.host.run("systemctl show arcus-agent -P MainPID").await;
    site.host.run("systemctl kill -s KILL --kill-whom=main arcus-agent").await;
    let back = format!("systemctl is-active arcus-agent && test $(systemctl show arcus-agent -P MainPID) != {pid}");
    site.host.until(&back, PATIENCE).await;
    assert_eq!(runs(site).await, before, "killed");
    site.up().await;
    site.host.run("systemctl restart arcus-agent").await;
    assert_eq!(runs(site).await, before, "restarted");
    site.up().await;
    site.host.run("systemctl stop arcus-agent").await;
    assert_eq!(site.host.run("systemctl is-active arcus-agent || :").await, "inactive");
    assert_eq!(runs(site).await, before, "stopped");
    site.host.run("systemctl start arcus-agent").await;
    site.up().await;
    assert_eq!(runs(site).await, before, "started");
    site.done("the agent was killed, restarted, stopped and started");
}
