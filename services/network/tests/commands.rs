//! The commands of this area over the wire, on both databases.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use contract::ApiError;
use contract::api::{JobRef, RoleType, Success};
use contract_network as net;
use futures::future::join_all;
use net::ip_addresses_client::IpAddressesClient;
use net::network_offerings_client::NetworkOfferingsClient;
use net::network_service_providers_client::NetworkServiceProvidersClient;
use net::networks_client::NetworksClient;
use net::physical_networks_client::PhysicalNetworksClient;
use net::routers_client::RoutersClient;
use net::traffic_types_client::TrafficTypesClient;
use net::vlan_ip_ranges_client::VlanIpRangesClient;
use std::collections::HashSet;
use std::time::Duration;
use store::Sql;
use support::{Lab, VmJob, What, caller};

fn code<T: std::fmt::Debug>(answer: Result<tonic::Response<T>, tonic::Status>) -> u16 {
    ApiError::from(answer.unwrap_err()).code
}

impl Lab {
    async fn network_job(
        &self,
        uuid: &str,
        change: impl FnOnce(&mut net::UpdateNetworkRequest),
    ) -> Result<net::Network, ApiError> {
        let mut message = net::UpdateNetworkRequest { id: Some(uuid.into()), ..Default::default() };
        change(&mut message);
        let job =
            NetworksClient::new(self.channel()).update(rpc::cx::request(&self.admin, message)).await?.into_inner();
        self.end(job).await
    }

    async fn delete_network(&self, uuid: &str) -> Result<Success, ApiError> {
        let message = net::DeleteNetworkRequest { id: Some(uuid.into()), ..Default::default() };
        let job =
            NetworksClient::new(self.channel()).delete(rpc::cx::request(&self.admin, message)).await?.into_inner();
        self.end(job).await
    }

    async fn restart(&self, uuid: &str, cleanup: bool) -> Result<Success, ApiError> {
        let message =
            net::RestartNetworkRequest { id: Some(uuid.into()), cleanup: Some(cleanup), ..Default::default() };
        let job =
            NetworksClient::new(self.channel()).restart(rpc::cx::request(&self.admin, message)).await?.into_inner();
        self.end(job).await
    }

    async fn associate(&self, network: &str) -> Result<JobRef, ApiError> {
        let message = net::AssociateIpAddressRequest { network_id: Some(network.into()), ..Default::default() };
        Ok(IpAddressesClient::new(self.channel()).associate(rpc::cx::request(&self.admin, message)).await?.into_inner())
    }

    async fn ips(&self, change: impl FnOnce(&mut net::ListPublicIpAddressesRequest)) -> Vec<net::IpAddress> {
        let mut message = net::ListPublicIpAddressesRequest { list_all: Some(true), ..Default::default() };
        change(&mut message);
        let mut client = IpAddressesClient::new(self.channel());
        client.list(rpc::cx::request(&self.admin, message)).await.unwrap().into_inner().public_ip_address
    }
}

