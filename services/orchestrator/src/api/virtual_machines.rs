//! `arcus.compute.v1.VirtualMachines`.

use crate::host::maintenance::undisturbed;
use crate::store::{affinity, vm_list, vm_roots, vms};
use crate::vm::boot::Constraints;
use crate::vm::deploy::{nic_requests, release_limits};
use crate::vm::destroy::Destroy;
use crate::vm::expunge::Expunge;
use crate::vm::order::{self, Order};
use crate::vm::reboot::Reboot;
use crate::vm::restore::{self, Ask};
use crate::vm::start::Start;
use crate::vm::stop::Stop;
use crate::vm::{self, VmWorld, names, view};
use config::keys;
use contract::api::JobRef;
use contract::{ApiError, CommandInfo, Page, Request as _};
use contract_compute::virtual_machines_server::VirtualMachines;
use contract_compute::{
    DeployPlan, DeployVirtualMachineRequest, DestroyVirtualMachineRequest, ExpungeVirtualMachineRequest,
    GetVirtualMachineUserDataRequest, ListVirtualMachinesRequest, ListVirtualMachinesResponse,
    RebootVirtualMachineRequest, RecoverVirtualMachineRequest, StartVirtualMachineRequest, StopVirtualMachineRequest,
    UpdateVirtualMachineRequest, VirtualMachine, VirtualMachineUserData,
};
use contract_identity::{ReserveRequest, ResourceAmount};
use contract_network::AllocateNicsRequest;
use jobs::{Accept, Job};
use model::state::VmState;
use model::{ListScope, Paged as _, ScopeRequest};
use rpc::Cx;
use tonic::{Request, Response, Status};

/// The handlers.
pub struct Api {
    pub(super) world: VmWorld,
}

impl Api {
    /// Handlers that work with `world`.
    pub fn new(world: VmWorld) -> Api {
        Api { world }
    }

    /// A page of VMs, whichever command asks.
    pub(super) async fn listed(
        &self,
        cx: &Cx,
        request: ListVirtualMachinesRequest,
    ) -> Result<ListVirtualMachinesResponse, Status> {
        let db = &self.world.node.db;
        let levels = view::Levels::parse(&request.details)?;
        let (scope, filter, page) = self.list_request(cx, &request).await?;
        let listed = vm_list::page(db, &scope, &filter, &page).await.map_err(ApiError::from)?;
        let count = match page.proves_count(listed.len()) {
            Some(n) => n,
            None => vm_list::count(db, &scope, &filter).await.map_err(ApiError::from)?,
        };
        let virtual_machine = view::some(&self.world, listed, &cx.caller, levels).await?;
        Ok(ListVirtualMachinesResponse { count: Some(count), virtual_machine })
    }

    /// The living VM that `param` names.
    async fn vm(&self, cx: &Cx, param: &str) -> Result<vms::VmRow, ApiError> {
        let id: i64 = cx.refs.need(param)?;
        let row = vms::find(&self.world.node.db, id).await?.filter(|v| !v.removed);
        row.ok_or_else(|| ApiError::param("Unable to find a virtual machine with specified vmId"))
    }

    /// Accepts a job on one VM.
    async fn accept<J: Job>(
        &self,
        cx: &Cx,
        vm: &vms::VmRow,
        command: Option<&'static CommandInfo>,
        custom_id: Option<String>,
        what: &str,
        job: J,
    ) -> Result<JobRef, ApiError> {
        let ticket = self.world.jobs.ticket().await?;
        jobs::mutate!(self.world.node.db, &cx.caller, J::KIND, |tx| {
            let accept = Accept {
                job: job.clone(),
                caller: cx.caller.clone(),
                command,
                owner: vm.owner.clone(),
                instance: Some(("VirtualMachine".to_owned(), vm.uuid.clone())),
                claims: vec![vm::claim(vm.id)],
                custom_id: custom_id.clone(),
                description: format!("{what} VM: {}", view::label(vm)),
                entity_id: None,
            };
            self.world.jobs.accept(tx, ticket.clone(), accept).await
        })
        .await
    }

    async fn reserve(&self, cx: &Cx, order: &Order) -> Result<(), ApiError> {
        let calls = order.reservations.iter().map(|r| {
            let mut client = self.world.limits();
            let request = rpc::cx::repeatable(&cx.caller, r.clone());
            async move { client.reserve(request).await }
        });
        for answer in futures::future::join_all(calls).await {
            if let Err(status) = answer {
                self.give_back(order).await;
                return Err(status.into());
            }
        }
        Ok(())
    }

