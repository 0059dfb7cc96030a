//! What commands and parameters are, as tables. Generated crates hold them as statics; the gateway builds the same
//! ones from descriptors (`crate::descriptor`).

use std::borrow::Cow;

use crate::api::{Access, Execution, Form, Ref, RoleType};
use crate::error::ApiError;

/// Text of a table: static when generated, owned when read from descriptors.
pub type Text = Cow<'static, str>;
/// A list of a table.
pub type Table<T> = Cow<'static, [T]>;

/// The wire type of a parameter (api/README, "Request").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireType {
    /// Text of bounded length.
    String,
    /// True only for `true` in any case.
    Boolean,
    /// 32 bits.
    Integer,
    /// 64 bits.
    Long,
    /// 16 bits.
    Short,
    /// 32-bit floating point.
    Float,
    /// 64-bit floating point.
    Double,
    /// The id of an entity.
    Uuid,
    /// `yyyy-MM-dd`.
    Date,
    /// A date, with or without time; 00:00:00 when without.
    DateTime,
    /// A date, with or without time; 23:59:59 when without.
    DateTimeEnd,
    /// `yyyy-MM-dd'T'HH:mm:ssZ`.
    TzDate,
    /// Comma-separated texts.
    List,
    /// Comma-separated ids.
    UuidList,
    /// `name[n].key=value`.
    Map,
}

/// One parameter of a request.
#[derive(Clone, Debug)]
pub struct ParamInfo {
    /// Name on the wire.
    pub name: Text,
    /// `name`, or `map.name` for a sub-key of a map.
    pub path: Text,
    /// Name of the message's field.
    pub field: Text,
    /// How the wire writes it.
    pub kind: WireType,
    /// Whether a request without it is refused.
    pub required: bool,
    /// Most UTF-16 units of a String.
    pub length: u32,
    /// Whether a number must be at least 1.
    pub positive: bool,
    /// Whether an empty text is refused.
    pub not_empty: bool,
    /// What kind of entity it names.
    pub reference: Ref,
    /// What the caller needs on that entity.
    pub access: Access,
    /// Version that brought it; empty for the oldest.
    pub since: Text,
    /// What absence means; empty: nothing. For documentation.
    pub default: Text,
    /// Role types that it is read for; empty: all.
    pub only_for: Table<RoleType>,
    /// Whether its concept doesn't exist yet, so that setting it is an error.
    pub refused: bool,
    /// Whether it must not be logged.
    pub sensitive: bool,
    /// Known sub-keys of a free map.
    pub map_keys: Table<Text>,
    /// Whether only the first index of a map counts.
    pub map_first_only: bool,
    /// Whether the integration port refuses it.
    pub not_on_integration_port: bool,
    /// Sub-keys of a map with a message of its own.
    pub nested: Table<ParamInfo>,
}

impl ParamInfo {
    /// Whether the parameter is read for a caller of this role type.
    pub fn is_for(&self, role: RoleType) -> bool {
        self.only_for.is_empty() || self.only_for.contains(&role)
    }
}

/// One command of the query API.
#[derive(Clone, Debug)]
pub struct CommandInfo {
    /// Value of the `command` parameter.
    pub name: Text,
    /// Process that serves it.
    pub owner: Text,
    /// Full name of the gRPC service.
    pub service: Text,
    /// Name of the RPC.
    pub method: Text,
    /// Full name of the request message.
    pub request: Text,
    /// Synchronous or not.
    pub execution: Execution,
    /// How the answer stands in its wrapper.
    pub form: Form,
    /// Key of the item, for OBJECT and LIST.
    pub item: Text,
    /// The wrapper.
    pub response: Text,
    /// Full name of the message that the command, or its job, ends with.
    pub result: Text,
    /// Role types that may call it on a fresh install.
    pub roles: Table<RoleType>,
    /// Role types that may call it when no rule of the role decides.
    pub authorized: Table<RoleType>,
    /// Event type; empty: none.
    pub event: Text,
    /// `jobinstancetype` of its jobs; empty: none.
    pub object: Text,
    /// `cmd` of its jobs.
    pub job_class: Text,
    /// `cmd` of its jobs when a root admin calls; empty: `job_class`.
    pub admin_job_class: Text,
    /// Whether GET is refused.
    pub post_only: bool,
    /// Whether nothing of the request may be logged.
    pub sensitive_request: bool,
    /// Whether nothing of the response may be logged.
    pub sensitive_response: bool,
    /// Whether it is answered before signature, session and role checks.
    pub authenticator: bool,
    /// Version that brought it.
    pub since: Text,
    /// Its parameters, in the order in which they are checked.
    pub params: Table<ParamInfo>,
}

impl CommandInfo {
    /// The gRPC path, `/package.Service/Method`.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.service, self.method)
    }

    /// What a job of this command shows as `cmd`.
    pub fn class_for(&self, role: RoleType) -> &str {
        if role == RoleType::Admin && !self.admin_job_class.is_empty() {
            &self.admin_job_class
        } else {
            &self.job_class
        }
    }

    /// A parameter by its name on the wire.
    pub fn param(&self, name: &str) -> Option<&ParamInfo> {
        self.params.iter().find(|p| p.name == name)
    }
}

/// The value of one parameter of a request.
#[derive(Debug)]
pub enum Value<'a> {
    /// Not given.
    Absent,
    /// A text or an id.
    Text(&'a str),
    /// A boolean.
    Flag(bool),
    /// A whole number or a time.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// The items of a list of texts.
    Items(Vec<&'a str>),
    /// How many entries a map has.
    Count(usize),
}

/// A message whose fields can be read by their index in its parameter table.
pub trait Values {
    /// The value of the parameter at `index` of the table.
    fn value(&self, index: usize) -> Value<'_>;

    /// Visits the entries of a map with known sub-keys, to be read with the parameter's `nested` table.
    fn each<'a>(&'a self, index: usize, visit: &mut dyn FnMut(&'a dyn Values));
}

/// A reference to entities that a request makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefParam<'a> {
    /// The parameter's `path`.
    pub param: &'static str,
    /// Kind of entity.
    pub kind: Ref,
    /// What the caller needs on it.
    pub access: Access,
    /// The ids as given: UUIDs, or numbers where 4.11 takes them.
    pub values: Vec<&'a str>,
    /// Whether the parameter has a `since`: then what isn't a UUID is dropped instead of taken as a number.
    pub since: bool,
}

/// A request message of the contract. Implemented by generated code only.
pub trait Request: Values + Send + 'static {
    /// The command that the message belongs to; none for internal RPCs.
    const COMMAND: Option<&'static CommandInfo>;
    /// The parameters, in the order of the message's fields.
    const PARAMS: &'static [ParamInfo];

    /// Forgets the parameters that aren't read for this role type. Call it first.
    fn restrict(&mut self, role: RoleType);

    /// Makes all static checks (required, length, numbers, refused) with the wire's error texts.
    fn check(&self, role: RoleType) -> Result<(), ApiError>
    where
        Self: Sized,
    {
        let name = Self::COMMAND.map_or("", |c| &c.name);
        crate::check(name, Self::PARAMS, self, role)
    }

    /// The entities that the request names, in the order of its parameters.
    fn refs(&self) -> Vec<RefParam<'_>>
    where
        Self: Sized,
    {
        crate::refs(Self::PARAMS, self)
    }
}
