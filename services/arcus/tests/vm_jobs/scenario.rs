//! One request on the template's zone, as the harness wants it.

use crate::template::{Ids, Template};
use crate::world::World;
use contract::ApiError;
use contract::api::{Caller, JobRef, RoleType};
use futures::future::BoxFuture;
use jobs::Jobs;
use jobs::harness::{Scenario, Start};
use store::Db;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// What a failure may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    AsBefore,
    /// Nothing but the machine that could not be made, in state Error.
    AsBeforeAndError,
    /// Nothing, or a machine that its host had stopped already: Stopped.
    AsBeforeOrStopped,
    /// The same; and beyond the point of no return what success leaves.
    AnyStage,
    /// The same; and beyond the point of no return what success leaves, once the sweep has been at the machine named.
    Forward(&'static str),
}

/// Makes requests in the administrator's name.
pub struct Admin;

impl Admin {
    pub fn request<T>(&self, message: T) -> Request<T> {
        let caller = Caller {
            user_id: 2,
            account_id: 2,
            account_name: "admin".into(),
            domain_id: 1,
            domain_path: "/1/".into(),
            role_type: RoleType::Admin.into(),
            role_id: 1,
            user_name: "admin".into(),
            ..Caller::default()
        };
        rpc::cx::request(&caller, message)
    }
}

type Answer = Result<Response<JobRef>, Status>;
type Submit = Box<dyn Fn(Channel, Ids, Admin) -> BoxFuture<'static, Answer> + Send + Sync>;

pub struct VmScenario {
    template: &'static Template,
    outcome: Outcome,
    submit: Submit,
}

impl VmScenario {
    pub fn new<F>(template: &'static Template, outcome: Outcome, submit: F) -> VmScenario
    where
        F: Fn(Channel, Ids, Admin) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    {
        VmScenario { template, outcome, submit: Box::new(submit) }
    }
}

impl Scenario for VmScenario {
    type World = World;

    async fn world(&self) -> World {
        World::new(self.template).await
    }

    fn db<'w>(&self, world: &'w World) -> &'w Db {
        &world.node.db
    }

    fn service(&self) -> &'static str {
        "orchestrator"
    }

    async fn start(&self, world: &World, start: Start) -> Jobs {
        world.orchestrator(start).await
    }

    async fn submit(&self, world: &World, _jobs: &Jobs) -> Result<String, ApiError> {
        let answer = (self.submit)(world.channel(), self.template.ids.clone(), Admin).await?;
        Ok(answer.into_inner().job_id)
    }

    async fn look(&self, world: &World) -> String {
        world.look().await
    }

    async fn look_ended(&self, world: &World) -> String {
        if let Outcome::Forward(name) = self.outcome {
            world.sweep(name).await;
        }
        world.look().await
    }

    fn may_fail_as(&self, before: &str, succeeded: &str, after: &str) -> bool {
        match self.outcome {
            Outcome::AsBefore => after == before,
            Outcome::AsBeforeAndError => {
                let new = ["vm: new Error off", "name: new", "access: new none", "cd: new none", "cd: new install"];
                let error = |line: &&str| !new.contains(line);
                after.contains("vm: new Error off") && after.lines().filter(error).eq(before.lines())
            }
            Outcome::AsBeforeOrStopped => after == before || only_stopped(before, after),
            Outcome::AnyStage | Outcome::Forward(_) => {
                after == before || after == succeeded || only_stopped(before, after)
            }
        }
    }
}

/// Whether the running machine is off, with its NICs and its capacity, and all else is as before.
pub fn only_stopped(before: &str, after: &str) -> bool {
    let changed = ["vm: t-first", "capacity: ", "held: ", "nic: t-first", "plugged: ", "drive: ", "simulated: "];
    let rest = |text: &str| -> Vec<String> {
        text.lines().filter(|l| !changed.iter().any(|c| l.starts_with(c))).map(str::to_owned).collect()
    };
    let has = |line: &str| after.lines().any(|l| l == line);
    has("vm: t-first Stopped off")
        && has("held: 0")
        && has("capacity: 0 0 0")
        && has("nic: t-first Allocated")
        && !after.contains("simulated: ")
        && rest(before) == rest(after)
}

/// A machine that ends by itself: nobody submits a job, the host's report does.
pub struct PowerLoss(pub &'static Template);

impl Scenario for PowerLoss {
    type World = World;

    async fn world(&self) -> World {
        World::new(self.0).await
    }

    fn db<'w>(&self, world: &'w World) -> &'w Db {
        &world.node.db
    }

    fn service(&self) -> &'static str {
        "orchestrator"
    }

    async fn start(&self, world: &World, start: Start) -> Jobs {
        world.orchestrator(start).await
    }

    async fn submit(&self, world: &World, _jobs: &Jobs) -> Result<String, ApiError> {
        assert!(world.simulator.power_off(&self.0.ids.vm(crate::template::RUNNING)));
        Ok(testkit::eventually(|| world.first_job_of_kind("vm.power")).await)
    }

    async fn look(&self, world: &World) -> String {
        world.look().await
    }

    /// The host reports again, to the next incarnation too, until the machine is Stopped.
    async fn look_ended(&self, world: &World) -> String {
        world.power_settles().await;
        world.look().await
    }

    fn may_fail_as(&self, _before: &str, succeeded: &str, after: &str) -> bool {
        after == succeeded
    }
}
