//! What reaches a guest by its router: passwords, keys, user data.

use crate::world::World;
use contract::ApiError;
use contract::api::{Caller, JobRef, RoleType};
use contract_agent::VmMetadata;
use contract_compute::virtual_machine_access_client::VirtualMachineAccessClient;
use contract_compute::virtual_machines_client::VirtualMachinesClient;
use contract_compute::{
    ResetPasswordForVirtualMachineRequest, StartVirtualMachineRequest, StopVirtualMachineRequest,
    UpdateVirtualMachineRequest, VirtualMachine,
};
use std::time::Duration;
use testkit::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

fn admin() -> Caller {
    Caller {
        user_id: 2,
        account_id: 2,
        account_name: "admin".into(),
        domain_id: 1,
        domain_path: "/1/".into(),
        role_type: RoleType::Admin.into(),
        role_id: 1,
        user_name: "admin".into(),
        ..Caller::default()
    }
}

impl World {
    /// What routers tell the guest of a VM.
    fn guest(&self, vm: &str) -> Option<VmMetadata> {
        let routers = self.simulator.routers();
        let mut guests = routers.into_iter().flat_map(|r| r.spec.metadata).flat_map(|m| m.vms);
        guests.find(|g| g.entries.get("meta-data/instance-id").is_some_and(|id| id == vm))
    }

    async fn done(&self, job: Result<tonic::Response<JobRef>, tonic::Status>) -> VirtualMachine {
        let job = job.unwrap().into_inner().job_id;
        self.orchestrator.jobs.end_of(&job).await.unwrap().output().unwrap()
    }
}

// covers: TPL-073
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_reaches_the_router_of_its_guest() {
    let world = World::new().await;
    let channel = world.net.channel("orchestrator");
    let mut access = VirtualMachineAccessClient::new(channel.clone());
    let mut vms = VirtualMachinesClient::new(channel);
    let vm = world.text("SELECT uuid FROM vms WHERE name = 't-first'").await;
    let reset = || {
        let message = ResetPasswordForVirtualMachineRequest { id: Some(vm.clone()), ..Default::default() };
        rpc::cx::request(&admin(), message)
    };
    let refused = ApiError::from(access.reset_password(reset()).await.unwrap_err());
    assert!(refused.code == 431 && refused.full_text().contains("password enabled"), "{refused}");
    world.change(&format!("UPDATE vms SET password_enabled = 1 WHERE uuid = '{vm}'")).await;
    let refused = ApiError::from(access.reset_password(reset()).await.unwrap_err());
    assert!(refused.code == 431 && refused.full_text().contains("should be stopped"), "{refused}");
    let stop = StopVirtualMachineRequest { id: Some(vm.clone()), ..Default::default() };
    world.done(vms.stop(rpc::cx::request(&admin(), stop)).await).await;

    let mut given: Vec<VmMetadata> = Vec::new();
    for _ in 0..2 {
        let answer = world.done(access.reset_password(reset()).await).await;
        // The result keeps it sealed; whoever asks for the result opens it.
        let open = world.node.vault.open_sealed(&model::sealed::vm_password(&vm), answer.password()).unwrap();
        let password = String::from_utf8(open).unwrap();
        assert!(password.len() >= 6);
        let told = || world.guest(&vm).filter(|g| g.password.as_deref() == Some(password.as_str()));
        wait_until(|| async { told().is_some() }, PATIENCE).await;
        given.push(told().unwrap());
    }
    assert_ne!(given[0].password, given[1].password);
    assert_ne!(given[0].password_id, given[1].password_id, "a guest takes each of them once");

    // User data that is changed while it runs is there when the command is answered.
    let start = StartVirtualMachineRequest { id: Some(vm.clone()), ..Default::default() };
    world.done(vms.start(rpc::cx::request(&admin(), start)).await).await;
    assert_eq!(world.guest(&vm).unwrap().password, given[1].password);
    let update = |data: &str| UpdateVirtualMachineRequest {
        id: Some(vm.clone()),
        userdata: Some(data.to_owned()),
        ..Default::default()
    };
    for (data, bytes) in [("aGVsbG8=", &b"hello"[..]), ("d29ybGQ=", &b"world"[..])] {
        vms.update(rpc::cx::request(&admin(), update(data))).await.unwrap();
        assert_eq!(world.guest(&vm).unwrap().user_data.as_deref(), Some(bytes));
    }
    assert!(ApiError::from(vms.update(rpc::cx::request(&admin(), update("%%"))).await.unwrap_err()).code == 431);
}
