//! The services that a start asks: networks that are always ready, and disks on one pool that all hosts share.

use contract_agent::{Command, EnsurePool, command};
use contract_infra::ExecuteRequest;
use contract_infra::host_commands_client::HostCommandsClient;
use contract_network::attachments_server::{Attachments, AttachmentsServer};
use contract_network::{
    AllocateNicsRequest, CheckNicsResponse, DefaultNetworkRequest, DefaultNetworkResponse, MoveNicsRequest,
    NicsResponse, RemoveNicRequest, SetDefaultNicRequest, TellRequest, VmNicsRequest,
};
use contract_storage::disks_server::{Disks, DisksServer};
use contract_storage::{
    AllocateDisksRequest, AssignDisksRequest, AssignDisksResponse, DiscardRequest, DiskSpec, DisksResponse, FitRequest,
    FitResponse, RenewRootRequest, VmDisksRequest,
};
use node::Node;
use rpc::LocalNet;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use store::{Db, Sql};
use tonic::service::Routes;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

/// The pool of all disks.
pub const POOL: &str = "pool-1";
/// Its lease time.
pub const LEASE_MILLIS: u32 = 400;

/// VMs whose NICs are ready on a host, whichever replica's network made them so.
pub type Plugged = Arc<Mutex<BTreeSet<i64>>>;

#[derive(Default)]
pub struct Network {
    /// Nothing can be made ready.
    pub broken: AtomicBool,
    /// Calls of this name are never answered.
    pub held: Mutex<Option<&'static str>>,
    /// How many calls came that weren't.
    pub waiting: AtomicUsize,
    /// VMs whose NICs are ready on a host.
    pub plugged: Plugged,
}

impl Network {
    async fn pass(&self, call: &str) {
        if *self.held.lock().unwrap() == Some(call) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    }
}

struct NetworkApi(Arc<Network>);

