//! Handlers of `arcus.infra.v1.CertificateAuthority`.

use crate::{certificate, world::World};
use contract::api::JobRef;
use contract_infra::certificate_authority_server::CertificateAuthority;
use contract_infra::{
    Certificate, IssueCertificateRequest, ListCaCertificateRequest, ListCaProvidersRequest, ListCaProvidersResponse,
    ProvisionCertificateRequest, RevokeCertificateRequest,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct CertificateAuthorityApi(pub World);

#[tonic::async_trait]
impl CertificateAuthority for CertificateAuthorityApi {
    async fn list_providers(
        &self,
        request: Request<ListCaProvidersRequest>,
    ) -> Result<Response<ListCaProvidersResponse>, Status> {
        let (_, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(certificate::providers(&r)))
    }

    async fn show(&self, request: Request<ListCaCertificateRequest>) -> Result<Response<Certificate>, Status> {
        let (_, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(certificate::root(&self.0, r.provider.as_deref())?))
    }

    async fn issue(&self, request: Request<IssueCertificateRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(certificate::issue::issue(&self.0, &cx, r).await?))
    }

    async fn provision(&self, request: Request<ProvisionCertificateRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(certificate::provision::provision(&self.0, &cx, r).await?))
    }

    async fn revoke(&self, request: Request<RevokeCertificateRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(certificate::revoke::revoke(&self.0, &cx, r).await?))
    }
}
