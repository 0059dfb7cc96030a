//! Tags of 802.1Q between two kernels.

use lab::Lab;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a lab: make test-lab"]
async fn machines_meet_on_a_vlan_of_theirs_only() {
    let Some(lab) = Lab::open("vlan").await else { return };
    let trunk = lab.switch("trunk");
    let (a, b) = tokio::join!(lab.machine("a").nic(&trunk, "").start(), lab.machine("b").nic(&trunk, "").start());
    for (machine, n) in [(&a, 1), (&b, 2)] {
        for tag in [100, 200] {
            machine.run(&format!("ip link add link eth0 name eth0.{tag} type vlan id {tag}")).await;
            machine.run(&format!("ip addr add 10.{tag}.0.{n}/24 dev eth0.{tag}; ip link set eth0.{tag} up")).await;
        }
    }
    b.serve("capture", "timeout 60 tcpdump -lnne -c 1 -i eth0 vlan 100 and icmp").await;
    b.until("grep -q listening /var/log/capture.log", Duration::from_secs(30)).await;
    a.run("ping -c 2 -W 5 10.100.0.2").await;
    a.run("ping -c 2 -W 5 10.200.0.2").await;
    let seen = b.until("grep ICMP /var/log/capture.log", Duration::from_secs(30)).await;
    assert!(seen.contains("802.1Q (0x8100)") && seen.contains("vlan 100"), "{seen}");
    // The same addresses on a tag that the other doesn't have.
    b.run("ip link del eth0.200; ip link add link eth0 name eth0.300 type vlan id 300").await;
    b.run("ip addr add 10.200.0.2/24 dev eth0.300; ip link set eth0.300 up").await;
    let lost = a.try_run("ping -c 2 -W 2 10.200.0.2", Duration::from_secs(30)).await.unwrap();
    assert_eq!(lost.status, 1, "{lost:?}");
    a.run("ping -c 1 -W 5 10.100.0.2").await;
}