#[tonic::async_trait]
impl Attachments for NetworkApi {
    async fn check(&self, _: Request<AllocateNicsRequest>) -> Result<Response<CheckNicsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn allocate(&self, _: Request<AllocateNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn release(&self, _: Request<VmNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn prepare(&self, request: Request<VmNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        self.0.pass("prepare").await;
        if self.0.broken.load(Ordering::SeqCst) {
            return Err(contract::ApiError::failed("the network is broken").into());
        }
        self.0.plugged.lock().unwrap().insert(request.into_inner().vm_id);
        Ok(Response::new(NicsResponse::default()))
    }
    async fn change_host(&self, request: Request<MoveNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        self.0.pass("change_host").await;
        let undone = jobs::StepKey::of(&request)?.is_undo();
        let request = request.into_inner();
        if !undone && self.0.broken.load(Ordering::SeqCst) {
            return Err(contract::ApiError::failed("the network is broken").into());
        }
        let mut plugged = self.0.plugged.lock().unwrap();
        match undone && request.stays_on.is_none() {
            true => plugged.remove(&request.vm_id),
            false => plugged.insert(request.vm_id),
        };
        Ok(Response::new(NicsResponse::default()))
    }
    async fn unprepare(&self, request: Request<VmNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        self.0.pass("unprepare").await;
        self.0.plugged.lock().unwrap().remove(&request.into_inner().vm_id);
        Ok(Response::new(NicsResponse::default()))
    }
    async fn remove(&self, _: Request<RemoveNicRequest>) -> Result<Response<NicsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn exchange(&self, _: Request<AllocateNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn set_default(&self, _: Request<SetDefaultNicRequest>) -> Result<Response<NicsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn tell(&self, _: Request<TellRequest>) -> Result<Response<NicsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn default_network(
        &self,
        _: Request<DefaultNetworkRequest>,
    ) -> Result<Response<DefaultNetworkResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Mounts the pool on every host that it prepares for, and says that it did.
struct StorageApi {
    db: Db,
    hosts: HostCommandsClient<Channel>,
}

/// UUID of a VM's root volume.
pub fn volume(vm: i64) -> String {
    format!("volume-{vm}")
}

#[tonic::async_trait]
impl Disks for StorageApi {
    async fn allocate(&self, _: Request<AllocateDisksRequest>) -> Result<Response<DisksResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn release(&self, _: Request<VmDisksRequest>) -> Result<Response<DisksResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn prepare(&self, request: Request<VmDisksRequest>) -> Result<Response<DisksResponse>, Status> {
        let request = request.into_inner();
        let host = request.host_id();
        let kind = self.db.one(Sql::new("SELECT pool_type FROM storage_pools WHERE id = 1")).await.unwrap();
        let command = Some(pool(kind.at(0).unwrap()));
        let order = ExecuteRequest { host_id: host, command, undo: false, deadline_millis: 10_000 };
        self.hosts.clone().execute(rpc::cx::request(&rpc::cx::system_caller(), order)).await?;
        mounted(&self.db, host).await;
        let disk = DiskSpec {
            uuid: volume(request.vm_id),
            kind: "ROOT".into(),
            size: 1 << 30,
            pool_uuid: POOL.into(),
            path: volume(request.vm_id),
            format: "raw".into(),
            ..DiskSpec::default()
        };
        Ok(Response::new(DisksResponse { disks: vec![disk], ..DisksResponse::default() }))
    }
    async fn fit(&self, request: Request<FitRequest>) -> Result<Response<FitResponse>, Status> {
        Ok(Response::new(FitResponse { cluster_ids: request.into_inner().cluster_ids }))
    }
    async fn expunge(&self, _: Request<VmDisksRequest>) -> Result<Response<DisksResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn assign(&self, _: Request<AssignDisksRequest>) -> Result<Response<AssignDisksResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn renew(&self, _: Request<RenewRootRequest>) -> Result<Response<DisksResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn unrenew(&self, _: Request<RenewRootRequest>) -> Result<Response<DisksResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn discard(&self, _: Request<DiscardRequest>) -> Result<Response<DisksResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Tells a host of the pool.
pub fn pool(kind: String) -> Command {
    let pool = EnsurePool {
        pool_uuid: POOL.into(),
        kind,
        url: "nfs://10.0.0.1/primary".into(),
        lease_millis: LEASE_MILLIS,
        ..EnsurePool::default()
    };
    Command { body: Some(command::Body::EnsurePool(pool)) }
}

/// A host has said that it reaches the pool.
pub async fn mounted(db: &Db, host: i64) {
    let known = Sql::new("SELECT host_id FROM pool_hosts WHERE pool_id = 1 AND host_id = ?").bind(host);
    if db.optional(known).await.unwrap().is_some() {
        return;
    }
    let sql = Sql::new("INSERT INTO pool_hosts (pool_id, host_id, local_path, created) VALUES (1, ?, '/mnt', 0)");
    // Two VMs may start there at the same time.
    let _ = store::tx!(db, "mounted", |tx| tx.exec(sql.clone().bind(host)).await).await;
}

/// Serves both.
pub fn serve(node: &Node, net: &Arc<LocalNet>, plugged: &Plugged) -> Arc<Network> {
    let network = Arc::new(Network { plugged: plugged.clone(), ..Network::default() });
    let hosts = HostCommandsClient::new(net.channel("orchestrator"));
    let storage = StorageApi { db: node.db.clone(), hosts };
    listen(node, net, "network", Routes::new(AttachmentsServer::new(NetworkApi(network.clone()))));
    listen(node, net, "storage", Routes::new(DisksServer::new(storage)));
    network
}

fn listen(node: &Node, net: &Arc<LocalNet>, service: &'static str, routes: Routes) {
    let (incoming, stop) = (net.listen(service), node.stop.clone());
    node.tasks.spawn(async move {
        let server = Server::builder().add_routes(routes);
        server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await.unwrap();
    });
}
