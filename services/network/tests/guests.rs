//! What guests are told of themselves, and NICs that come, go and change while their VM lives; on both databases.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use contract_network as net;
use std::time::Duration;
use store::Sql;
use support::{Applied, Lab, VmJob, What, vm_uuid};

const PATIENCE: Duration = Duration::from_secs(60);

impl Lab {
    /// The router whose guests' side has this address.
    fn router_at(&self, gateway: &str) -> Applied {
        let has = |r: &Applied| {
            let list = r.spec.interfaces.iter().flat_map(|i| &i.list);
            list.flat_map(|i| &i.addresses).any(|a| a.starts_with(&format!("{gateway}/")))
        };
        self.hosts.all().into_iter().map(|(_, _, router)| router).find(has).expect("the router")
    }

    /// Waits until a guest is told this.
    async fn told(&self, gateway: &str, ip: &str, entry: &str, text: &str) {
        let is = async || {
            let router = self.router_at(gateway);
            router.guests.get(ip).and_then(|g| g.entries.get(entry)).is_some_and(|now| now == text)
        };
        testkit::wait_until(is, PATIENCE).await;
    }

    fn attachments(&self) -> net::attachments_client::AttachmentsClient<support::Channel> {
        net::attachments_client::AttachmentsClient::new(self.channel())
    }

    async fn wait_for(&self, sql: &str) {
        testkit::wait_until(async || self.number(sql).await == 1, PATIENCE).await;
    }
}

