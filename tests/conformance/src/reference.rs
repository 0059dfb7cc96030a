//! The API of CloudStack 4.11 as data: `tests/contract/*.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// A command of 4.11.
#[derive(Clone, Debug, Deserialize)]
pub struct Command {
    /// Value of the `command` parameter.
    pub name: String,
    /// `sync`, `async` or `async_create`.
    pub kind: String,
    /// The wrapper.
    pub response_name: String,
    /// `list`, `object`, `success`, `flat` or `none`.
    pub form: String,
    /// Class of the items.
    pub response_class: String,
    /// Key of an item.
    #[serde(default)]
    pub item_key: Option<String>,
    /// Role types named by the command itself.
    pub authorized: Vec<String>,
    /// Role types that may call it on a fresh install.
    pub default_roles: Vec<String>,
    /// Whether the request must not be logged.
    pub request_sensitive: bool,
    /// Whether the response must not be logged.
    pub response_sensitive: bool,
    /// Accepted methods.
    pub http_methods: Vec<String>,
    /// Events of the command, or its job.
    #[serde(default)]
    pub event_types: Vec<String>,
    /// Events that what it calls can raise.
    #[serde(default)]
    pub action_events: Vec<String>,
    /// `jobinstancetype`.
    #[serde(default)]
    pub job_instance_type: Option<String>,
    /// What a job shows as `cmd`.
    pub class: String,
    /// The same for root admins.
    #[serde(default)]
    pub admin_class: Option<String>,
    /// Answered before authentication.
    #[serde(default)]
    pub authenticator: bool,
    /// Version that brought it.
    #[serde(default)]
    pub since: Option<String>,
    /// Its parameters.
    pub params: Vec<Param>,
}

/// A parameter of a command of 4.11.
#[derive(Clone, Debug, Deserialize)]
pub struct Param {
    /// Name on the wire.
    pub name: String,
    /// `STRING`, `UUID`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it must be there.
    pub required: bool,
    /// Type of a list's items.
    #[serde(default)]
    pub collection_type: Option<String>,
    /// Response class of the entity that it names.
    #[serde(default)]
    pub entity_type: Option<String>,
    /// Version that brought it.
    #[serde(default)]
    pub since: Option<String>,
    /// Most characters.
    #[serde(default)]
    pub length: Option<u32>,
    /// `PositiveNumber`, `NotNullOrEmpty`.
    #[serde(default)]
    pub validations: Vec<String>,
    /// Role types that it is read for.
    #[serde(default)]
    pub authorized: Vec<String>,
    /// False: the integration port refuses it.
    #[serde(default)]
    pub accepted_on_admin_port: Option<bool>,
    /// False: never read from a request.
    #[serde(default)]
    pub expose: Option<bool>,
    /// `OperateEntry`, `UseEntry`.
    #[serde(default)]
    pub acl: Option<String>,
    /// What absence means.
    #[serde(default)]
    pub default: Option<Value>,
    /// Known sub-keys of a map.
    #[serde(default)]
    pub map_keys: Vec<String>,
    /// Whether only a map's first index counts.
    #[serde(default)]
    pub map_first_only: bool,
    /// Only in that view.
    #[serde(default)]
    pub view: Option<String>,
    /// The base class that declares it.
    #[serde(default)]
    pub from: Option<String>,
}

/// A class of answers of 4.11.
#[derive(Clone, Debug, Deserialize)]
pub struct Response {
    /// Name of the class.
    pub name: String,
    /// Its fields.
    pub fields: Vec<Field>,
}

/// A field of an answer of 4.11.
#[derive(Clone, Debug, Deserialize)]
pub struct Field {
    /// Name on the wire.
    pub name: String,
    /// `string`, `integer`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Element or nested class.
    #[serde(default)]
    pub of: Option<String>,
    /// Role types that see it.
    #[serde(default)]
    pub authorized: Vec<String>,
    /// Whether it must not be logged.
    #[serde(default)]
    pub sensitive: bool,
    /// Whether XML answers leave it out.
    #[serde(default)]
    pub json_only: bool,
}

/// A recorded request and its answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Recording {
    /// Name of the recording.
    pub name: String,
    /// The command; none for recordings about the protocol.
    #[serde(default)]
    pub command: Option<String>,
    /// GET or POST.
    #[serde(default)]
    pub method: Option<String>,
    /// What was special about the request.
    #[serde(default)]
    pub note: Option<String>,
    /// The parameters; none for requests that had nothing to do with a command.
    #[serde(default)]
    pub params: Option<BTreeMap<String, Value>>,
    /// `json` or `xml`.
    #[serde(default)]
    pub response: Option<String>,
    /// The status of the answer.
    pub http_status: u16,
    /// Some of its headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Cookies that it sets.
    #[serde(default)]
    pub set_cookie: Vec<Value>,
    /// The body: JSON, or text.
    pub body: Value,
    /// How the job ended, for asynchronous commands.
    #[serde(default)]
    pub job: Option<Value>,
}

/// All of the reference.
#[derive(Debug)]
pub struct Reference {
    /// Commands by name.
    pub commands: BTreeMap<String, Command>,
    /// Classes of answers by name.
    pub responses: BTreeMap<String, Response>,
}

/// `tests/contract`.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../contract")
}

fn read<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Result<T, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display()))
}

impl Reference {
    /// Reads it.
    ///
    /// # Errors
    /// The file that can't be read, and why.
    pub fn load() -> Result<Reference, String> {
        let commands: Vec<Command> = read(&folder().join("commands.json"))?;
        let responses: Vec<Response> = read(&folder().join("responses.json"))?;
        Ok(Reference {
            commands: commands.into_iter().map(|c| (c.name.clone(), c)).collect(),
            responses: responses.into_iter().map(|r| (r.name.clone(), r)).collect(),
        })
    }
}

/// The recordings by file name, in order.
///
/// # Errors
/// The file that can't be read, and why.
pub fn recordings() -> Result<Vec<(String, Recording)>, String> {
    let golden = folder().join("golden");
    let entries = std::fs::read_dir(&golden).map_err(|e| format!("{}: {e}", golden.display()))?;
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|n| n.ends_with(".json")).collect();
    names.sort();
    names.into_iter().map(|name| Ok((name.clone(), read(&golden.join(&name))?))).collect()
}