    /// Gives back what a request reserved that came to nothing. What can't be given back now expires by itself.
    async fn give_back(&self, order: &Order) {
        for reservation in &order.reservations {
            if let Err(e) = release_limits(&self.world, &reservation.key).await {
                tracing::warn!(key = reservation.key, error = %e, "a reservation waits for its expiry");
            }
        }
    }

    async fn accept_deploy(&self, cx: &Cx, custom_job_id: Option<String>, order: &Order) -> Result<JobRef, ApiError> {
        let ticket = self.world.jobs.ticket().await?;
        let vm = &order.new.vm;
        let mut claims = vec![vm::claim(vm.id), vm::account_claim(vm.owner.account_id)];
        claims.extend(order.new.networks.iter().map(|n| vm::network_claim(*n)));
        claims.extend(vm.iso_id.map(vm::iso::claim));
        jobs::mutate!(self.world.node.db, &cx.caller, "deploy", |tx| {
            vms::insert(tx, &order.new).await.map_err(|e| insert_error(e, order))?;
            let groups: Vec<i64> = order.groups.iter().map(|g| g.id).collect();
            if !affinity::hold(tx, &groups).await? {
                return Err(crate::affinity::gone());
            }
            affinity::join(tx, vm.id, &groups).await?;
            let accept = Accept {
                job: order.job.clone(),
                caller: cx.caller.clone(),
                command: DeployVirtualMachineRequest::COMMAND,
                owner: vm.owner.clone(),
                instance: Some(("VirtualMachine".to_owned(), vm.uuid.clone())),
                claims: claims.clone(),
                custom_id: custom_job_id.clone(),
                description: format!("deploying VM: {}", view::label(vm)),
                entity_id: Some(vm.uuid.clone()),
            };
            self.world.jobs.accept(tx, ticket.clone(), accept).await
        })
        .await
    }
}

fn insert_error(e: store::Error, order: &Order) -> ApiError {
    if e.is_unique("vm_names") || e.is_unique("PRIMARY") {
        let network = order.networks.first().map_or("", |n| n.name.as_str());
        return names::taken(&order.new.vm.name, network);
    }
    if matches!(e, store::Error::Unique { .. }) {
        return ApiError::param("customid is the id of another virtual machine");
    }
    e.into()
}

fn asked_tags(tags: &[contract::api::TagParam]) -> Vec<(String, String)> {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    tags.iter().map(|t| (text(&t.key), text(&t.value))).collect()
}