testkit::databases! {
    // covers: VM-289, VM-291
    async fn a_guest_is_told_of_itself_and_of_its_changes(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, uuid) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        lab.machine(1, (2, 1, "/1/")).await;
        lab.write(Sql::new(
            "INSERT INTO service_offerings (id, uuid, name, name_lower, display_text, offer_ha, limit_cpu_use, is_volatile, \
             storage_type, provisioning_type, is_system, default_use, customized, sort_key, created) VALUES \
             (1, 'so-1', 'small', 'small', 'Small Instance', 0, 0, 0, 'shared', 'thin', 0, 0, 0, 0, 0)",
        )).await;
        let ip = lab.vm(VmJob::deploy(1, network, Some(1))).await.unwrap().nics[0].ip4.clone();
        let guest = lab.router_at("10.2.0.1").guests[&ip].clone();
        let entry = |name: &str| guest.entries[&format!("meta-data/{name}")].clone();
        assert_eq!((entry("service-offering"), entry("instance-id")), ("Small Instance".to_owned(), vm_uuid(1)));
        assert_eq!((entry("local-ipv4"), entry("local-hostname")), (ip.clone(), "vm1".to_owned()));
        assert!(!entry("availability-zone").is_empty());
        // Static NAT gives it a public address, and takes it again.
        assert_eq!((entry("public-ipv4"), entry("public-hostname")), (String::new(), String::new()));
        let mut addresses = net::ip_addresses_client::IpAddressesClient::new(lab.channel());
        let ask = net::AssociateIpAddressRequest { network_id: Some(uuid), ..Default::default() };
        let made = addresses.associate(rpc::cx::request(&lab.admin, ask)).await.unwrap().into_inner();
        let address: net::IpAddress = lab.end(made).await.unwrap();
        let mut statics = net::static_nats_client::StaticNatsClient::new(lab.channel());
        let enable = net::EnableStaticNatRequest {
            ip_address_id: address.id.clone(),
            virtual_machine_id: Some(vm_uuid(1)),
            ..Default::default()
        };
        statics.enable(rpc::cx::request(&lab.admin, enable)).await.unwrap();
        lab.told("10.2.0.1", &ip, "meta-data/public-ipv4", address.ip_address.as_deref().unwrap()).await;
        let disable = net::DisableStaticNatRequest { ip_address_id: address.id.clone(), ..Default::default() };
        let job = statics.disable(rpc::cx::request(&lab.admin, disable)).await.unwrap().into_inner();
        lab.end::<contract::api::Success>(job).await.unwrap();
        lab.told("10.2.0.1", &ip, "meta-data/public-ipv4", "").await;

        // What its owner changes, in one command that brings this guest alone.
        lab.write(Sql::new("UPDATE vms SET user_data = 'aGk=', public_key = 'ssh-rsa AAAA' WHERE id = 1")).await;
        let tell = net::TellRequest { vm_id: 1, host_name: Some("web1".into()), wait: true, vm_uuid: None };
        lab.attachments().tell(rpc::cx::request(&lab.admin, tell)).await.unwrap();
        let guest = lab.router_at("10.2.0.1").guests[&ip].clone();
        assert_eq!(guest.user_data.as_deref(), Some(&b"hi"[..]));
        assert_eq!(guest.entries["meta-data/local-hostname"], "web1");
        assert_eq!(guest.entries["meta-data/public-keys"], "ssh-rsa AAAA");

        // A password is offered until the guest took it, and another one again.
        let told = async |taken: Option<String>, sealed: &str| {
            let sql = Sql::new("UPDATE vms SET password_sealed = ?, password_taken = ? WHERE id = 1");
            lab.write(sql.bind(sealed).bind(taken)).await;
            let tell = net::TellRequest { vm_id: 1, wait: true, ..net::TellRequest::default() };
            lab.attachments().tell(rpc::cx::request(&lab.admin, tell)).await.unwrap();
            let guest = lab.router_at("10.2.0.1").guests[&ip].clone();
            (guest.password, guest.password_id)
        };
        let vault = &lab.replicas[0].node.vault;
        let sealed = |word: &str| vault.seal(&model::sealed::vm_password(&vm_uuid(1)), word.as_bytes());
        let (first, second) = (sealed("first"), sealed("second"));
        let id = model::sealed::password_id;
        assert_eq!(told(None, &first).await, (Some("first".into()), Some(id(&first))));
        assert_eq!(told(Some(id(&first)), &first).await, (None, None));
        assert_eq!(told(Some(id(&first)), &second).await, (Some("second".into()), Some(id(&second))));
        lab.audit().await;
    }

    async fn nics_come_and_go_while_the_vm_lives(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (one, _) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        let (two, _) = lab.isolated("10.3.0.1", "255.255.255.0").await;
        let (three, _) = lab.isolated("10.4.0.1", "255.255.255.0").await;
        let vm = VmJob::deploy(1, one, Some(1));
        let first = lab.vm(vm.clone()).await.unwrap().nics.remove(0);
        let second = lab.vm(vm.then(What::Add(two))).await.unwrap().nics.remove(0);
        assert_eq!((second.device_id, second.default_nic), (1, false));
        assert!(second.ip4.starts_with("10.3.0.") && second.broadcast_uri.starts_with("vlan://"), "{second:?}");
        // It is known to its router, which gives it no way out.
        let router = lab.router_at("10.3.0.1");
        assert!(router.leases.contains_key(&second.mac) && router.aside.contains(&second.ip4));
        let third = lab.vm(vm.then(What::Add(three))).await.unwrap().nics.remove(0);
        assert_eq!(third.device_id, 2);

        // The default one changes places, and so do the ways out.
        let made = lab.vm(vm.then(What::MakeDefault(second.id))).await.unwrap().nics;
        let places: Vec<(i64, i32, bool)> = made.iter().map(|n| (n.id, n.device_id, n.default_nic)).collect();
        assert_eq!(places, [(second.id, 0, true), (first.id, 1, false), (third.id, 2, false)]);
        let turned = async || {
            lab.router_at("10.2.0.1").aside.contains(&first.ip4) && !lab.router_at("10.3.0.1").aside.contains(&second.ip4)
        };
        testkit::wait_until(turned, PATIENCE).await;
        assert_eq!(lab.vm(vm.then(What::Take(second.id))).await.unwrap_err().code, 431, "the default one");

        // One goes, and its place is free again.
        assert_eq!(lab.vm(vm.then(What::Take(first.id))).await.unwrap().nics.len(), 1);
        assert!(lab.vm(vm.then(What::Take(first.id))).await.unwrap().nics.is_empty(), "it is gone already");
        testkit::wait_until(async || lab.router_at("10.2.0.1").leases.is_empty(), PATIENCE).await;
        assert!(lab.vm(vm.then(What::AddAndFail(one))).await.is_err());
        lab.wait_for("SELECT CASE WHEN COUNT(*) = 2 THEN 1 ELSE 0 END FROM nics WHERE vm_id = 1 AND removed IS NULL").await;
        let again = lab.vm(vm.then(What::Add(one))).await.unwrap().nics.remove(0);
        assert_eq!((again.device_id, again.default_nic), (1, false));

        // Not while something is made for it.
        lab.write(Sql::new(
            "UPDATE ip_addresses SET vm_id = 1, vm_ip = 'x', is_static_nat = 1 WHERE network_id = ? AND is_source_nat = 1",
        ).bind(one)).await;
        let refused = lab.vm(vm.then(What::Take(again.id))).await.unwrap_err();
        assert!(refused.code == 431 && refused.full_text().contains("static NAT"), "{refused}");
        lab.write(Sql::new("UPDATE ip_addresses SET vm_id = NULL, vm_ip = NULL, is_static_nat = 0 WHERE network_id = ?").bind(one)).await;
        lab.vm(vm.then(What::Expunge)).await.unwrap();
        lab.audit().await;
    }
    async fn a_machine_that_another_account_gets_changes_its_networks(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (one, _) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        let (two, _) = lab.isolated("10.3.0.1", "255.255.255.0").await;
        let others = support::caller(5, contract::api::RoleType::User, 2, "/1/2/");
        let theirs = net::CreateNetworkRequest {
            name: Some("theirs".into()),
            display_text: Some("theirs".into()),
            zone_id: Some("zone-1".into()),
            network_offering_id: Some(lab.offering("DefaultIsolatedNetworkOfferingWithSourceNatService").await),
            gateway: Some("10.5.0.1".into()),
            netmask: Some("255.255.255.0".into()),
            ..Default::default()
        };
        let theirs = lab.create_as(&others, theirs).await.unwrap().id.unwrap();
        let theirs = lab.network_number(&theirs).await;
        let vm = VmJob::deploy(1, one, Some(1));
        let first = lab.vm(vm.clone()).await.unwrap().nics.remove(0);
        lab.vm(vm.then(What::Add(two))).await.unwrap();
        lab.vm(vm.then(What::Stop)).await.unwrap();
        let there = || async {
            let sql = "SELECT network_id, account_id, device_id, is_default FROM nics WHERE vm_id = 1 AND removed IS NULL ORDER BY device_id";
            let rows = lab.db.all(Sql::new(sql)).await.unwrap();
            rows.iter().map(|r| (r.at::<i64>(0).unwrap(), r.at::<i64>(1).unwrap(), r.at::<i64>(2).unwrap(), r.at::<bool>(3).unwrap())).collect::<Vec<_>>()
        };
        let before = there().await;
        assert_eq!(before, [(one, 2, 0, true), (two, 2, 1, false)]);
        let to = |what, network| VmJob {
            networks: vec![network],
            host: None,
            account: (5, 2, "/1/2/".into()),
            ..vm.then(what)
        };

        // Into a network of its former owner it doesn't go, nor while something is made for it; and nothing has changed then.
        assert_eq!(lab.vm(to(What::Exchange, one)).await.unwrap_err().code, 531);
        lab.write(Sql::new(
            "UPDATE ip_addresses SET vm_id = 1, vm_ip = 'x', is_static_nat = 1 WHERE network_id = ? AND is_source_nat = 1",
        ).bind(one)).await;
        let refused = lab.vm(to(What::Exchange, theirs)).await.unwrap_err();
        assert!(refused.code == 431 && refused.full_text().contains("before assigning"), "{refused}");
        assert_eq!(there().await, before);
        lab.write(Sql::new("UPDATE ip_addresses SET vm_id = NULL, vm_ip = NULL, is_static_nat = 0 WHERE network_id = ?").bind(one)).await;

        let made = lab.vm(to(What::Exchange, theirs)).await.unwrap().nics;
        assert_eq!((made.len(), made[0].default_nic, made[0].device_id), (1, true, 0));
        assert!(made[0].ip4.starts_with("10.5.0.") && made[0].mac != first.mac, "{made:?}");
        assert_eq!(there().await, [(theirs, 5, 0, true)]);
        let gone = async || lab.router_at("10.2.0.1").leases.is_empty() && lab.router_at("10.3.0.1").leases.is_empty();
        testkit::wait_until(gone, PATIENCE).await;
        let kinds = "SELECT COUNT(*) FROM outbox WHERE kind = 'NETWORK.OFFERING.REMOVE'";
        assert_eq!(lab.number(kinds).await, 2);
        // Its former address is free again.
        let wish = VmJob { ip: Some(first.ip4.clone()), ..VmJob::deploy(2, one, None) };
        assert_eq!(lab.vm(wish).await.unwrap().nics[0].ip4, first.ip4);

        // What happened stays, whatever fails afterwards; and it starts where it is now.
        let back = VmJob { networks: vec![one], host: None, ..vm.then(What::ExchangeAndFail) };
        assert_eq!(lab.vm(back).await.unwrap_err().code, 530);
        assert_eq!(there().await, [(one, 2, 0, true)]);
        let again = lab.vm(vm.then(What::Start)).await.unwrap().nics.remove(0);
        testkit::wait_until(async || lab.router_at("10.2.0.1").leases.contains_key(&again.mac), PATIENCE).await;
        lab.audit().await;
    }
}
