//! Addresses, names, metadata, passwords.

use crate::lab::{GUEST_GATEWAY, Lab, guest, mac, spec, wait};
use contract_agent::{Dhcp, DhcpOption, Lease, Metadata, RouterSpec};

/// Only the leases of a spec.
fn leases(of: &RouterSpec, leases: Vec<Lease>) -> RouterSpec {
    RouterSpec { dhcp: of.dhcp.clone().map(|d| Dhcp { leases, ..d }), ..RouterSpec::default() }
}

fn lease(n: u8, address: u8) -> Lease {
    Lease { mac: mac(n), ip4: guest(address), host_name: format!("vm{n}"), ..Lease::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_gets_its_own_lease_and_nobody_else_any() {
    let Some(mut lab) = Lab::new("leases").await else { return };
    let mut all = spec();
    all.dhcp.as_mut().unwrap().leases = vec![lease(1, 1)];
    lab.apply(all.clone()).await;
    let told = lab.dhcp("g1").expect("a lease");
    for line in [
        "ip=10.1.1.11",
        "mask=24",
        "router=10.1.1.1",
        "dns=10.1.1.1",
        "domain=cs1.internal",
        "hostname=vm1",
        "lease=86400",
    ] {
        assert!(told.lines().any(|l| l == line), "{line} in\n{told}");
    }
    assert_eq!(lab.dhcp("g2"), None, "an unknown guest");

    // A new guest is known without a restart.
    let dnsmasq = lab.daemons("dnsmasq");
    lab.delta(leases(&all, vec![lease(2, 2)]), &[]).await;
    assert_eq!(lab.daemons("dnsmasq"), dnsmasq);
    assert!(lab.dhcp("g2").expect("a lease").contains("ip=10.1.1.12"));
    assert_eq!(lab.resolve("g1", "vm2.cs1.internal"), Some(guest(2).parse().unwrap()));

    // A guest's address goes to another one, though the first one's lease isn't over.
    lab.delta(leases(&all, vec![lease(2, 1)]), &[mac(1)]).await;
    assert!(lab.dhcp("g2").expect("a lease").contains("ip=10.1.1.11"));
    assert_eq!(lab.dhcp("g1"), None, "its lease is gone");

    // Not its default network: no gateway; and options of its own.
    let options =
        vec![DhcpOption { code: 42, value: "10.9.9.9".into() }, DhcpOption { code: 26, value: "1400".into() }];
    let aside = Lease { default_network: Some(false), options, ..lease(1, 5) };
    lab.delta(leases(&all, vec![aside]), &[]).await;
    let told = lab.dhcp("g1").expect("a lease");
    assert!(told.contains("ip=10.1.1.15") && !told.contains("router="), "{told}");
    assert!(told.contains("ntpsrv=10.9.9.9") && told.contains("mtu=1400"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_known_to_guests_only() {
    let Some(mut lab) = Lab::new("names").await else { return };
    lab.address_guests();
    let mut all = spec();
    let records = vec![contract_agent::DnsRecord { name: "db".into(), ip4: "10.1.1.200".into() }];
    all.dns.as_mut().unwrap().records = records;
    lab.apply(all).await;
    assert_eq!(lab.resolve("g1", "vm2.cs1.internal"), Some(guest(2).parse().unwrap()));
    assert_eq!(lab.resolve("g1", "vm2"), Some(guest(2).parse().unwrap()));
    assert_eq!(lab.resolve("g1", "db.cs1.internal"), Some("10.1.1.200".parse().unwrap()));
    assert_eq!(lab.resolve("g1", "data-server"), Some(GUEST_GATEWAY.parse().unwrap()));
    assert_eq!(lab.resolve("g1", "nobody.cs1.internal"), None);
    for port in [53, 80, 8080] {
        assert!(lab.connect("out", &format!("198.51.100.10:{port}")).is_none(), "port {port} from outside");
        assert!(lab.connect("g1", &format!("{GUEST_GATEWAY}:{port}")).is_some(), "port {port} from a guest");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_others_are_asked_outside() {
    let Some(mut lab) = Lab::new("upstream").await else { return };
    lab.address_guests();
    lab.serve_dns("out", "192.0.2.55".parse().unwrap());
    let mut all = spec();
    all.dns.as_mut().unwrap().upstream = vec!["198.51.100.1".into()];
    lab.apply(all).await;
    assert_eq!(lab.resolve("g1", "www.example.org"), Some("192.0.2.55".parse().unwrap()));
    assert_eq!(lab.resolve("g1", "vm2.cs1.internal"), Some(guest(2).parse().unwrap()), "its own names itself");
    assert_eq!(lab.resolve("g1", "nobody.cs1.internal"), None, "its own domain isn't asked for outside");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_of_other_hosts_are_served_through_vxlan() {
    let Some(mut lab) = Lab::new("VXLAN").await else { return };
    lab.serve("out", 7000);
    let mut all = spec();
    all.firewall.as_mut().unwrap().egress_default_allow = true;
    lab.apply(all).await;
    lab.move_guest("g2").await;
    wait("the wire", || lab.dhcp("g2").is_some());
    assert_eq!(lab.reach("g2", "198.51.100.1:7000").as_deref(), Some("out 198.51.100.10"));
    assert_eq!(lab.resolve("g2", "vm1"), Some(guest(1).parse().unwrap()));
    assert!(lab.dhcp("g1").is_some(), "and those of its own host");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_read_their_own_metadata() {
    let Some(mut lab) = Lab::new("metadata").await else { return };
    lab.address_guests();
    lab.apply(spec()).await;
    let get = |lab: &Lab, from: &str, path: &str| lab.get(from, "10.1.1.1:80", path, "").expect("an answer");
    assert!(get(&lab, "g1", "/latest/meta-data/instance-id").ends_with("\r\n\r\nuuid-1"));
    assert!(get(&lab, "g2", "/latest/meta-data/instance-id").ends_with("\r\n\r\nuuid-2"));
    assert!(get(&lab, "g1", "/latest/user-data").ends_with("#cloud-config 1"));
    assert!(get(&lab, "g1", "/latest/meta-data/").ends_with("\r\n\r\ninstance-id"));
    assert!(get(&lab, "g1", "/latest/meta-data/nothing").starts_with("HTTP/1.1 404"));
    let post = lab.connect("g1", "10.1.1.1:80").expect("a connection");
    std::io::Write::write_all(&mut &post, b"POST /latest/user-data HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut &post, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 405"), "{answer}");
    // A change of user data is seen at once.
    let mut vm = spec().metadata.unwrap().vms.remove(0);
    vm.user_data = Some(vec![0xff, 0, 1]);
    lab.delta(RouterSpec { metadata: Some(Metadata { vms: vec![vm] }), ..RouterSpec::default() }, &[]).await;
    assert!(get(&lab, "g1", "/latest/user-data").contains("content-length: 3"));
    assert!(get(&lab, "g2", "/latest/user-data").ends_with("#cloud-config 2"));
}

// covers: VM-287, TPL-073
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_takes_anothers_address_learns_nothing_of_it() {
    let Some(mut lab) = Lab::new("spoofing").await else { return };
    lab.address_guests();
    lab.apply(spec()).await;
    let victim = guest(2);
    let own = |lab: &Lab| lab.get("g2", "10.1.1.1:80", "/latest/meta-data/instance-id", "").expect("an answer");
    assert!(own(&lab).ends_with("\r\n\r\nuuid-2"));
    // It takes the address, says so to all, and asks.
    lab.ip("g1", "addr flush dev eth0");
    lab.ip("g1", &format!("addr add {victim}/24 dev eth0"));
    let announce = ["arping", "-U", "-c", "1", "-w", "1", "-I", "eth0", &victim].map(str::to_owned);
    let announced = lab.part("g1").within(move || std::process::Command::new("busybox").args(announce).output());
    announced.expect("the namespace").expect("busybox");
    for port in [80, 8080] {
        assert!(lab.connect("g1", &format!("10.1.1.1:{port}")).is_none(), "port {port} answered the wrong guest");
    }
    let bound = lab.ip_router("neigh show nud permanent");
    assert!(bound.lines().any(|l| l.contains(&victim) && l.contains(&mac(2))), "{bound}");
    lab.ip("g1", "addr flush dev eth0");
    assert!(own(&lab).ends_with("\r\n\r\nuuid-2"), "the right one is answered");
    // The address goes to another NIC: the binding follows, and goes with the lease.
    lab.delta(leases(&spec(), vec![lease(1, 2)]), &[mac(2)]).await;
    let bound = lab.ip_router("neigh show nud permanent");
    assert!(bound.lines().any(|l| l.contains(&victim) && l.contains(&mac(1))), "{bound}");
    lab.delta(RouterSpec::default(), &[mac(1)]).await;
    assert!(!lab.ip_router("neigh show nud permanent").contains(&victim));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_given_until_it_is_taken() {
    let Some(mut lab) = Lab::new("passwords").await else { return };
    lab.address_guests();
    lab.apply(spec()).await;
    let ask = |lab: &Lab, from: &str, order: &str| {
        let answer = lab.get(from, "10.1.1.1:8080", "/", order).expect("an answer");
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
    };
    let (send, saved) = ("DomU_Request: send_my_password\r\n", "DomU_Request: saved_password\r\n");
    assert_eq!(ask(&lab, "g1", send), "secret1");
    assert_eq!(ask(&lab, "g1", send), "secret1", "until it says that it has it");
    let uuid = lab.routers.reports().await[0].router_uuid.clone();
    let taken =
        |lab: &Lab| lab.routers.taken(&uuid).into_iter().map(|t| (t.vm_uuid, t.password_id)).collect::<Vec<_>>();
    assert!(taken(&lab).is_empty());
    assert_eq!(ask(&lab, "g1", saved), "saved_password");
    assert_eq!(ask(&lab, "g1", send), "saved_password");
    assert_eq!(ask(&lab, "g2", send), "secret2", "each its own");
    assert_eq!(taken(&lab), [("vm1".to_owned(), "1".to_owned())]);
    assert_eq!(ask(&lab, "g1", ""), "bad_request");
    assert_eq!(ask(&lab, "g1", "DomU_Request: x\r\n"), "bad_request");
    lab.restart_agent();
    wait("the ports", || lab.connect("g1", "10.1.1.1:8080").is_none());
    lab.routers.resume().await;
    assert_eq!(ask(&lab, "g1", send), "saved_password", "after a restart of the agent, too");
    assert_eq!(taken(&lab), [("vm1".to_owned(), "1".to_owned())]);
    let mut vm = spec().metadata.unwrap().vms.remove(0);
    (vm.password, vm.password_id) = (Some("another".into()), Some("2".into()));
    lab.delta(RouterSpec { metadata: Some(Metadata { vms: vec![vm] }), ..RouterSpec::default() }, &[]).await;
    assert_eq!(ask(&lab, "g1", send), "another");
    assert!(taken(&lab).is_empty());
}
