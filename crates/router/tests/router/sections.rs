//! Sections that fail alone, what is mended, and the end of a router.

use crate::lab::{Lab, OUTSIDE, UUID, balancer, forward, guest, open, run, spec, wait};
use contract_agent::{ApplyRouter, Firewall, LoadBalancers, Nat, RouterApplied, RouterSpec};
use std::process::Command;

const PUBLIC: &str = "198.51.100.11";

/// A guest's port 22 at port 22 of the public address, and a balancer at 80.
fn working() -> RouterSpec {
    let mut all = spec();
    all.nat.as_mut().unwrap().forwards = vec![forward("f", PUBLIC, (22, 22), &guest(1), 22)];
    all.firewall.as_mut().unwrap().ingress = vec![open("x", PUBLIC, 22, 100)];
    all.load_balancers.as_mut().unwrap().list = vec![balancer("l", PUBLIC, 80, 22)];
    all
}

async fn lab(test: &str) -> Option<Lab> {
    let mut lab = Lab::new(test).await?;
    lab.address_guests();
    lab.serve("g1", 22);
    lab.serve("g2", 22);
    lab.apply(working()).await;
    works(&lab);
    Some(lab)
}

fn works(lab: &Lab) {
    assert_eq!(lab.reach("out", &format!("{PUBLIC}:22")), Some(format!("g1 {OUTSIDE}")));
    assert!(lab.reach("out", &format!("{PUBLIC}:80")).is_some());
    assert_eq!(lab.resolve("g1", "vm2"), Some(guest(2).parse().unwrap()));
}

