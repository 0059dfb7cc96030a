//! `arcus.infra.v1.Dedications`.

use crate::dedication::{self, Ask, Kind, Wish};
use crate::vm::VmWorld;
use contract::Request as _;
use contract::api::JobRef;
use contract_infra::dedications_server::Dedications;
use contract_infra::{
    DedicateClusterRequest, DedicateHostRequest, DedicatePodRequest, DedicateZoneRequest, ListDedicatedClustersRequest,
    ListDedicatedClustersResponse, ListDedicatedHostsRequest, ListDedicatedHostsResponse, ListDedicatedPodsRequest,
    ListDedicatedPodsResponse, ListDedicatedZonesRequest, ListDedicatedZonesResponse, ReleaseDedicatedClusterRequest,
    ReleaseDedicatedHostRequest, ReleaseDedicatedPodRequest, ReleaseDedicatedZoneRequest,
};
use tonic::{Request, Response, Status};

/// The service.
pub struct DedicationsApi(pub VmWorld);

#[tonic::async_trait]
impl Dedications for DedicationsApi {
    async fn dedicate_zone(&self, request: Request<DedicateZoneRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let command = DedicateZoneRequest::COMMAND;
        let wish = Wish { kind: Kind::Zone, param: "zoneid", command, custom_job_id: r.custom_job_id };
        Ok(Response::new(dedication::dedicate(&self.0, &cx, wish, r.account).await?))
    }

    async fn release_zone(&self, request: Request<ReleaseDedicatedZoneRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let command = ReleaseDedicatedZoneRequest::COMMAND;
        let wish = Wish { kind: Kind::Zone, param: "zoneid", command, custom_job_id: r.custom_job_id };
        Ok(Response::new(dedication::release(&self.0, &cx, wish).await?))
    }

    async fn list_zones(
        &self,
        request: Request<ListDedicatedZonesRequest>,
    ) -> Result<Response<ListDedicatedZonesResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let ask = Ask { param: "zoneid", account: r.account, keyword: r.keyword, page: r.page, page_size: r.page_size };
        let (found, count) = dedication::list(&self.0, &cx, Kind::Zone, ask).await?;
        let dedicated_zone = found.into_iter().map(Into::into).collect();
        Ok(Response::new(ListDedicatedZonesResponse { count: Some(count), dedicated_zone }))
    }

    async fn dedicate_pod(&self, request: Request<DedicatePodRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let command = DedicatePodRequest::COMMAND;
        let wish = Wish { kind: Kind::Pod, param: "podid", command, custom_job_id: r.custom_job_id };
        Ok(Response::new(dedication::dedicate(&self.0, &cx, wish, r.account).await?))
    }

    async fn release_pod(&self, request: Request<ReleaseDedicatedPodRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let command = ReleaseDedicatedPodRequest::COMMAND;
        let wish = Wish { kind: Kind::Pod, param: "podid", command, custom_job_id: r.custom_job_id };
        Ok(Response::new(dedication::release(&self.0, &cx, wish).await?))
    }

    async fn list_pods(
        &self,
        request: Request<ListDedicatedPodsRequest>,
    ) -> Result<Response<ListDedicatedPodsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let ask = Ask { param: "podid", account: r.account, keyword: r.keyword, page: r.page, page_size: r.page_size };
        let (found, count) = dedication::list(&self.0, &cx, Kind::Pod, ask).await?;
        let dedicated_pod = found.into_iter().map(Into::into).collect();
        Ok(Response::new(ListDedicatedPodsResponse { count: Some(count), dedicated_pod }))
    }

    async fn dedicate_cluster(&self, request: Request<DedicateClusterRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let command = DedicateClusterRequest::COMMAND;
        let wish = Wish { kind: Kind::Cluster, param: "clusterid", command, custom_job_id: r.custom_job_id };
        Ok(Response::new(dedication::dedicate(&self.0, &cx, wish, r.account).await?))
    }

    async fn release_cluster(
        &self,
        request: Request<ReleaseDedicatedClusterRequest>,
    ) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let command = ReleaseDedicatedClusterRequest::COMMAND;
        let wish = Wish { kind: Kind::Cluster, param: "clusterid", command, custom_job_id: r.custom_job_id };
        Ok(Response::new(dedication::release(&self.0, &cx, wish).await?))
    }

    async fn list_clusters(
        &self,
        request: Request<ListDedicatedClustersRequest>,
    ) -> Result<Response<ListDedicatedClustersResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let ask =
            Ask { param: "clusterid", account: r.account, keyword: r.keyword, page: r.page, page_size: r.page_size };
        let (found, count) = dedication::list(&self.0, &cx, Kind::Cluster, ask).await?;
        let dedicated_cluster = found.into_iter().map(Into::into).collect();
        Ok(Response::new(ListDedicatedClustersResponse { count: Some(count), dedicated_cluster }))
    }

    async fn dedicate_host(&self, request: Request<DedicateHostRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let command = DedicateHostRequest::COMMAND;
        let wish = Wish { kind: Kind::Host, param: "hostid", command, custom_job_id: r.custom_job_id };
        Ok(Response::new(dedication::dedicate(&self.0, &cx, wish, r.account).await?))
    }

    async fn release_host(&self, request: Request<ReleaseDedicatedHostRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let command = ReleaseDedicatedHostRequest::COMMAND;
        let wish = Wish { kind: Kind::Host, param: "hostid", command, custom_job_id: r.custom_job_id };
        Ok(Response::new(dedication::release(&self.0, &cx, wish).await?))
    }

    async fn list_hosts(
        &self,
        request: Request<ListDedicatedHostsRequest>,
    ) -> Result<Response<ListDedicatedHostsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let ask = Ask { param: "hostid", account: r.account, keyword: r.keyword, page: r.page, page_size: r.page_size };
        let (found, count) = dedication::list(&self.0, &cx, Kind::Host, ask).await?;
        let dedicated_host = found.into_iter().map(Into::into).collect();
        Ok(Response::new(ListDedicatedHostsResponse { count: Some(count), dedicated_host }))
    }
}
