//! The contract as tables, built once at start from the embedded descriptors: what the gateway knows about the API.
//!
//! Nothing here names a command. A request is read by a [`RequestPlan`], an answer is written by a [`MessagePlan`].

mod docs;
mod request;
mod response;
#[cfg(test)]
pub mod testing;

use std::collections::HashMap;

use contract::{ApiError, CommandInfo, Execution, Form, descriptor};
use http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};

pub use docs::Docs;
pub use request::{ParamPlan, RequestPlan, Scalar};
pub use response::{FieldPlan, Kind, MessageId, Messages};

/// All of `proto/`, comments included.
static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contract.bin"));

/// The commands and messages of the contract.
pub struct Catalogue {
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    by_path: HashMap<String, usize>,
    messages: Messages,
    pool: DescriptorPool,
}

/// One command.
pub struct Entry {
    /// Its place in [`Catalogue::entries`].
    pub index: usize,
    /// What the contract says about it.
    pub info: CommandInfo,
    /// The gRPC path.
    pub path: PathAndQuery,
    /// How its request is read.
    pub request: RequestPlan,
    /// What the RPC answers.
    pub output: MessageId,
    /// What the command, or its job, ends with.
    pub result: MessageId,
    /// The RPC that says what the command would do.
    pub plan: Option<PlanCall>,
    method: MethodDescriptor,
}

/// The RPC `Plan<Method>` of a command.
pub struct PlanCall {
    /// The gRPC path.
    pub path: PathAndQuery,
    /// What it answers.
    pub result: MessageId,
}

impl Entry {
    /// Whether the command answers with a job.
    pub fn is_async(&self) -> bool {
        self.info.execution != Execution::Sync
    }

    /// Whether the command changes nothing, so that asking twice does no harm. Some commands that change something have no
    /// event, but all that read are named so.
    pub fn only_reads(&self) -> bool {
        let named = ["list", "get", "find", "query"].iter().any(|verb| self.info.name.starts_with(verb));
        named && !self.is_async() && self.info.event.is_empty()
    }

    /// The RPC's descriptor.
    pub fn method(&self) -> &MethodDescriptor {
        &self.method
    }
}

impl Catalogue {
    /// The contract that this build was made with.
    ///
    /// # Errors
    /// When it can't be read: a fault of the build.
    pub fn embedded() -> Result<Catalogue, ApiError> {
        let pool =
            DescriptorPool::decode(EMBEDDED).map_err(|e| ApiError::internal(format!("the embedded contract: {e}")))?;
        Self::of(pool)
    }

    /// The contract that a pool declares.
    ///
    /// # Errors
    /// When a declaration can't be served.
    pub fn of(pool: DescriptorPool) -> Result<Catalogue, ApiError> {
        let mut messages = Messages::default();
        let mut entries = Vec::new();
        for (method, info) in descriptor::commands(&pool) {
            let index = entries.len();
            entries.push(entry(index, method, info, &pool, &mut messages)?);
        }
        messages.finish();
        let by_name = entries.iter().map(|e| (e.info.name.to_string(), e.index)).collect();
        let by_path = entries.iter().map(|e| (e.path.as_str().to_owned(), e.index)).collect();
        Ok(Catalogue { entries, by_name, by_path, messages, pool })
    }

    /// All commands, by name.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The command with exactly this name.
    pub fn command(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).and_then(|index| self.entries.get(*index))
    }

    /// The command that this gRPC path serves.
    pub fn at_path(&self, path: &str) -> Option<&Entry> {
        self.by_path.get(path).and_then(|index| self.entries.get(*index))
    }

    /// How messages are written.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    /// What listApis tells about the commands.
    pub fn docs(&self) -> Docs {
        Docs::of(self)
    }

    fn pool(&self) -> &DescriptorPool {
        &self.pool
    }
}

fn entry(
    index: usize,
    method: MethodDescriptor,
    info: CommandInfo,
    pool: &DescriptorPool,
    messages: &mut Messages,
) -> Result<Entry, ApiError> {
    let request = RequestPlan::of(&method.input(), &info.params)?;
    let output = messages.plan(&method.output());
    let result = if info.execution == Execution::Sync { output } else { messages.plan(&message(pool, &info.result)?) };
    if info.form == Form::List && messages.get(result).list.is_none() {
        return Err(ApiError::internal(format!("{}: {} is no list of one kind of item", info.name, info.result)));
    }
    let path = path_of(&info.path())?;
    let plan = match plan_method(&method) {
        Some(plan) => Some(PlanCall {
            path: path_of(&format!("/{}/{}", info.service, plan.name()))?,
            result: messages.plan(&plan.output()),
        }),
        None => None,
    };
    Ok(Entry { index, info, path, request, output, result, plan, method })
}

fn message(pool: &DescriptorPool, name: &str) -> Result<MessageDescriptor, ApiError> {
    pool.get_message_by_name(name).ok_or_else(|| ApiError::internal(format!("{name} is no message of the contract")))
}

fn path_of(path: &str) -> Result<PathAndQuery, ApiError> {
    path.parse().map_err(|e| ApiError::internal(format!("{path}: {e}")))
}

/// The internal RPC that answers what this one would do: `Plan<Method>` of the same service over the same request.
fn plan_method(method: &MethodDescriptor) -> Option<MethodDescriptor> {
    let name = format!("Plan{}", method.name());
    let found = method.parent_service().methods().find(|m| m.name() == name)?;
    (found.input() == method.input() && descriptor::command_option(&found).is_none()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::WireType;

    fn catalogue() -> Catalogue {
        Catalogue::embedded().unwrap()
    }

    #[test]
    fn the_whole_contract_can_be_served() {
        let catalogue = catalogue();
        assert!(catalogue.entries().len() > 100);
        for entry in catalogue.entries() {
            assert!(rpc::peers::SERVICES.contains(&entry.info.owner.as_ref()), "{}", entry.info.name);
            assert_eq!(entry.request.params.len(), entry.info.params.len());
            assert_eq!(catalogue.at_path(entry.path.as_str()).map(|e| e.index), Some(entry.index));
        }
        let list = catalogue.command("listVirtualMachines").unwrap();
        assert_eq!(list.info.param("tags").map(|p| p.kind), Some(WireType::Map));
        assert!(catalogue.command("listvirtualmachines").is_none());
    }

    #[test]
    fn it_is_read_quickly() {
        let start = std::time::Instant::now();
        let catalogue = catalogue();
        // Release reads it in a tenth of this.
        assert!(start.elapsed().as_millis() < 2000, "{:?}", start.elapsed());
        eprintln!("{} commands in {:?}", catalogue.entries().len(), start.elapsed());
    }
}