#[tonic::async_trait]
impl VirtualMachines for Api {
    async fn deploy(&self, request: Request<DeployVirtualMachineRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, request) = self.world.node.rpc.enter(request).await?;
        if let Some(answer) = jobs::answered::<JobRef>(&self.world.node.db, &cx.caller).await? {
            return Ok(Response::new(answer));
        }
        let order = order::check(&self.world, &cx, &request, true).await?;
        let vm = &order.new.vm;
        let check = AllocateNicsRequest {
            vm_id: vm.id,
            vm_uuid: vm.uuid.clone(),
            instance_name: vm.instance_name.clone(),
            host_name: vm.name.clone(),
            account_id: vm.owner.account_id,
            domain_id: vm.owner.domain_id,
            domain_path: vm.owner.domain_path.clone(),
            zone_id: vm.zone_id,
            nics: nic_requests(&order.job.nics),
            host_id: None,
            hypervisor: vm.hypervisor.clone(),
            ..AllocateNicsRequest::default()
        };
        self.world.attachments().check(rpc::cx::repeatable(&cx.caller, check)).await?;
        self.reserve(&cx, &order).await?;
        let answer = self.accept_deploy(&cx, request.custom_job_id, &order).await;
        // A failure, or a repeat that another replica answered: what this call reserved belongs to nobody.
        if answer.as_ref().map_or(true, |a| a.id.as_deref() != Some(vm.uuid.as_str())) {
            self.give_back(&order).await;
        }
        Ok(Response::new(answer?))
    }

    async fn start(&self, request: Request<StartVirtualMachineRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, request) = self.world.node.rpc.enter(request).await?;
        let vm = self.vm(&cx, "id").await?;
        let host: Option<i64> = cx.refs.id("hostid")?;
        if host.is_some() && !cx.caller.is_root_admin() {
            return Err(ApiError::permission(
                "Parameter hostid can only be specified by a Root Admin, permission denied",
            )
            .into());
        }
        let offering = crate::store::vm_order::offering_of_vm(&self.world.node.db, vm.service_offering_id)
            .await
            .map_err(ApiError::from)?;
        let planner = crate::vm::approach::named(request.deployment_planner.as_deref())?;
        let constraints = Constraints { host, tags: offering.host_tags, planner, ..Constraints::default() };
        let job = Start { vm: vm.id, constraints };
        let command = StartVirtualMachineRequest::COMMAND;
        Ok(Response::new(self.accept(&cx, &vm, command, request.custom_job_id, "starting", job).await?))
    }

    async fn stop(&self, request: Request<StopVirtualMachineRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, request) = self.world.node.rpc.enter(request).await?;
        let vm = self.vm(&cx, "id").await?;
        let job = Stop { vm: vm.id, forced: request.forced.unwrap_or(false) };
        if !job.forced {
            undisturbed(&self.world.node.db, (vm.id, &vm.uuid), "Stop").await?;
        }
        let command = StopVirtualMachineRequest::COMMAND;
        Ok(Response::new(self.accept(&cx, &vm, command, request.custom_job_id, "stopping", job).await?))
    }

    async fn reboot(&self, request: Request<RebootVirtualMachineRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, request) = self.world.node.rpc.enter(request).await?;
        let vm = self.vm(&cx, "id").await?;
        undisturbed(&self.world.node.db, (vm.id, &vm.uuid), "Reboot").await?;
        let command = RebootVirtualMachineRequest::COMMAND;
        if vm_roots::is_volatile(&self.world.node.db, vm.service_offering_id).await.map_err(ApiError::from)? {
            let ask = Ask { command, custom_id: request.custom_job_id, template: None, reboot: true };
            return Ok(Response::new(restore::accept(&self.world, &cx, &vm, ask).await?));
        }
        Ok(Response::new(
            self.accept(&cx, &vm, command, request.custom_job_id, "rebooting", Reboot { vm: vm.id }).await?,
        ))
    }

    async fn update(&self, request: Request<UpdateVirtualMachineRequest>) -> Result<Response<VirtualMachine>, Status> {
        let (cx, request) = self.world.node.rpc.enter(request).await?;
        let vm = self.vm(&cx, "id").await?;
        Ok(Response::new(vm::update::update(&self.world, &cx, &vm, &request).await?))
    }

    async fn destroy(&self, request: Request<DestroyVirtualMachineRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, request) = self.world.node.rpc.enter(request).await?;
        let vm = self.vm(&cx, "id").await?;
        let expunge = request.expunge.unwrap_or(false);
        if expunge {
            self.may_expunge(&cx)?;
        }
        undisturbed(&self.world.node.db, (vm.id, &vm.uuid), "Destroy").await?;
        let job = Destroy { vm: vm.id, expunge };
        let command = DestroyVirtualMachineRequest::COMMAND;
        Ok(Response::new(self.accept(&cx, &vm, command, request.custom_job_id, "destroying", job).await?))
    }

    async fn recover(
        &self,
        request: Request<RecoverVirtualMachineRequest>,
    ) -> Result<Response<VirtualMachine>, Status> {
        let (cx, _) = self.world.node.rpc.enter(request).await?;
        let vm = self.vm(&cx, "id").await?;
        let owner = &vm.owner;
        if !model::scope::may_act_for(&cx.caller, owner) {
            return Err(ApiError::permission("you may not recover this virtual machine").into());
        }
        self.may_expunge(&cx)?;
        if vm.state != VmState::Destroyed {
            return Err(
                ApiError::param(format!("vm {} isn't Destroyed: it can't be recovered", view::label(&vm))).into()
            );
        }
        let key = format!("vm:{}:{}", vm.uuid, model::new_uuid());
        let items = [(0, 1), (8, vm.cpu), (9, vm.memory_mb)];
        let reserve = ReserveRequest {
            reserver: self.world.node.replica.clone(),
            key: key.clone(),
            account_id: owner.account_id,
            items: items.iter().map(|(t, n)| ResourceAmount { r#type: *t, amount: *n }).collect(),
        };
        self.world.limits().reserve(rpc::cx::repeatable(&cx.caller, reserve)).await?;
        let db = &self.world.node.db;
        let mut shown = view::one(&self.world, vm.id, &cx.caller).await?;
        shown.state = Some(VmState::Stopped.to_string());
        let answer = jobs::mutate!(db, &cx.caller, "recover-vm", |tx| {
            jobs::claims::free(tx, &[vm::claim(vm.id)]).await?;
            if !vms::transit(tx, vm.id, &[VmState::Destroyed], VmState::Stopped).await? {
                return Err(ApiError::concurrent("the virtual machine is no longer Destroyed"));
            }
            vms::mark_destroyed(tx, vm.id, None).await?;
            vms::set_limits_key(tx, vm.id, &key).await?;
            events::record(tx, &[vm::usage::record(&vm, "VM.CREATE")]).await?;
            Ok(shown.clone())
        })
        .await;
        if answer.is_err()
            && let Err(e) = release_limits(&self.world, &key).await
        {
            tracing::warn!(key, error = %e, "a reservation waits for its expiry");
        }
        Ok(Response::new(answer?))
    }

    async fn expunge(&self, request: Request<ExpungeVirtualMachineRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, request) = self.world.node.rpc.enter(request).await?;
        let vm = self.vm(&cx, "id").await?;
        self.may_expunge(&cx)?;
        let command = ExpungeVirtualMachineRequest::COMMAND;
        Ok(Response::new(
            self.accept(&cx, &vm, command, request.custom_job_id, "Expunging", Expunge { vm: vm.id }).await?,
        ))
    }

    async fn list(
        &self,
        request: Request<ListVirtualMachinesRequest>,
    ) -> Result<Response<ListVirtualMachinesResponse>, Status> {
        let (cx, request) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(self.listed(&cx, request).await?))
    }

    async fn plan_deploy(&self, request: Request<DeployVirtualMachineRequest>) -> Result<Response<DeployPlan>, Status> {
        let (cx, request) = self.world.node.rpc.enter(request).await?;
        let order = order::check(&self.world, &cx, &request, false).await?;
        Ok(Response::new(vm::plan::of(&self.world, &order, cx.caller.is_root_admin()).await?))
    }

    async fn get_user_data(
        &self,
        request: Request<GetVirtualMachineUserDataRequest>,
    ) -> Result<Response<VirtualMachineUserData>, Status> {
        let (cx, _) = self.world.node.rpc.enter(request).await?;
        let vm = self.vm(&cx, "virtualmachineid").await?;
        if !model::scope::may_act_for(&cx.caller, &vm.owner) {
            return Err(ApiError::permission("you may not see this virtual machine").into());
        }
        Ok(Response::new(VirtualMachineUserData {
            virtual_machine_id: Some(vm.uuid),
            userdata: Some(vm.user_data.unwrap_or_default()),
            ..VirtualMachineUserData::default()
        }))
    }
}

