//! The machine's own packet filter, and the ports that other hosts come to.

use super::{Check, Preflight};
use serde_json::Value;

/// QEMU takes guests that come from other hosts at these TCP ports (libvirt's own default).
const MIGRATION: std::ops::RangeInclusive<u16> = 49152..=49215;
/// Of VXLAN, UDP.
const VXLAN: u16 = 8472;

/// Whether the filter lets hosts and guests through.
pub(super) async fn policies(preflight: &Preflight) -> Vec<Check> {
    let said = super::tools::said(preflight, "nft", &["-j", "list", "chains"]).await;
    let chains: Value = said.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let drops = |hook: &str| {
        let all = chains.pointer("/nftables").and_then(Value::as_array).into_iter().flatten();
        let mut chains = all.filter_map(|entry| entry.get("chain"));
        chains.any(|chain| chain["hook"] == hook && chain["policy"] == "drop" && chain["family"] != "ip6")
    };
    let mut checks = Vec::new();
    if drops("input") {
        let (first, last) = (MIGRATION.start(), MIGRATION.end());
        checks.push(Check::warn(
            "packet filter",
            format!(
                "what comes in is dropped unless a rule lets it in: other hosts need UDP {VXLAN} (VXLAN) and TCP {first} to {last} (live \
                 migration)"
            ),
            format!("ufw allow proto udp to any port {VXLAN}; ufw allow proto tcp to any port {first}:{last} (or the same in its own rules)"),
        ));
    }
    if drops("forward") {
        checks.push(Check::warn(
            "forwarding",
            "the machine's packet filter drops what it doesn't know of what is forwarded (ufw, Docker): that counts for guests where the \
             bridge filter is on, and where this machine routes for them",
            "sysctl -w net.bridge.bridge-nf-call-iptables=0; where the machine routes: ufw route allow in on arcusbr0, or iptables -I \
             DOCKER-USER -i arcusbr0 -j ACCEPT",
        ));
    }
    if checks.is_empty() {
        checks.push(Check::ok("packet filter", "drops nothing by default"));
    }
    checks
}

/// Whether ports are left for guests that come from other hosts.
pub(super) fn ports() -> Check {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    told(&(read("/proc/net/tcp") + &read("/proc/net/tcp6")))
}

fn told(tables: &str) -> Check {
    let taken = tables.lines().filter_map(listens_at).filter(|port| MIGRATION.contains(port));
    let taken = taken.collect::<std::collections::BTreeSet<u16>>().len();
    let (first, last) = (MIGRATION.start(), MIGRATION.end());
    if taken * 2 > MIGRATION.count() {
        let text =
            format!("{taken} of the ports {first} to {last} have listeners: few guests can come by live migration");
        return Check::warn("ports", text, format!("ss -ltnp 'sport >= {first}' tells whose they are"));
    }
    Check::ok("ports", format!("{first} to {last} are left for live migration"))
}

/// The port of a listening socket in a line of the kernel's table.
fn listens_at(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace().skip(1);
    let (local, state) = (words.next()?, words.nth(1)?);
    let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    (state == "0A").then_some(port)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use crate::kvm::preflight::Verdict;
    use crate::kvm::preflight::tests::{named, with_programs};

    #[tokio::test]
    async fn a_filter_that_drops_is_told() {
        let chain = |hook: &str, policy: &str| {
            format!(r#"{{"chain":{{"family":"inet","table":"f","name":"c","hook":"{hook}","policy":"{policy}"}}}}"#)
        };
        let nft = |chains: &[String]| format!("echo '{{\"nftables\":[{}]}}'", chains.join(","));
        let said = nft(&[chain("input", "drop"), chain("forward", "drop")]);
        let (_dir, preflight) = with_programs(&[("nft", &said)]);
        let checks = policies(&preflight).await;
        let (filter, forwarding) = (named(&checks, "packet filter"), named(&checks, "forwarding"));
        assert!(filter.verdict == Verdict::Warn && filter.mend.as_ref().unwrap().contains("8472"), "{filter}");
        assert!(forwarding.mend.as_ref().unwrap().contains("bridge-nf-call-iptables=0"), "{forwarding}");
        let said = nft(&[chain("input", "accept"), chain("output", "drop")]);
        let (_dir, preflight) = with_programs(&[("nft", &said)]);
        let checks = policies(&preflight).await;
        assert!(checks.len() == 1 && checks[0].verdict == Verdict::Ok, "{checks:?}");
    }

    #[test]
    fn taken_ports_are_told() {
        let line =
            |port: u16, state: &str| format!("  0: 00000000:{port:04X} 00000000:0000 {state} 00000000:00000000\n");
        let head = "  sl  local_address rem_address   st tx_queue\n";
        assert_eq!(told(&format!("{head}{}", line(49152, "0A"))).verdict, Verdict::Ok);
        let connections: String = (49152..49210).map(|port| line(port, "01")).collect();
        assert_eq!(told(&connections).verdict, Verdict::Ok);
        let listeners: String = (49152..49210).map(|port| line(port, "0A")).collect();
        let full = told(&(listeners.clone() + &listeners));
        assert!(full.verdict == Verdict::Warn && full.text.contains("58 of the ports"), "{full}");
    }
}