fn failed(applied: &RouterApplied) -> Vec<&str> {
    applied.faults.iter().map(|f| f.section.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_rule_holds_up_no_other_and_a_bad_section_stays_as_it_was() {
    let Some(mut lab) = lab("bad sections").await else { return };
    // Half of each section is good. Of rules the good ones go on, and the report names the others.
    let mut bad = working();
    bad.nat = Some(Nat {
        forwards: vec![
            forward("f", PUBLIC, (22, 22), &guest(1), 22),
            forward("n", PUBLIC, (23, 23), &guest(1), 22),
            forward("bad", PUBLIC, (24, 24), "10.1.1.999", 22),
        ],
        ..working().nat.unwrap()
    });
    bad.dhcp.as_mut().unwrap().leases[1].host_name = "evil\ndhcp-script=/bin/sh".into();
    let mut unknown = balancer("l2", PUBLIC, 81, 22);
    unknown.algorithm = "random; rm".into();
    bad.load_balancers =
        Some(LoadBalancers { list: vec![balancer("l", PUBLIC, 80, 22), unknown], ..LoadBalancers::default() });
    let ingress = &mut bad.firewall.as_mut().unwrap().ingress;
    ingress.extend([open("y", PUBLIC, 200, 300), open("z", PUBLIC, 300, 70_000)]);
    let applied = lab.try_apply(bad.clone()).await;
    assert_eq!(failed(&applied), ["dhcp", "firewall", "load_balancers", "nat"]);
    let blamed: Vec<&[String]> = applied.faults.iter().map(|f| f.rules.as_slice()).collect();
    assert_eq!(blamed, [&[][..], &["z".to_owned()], &["l2".to_owned()], &["bad".to_owned()]]);
    assert!(applied.faults.iter().any(|f| f.reason.contains("10.1.1.999")), "{:?}", applied.faults);
    works(&lab);
    assert_eq!(lab.reach("out", &format!("{PUBLIC}:23")), Some(format!("g1 {OUTSIDE}")), "the good rules are in force");
    let rules = run("nsenter", &format!("--net={} -- nft list table ip arcus", lab.router().path().display()));
    assert!(rules.contains("dport 200-300"), "the firewall, which was good, is in force");
    // A restart keeps it so.
    lab.restart_agent();
    let reports = lab.routers.resume().await;
    assert_eq!(failed(reports[UUID].as_ref().unwrap()), ["dhcp", "firewall", "load_balancers", "nat"]);
    works(&lab);
    assert!(lab.apply(working()).await.faults.is_empty(), "mended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_that_cannot_listen_leaves_the_former_one() {
    let Some(mut lab) = lab("a taken port").await else { return };
    let mut bad = working();
    // The password server's own port.
    bad.load_balancers.as_mut().unwrap().list.push(balancer("taken", "10.1.1.1", 8080, 22));
    let applied = lab.try_apply(bad).await;
    assert_eq!(failed(&applied), ["load_balancers"], "{:?}", applied.faults);
    works(&lab);
    let mut more = working();
    more.load_balancers.as_mut().unwrap().list.push(balancer("l2", PUBLIC, 81, 22));
    lab.apply(more).await;
    assert!(lab.reach("out", &format!("{PUBLIC}:81")).is_some(), "haproxy takes good changes again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_the_kernel_cannot_carry_is_refused_by_name() {
    let Some(mut lab) = lab("VLAN").await else { return };
    let net = format!("--net={}", lab.part("host").path().display());
    let vlan = ["--", "ip", "link", "add", "link", "under", "name", "probe", "type", "vlan", "id", "9"];
    let can = Command::new("nsenter").arg(net).args(vlan).output().expect("ip").status.success();
    let mut tagged = working();
    tagged.interfaces.as_mut().unwrap().list[0].broadcast_uri = "vlan://100".into();
    let applied = lab.try_apply(tagged).await;
    if can {
        assert!(applied.faults.is_empty(), "{:?}", applied.faults);
        assert!(lab.ip("host", "link").contains("under.100@"));
        return;
    }
    assert_eq!(failed(&applied), ["interfaces"]);
    assert!(applied.faults[0].reason.contains("CONFIG_VLAN_8021Q"), "{}", applied.faults[0].reason);
    works(&lab);
    assert!(!lab.ip("host", "link").contains("brunder-100"), "nothing half made stays");
    let mut nowhere = working();
    nowhere.interfaces.as_mut().unwrap().list[1].traffic_label = Some("cloudbr7".into());
    let applied = lab.try_apply(nowhere).await;
    assert!(applied.faults[0].reason.contains("no device cloudbr7"), "{:?}", applied.faults);
    works(&lab);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dies_or_is_spoilt_is_mended() {
    let Some(mut lab) = lab("mending").await else { return };
    for name in ["dnsmasq", "haproxy"] {
        for pid in lab.daemons(name) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        wait("its end", || lab.daemons(name).is_empty());
    }
    let nft = format!("--net={} -- nft flush ruleset", lab.router().path().display());
    run("nsenter", &nft);
    lab.ip_router("addr del 198.51.100.11/24 dev public");
    lab.ip_router("route del default");
    lab.ip_router("link set guest down");
    let report = lab.routers.check(UUID).await.expect("a router").expect("a report");
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    works(&lab);
    assert_eq!(lab.daemons("dnsmasq").len(), 1);
    // Nothing to do: nothing is done.
    let before = (lab.daemons("dnsmasq"), lab.daemons("haproxy"));
    lab.routers.check(UUID).await.expect("a router").expect("a report");
    lab.restart_agent();
    lab.routers.resume().await;
    assert_eq!((lab.daemons("dnsmasq"), lab.daemons("haproxy")), before);
    works(&lab);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_converges() {
    let Some(mut lab) = lab("reboot").await else { return };
    lab.reboot();
    assert!(lab.connect("out", &format!("{PUBLIC}:22")).is_none());
    lab.restart_agent();
    let reports = lab.routers.resume().await;
    assert!(reports[UUID].as_ref().unwrap().faults.is_empty(), "{reports:?}");
    lab.replug_guests();
    wait("the guests' links", || lab.reach("out", &format!("{PUBLIC}:22")).is_some());
    works(&lab);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deltas_build_on_what_the_host_was_told() {
    let Some(mut lab) = lab("deltas").await else { return };
    let firewall = RouterSpec { firewall: Some(Firewall::default()), ..RouterSpec::default() };
    let change = |generation, base| ApplyRouter {
        router_uuid: UUID.into(),
        generation,
        base,
        changes: Some(firewall.clone()),
        ..ApplyRouter::default()
    };
    assert!(lab.routers.apply(change(99, 98)).await.unwrap().behind);
    works(&lab);
    let old = lab.routers.apply(change(0, 0)).await.unwrap();
    assert_eq!((old.generation, old.behind), (1, false), "an older state is ignored");
    works(&lab);
    lab.delta(firewall.clone(), &[]).await;
    assert_eq!(lab.reach("out", &format!("{PUBLIC}:22")), None);
    let other = ApplyRouter { router_uuid: "another".into(), ..change(5, 4) };
    assert!(lab.routers.apply(other).await.unwrap().behind, "a router that this host never had");
    assert_eq!(lab.routers.reports().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_outlive_changes_of_rules() {
    let Some(mut lab) = lab("usage").await else { return };
    let of = |usage: &[router::Usage]| usage.iter().find(|u| u.address.to_string() == PUBLIC).cloned();
    let before = of(&lab.routers.usage(UUID).await.unwrap().unwrap()).expect("a counter");
    assert!(before.received > 100 && before.sent > 100, "{before:?}");
    let mut more = working();
    more.firewall.as_mut().unwrap().ingress.push(open("y", PUBLIC, 200, 300));
    more.interfaces.as_mut().unwrap().list[1].addresses.pop();
    lab.apply(more).await;
    let usage = lab.routers.usage(UUID).await.unwrap().unwrap();
    let after = of(&usage).expect("a counter");
    assert!(after.received >= before.received && after.sent >= before.sent);
    assert_eq!(usage.len(), 3, "the counter of the address that went is gone: {usage:?}");
}

/// Everything of this lab's router that a host could hold.
fn remains(lab: &Lab) -> Vec<String> {
    let mut found: Vec<String> = lab.processes().into_iter().map(|(pid, args)| format!("{pid} {args}")).collect();
    if lab.router().path().exists() {
        found.push("its namespace".into());
    }
    if lab.state().exists() {
        found.push("its folder".into());
    }
    let links = lab.ip("host", "-o link");
    found.extend(
        links.lines().filter(|l| l.contains(": rt") || l.contains("vxlan") || l.contains("brvx")).map(str::to_owned),
    );
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_router_leaves_nothing() {
    let Some(mut lab) = lab("removal").await else { return };
    let held = lab.connect("out", &format!("{PUBLIC}:80")).expect("a connection");
    lab.routers.remove(UUID).await.expect("a removal");
    let left = remains(&lab);
    assert!(left.iter().all(|l| l.contains("vxlan") || l.contains("brvx")), "{left:?}");
    assert!(!left.is_empty(), "the guests' bridge stays while guests are plugged into it");
    lab.routers.remove(UUID).await.expect("removed already");
    drop(held);
    // It may come again, and go when its bridge is free.
    lab.apply(working()).await;
    works(&lab);
    lab.ip("host", "link del v-g1");
    lab.ip("host", "link del v-g2");
    lab.routers.remove(UUID).await.expect("a removal");
    assert_eq!(remains(&lab), Vec::<String>::new());
    assert!(lab.ip("host", "link").contains("pub0"), "a bridge that isn't ours stays");
    assert!(lab.routers.reports().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_is_killed_is_ended_later() {
    let Some(mut lab) = lab("killed removals").await else { return };
    lab.ip("host", "link del v-g1");
    lab.ip("host", "link del v-g2");
    for point in ["leaving", "ended", "unplugged", "namespace-gone", "released"] {
        lab.apply(working()).await;
        lab.host.interruptions = Some(std::sync::Arc::new(move |at| at == point));
        lab.restart_agent();
        lab.routers.remove(UUID).await.expect_err("an interruption");
        lab.host.interruptions = None;
        lab.restart_agent();
        let reports = lab.routers.resume().await;
        assert!(reports.is_empty(), "{point}: {reports:?}");
        assert_eq!(remains(&lab), Vec::<String>::new(), "{point}");
    }
}