testkit::databases! {
    /// The developers' zone by the commands that clients use.
    // covers: TOPO-093
    async fn a_zone_is_built_by_its_commands(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        let zone = lab.zone("100-200,300-310", "192.168.9.254").await;
        let c = lab.channel();
        let mut physicals = PhysicalNetworksClient::new(c.clone());
        let listed = physicals.list(rpc::cx::request(&lab.admin, net::ListPhysicalNetworksRequest { zone_id: Some("zone-1".into()), ..Default::default() })).await.unwrap().into_inner();
        let p = &listed.physical_network[0];
        assert_eq!(listed.count, Some(1));
        assert_eq!(
            (p.name.as_deref(), p.broadcast_domain_range.as_deref(), p.zone_id.as_deref(), p.state.as_deref(), p.vlan.as_deref(), p.isolation_methods.as_deref()),
            (Some("Sandbox-pnet"), Some("ZONE"), Some("zone-1"), Some("Enabled"), Some("100-200,300-310"), Some("VLAN"))
        );
        let mut ranges = VlanIpRangesClient::new(c.clone());
        let listed = ranges.list(rpc::cx::request(&lab.admin, net::ListVlanIpRangesRequest { zone_id: Some("zone-1".into()), ..Default::default() })).await.unwrap().into_inner();
        let r = &listed.vlan_ip_range[0];
        assert_eq!((r.vlan.as_deref(), r.for_virtual_network, r.start_ip.as_deref(), r.end_ip.as_deref()), (Some("vlan://50"), Some(true), Some("192.168.0.2"), Some("192.168.9.254")));
        assert_eq!(r.physical_network_id.as_deref(), Some(zone.physical.as_str()));
        assert!(r.network_id.is_some() && r.account.is_none());
        assert_eq!(lab.number("SELECT COUNT(*) FROM ip_addresses WHERE state = 'Free'").await, 2557);
        let mut traffic = TrafficTypesClient::new(c.clone());
        let message = net::ListTrafficTypesRequest { physical_network_id: Some(zone.physical.clone()), ..Default::default() };
        let kinds: Vec<_> = traffic.list(rpc::cx::request(&lab.admin, message)).await.unwrap().into_inner().traffic_type.into_iter().filter_map(|t| t.traffic_type).collect();
        assert_eq!(kinds, ["Guest", "Management", "Public"]);
        // The same type twice fails.
        let message = net::AddTrafficTypeRequest { physical_network_id: Some(zone.physical.clone()), traffic_type: Some("Public".into()), ..Default::default() };
        assert_eq!(code(traffic.add(rpc::cx::request(&lab.admin, message)).await), 530);
        let message = net::AddTrafficTypeRequest { physical_network_id: Some(zone.physical.clone()), traffic_type: Some("Carrier pigeon".into()), ..Default::default() };
        assert_eq!(code(traffic.add(rpc::cx::request(&lab.admin, message)).await), 431);
        let mut providers = NetworkServiceProvidersClient::new(c.clone());
        let message = net::AddNetworkServiceProviderRequest { physical_network_id: Some(zone.physical.clone()), name: Some("NiciraNvp".into()), ..Default::default() };
        assert_eq!(code(providers.add(rpc::cx::request(&lab.admin, message)).await), 431);
        let services = providers.list_supported_services(rpc::cx::request(&lab.admin, net::ListSupportedNetworkServicesRequest::default())).await.unwrap().into_inner();
        assert_eq!(services.count, Some(10));
        // A provider that isn't enabled makes no networks.
        let message = net::ListNetworkServiceProvidersRequest { physical_network_id: Some(zone.physical.clone()), ..Default::default() };
        let provider = providers.list(rpc::cx::request(&lab.admin, message)).await.unwrap().into_inner().network_service_provider.remove(0);
        assert_eq!((provider.state.as_deref(), provider.service_list.len()), (Some("Enabled"), 10));
        for state in ["Disabled", "Shutdown", "Enabled"] {
            let message = net::UpdateNetworkServiceProviderRequest { id: provider.id.clone(), state: Some(state.into()), ..Default::default() };
            let job = providers.update(rpc::cx::request(&lab.admin, message)).await.unwrap().into_inner();
            assert_eq!(lab.end::<net::NetworkServiceProvider>(job).await.unwrap().state.as_deref(), Some(state));
            let offering = lab.offering("DefaultIsolatedNetworkOfferingWithSourceNatService").await;
            let message = net::CreateNetworkRequest {
                name: Some("n".into()),
                display_text: Some("n".into()),
                zone_id: Some("zone-1".into()),
                network_offering_id: Some(offering),
                ..Default::default()
            };
            let made = lab.create(message).await;
            assert_eq!(made.is_ok(), state == "Enabled", "{made:?}");
            if let Ok(made) = made {
                lab.delete_network(made.id.as_deref().unwrap()).await.unwrap();
            }
        }
        // Labels change; what is in use stays.
        let message = net::ListTrafficTypesRequest { physical_network_id: Some(zone.physical.clone()), keyword: Some("guest".into()), ..Default::default() };
        let guest = traffic.list(rpc::cx::request(&lab.admin, message)).await.unwrap().into_inner().traffic_type.remove(0);
        let message = net::UpdateTrafficTypeRequest { id: guest.id.clone(), kvm_network_label: Some("cloudbr1".into()), ..Default::default() };
        let job = traffic.update(rpc::cx::request(&lab.admin, message)).await.unwrap().into_inner();
        assert_eq!(lab.end::<net::TrafficType>(job).await.unwrap().kvm_network_label.as_deref(), Some("cloudbr1"));
        let (_, network) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        let message = net::DeleteTrafficTypeRequest { id: guest.id.clone(), ..Default::default() };
        let job = traffic.delete(rpc::cx::request(&lab.admin, message)).await.unwrap().into_inner();
        assert_eq!(lab.end::<Success>(job).await.unwrap_err().code, 530);
        let message = net::DeletePhysicalNetworkRequest { id: Some(zone.physical.clone()), ..Default::default() };
        let job = physicals.delete(rpc::cx::request(&lab.admin, message.clone())).await.unwrap().into_inner();
        assert_eq!(lab.end::<Success>(job).await.unwrap_err().code, 530);
        // Taken apart in order, all of it goes.
        lab.delete_network(&network).await.unwrap();
        let range = net::DeleteVlanIpRangeRequest { id: Some(zone.range.clone()) };
        ranges.delete(rpc::cx::request(&lab.admin, range)).await.unwrap();
        assert_eq!(lab.number("SELECT COUNT(*) FROM ip_addresses").await, 0);
        let job = physicals.delete(rpc::cx::request(&lab.admin, message)).await.unwrap().into_inner();
        lab.end::<Success>(job).await.unwrap();
        let listed = physicals.list(rpc::cx::request(&lab.admin, net::ListPhysicalNetworksRequest::default())).await.unwrap().into_inner();
        assert_eq!(listed.count, Some(0));
    }

    /// Bad values for infrastructure change nothing.
    // covers: TOPO-108
    async fn bad_infrastructure_is_refused(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        let c = lab.channel();
        let mut physicals = PhysicalNetworksClient::new(c.clone());
        let base = net::CreatePhysicalNetworkRequest { zone_id: Some("zone-1".into()), name: Some("p".into()), ..Default::default() };
        for bad in [
            net::CreatePhysicalNetworkRequest { vlan: Some("500".into()), ..base.clone() },
            net::CreatePhysicalNetworkRequest { vlan: Some("1-5000".into()), ..base.clone() },
            net::CreatePhysicalNetworkRequest { isolation_methods: vec!["PIGEON".into()], ..base.clone() },
            net::CreatePhysicalNetworkRequest { isolation_methods: vec!["VLAN".into(), "VXLAN".into()], ..base.clone() },
            net::CreatePhysicalNetworkRequest { broadcast_domain_range: Some("POD".into()), ..base.clone() },
            net::CreatePhysicalNetworkRequest { zone_id: Some("nowhere".into()), ..base.clone() },
            net::CreatePhysicalNetworkRequest { name: None, ..base.clone() },
        ] {
            assert_eq!(code(physicals.create(rpc::cx::request(&lab.admin, bad)).await), 431);
        }
        assert_eq!(lab.number("SELECT COUNT(*) FROM physical_networks").await, 0);
        let zone = lab.zone("100-1500", "192.168.0.20").await;
        assert_eq!(code(physicals.create(rpc::cx::request(&lab.admin, base)).await), 531, "the zone is enabled");
        let mut ranges = VlanIpRangesClient::new(c);
        let good = net::CreateVlanIpRangeRequest {
            zone_id: Some("zone-1".into()),
            vlan: Some("50".into()),
            gateway: Some("192.168.0.1".into()),
            netmask: Some("255.255.240.0".into()),
            start_ip: Some("192.168.1.1".into()),
            end_ip: Some("192.168.1.9".into()),
            ..Default::default()
        };
        for bad in [
            net::CreateVlanIpRangeRequest { vlan: Some("120".into()), gateway: Some("10.9.0.1".into()), start_ip: Some("10.9.0.2".into()), end_ip: None, ..good.clone() },
            net::CreateVlanIpRangeRequest { start_ip: Some("192.168.0.10".into()), ..good.clone() },
            net::CreateVlanIpRangeRequest { gateway: Some("192.168.0.200".into()), ..good.clone() },
            net::CreateVlanIpRangeRequest { gateway: None, ..good.clone() },
            net::CreateVlanIpRangeRequest { start_ip: None, ..good.clone() },
            net::CreateVlanIpRangeRequest { end_ip: Some("192.168.0.255".into()), ..good.clone() },
            net::CreateVlanIpRangeRequest { end_ip: Some("192.168.99.9".into()), ..good.clone() },
            net::CreateVlanIpRangeRequest { netmask: Some("255.0.255.0".into()), ..good.clone() },
            net::CreateVlanIpRangeRequest { zone_id: None, ..good.clone() },
            net::CreateVlanIpRangeRequest { account: Some("account5".into()), ..good.clone() },
            net::CreateVlanIpRangeRequest { gateway: Some("172.16.0.1".into()), netmask: Some("255.255.0.0".into()), start_ip: Some("172.16.0.9".into()), end_ip: None, ..good.clone() },
        ] {
            assert_eq!(code(ranges.create(rpc::cx::request(&lab.admin, bad.clone())).await), 431, "{bad:?}");
        }
        assert_eq!(lab.number("SELECT COUNT(*) FROM vlan_ranges").await, 1);
        // The same request many times at once makes one range.
        let all = join_all((0..8).map(|_| {
            let (mut ranges, request) = (ranges.clone(), rpc::cx::request(&lab.admin, good.clone()));
            async move { ranges.create(request).await }
        }))
        .await;
        assert_eq!(all.iter().filter(|r| r.is_ok()).count(), 1);
        assert_eq!(lab.number("SELECT COUNT(*) FROM ip_addresses").await, 19 + 9);
        let update = net::UpdatePhysicalNetworkRequest { id: Some(zone.physical), vlan: Some("40-60".into()), ..Default::default() };
        assert_eq!(code(physicals.update(rpc::cx::request(&lab.admin, update)).await), 431, "50 carries public addresses");
    }

    // covers: NET-016
    async fn networks_are_made_and_checked(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let offering = lab.offering("DefaultIsolatedNetworkOfferingWithSourceNatService").await;
        let good = net::CreateNetworkRequest {
            name: Some("mine".into()),
            display_text: Some("my network".into()),
            zone_id: Some("zone-1".into()),
            network_offering_id: Some(offering.clone()),
            ..Default::default()
        };
        let user = caller(5, RoleType::User, 2, "/1/2/");
        let made = lab.create_as(&user, good.clone()).await.unwrap();
        assert_eq!((made.gateway.as_deref(), made.cidr.as_deref(), made.state.as_deref()), (Some("10.1.1.1"), Some("10.1.1.0/24"), Some("Allocated")));
        assert_eq!((made.r#type.as_deref(), made.acl_type.as_deref(), made.account.as_deref(), made.dns1.as_deref()), (Some("Isolated"), Some("Account"), Some("account5"), Some("10.147.28.6")));
        assert_eq!((made.network_domain.as_deref(), made.can_use_for_deploy, made.restart_required), (Some("cs5cloud.internal"), Some(true), Some(false)));
        assert_eq!((made.vlan.as_deref(), made.broadcast_uri.as_deref()), (None, None));
        assert_eq!(made.service.len(), 10);
        assert_eq!(lab.counts.of(6), 1);
        let shared = lab.offering("DefaultSharedNetworkOffering").await;
        let change = |f: &dyn Fn(&mut net::CreateNetworkRequest)| {
            let mut m = good.clone();
            f(&mut m);
            m
        };
        for (what, bad, expected) in [
            ("gateway alone", change(&|m| m.gateway = Some("10.5.0.1".into())), 431),
            ("network address", change(&|m| (m.gateway, m.netmask) = (Some("10.5.0.0".into()), Some("255.255.255.128".into()))), 431),
            ("public space", change(&|m| (m.gateway, m.netmask) = (Some("8.8.8.1".into()), Some("255.255.255.0".into()))), 431),
            ("too large for a user", change(&|m| (m.gateway, m.netmask) = (Some("10.0.0.1".into()), Some("255.255.0.0".into()))), 431),
            ("vlan", change(&|m| m.start_ip = Some("10.1.1.5".into())), 431),
            ("domain", change(&|m| m.network_domain = Some("-bad".into())), 431),
            ("acl", change(&|m| m.acl_type = Some("galaxy".into())), 431),
            ("acl of an isolated one", change(&|m| m.acl_type = Some("domain".into())), 531),
            ("subdomains", change(&|m| m.subdomain_access = Some(true)), 431),
            ("account alone", change(&|m| m.account = Some("account5".into())), 431),
            ("another's account", change(&|m| (m.account, m.domain_id) = (Some("account7".into()), Some("domain-4".into()))), 531),
            ("no name", change(&|m| m.name = None), 431),
            ("no text", change(&|m| m.display_text = None), 431),
            ("no zone", change(&|m| m.zone_id = None), 431),
            ("no offering", change(&|m| m.network_offering_id = None), 431),
            ("shared", change(&|m| m.network_offering_id = Some(shared.clone())), 531),
        ] {
            assert_eq!(lab.create_as(&user, bad).await.unwrap_err().code, expected, "{what}");
        }
        for missing in ["DefaultSharedNetworkOfferingWithSGService", "DefaultIsolatedNetworkOfferingForVpcNetworks", "DefaultL2NetworkOfferingConfigDrive"] {
            let id = lab.offering(missing).await;
            let error = lab.create(change(&|m| m.network_offering_id = Some(id.clone()))).await.unwrap_err();
            assert_eq!(error.code, 431);
            assert!(error.text.contains("there yet"), "{error}");
        }
        lab.counts.0.lock().unwrap().most.insert(6, 1);
        assert_eq!(lab.create_as(&user, good.clone()).await.unwrap_err().code, 535);
        assert_eq!(lab.counts.of(6), 1);
        // An idempotency key makes of three requests one network.
        lab.counts.0.lock().unwrap().most.clear();
        let keyed = contract::api::Caller { idempotency_key: Some("once".into()), request_hash: vec![1], ..user.clone() };
        let all = join_all((0..3).map(|_| lab.create_as(&keyed, good.clone()))).await;
        let ids: HashSet<String> = all.into_iter().map(|r| r.unwrap().id.unwrap()).collect();
        assert_eq!(ids.len(), 1);
        assert_eq!(lab.counts.of(6), 2);
        assert_eq!(lab.number("SELECT COUNT(*) FROM networks WHERE is_system = 0").await, 2);
        assert_eq!(lab.number("SELECT COUNT(*) FROM outbox WHERE kind = 'NETWORK.CREATE'").await, 2);
    }

    // covers: NET-020, NET-021, NET-022, NET-025, NET-026, NET-050
    async fn shared_networks_have_scopes(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let offering = lab.offering("DefaultSharedNetworkOffering").await;
        let shared = |vlan: &str, f: &dyn Fn(&mut net::CreateNetworkRequest)| {
            let mut m = net::CreateNetworkRequest {
                name: Some(format!("shared-{vlan}")),
                display_text: Some("shared".into()),
                zone_id: Some("zone-1".into()),
                network_offering_id: Some(offering.clone()),
                vlan: Some(vlan.into()),
                gateway: Some("172.20.0.1".into()),
                netmask: Some("255.255.255.0".into()),
                start_ip: Some("172.20.0.10".into()),
                end_ip: Some("172.20.0.12".into()),
                ..Default::default()
            };
            f(&mut m);
            m
        };
        let all = lab.create(shared("2000", &|_| ())).await.unwrap();
        assert_eq!((all.acl_type.as_deref(), all.vlan.as_deref(), all.state.as_deref(), all.subdomain_access), (Some("Domain"), Some("2000"), Some("Setup"), Some(true)));
        let a_only = lab.create(shared("2001", &|m| (m.acl_type, m.domain_id, m.subdomain_access) = (Some("domain".into()), Some("domain-2".into()), Some(false)))).await.unwrap();
        let a_tree = lab.create(shared("2002", &|m| (m.acl_type, m.domain_id, m.subdomain_access) = (Some("domain".into()), Some("domain-2".into()), Some(true)))).await.unwrap();
        let account = lab.create(shared("2003", &|m| (m.acl_type, m.domain_id, m.account) = (Some("account".into()), Some("domain-4".into()), Some("account7".into())))).await.unwrap();
        let sees = async |who: i64, domain: i64, path: &str| -> Vec<String> {
            let user = caller(who, RoleType::User, domain, path);
            let found = lab.networks(&user, net::ListNetworksRequest::default()).await.unwrap();
            assert_eq!(found.count, Some(i64::try_from(found.network.len()).unwrap()));
            assert!(found.network.iter().all(|n| n.vlan.is_none() && n.broadcast_uri.is_none()));
            found.network.into_iter().filter_map(|n| n.name).collect()
        };
        assert_eq!(sees(5, 2, "/1/2/").await, ["shared-2000", "shared-2001", "shared-2002"]);
        assert_eq!(sees(6, 3, "/1/2/3/").await, ["shared-2000", "shared-2002"]);
        assert_eq!(sees(7, 4, "/1/4/").await, ["shared-2000", "shared-2003"]);
        for (vlan, bad) in [
            ("2000", shared("2000", &|_| ())),
            ("200", shared("200", &|_| ())),
            ("50", shared("50", &|_| ())),
            ("none", shared("2010", &|m| m.vlan = None)),
            ("no range", shared("2010", &|m| m.start_ip = None)),
            ("gateway within", shared("2010", &|m| m.start_ip = Some("172.20.0.1".into()))),
        ] {
            assert_eq!(lab.create(bad).await.unwrap_err().code, 431, "{vlan}");
        }
        lab.create(shared("2000", &|m| m.bypass_vlan_overlap_check = Some(true))).await.unwrap();
        // A range of three: the router takes one, two VMs deploy, the third fails.
        let number = lab.network_number(all.id.as_deref().unwrap()).await;
        let vm = |n| VmJob { account: (5, 2, "/1/2/".into()), ..VmJob::deploy(n, number, Some(1)) };
        let made = lab.vm(vm(1)).await.unwrap();
        assert_eq!((made.nics[0].guest_type.as_str(), made.nics[0].broadcast_uri.as_str(), made.nics[0].gateway.as_str()), ("Shared", "vlan://2000", "172.20.0.1"));
        lab.vm(vm(2)).await.unwrap();
        assert_eq!(lab.vm(vm(3)).await.unwrap_err().code, 533);
        let refused = lab.network_job(all.id.as_deref().unwrap(), |m| m.guest_vm_cidr = Some("172.20.0.0/25".into())).await.unwrap_err();
        assert!(refused.text.contains("Can only allow IP Reservation in networks with guest type Isolated"), "{refused}");
        // Another account's network is out of reach.
        let number = lab.network_number(account.id.as_deref().unwrap()).await;
        let foreign = VmJob { account: (5, 2, "/1/2/".into()), ..VmJob::deploy(4, number, Some(1)) };
        assert_eq!(lab.vm(foreign).await.unwrap_err().code, 531);
        for (network, who, domain, path, good) in [(&a_only, 6, 3, "/1/2/3/", false), (&a_tree, 6, 3, "/1/2/3/", true), (&a_only, 5, 2, "/1/2/", true)] {
            let number = lab.network_number(network.id.as_deref().unwrap()).await;
            let job = VmJob { account: (who, domain, path.into()), ..VmJob::deploy(10 + who, number, None) };
            assert_eq!(lab.vm(job).await.is_ok(), good, "{:?} {who}", network.name);
        }
        // More addresses.
        let mut ranges = VlanIpRangesClient::new(lab.channel());
        let message = net::CreateVlanIpRangeRequest {
            network_id: all.id.clone(),
            for_virtual_network: Some(false),
            start_ip: Some("172.20.0.20".into()),
            end_ip: Some("172.20.0.21".into()),
            ..Default::default()
        };
        let more = ranges.create(rpc::cx::request(&lab.admin, message)).await.unwrap().into_inner();
        assert_eq!(more.vlan.as_deref(), Some("vlan://2000"));
        assert!(lab.vm(vm(3)).await.unwrap().nics[0].ip4.starts_with("172.20.0.2"));
        assert_eq!(code(ranges.delete(rpc::cx::request(&lab.admin, net::DeleteVlanIpRangeRequest { id: more.id.clone() })).await), 431);
        lab.vm(vm(3).then(What::Expunge)).await.unwrap();
        ranges.delete(rpc::cx::request(&lab.admin, net::DeleteVlanIpRangeRequest { id: more.id })).await.unwrap();
        lab.audit().await;
    }

    // covers: NET-046, NET-047, NET-049, NET-051, NET-052, NET-053, NET-054, NET-055
    async fn addresses_are_reserved_for_foreign_machines(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, uuid) = lab.isolated("10.1.1.1", "255.255.255.0").await;
        let reserve = async |cidr: &str| lab.network_job(&uuid, |m| m.guest_vm_cidr = Some(cidr.into())).await;
        let refused = reserve("10.1.1.0/26").await.unwrap_err();
        assert!(refused.code == 431 && refused.text.contains("Allocated"), "{refused}");
        lab.vm(VmJob { ip: Some("10.1.1.200".into()), ..VmJob::deploy(1, network, Some(1)) }).await.unwrap();
        let refused = reserve("10.1.1.0/26").await.unwrap_err();
        assert!(refused.text.contains("Active IPs like 10.1.1.200 exist outside"), "{refused}");
        for bad in ["10.1.2.0/26", "300.1.1.0/24", "10.1.1.5/24"] {
            assert_eq!(reserve(bad).await.unwrap_err().code, 431, "{bad}");
        }
        lab.vm(VmJob::deploy(1, network, Some(1)).then(What::Expunge)).await.unwrap();
        let fresh = lab.network(&uuid).await;
        assert_eq!((fresh.cidr.as_deref(), fresh.network_cidr, fresh.reserved_ip_range), (Some("10.1.1.0/24"), None, None));
        let done = reserve("10.1.1.0/26").await.unwrap();
        assert_eq!((done.cidr.as_deref(), done.network_cidr.as_deref(), done.reserved_ip_range.as_deref()), (Some("10.1.1.0/26"), Some("10.1.1.0/24"), Some("10.1.1.64 to 10.1.1.254")));
        assert_eq!(lab.vm(VmJob { ip: Some("10.1.1.70".into()), ..VmJob::deploy(2, network, Some(1)) }).await.unwrap_err().code, 431);
        let made = join_all((3..64).map(|vm| lab.vm(VmJob::deploy(vm, network, Some(1))))).await;
        for nic in made.into_iter().map(|r| r.unwrap().nics.remove(0)) {
            let last: u8 = nic.ip4.rsplit('.').next().unwrap().parse().unwrap();
            assert!((2..=62).contains(&last), "{}", nic.ip4);
            assert_eq!(nic.netmask, "255.255.255.0");
        }
        assert_eq!(lab.vm(VmJob::deploy(99, network, Some(1))).await.unwrap_err().code, 533, "all 61 are given");
        assert_eq!(reserve("10.1.1.0/25").await.unwrap().reserved_ip_range.as_deref(), Some("10.1.1.128 to 10.1.1.254"));
        let reset = reserve("10.1.1.0/24").await.unwrap();
        assert_eq!((reset.network_cidr, reset.reserved_ip_range), (None, None));
    }

    // covers: TOPO-022, NET-211, NET-212
    async fn public_addresses_are_given_once(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.41").await;
        let (network, uuid) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        lab.vm(VmJob::deploy(1, network, Some(1))).await.unwrap();
        // 40 addresses, one of them the network's own.
        let all = join_all((0..60).map(|_| lab.associate(&uuid))).await;
        let (good, bad): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
        assert_eq!(good.len(), 39);
        assert!(bad.iter().all(|e| e.as_ref().is_err_and(|e| e.code == 533)));
        let mut got = HashSet::new();
        let mut ids = Vec::new();
        for job in good {
            let ip: net::IpAddress = lab.end(job.unwrap()).await.unwrap();
            assert_eq!((ip.state.as_deref(), ip.is_source_nat, ip.associated_network_id.as_deref()), (Some("Allocated"), Some(false), Some(uuid.as_str())));
            assert!(got.insert(ip.ip_address.unwrap()));
            ids.push(ip.id.unwrap());
        }
        assert_eq!(lab.counts.of(1), 40);
        let interfaces = lab.hosts.all()[0].2.spec.interfaces.clone().unwrap().list;
        assert_eq!(interfaces[1].addresses.len(), 40);
        let own = lab.ips(|m| m.is_source_nat = Some(true)).await;
        assert_eq!(own.len(), 1);
        assert_eq!(lab.ips(|m| m.associated_network_id = Some(uuid.clone())).await.len(), 40);
        let mut client = IpAddressesClient::new(lab.channel());
        let release = |id: &str| net::DisassociateIpAddressRequest { id: Some(id.into()), ..Default::default() };
        assert_eq!(code(client.disassociate(rpc::cx::request(&lab.admin, release(own[0].id.as_deref().unwrap()))).await), 431);
        let foreign = caller(7, RoleType::User, 4, "/1/4/");
        assert_eq!(code(client.disassociate(rpc::cx::request(&foreign, release(&ids[0]))).await), 531);
        let job = client.disassociate(rpc::cx::request(&lab.admin, release(&ids[0]))).await.unwrap().into_inner();
        assert!(lab.end::<Success>(job).await.unwrap().success);
        assert_eq!(lab.counts.of(1), 39);
        assert_eq!(lab.hosts.all()[0].2.spec.interfaces.clone().unwrap().list[1].addresses.len(), 39);
        let free = lab.ips(|m| m.allocated_only = Some(false)).await;
        assert_eq!(free.iter().filter(|i| i.state.as_deref() == Some("Free")).count(), 1);
        // It can be picked up again.
        let again: net::IpAddress = lab.end(lab.associate(&uuid).await.unwrap()).await.unwrap();
        assert_eq!(again.id.as_deref(), Some(ids[0].as_str()));
        lab.counts.0.lock().unwrap().most.insert(1, 40);
        let job = client.disassociate(rpc::cx::request(&lab.admin, release(&ids[1]))).await.unwrap().into_inner();
        lab.end::<Success>(job).await.unwrap();
        lab.counts.0.lock().unwrap().most.insert(1, 39);
        assert_eq!(lab.associate(&uuid).await.unwrap_err().code, 535, "at the limit");
        lab.audit().await;
    }

    /// Deleting, restarting, listing routers.
    async fn networks_restart_and_go(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, uuid) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        assert_eq!(lab.restart(&uuid, false).await.unwrap_err().code, 431, "it isn't implemented");
        lab.vm(VmJob::deploy(1, network, Some(1))).await.unwrap();
        lab.end::<net::IpAddress>(lab.associate(&uuid).await.unwrap()).await.unwrap();
        let listed = async || {
            let message = net::ListRoutersRequest { list_all: Some(true), ..Default::default() };
            RoutersClient::new(lab.channel()).list(rpc::cx::request(&lab.admin, message)).await.unwrap().into_inner()
        };
        let first = listed().await.router.remove(0);
        assert_eq!((first.state.as_deref(), first.guest_ip_address.as_deref(), first.guest_network_id.as_deref()), (Some("Running"), Some("10.2.0.1"), Some(uuid.as_str())));
        assert!(first.public_ip.is_some() && first.host_id.is_some() && first.hypervisor.as_deref() == Some("Simulator") && first.nic.len() == 2);
        let vlan = lab.network(&uuid).await.vlan;
        lab.hosts.routers.lock().unwrap().clear();
        assert!(lab.restart(&uuid, false).await.unwrap().success);
        assert_eq!(lab.hosts.all()[0].2.leases.len(), 1);
        assert_eq!(listed().await.router[0].id, first.id);
        assert!(lab.restart(&uuid, true).await.unwrap().success);
        let second = listed().await.router;
        assert_eq!(second.len(), 1);
        assert_ne!(second[0].id, first.id, "made anew");
        assert_eq!(lab.network(&uuid).await.vlan, vlan, "running VMs keep their VLAN");
        assert_eq!((lab.hosts.all().len(), lab.hosts.all()[0].2.leases.len()), (1, 1));
        lab.vm(VmJob::deploy(2, network, Some(1))).await.unwrap();
        assert_eq!(lab.hosts.all()[0].2.leases.len(), 2);
        let refused = lab.delete_network(&uuid).await.unwrap_err();
        assert!(refused.code == 530 && refused.text.contains("not all user vms are expunged"), "{refused}");
        assert_eq!(lab.network(&uuid).await.state.as_deref(), Some("Implemented"));
        lab.vm(VmJob::deploy(3, network, Some(1))).await.unwrap();
        for vm in 1..=3 {
            lab.vm(VmJob::deploy(vm, network, Some(1)).then(What::Expunge)).await.unwrap();
        }
        // A deploy that races the delete: one of the two wins, and nothing is left behind.
        let (deleted, deployed) = tokio::join!(lab.delete_network(&uuid), lab.vm(VmJob::deploy(4, network, Some(1))));
        assert!(deleted.is_ok() != deployed.is_ok(), "{deleted:?} {deployed:?}");
        if deployed.is_ok() {
            lab.vm(VmJob::deploy(4, network, Some(1)).then(What::Expunge)).await.unwrap();
            lab.delete_network(&uuid).await.unwrap();
        }
        testkit::wait_until(async || lab.hosts.all().is_empty(), Duration::from_secs(15)).await;
        for sql in ["SELECT COUNT(*) FROM vnets", "SELECT COUNT(*) FROM ip_addresses WHERE state <> 'Free'", "SELECT COUNT(*) FROM routers WHERE removed IS NULL"] {
            assert_eq!(lab.number(sql).await, 0, "{sql}");
        }
        testkit::wait_until(async || lab.counts.of(1) + lab.counts.of(6) == 0, Duration::from_secs(5)).await;
        lab.audit().await;
    }

    // covers: NET-045
    async fn networks_change(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let (network, uuid) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        lab.vm(VmJob::deploy(1, network, Some(1))).await.unwrap();
        let changed = lab
            .network_job(&uuid, |m| {
                (m.name, m.display_text, m.network_domain) = (Some("other".into()), Some("e".into()), Some("corp.example".into()));
            })
            .await
            .unwrap();
        assert_eq!((changed.name.as_deref(), changed.display_text.as_deref(), changed.network_domain.as_deref()), (Some("other"), Some("e"), Some("corp.example")));
        assert_eq!(lab.hosts.all()[0].2.spec.dhcp.clone().unwrap().domain, "corp.example");
        assert_eq!(lab.network_job(&uuid, |m| m.network_domain = Some("-bad".into())).await.unwrap_err().code, 431);
        let other = lab.offering("DefaultIsolatedNetworkOffering").await;
        assert_eq!(lab.network_job(&uuid, |m| m.network_offering_id = Some(other)).await.unwrap_err().code, 431);
        // A copy of the offering without VPN, with another egress policy.
        lab.write(Sql::new(
            "INSERT INTO network_offerings SELECT 900, 'offering-900', 'NoVpn', 'novpn', NULL, display_text, traffic_type, guest_type, 'Optional', \
             'Enabled', 0, system_only, specify_vlan, specify_ip_ranges, conserve_mode, is_persistent, for_vpc, public_lb, internal_lb, dedicated_lb, \
             shared_source_nat, redundant_router, elastic_ip, elastic_lb, eip_associate_public_ip, inline_mode, 1, keep_alive, streched_l2, \
             public_access, network_rate, max_connections, service_offering_id, tags, '{\"Dhcp\":[\"VirtualRouter\"],\"Dns\":[\"VirtualRouter\"],\
             \"SourceNat\":[\"VirtualRouter\"],\"Firewall\":[\"VirtualRouter\"]}', sort_key, created, removed FROM network_offerings WHERE id = 8",
        ))
        .await;
        let to = |m: &mut net::UpdateNetworkRequest| m.network_offering_id = Some("offering-900".into());
        let refused = lab.network_job(&uuid, to).await.unwrap_err();
        assert!(refused.text.contains("Vpn"), "{refused}");
        let forced = |m: &mut net::UpdateNetworkRequest| (m.network_offering_id, m.forced) = (Some("offering-900".into()), Some(true));
        assert!(lab.network_job(&uuid, forced).await.unwrap_err().text.contains("must be stopped"));
        lab.vm(VmJob::deploy(1, network, Some(1)).then(What::Stop)).await.unwrap();
        let changed = lab.network_job(&uuid, forced).await.unwrap();
        assert_eq!((changed.network_offering_name.as_deref(), changed.cidr.as_deref()), (Some("NoVpn"), Some("10.2.0.0/24")));
        assert!(lab.hosts.all()[0].2.spec.firewall.clone().unwrap().egress_default_allow);
        let offerings = |m: net::ListNetworkOfferingsRequest| async {
            NetworkOfferingsClient::new(lab.channel()).list(rpc::cx::request(&lab.admin, m)).await.unwrap().into_inner()
        };
        let all = offerings(Default::default()).await;
        assert_eq!(all.count, Some(14), "13 that users see, and the copy");
        let one = offerings(net::ListNetworkOfferingsRequest { name: Some("DefaultIsolatedNetworkOfferingWithSourceNatService".into()), ..Default::default() }).await;
        let o = &one.network_offering[0];
        assert_eq!((o.availability.as_deref(), o.network_rate, o.egress_default_policy, o.service.len()), (Some("Required"), Some(200), Some(false), 10));
        let message = net::UpdateNetworkOfferingRequest { id: Some("offering-900".into()), display_text: Some("new".into()), state: Some("disabled".into()), ..Default::default() };
        let mut client = NetworkOfferingsClient::new(lab.channel());
        let changed = client.update(rpc::cx::request(&lab.admin, message.clone())).await.unwrap().into_inner();
        assert_eq!((changed.display_text.as_deref(), changed.state.as_deref()), (Some("new"), Some("Disabled")));
        let bad = net::UpdateNetworkOfferingRequest { state: Some("Sleepy".into()), ..message };
        assert_eq!(code(client.update(rpc::cx::request(&lab.admin, bad)).await), 431);
    }

    /// A VM without networks gets its account's network; many at once get the same.
    async fn an_account_has_one_default_network(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        let user = caller(5, RoleType::User, 2, "/1/2/");
        let message = net::DefaultNetworkRequest { zone_id: 1, account_id: 5, domain_id: 2, domain_path: "/1/2/".into() };
        let all = join_all((0..10).map(|_| {
            let mut client = net::attachments_client::AttachmentsClient::new(lab.channel());
            let request = rpc::cx::request(&user, message.clone());
            async move { client.default_network(request).await.unwrap().into_inner().network_id }
        }))
        .await;
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 1);
        assert_eq!(lab.counts.of(6), 1);
        let listed = lab.networks(&user, net::ListNetworksRequest::default()).await.unwrap();
        assert_eq!(listed.network[0].name.as_deref(), Some("account5-network"));
        lab.vm(VmJob { account: (5, 2, "/1/2/".into()), ..VmJob::deploy(1, all[0], Some(1)) }).await.unwrap();
    }

    /// Lists cost the same whatever their size.
    async fn lists_have_a_constant_number_of_queries(db: testkit::TestDb) {
        let lab = Lab::new(db.url()).await;
        lab.zone("100-1500", "192.168.0.100").await;
        lab.isolated("10.2.0.1", "255.255.255.0").await;
        let cost = async |networks: usize| {
            testkit::least(|| async {
                let before = lab.db.stats().statements;
                let listed = lab.networks(&lab.admin, net::ListNetworksRequest { list_all: Some(true), ..Default::default() }).await.unwrap();
                assert_eq!(listed.network.len(), networks);
                lab.db.stats().statements - before
            }).await
        };
        let one = cost(1).await;
        for _ in 0..20 {
            lab.isolated("10.2.0.1", "255.255.255.0").await;
        }
        let many = cost(21).await;
        assert!(many <= one, "{one} statements for one network, {many} for 21");
    }
}
