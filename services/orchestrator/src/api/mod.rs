//! Handlers, one file a proto service. They let the request in and call the concept that does it.

pub mod affinity_groups;
pub mod alert_generation;
pub mod annotations;
pub mod async_jobs;
pub mod capacities;
pub mod certificate_authority;
pub mod clusters;
pub mod configurations;
pub mod consoles;
pub mod dedications;
pub mod hosts;
pub mod hosts_for_migration;
pub mod hypervisors;
pub mod instance_groups;
pub mod load_balancer_instances;
pub mod metrics;
pub mod os_types;
pub mod placement;
pub mod pods;
pub mod regions;
pub mod service_offerings;
pub mod simulator_mocks;
pub mod ssh_key_pairs;
pub mod tags;
pub mod virtual_machine_access;
pub mod virtual_machine_changes;
pub mod virtual_machine_isos;
pub mod virtual_machine_migrations;
pub mod virtual_machine_nics;
pub mod virtual_machines;
pub mod zones;

use crate::vm::VmWorld;
use crate::world::World;
use contract_compute::affinity_groups_server::AffinityGroupsServer;
use contract_compute::instance_groups_server::InstanceGroupsServer;
use contract_compute::load_balancer_instances_server::LoadBalancerInstancesServer;
use contract_compute::ssh_key_pairs_server::SshKeyPairsServer;
use contract_compute::virtual_machine_access_server::VirtualMachineAccessServer;
use contract_compute::virtual_machine_changes_server::VirtualMachineChangesServer;
use contract_compute::virtual_machine_isos_server::VirtualMachineIsosServer;
use contract_compute::virtual_machine_metrics_server::VirtualMachineMetricsServer;
use contract_compute::virtual_machine_migrations_server::VirtualMachineMigrationsServer;
use contract_compute::virtual_machine_nics_server::VirtualMachineNicsServer;
use contract_compute::virtual_machines_server::VirtualMachinesServer;
use contract_infra::alert_generation_server::AlertGenerationServer;
use contract_infra::annotations_server::AnnotationsServer;
use contract_infra::async_jobs_server::AsyncJobsServer;
use contract_infra::capacities_server::CapacitiesServer;
use contract_infra::certificate_authority_server::CertificateAuthorityServer;
use contract_infra::clusters_server::ClustersServer;
use contract_infra::configurations_server::ConfigurationsServer;
use contract_infra::consoles_server::ConsolesServer;
use contract_infra::dedications_server::DedicationsServer;
use contract_infra::hosts_for_migration_server::HostsForMigrationServer;
use contract_infra::hosts_server::HostsServer;
use contract_infra::hypervisors_server::HypervisorsServer;
use contract_infra::infrastructure_metrics_server::InfrastructureMetricsServer;
use contract_infra::os_types_server::OsTypesServer;
use contract_infra::placement_server::PlacementServer;
use contract_infra::pods_server::PodsServer;
use contract_infra::regions_server::RegionsServer;
use contract_infra::service_offerings_server::ServiceOfferingsServer;
use contract_infra::simulator_mocks_server::SimulatorMocksServer;
use contract_infra::tags_server::TagsServer;
use contract_infra::zones_server::ZonesServer;
use tonic::service::Routes;

/// All services of a replica.
pub fn routes(world: &World, vms: &VmWorld) -> Routes {
    infrastructure(world)
        .add_service(VirtualMachinesServer::new(virtual_machines::Api::new(vms.clone())))
        .add_service(LoadBalancerInstancesServer::new(load_balancer_instances::LoadBalancerInstancesApi(vms.clone())))
        .add_service(VirtualMachineMigrationsServer::new(virtual_machine_migrations::Api::new(vms.clone())))
        .add_service(VirtualMachineChangesServer::new(virtual_machine_changes::VirtualMachineChangesApi(vms.clone())))
        .add_service(VirtualMachineMetricsServer::new(metrics::VirtualMachineMetricsApi(virtual_machines::Api::new(
            vms.clone(),
        ))))
        .add_service(HostsForMigrationServer::new(hosts_for_migration::Api::new(vms.clone())))
        .add_service(VirtualMachineAccessServer::new(virtual_machine_access::VirtualMachineAccessApi(vms.clone())))
        .add_service(VirtualMachineIsosServer::new(virtual_machine_isos::VirtualMachineIsosApi(vms.clone())))
        .add_service(VirtualMachineNicsServer::new(virtual_machine_nics::VirtualMachineNicsApi(vms.clone())))
        .add_service(ConsolesServer::new(consoles::ConsolesApi(vms.clone())))
        .add_service(AffinityGroupsServer::new(affinity_groups::AffinityGroupsApi(vms.clone())))
        .add_service(DedicationsServer::new(dedications::DedicationsApi(vms.clone())))
}

/// The services of the infrastructure, beside the hub's.
pub fn infrastructure(world: &World) -> Routes {
    let w = || world.clone();
    world
        .hub
        .routes()
        .add_service(CertificateAuthorityServer::new(certificate_authority::CertificateAuthorityApi(w())))
        .add_service(RegionsServer::new(regions::RegionsApi(w())))
        .add_service(ZonesServer::new(zones::ZonesApi(w())))
        .add_service(PodsServer::new(pods::PodsApi(w())))
        .add_service(ClustersServer::new(clusters::ClustersApi(w())))
        .add_service(HostsServer::new(hosts::HostsApi(w())))
        .add_service(InfrastructureMetricsServer::new(metrics::InfrastructureMetricsApi(w())))
        .add_service(AlertGenerationServer::new(alert_generation::AlertGenerationApi(w())))
        .add_service(AnnotationsServer::new(annotations::AnnotationsApi(w())))
        .add_service(ServiceOfferingsServer::new(service_offerings::ServiceOfferingsApi(w())))
        .add_service(OsTypesServer::new(os_types::OsTypesApi(w())))
        .add_service(HypervisorsServer::new(hypervisors::HypervisorsApi(w())))
        .add_service(SshKeyPairsServer::new(ssh_key_pairs::SshKeyPairsApi(w())))
        .add_service(TagsServer::new(tags::TagsApi(w())))
        .add_service(InstanceGroupsServer::new(instance_groups::InstanceGroupsApi(w())))
        .add_service(CapacitiesServer::new(capacities::CapacitiesApi(w())))
        .add_service(ConfigurationsServer::new(configurations::ConfigurationsApi(w())))
        .add_service(AsyncJobsServer::new(async_jobs::AsyncJobsApi(w())))
        .add_service(SimulatorMocksServer::new(simulator_mocks::SimulatorMocksApi(w())))
        .add_service(PlacementServer::new(placement::PlacementApi(w())))
}
