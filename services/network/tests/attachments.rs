//! Interfaces of VMs under load and under failure, on both databases.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use contract_network as net;
use futures::future::join_all;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::Sql;
use support::{Lab, VmJob, What};

testkit::databases! {
    /// A fresh network and 200 deploys at once: implemented once, no address twice, few commands for many leases.
    // covers: VM-088
    async fn two_hundred_deploys_share_a_fresh_network(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, uuid) = lab.isolated("10.2.0.1", "255.255.240.0").await;
        let before = lab.network(&uuid).await;
        assert_eq!((before.state.as_deref(), before.vlan.as_deref()), (Some("Allocated"), None));
        assert_eq!(lab.number("SELECT COUNT(*) FROM routers").await, 0);
        let all = join_all((0..200).map(|vm| lab.vm(VmJob::deploy(1000 + vm, network, Some(vm % 3 + 1))))).await;
        let nics: Vec<net::NicSpec> = all.into_iter().map(|r| r.unwrap().nics.remove(0)).collect();
        assert_eq!(nics.iter().map(|n| &n.ip4).collect::<HashSet<_>>().len(), 200);
        assert_eq!(nics.iter().map(|n| &n.mac).collect::<HashSet<_>>().len(), 200);
        assert!(nics.iter().all(|n| n.gateway == "10.2.0.1" && n.ip4 != "10.2.0.1" && n.broadcast_uri.starts_with("vlan://")));
        let after = lab.network(&uuid).await;
        assert_eq!(after.state.as_deref(), Some("Implemented"));
        assert!(after.vlan.is_some());
        assert_eq!(lab.number("SELECT COUNT(*) FROM routers WHERE state = 'Running'").await, 1);
        let routers = lab.hosts.all();
        assert_eq!(routers.len(), 1, "one router on one host");
        assert_eq!(routers[0].2.leases.len(), 200);
        for nic in &nics {
            assert_eq!(routers[0].2.leases.get(&nic.mac), Some(&nic.ip4));
        }
        let spec = &routers[0].2.spec;
        assert!(spec.nat.as_ref().unwrap().source_nat_ip.starts_with("192.168.0."));
        assert_eq!(spec.interfaces.as_ref().unwrap().list.len(), 2);
        let commands = lab.hosts.commands.lock().unwrap().len();
        assert!(commands < 150, "{commands} commands for 200 leases");
        lab.audit().await;
        assert_eq!(lab.number("SELECT COUNT(*) FROM ip_addresses WHERE state = 'Allocated' AND is_source_nat = 1").await, 1);
        assert_eq!(lab.counts.of(1), 1);
    }

    /// What a deploy costs once its network runs.
    async fn a_deploy_is_one_commit_of_this_service(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, _) = lab.isolated("10.2.0.1", "255.255.240.0").await;
        for vm in 0..3 {
            lab.vm(VmJob::deploy(vm, network, Some(1))).await.unwrap();
        }
        testkit::wait_until(async || lab.number("SELECT COUNT(*) FROM routers WHERE applied = generation").await == 1, Duration::from_secs(5)).await;
        let before = lab.db.stats();
        lab.vm(VmJob::deploy(10, network, Some(1))).await.unwrap();
        let spent = lab.db.stats().commits - before.commits;
        // The job's acceptance, its start and its end; the interfaces; what the router has, after the answer.
        assert!(spent <= 6, "{spent} commits");
    }

    /// Until the range is exhausted no request fails; what is given back is given again.
    async fn a_range_is_given_to_the_last_address(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, _) = lab.isolated("10.2.0.1", "255.255.255.240").await;
        let all = join_all((0..20).map(|vm| lab.vm(VmJob::deploy(vm, network, Some(1))))).await;
        let good: Vec<usize> = (0..20).filter(|i| all[*i].is_ok()).collect();
        assert_eq!(good.len(), 13, "10.2.0.2 to 10.2.0.14");
        for failed in all.iter().filter_map(|r| r.as_ref().err()) {
            assert_eq!(failed.code, 533, "{failed}");
        }
        let freed = i64::try_from(good[4]).unwrap();
        let old = all[good[4]].as_ref().unwrap().nics[0].ip4.clone();
        lab.vm(VmJob::deploy(freed, network, Some(1)).then(What::Expunge)).await.unwrap();
        let new = lab.vm(VmJob::deploy(100, network, Some(1))).await.unwrap();
        assert_eq!(new.nics[0].ip4, old);
        let leases = &lab.hosts.all()[0].2.leases;
        assert_eq!(leases.len(), 13, "the old lease went with the new one's change");
        assert_eq!(leases.get(&new.nics[0].mac), Some(&old));
        lab.audit().await;
    }

    /// A deploy that fails later leaves nothing.
    async fn a_failed_deploy_leaves_nothing(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, _) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        lab.vm(VmJob::deploy(1, network, Some(1))).await.unwrap();
        let all = join_all((2..12).map(|vm| lab.vm(VmJob::deploy(vm, network, Some(1)).then(What::DeployAndFail)))).await;
        assert!(all.iter().all(|r| r.as_ref().is_err_and(|e| e.code == 530)));
        assert_eq!(lab.number("SELECT COUNT(*) FROM nics WHERE vm_id IS NOT NULL AND removed IS NULL").await, 1);
        testkit::wait_until(async || lab.hosts.all()[0].2.leases.len() == 1, Duration::from_secs(10)).await;
        lab.audit().await;
    }

    async fn wishes_are_met_or_refused(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, _) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        let wish = |vm, ip: Option<&str>, mac: Option<&str>| VmJob { ip: ip.map(Into::into), mac: mac.map(Into::into), ..VmJob::deploy(vm, network, Some(1)) };
        let made = lab.vm(wish(1, Some("10.2.0.77"), Some("02-AB-00-00-00-01"))).await.unwrap();
        assert_eq!((made.nics[0].ip4.as_str(), made.nics[0].mac.as_str()), ("10.2.0.77", "02:ab:00:00:00:01"));
        let mut attachments = net::attachments_client::AttachmentsClient::new(lab.channel());
        for (ip, mac) in [
            (Some("10.2.0.77"), None),
            (Some("10.2.0.1"), None),
            (Some("10.2.0.0"), None),
            (Some("10.3.0.5"), None),
            (Some("nonsense"), None),
            (None, Some("02:ab:00:00:00:01")),
            (None, Some("01:00:00:00:00:01")),
            (None, Some("zz")),
        ] {
            let job = wish(2, ip, mac);
            let checked = attachments.check(rpc::cx::request(&lab.admin, job.request())).await;
            assert_eq!(contract::ApiError::from(checked.unwrap_err()).code, 431, "{ip:?} {mac:?}");
            assert_eq!(lab.vm(job).await.unwrap_err().code, 431, "{ip:?} {mac:?}");
        }
        let twice = VmJob { networks: vec![network, network], ..wish(3, None, None) };
        let checked = attachments.check(rpc::cx::request(&lab.admin, twice.request())).await;
        assert_eq!(contract::ApiError::from(checked.unwrap_err()).code, 431);
        let checked = attachments.check(rpc::cx::request(&lab.admin, wish(4, Some("10.2.0.78"), None).request())).await.unwrap();
        assert_eq!(checked.into_inner().nics, 1);
        assert_eq!(lab.number("SELECT COUNT(*) FROM nics WHERE vm_id IS NOT NULL AND removed IS NULL").await, 1);
    }

    /// A router whose host goes away moves with all that it is; the old host drops it when it returns.
    async fn routers_leave_hosts_that_are_gone(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, _) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        for vm in 1..=5 {
            lab.vm(VmJob::deploy(vm, network, Some(2))).await.unwrap();
        }
        let (old, uuid, _) = lab.hosts.all().remove(0);
        lab.hosts.silent.lock().unwrap().insert(old);
        lab.write(Sql::new("UPDATE hosts SET status = 'Down' WHERE id = ?").bind(old)).await;
        lab.vm(VmJob::deploy(6, network, Some(2))).await.unwrap();
        let there: Vec<_> = lab.hosts.all().into_iter().filter(|(h, _, _)| *h != old).collect();
        assert_eq!((there.len(), there[0].2.leases.len()), (1, 6));
        assert_eq!(there[0].1, uuid);
        lab.hosts.silent.lock().unwrap().clear();
        lab.write(Sql::new("UPDATE hosts SET status = 'Up' WHERE id = ?").bind(old)).await;
        lab.replicas[0].node.coord.publish("placement", &format!("host/{old}"));
        testkit::wait_until(async || lab.hosts.on(old).is_empty(), Duration::from_secs(15)).await;
        // A host that lost everything says that it is behind, and gets the whole spec.
        lab.hosts.routers.lock().unwrap().clear();
        lab.vm(VmJob::deploy(7, network, Some(2))).await.unwrap();
        assert_eq!(lab.hosts.all()[0].2.leases.len(), 7);
        // Or is asked when it comes back.
        lab.hosts.routers.lock().unwrap().clear();
        lab.replicas[0].node.coord.publish("placement", &format!("host/{}", there[0].0));
        testkit::wait_until(async || lab.hosts.all().first().is_some_and(|r| r.2.leases.len() == 7), Duration::from_secs(15)).await;
    }

    /// A router stays on a host that is silent, because nobody knows whether it still runs there. A host that is being
    /// emptied gives it up before another one gets it. What hosts say that differs is put right.
    async fn a_router_is_on_one_host(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, _) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        lab.vm(VmJob::deploy(1, network, Some(2))).await.unwrap();
        let (old, uuid, _) = lab.hosts.all().remove(0);
        let stands = async |status: &str, wanted: &str| {
            let sql = Sql::new("UPDATE hosts SET status = ?, resource_state = ? WHERE id = ?");
            lab.write(sql.bind(status).bind(wanted).bind(old)).await;
        };
        let tell = |topic: &str, what: String| lab.replicas[0].node.coord.publish(topic, &what);
        let unheard = || lab.hosts.unheard.load(Ordering::SeqCst);
        for (vm, status) in [(2, "Alert"), (3, "Disconnected")] {
            let before = unheard();
            lab.hosts.silent.lock().unwrap().insert(old);
            stands(status, "Enabled").await;
            let back = async {
                // Wanted, tried again and again, and not moved.
                testkit::wait_until(async || unheard() >= before + 3, Duration::from_secs(20)).await;
                assert_eq!(lab.hosts.all().len(), 1);
                lab.hosts.silent.lock().unwrap().clear();
                stands("Up", "Enabled").await;
            };
            let (made, ()) = futures::future::join(lab.vm(VmJob::deploy(vm, network, Some(2))), back).await;
            made.unwrap();
            assert_eq!(lab.hosts.all().iter().map(|(h, _, r)| (*h, r.leases.len())).collect::<Vec<_>>(), [(old, usize::try_from(vm).unwrap())]);
        }
        stands("Up", "PrepareForMaintenance").await;
        tell("placement", format!("host/{old}"));
        testkit::wait_until(async || lab.hosts.all().first().is_some_and(|(h, _, r)| *h != old && r.leases.len() == 3), Duration::from_secs(20)).await;
        assert_eq!(lab.hosts.twice.load(Ordering::SeqCst), 0, "two hosts had it");
        // A copy that nobody knows of, and one that is lost.
        let new = lab.hosts.all()[0].0;
        testkit::wait_until(async || lab.number("SELECT COUNT(*) FROM router_leftovers").await == 0, Duration::from_secs(20)).await;
        lab.hosts.routers.lock().unwrap().insert((old, uuid.clone()), Default::default());
        tell("routers", format!("{old}/{uuid}"));
        testkit::wait_until(async || lab.hosts.on(old).is_empty(), Duration::from_secs(20)).await;
        lab.hosts.routers.lock().unwrap().clear();
        tell("routers", format!("{new}/{uuid}"));
        testkit::wait_until(async || lab.hosts.all().first().is_some_and(|(h, _, r)| *h == new && r.leases.len() == 3), Duration::from_secs(20)).await;
        lab.audit().await;
    }

    /// Start, stop, and shutting down what nobody uses.
    // covers: VM-089, NET-350
    async fn idle_networks_are_shut_down_and_come_back(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        for (name, value) in [("network.gc.interval", "1"), ("network.gc.wait", "1")] {
            let settings = lab.replicas[0].node.settings.clone();
            store::tx!(lab.db, "set", |tx| settings.set(tx, name, value, config::Scope::Global).await).await.unwrap();
        }
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, uuid) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        let vm = VmJob::deploy(1, network, Some(1));
        let first = lab.vm(vm.clone()).await.unwrap();
        lab.vm(vm.then(What::Stop)).await.unwrap();
        testkit::wait_until(async || lab.network(&uuid).await.state.as_deref() == Some("Allocated"), Duration::from_secs(20)).await;
        testkit::wait_until(async || lab.hosts.all().is_empty(), Duration::from_secs(20)).await;
        assert_eq!(lab.number("SELECT COUNT(*) FROM vnets").await, 0);
        assert_eq!(lab.network(&uuid).await.vlan, None);
        let again = lab.vm(vm.then(What::Start)).await.unwrap();
        assert_eq!(again.nics[0].ip4, first.nics[0].ip4);
        assert_eq!(Some(again.nics[0].broadcast_uri.as_str()), lab.network(&uuid).await.broadcast_uri.as_deref());
        assert_eq!(lab.hosts.all()[0].2.leases.len(), 1);
        lab.audit().await;
        // A running VM keeps its network.
        let before = lab.network(&uuid).await;
        assert_eq!(before.state.as_deref(), Some("Implemented"));
    }

    /// Two replicas give addresses of one network.
    async fn replicas_do_not_give_an_address_twice(db: testkit::TestDb) {
        let lab = Lab::with_replicas(db.url(), 2).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, _) = lab.isolated("10.2.0.1", "255.255.255.192").await;
        let all = join_all((0..61).map(|vm| lab.vm_on(usize::try_from(vm % 2).unwrap(), VmJob::deploy(vm, network, Some(1))))).await;
        let ips: HashSet<String> = all.into_iter().map(|r| r.unwrap().nics.remove(0).ip4).collect();
        assert_eq!(ips.len(), 61, "all of them");
        assert_eq!(lab.hosts.all().len(), 1);
        testkit::wait_until(async || lab.hosts.all()[0].2.leases.len() == 61, Duration::from_secs(10)).await;
        lab.audit().await;
    }

    /// No host: the network stays as it was, and works once there is one.
    // covers: NET-018
    async fn a_network_without_a_host_or_address_stays_allocated(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-101", "192.168.0.2").await;
        let (network, uuid) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        lab.hosts.candidates.lock().unwrap().clear();
        assert_eq!(lab.vm(VmJob::deploy(1, network, Some(1))).await.unwrap_err().code, 533);
        assert_eq!(lab.network(&uuid).await.state.as_deref(), Some("Allocated"));
        lab.hosts.candidates.lock().unwrap().push(1);
        lab.vm(VmJob::deploy(1, network, Some(1))).await.unwrap();
        // The only address is taken.
        let (second, uuid) = lab.isolated("10.3.0.1", "255.255.255.0").await;
        assert_eq!(lab.vm(VmJob::deploy(2, second, Some(1))).await.unwrap_err().code, 533);
        assert_eq!(lab.network(&uuid).await.state.as_deref(), Some("Allocated"));
        lab.audit().await;
        assert_eq!(lab.counts.of(1), 1);
        // With another range it works; the third network finds no VLAN.
        let message = net::CreateVlanIpRangeRequest {
            zone_id: Some("zone-1".into()),
            vlan: Some("50".into()),
            gateway: Some("192.168.0.1".into()),
            netmask: Some("255.255.240.0".into()),
            start_ip: Some("192.168.0.3".into()),
            end_ip: Some("192.168.0.9".into()),
            ..Default::default()
        };
        let mut ranges = net::vlan_ip_ranges_client::VlanIpRangesClient::new(lab.channel());
        ranges.create(rpc::cx::request(&lab.admin, message)).await.unwrap();
        lab.vm(VmJob::deploy(2, second, Some(1))).await.unwrap();
        assert_eq!(lab.network(&uuid).await.state.as_deref(), Some("Implemented"));
        let (third, _) = lab.isolated("10.4.0.1", "255.255.255.0").await;
        let full = lab.vm(VmJob::deploy(3, third, Some(1))).await.unwrap_err();
        assert!(full.code == 533 && full.full_text().contains("vnet"), "{full}");
        assert_eq!(lab.counts.of(1), 2, "the address that was reserved went back");
        lab.audit().await;
    }

    /// Two networks, one of them another zone's.
    // covers: NET-030
    async fn a_vm_has_one_default_network(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (one, _) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        let (two, _) = lab.isolated("10.3.0.1", "255.255.255.0").await;
        let (three, _) = lab.isolated("10.4.0.1", "255.255.255.0").await;
        let vm = VmJob { networks: vec![two, one, three], ..VmJob::deploy(1, one, Some(1)) };
        let made = lab.vm(vm.clone()).await.unwrap().nics;
        assert_eq!(made.iter().map(|n| (n.network_id, n.device_id, n.default_nic)).collect::<Vec<_>>(), [(two, 0, true), (one, 1, false), (three, 2, false)]);
        assert_eq!(lab.hosts.all().len(), 3);
        // Many such VMs at once, in every order.
        let orders = [[one, two, three], [three, two, one], [two, three, one]];
        let all = join_all((2..32).map(|n| lab.vm(VmJob { networks: orders[usize::try_from(n % 3).unwrap()].to_vec(), ..VmJob::deploy(n, one, Some(1)) }))).await;
        assert!(all.iter().all(Result::is_ok));
        assert!(lab.hosts.all().iter().all(|(_, _, r)| r.leases.len() == 31));
        // covers: NET-001
        let foreign = net::AllocateNicsRequest { zone_id: 2, ..VmJob::deploy(40, one, None).request() };
        let mut attachments = net::attachments_client::AttachmentsClient::new(lab.channel());
        let refused = attachments.check(rpc::cx::request(&lab.admin, foreign)).await.unwrap_err();
        assert_eq!(contract::ApiError::from(refused).code, 431);
        assert_eq!(lab.number("SELECT COUNT(*) FROM nics WHERE vm_id = 40").await, 0);
        lab.vm(vm.then(What::Expunge)).await.unwrap();
        lab.audit().await;
    }
}