impl Api {
    /// Users may expunge and recover only where `allow.user.expunge.recover.vm` says so.
    fn may_expunge(&self, cx: &Cx) -> Result<(), ApiError> {
        let allowed = cx.caller.is_admin() || self.world.node.settings.get(keys::ALLOW_USER_EXPUNGE_RECOVER_VM);
        if allowed {
            return Ok(());
        }
        Err(ApiError::permission(
            "Expunging or recovering a vm can only be done by an Admin. Or when the allow.user.expunge.recover.vm key is set.",
        ))
    }

    async fn list_request(
        &self,
        cx: &Cx,
        r: &ListVirtualMachinesRequest,
    ) -> Result<(ListScope, vm_list::Filter, Page), ApiError> {
        let id: Option<i64> = cx.refs.one("id").map(|e| e.id);
        let mut ids: Option<Vec<i64>> = id.map(|id| vec![id]);
        if !r.ids.is_empty() {
            if id.is_some() {
                return Err(ApiError::param("Specify either id or ids but not both parameters"));
            }
            ids = Some(cx.refs.all("ids").iter().map(|e| e.id).collect());
        }
        let domain = cx.refs.one("domainid").map(|d| (d.id, d.owner.as_ref().map_or("", |o| o.domain_path.as_str())));
        let scope = ScopeRequest {
            account: r.account.as_deref().filter(|a| !a.is_empty()),
            domain,
            list_all: r.list_all.unwrap_or(false),
            recursive: r.is_recursive.unwrap_or(false),
            by_id: ids.is_some(),
        };
        let scope = ListScope::of(&self.world.node.db, &cx.caller, &scope).await?;
        let page = Page::of(r.page, r.page_size, self.world.node.settings.get(keys::DEFAULT_PAGE_SIZE))?;
        let one = |param: &str| cx.refs.one(param).map(|e| e.id);
        let text = |t: &Option<String>| t.clone().filter(|t| !t.is_empty());
        let admin = cx.caller.is_root_admin();
        let filter = vm_list::Filter {
            ids,
            keyword: text(&r.keyword),
            name: text(&r.name),
            state: text(&r.state),
            zone: one("zoneid"),
            pod: one("podid").filter(|_| admin),
            host: one("hostid").filter(|_| admin),
            template: one("templateid"),
            iso: one("isoid"),
            offering: one("serviceofferingid"),
            user: one("userid"),
            group: one("groupid"),
            network: one("networkid"),
            pool: one("storageid").filter(|_| admin),
            hypervisor: text(&r.hypervisor),
            key_pair: text(&r.key_pair),
            display: if admin { r.display_vm } else { Some(true) },
            for_virtual_network: r.for_virtual_network,
            tags: asked_tags(&r.tags),
            behind: None,
            affinity_group: one("affinitygroupid"),
        };
        Ok((scope, filter, page))
    }
}
