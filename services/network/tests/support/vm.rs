//! VMs' jobs, as far as networks are concerned.

use contract::ApiError;
use contract_network as net;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use std::sync::Arc;
use store::Tx;

use super::Channel;

/// A VM's job, as far as networks are concerned.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct VmJob {
    pub vm: i64,
    pub networks: Vec<i64>,
    pub host: Option<i64>,
    pub ip: Option<String>,
    pub mac: Option<String>,
    pub account: (i64, i64, String),
    pub what: What,
}

#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize, PartialEq)]
pub enum What {
    Deploy,
    DeployAndFail,
    Start,
    Stop,
    Expunge,
    /// A NIC in another network.
    Add(i64),
    AddAndFail(i64),
    /// A NIC less.
    Take(i64),
    /// Another default NIC.
    MakeDefault(i64),
    /// These NICs in the place of all others.
    Exchange,
    ExchangeAndFail,
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum VmUndo {
    Release,
    Unprepare,
    Remove,
    Exchange,
}

impl VmJob {
    pub fn deploy(vm: i64, network: i64, host: Option<i64>) -> VmJob {
        VmJob {
            vm,
            networks: vec![network],
            host,
            ip: None,
            mac: None,
            account: (2, 1, "/1/".into()),
            what: What::Deploy,
        }
    }

    pub fn then(&self, what: What) -> VmJob {
        VmJob { what, ..self.clone() }
    }

    pub fn request(&self) -> net::AllocateNicsRequest {
        net::AllocateNicsRequest {
            vm_id: self.vm,
            vm_uuid: vm_uuid(self.vm),
            instance_name: format!("i-2-{}-VM", self.vm),
            host_name: format!("vm{}", self.vm),
            account_id: self.account.0,
            domain_id: self.account.1,
            domain_path: self.account.2.clone(),
            zone_id: 1,
            nics: self
                .networks
                .iter()
                .map(|n| net::NicRequest { network_id: *n, ip: self.ip.clone(), mac: self.mac.clone() })
                .collect(),
            host_id: self.host,
            hypervisor: "Simulator".into(),
            ..Default::default()
        }
    }
}

pub fn vm_uuid(vm: i64) -> String {
    format!("00000000-0000-4000-8000-{vm:012}")
}

pub struct VmWorld(pub Channel);

impl Job for VmJob {
    const KIND: &'static str = "test.vm";
    type World = VmWorld;
    type Undo = VmUndo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let client = net::attachments_client::AttachmentsClient::new(world.0.clone());
        let this = net::VmNicsRequest { vm_id: self.vm, host_id: self.host };
        let nics = match self.what {
            What::Deploy | What::DeployAndFail => {
                let message = self.request();
                ctx.call("nics", Some(VmUndo::Release), |call| {
                    let (mut client, request) = (client.clone(), call.request(message.clone()));
                    async move { client.allocate(request).await }
                })
                .await?
            }
            What::Start => {
                ctx.call("nics", Some(VmUndo::Unprepare), |call| {
                    let (mut client, request) = (client.clone(), call.request(this));
                    async move { client.prepare(request).await }
                })
                .await?
            }
            What::Stop => {
                ctx.call("nics", jobs::NO_UNDO, |call| {
                    let (mut client, request) = (client.clone(), call.request(this));
                    async move { client.unprepare(request).await }
                })
                .await?
            }
            What::Expunge => {
                ctx.call("nics", jobs::NO_UNDO, |call| {
                    let (mut client, request) = (client.clone(), call.request(this));
                    async move { client.release(request).await }
                })
                .await?
            }
            What::Add(network) | What::AddAndFail(network) => {
                let message = net::AllocateNicsRequest {
                    nics: vec![net::NicRequest { network_id: network, ..Default::default() }],
                    additional: true,
                    ..self.request()
                };
                ctx.call("nic", Some(VmUndo::Remove), |call| {
                    let (mut client, request) = (client.clone(), call.request(message.clone()));
                    async move { client.allocate(request).await }
                })
                .await?
            }
            What::Take(nic_id) => {
                let message = net::RemoveNicRequest { vm_id: self.vm, nic_id };
                ctx.call("nic", jobs::NO_UNDO, |call| {
                    let (mut client, request) = (client.clone(), call.request(message));
                    async move { client.remove(request).await }
                })
                .await?
            }
            What::Exchange | What::ExchangeAndFail => {
                let message = self.request();
                ctx.call("nics", Some(VmUndo::Exchange), |call| {
                    let (mut client, request) = (client.clone(), call.request(message.clone()));
                    async move { client.exchange(request).await }
                })
                .await?
            }
            What::MakeDefault(nic_id) => {
                let message = net::SetDefaultNicRequest { vm_id: self.vm, nic_id };
                ctx.call("nic", jobs::NO_UNDO, |call| {
                    let (mut client, request) = (client.clone(), call.request(message));
                    async move { client.set_default(request).await }
                })
                .await?
            }
        };
        if matches!(self.what, What::DeployAndFail | What::AddAndFail(_) | What::ExchangeAndFail) {
            return Err(ApiError::failed("the VM could not be started"));
        }
        jobs::finish!(ctx, |tx| {
            let _ = tx;
            Ok(nics.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: VmUndo, cx: UndoCx) -> Result<(), ApiError> {
        let mut client = net::attachments_client::AttachmentsClient::new(world.0.clone());
        let this = net::VmNicsRequest { vm_id: self.vm, host_id: self.host };
        cx.call(|call| async move {
            match undo {
                VmUndo::Release => client.release(call.request(this)).await,
                VmUndo::Unprepare => client.unprepare(call.request(this)).await,
                VmUndo::Exchange => client.exchange(call.request(net::AllocateNicsRequest::default())).await,
                VmUndo::Remove => {
                    client.remove(call.request(net::RemoveNicRequest { vm_id: this.vm_id, nic_id: 0 })).await
                }
            }
        })
        .await
        .map(drop)
    }

    async fn abort(self, _: Arc<VmWorld>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
