//! A network with a machine and an address, and the commands on it.

use crate::support::{Lab, VmJob, vm_uuid};
use contract::ApiError;
use contract::api::{Caller, Success};
use contract_agent::RouterSpec;
use contract_network as net;
use net::egress_firewall_rules_client::EgressFirewallRulesClient;
use net::firewall_rules_client::FirewallRulesClient;
use net::ip_addresses_client::IpAddressesClient;
use net::port_forwarding_rules_client::PortForwardingRulesClient;
use net::static_nats_client::StaticNatsClient;

/// An isolated network with machine 1 on host 1, and an address beside its own.
pub struct World {
    pub lab: Lab,
    pub network: String,
    pub number: i64,
    pub ip: String,
    pub address: String,
    pub guest: String,
}

/// Calls a command and runs its job to the end.
macro_rules! job {
    ($w:expr, $client:ident.$method:ident($message:expr)) => {
        async {
            let answered = $client::new($w.lab.channel()).$method(rpc::cx::request(&$w.lab.admin, $message)).await;
            match answered {
                Ok(job) => $w.lab.end(job.into_inner()).await,
                Err(status) => Err(contract::ApiError::from(status)),
            }
        }
    };
}

pub(crate) use job;

impl World {
    pub async fn new(url: &str) -> World {
        let lab = Lab::new(url).await;
        lab.zone("100-1500", "192.168.0.60").await;
        let (number, network) = lab.isolated("10.1.1.1", "255.255.255.0").await;
        lab.machine(1, (2, 1, "/1/")).await;
        let nics = lab.vm(VmJob::deploy(1, number, Some(1))).await.unwrap();
        let mut world =
            World { lab, network, number, ip: String::new(), address: String::new(), guest: nics.nics[0].ip4.clone() };
        (world.ip, world.address) = world.acquire().await;
        world
    }

    pub async fn acquire(&self) -> (String, String) {
        let message = net::AssociateIpAddressRequest { network_id: Some(self.network.clone()), ..Default::default() };
        let ip: net::IpAddress = job!(self, IpAddressesClient.associate(message)).await.unwrap();
        (ip.id.unwrap(), ip.ip_address.unwrap())
    }

    /// What the host of the only router has.
    pub fn spec(&self) -> RouterSpec {
        self.lab.hosts.all()[0].2.spec.clone()
    }

    pub async fn open(
        &self,
        change: impl FnOnce(&mut net::CreateFirewallRuleRequest),
    ) -> Result<net::FirewallRule, ApiError> {
        let mut message = net::CreateFirewallRuleRequest {
            ip_address_id: Some(self.ip.clone()),
            protocol: Some("tcp".into()),
            ..Default::default()
        };
        change(&mut message);
        job!(self, FirewallRulesClient.create(message)).await
    }

    pub async fn egress(
        &self,
        change: impl FnOnce(&mut net::CreateEgressFirewallRuleRequest),
    ) -> Result<net::FirewallRule, ApiError> {
        let mut message = net::CreateEgressFirewallRuleRequest {
            network_id: Some(self.network.clone()),
            protocol: Some("tcp".into()),
            ..Default::default()
        };
        change(&mut message);
        job!(self, EgressFirewallRulesClient.create(message)).await
    }

    pub fn forwarding(&self) -> net::CreatePortForwardingRuleRequest {
        net::CreatePortForwardingRuleRequest {
            ip_address_id: Some(self.ip.clone()),
            virtual_machine_id: Some(vm_uuid(1)),
            protocol: Some("tcp".into()),
            public_port: Some(2222),
            private_port: Some(22),
            open_firewall: Some(false),
            ..Default::default()
        }
    }

    pub async fn forward(
        &self,
        change: impl FnOnce(&mut net::CreatePortForwardingRuleRequest),
    ) -> Result<net::PortForwardingRule, ApiError> {
        let mut message = self.forwarding();
        change(&mut message);
        job!(self, PortForwardingRulesClient.create(message)).await
    }

    pub async fn enable(&self, change: impl FnOnce(&mut net::EnableStaticNatRequest)) -> Result<Success, ApiError> {
        let mut message = net::EnableStaticNatRequest {
            ip_address_id: Some(self.ip.clone()),
            virtual_machine_id: Some(vm_uuid(1)),
            ..Default::default()
        };
        change(&mut message);
        let mut client = StaticNatsClient::new(self.lab.channel());
        Ok(client.enable(rpc::cx::request(&self.lab.admin, message)).await?.into_inner())
    }

    pub async fn disable(&self) -> Result<Success, ApiError> {
        let message = net::DisableStaticNatRequest { ip_address_id: Some(self.ip.clone()), ..Default::default() };
        job!(self, StaticNatsClient.disable(message)).await
    }

    pub async fn delete_forward(&self, id: &Option<String>) -> Result<Success, ApiError> {
        let message = net::DeletePortForwardingRuleRequest { id: id.clone(), ..Default::default() };
        job!(self, PortForwardingRulesClient.delete(message)).await
    }

    pub async fn release(&self, ip: &str) -> Result<Success, ApiError> {
        let message = net::DisassociateIpAddressRequest { id: Some(ip.into()), ..Default::default() };
        job!(self, IpAddressesClient.disassociate(message)).await
    }

    pub async fn listed(&self, caller: &Caller, all: bool) -> Vec<net::FirewallRule> {
        let message = net::ListFirewallRulesRequest { list_all: Some(all), ..Default::default() };
        let mut client = FirewallRulesClient::new(self.lab.channel());
        client.list(rpc::cx::request(caller, message)).await.unwrap().into_inner().firewall_rule
    }

    pub async fn forwards(&self) -> Vec<net::PortForwardingRule> {
        let message = net::ListPortForwardingRulesRequest { list_all: Some(true), ..Default::default() };
        let mut client = PortForwardingRulesClient::new(self.lab.channel());
        client.list(rpc::cx::request(&self.lab.admin, message)).await.unwrap().into_inner().port_forwarding_rule
    }

    pub async fn address(&self) -> net::IpAddress {
        let message = net::ListPublicIpAddressesRequest { id: Some(self.ip.clone()), ..Default::default() };
        let mut client = IpAddressesClient::new(self.lab.channel());
        client.list(rpc::cx::request(&self.lab.admin, message)).await.unwrap().into_inner().public_ip_address.remove(0)
    }

    /// All that a refused command might have changed.
    pub async fn books(&self) -> String {
        let mut told = Vec::new();
        for sql in [
            "SELECT COUNT(*) FROM firewall_rules",
            "SELECT COUNT(*) FROM firewall_rules WHERE state <> 'Active'",
            "SELECT SUM(generation) FROM routers",
            "SELECT COUNT(*) FROM ip_addresses WHERE is_static_nat <> 0",
            "SELECT COUNT(*) FROM jobs",
            "SELECT COUNT(*) FROM outbox",
        ] {
            told.push(self.lab.number(sql).await.to_string());
        }
        told.join(" ")
    }

    /// The command is refused with this code, by a text with these words, and nothing has changed.
    pub async fn refused<T: std::fmt::Debug>(
        &self,
        code: u16,
        words: &str,
        command: impl Future<Output = Result<T, ApiError>>,
    ) {
        let before = self.books().await;
        let error = command.await.unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.text.to_lowercase().contains(&words.to_lowercase()), "{words}: {error}");
        assert_eq!(self.books().await, before, "{error}");
    }
}
