//! Bad requests, made from what the contract declares, with the answers that it promises.
//!
//! Expectations are spelled out here by the rules of the wire (api/README, "Request"), not taken from the code that checks.

mod base;
mod faults;
mod foreign;
mod lenient;

use std::collections::BTreeMap;

use contract::api::{Ref, RoleType};
use contract::{CommandInfo, Execution};
use rand::rngs::StdRng;

pub use faults::faults;
pub use foreign::{Victim, foreign};
pub use lenient::lenient;

/// Who calls, and which living entities may stand in its requests.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The type of its role.
    pub role: RoleType,
    /// The name of its account.
    pub account: String,
    /// UUIDs of entities that it may use, by kind.
    pub ids: BTreeMap<i32, String>,
    /// Values for parameters that need a certain one, by name.
    pub values: BTreeMap<String, String>,
}

impl Actor {
    /// The UUID of an entity of this kind that the actor may use.
    pub fn id(&self, kind: Ref) -> Option<&str> {
        self.ids.get(&(kind as i32)).map(String::as_str)
    }

    /// Whether the actor's role may call a command on a fresh install.
    pub fn may_call(&self, info: &CommandInfo) -> bool {
        info.roles.contains(&self.role)
    }
}

/// A request, and what must come of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is wrong with it.
    pub fault: &'static str,
    /// The parameters, without those of authentication.
    pub params: Vec<(String, String)>,
    /// Whether it is too long for a URL.
    pub post: bool,
    /// What is promised.
    pub expect: Expect,
}

/// What is promised of an answer. Nothing is ever changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// This error. A text that ends with `…` may go on.
    Error {
        /// `errorcode` and HTTP status.
        code: u16,
        /// `cserrorcode`; none: absent.
        cs_code: Option<i32>,
        /// `errortext`.
        text: String,
    },
    /// An error of the API that the caller can act on, whatever its number.
    Refused,
    /// Such an error, in which none of these texts occurs.
    RefusedHiding(Vec<String>),
    /// Such an error, or an answer, in which none of these texts occurs.
    Hidden(Vec<String>),
    /// Such an error, or any well-formed answer.
    Answered,
}

impl Expect {
    /// 431/9999 with this text.
    fn request(text: String) -> Expect {
        Expect::Error { code: 431, cs_code: Some(9999), text }
    }

    /// 430/9999: a map that can't be read.
    fn malformed(text: String) -> Expect {
        Expect::Error { code: 430, cs_code: Some(9999), text }
    }
}

/// Whether a command only reads.
pub fn reads(info: &CommandInfo) -> bool {
    let reading = ["list", "get", "query", "find"].iter().any(|verb| info.name.starts_with(verb));
    info.execution == Execution::Sync && info.event.is_empty() && reading
}

/// `count` of `pool`, chosen by chance; all where there are fewer.
fn some<T>(mut pool: Vec<T>, count: usize, random: &mut StdRng) -> Vec<T> {
    use rand::seq::SliceRandom as _;
    pool.shuffle(random);
    pool.truncate(count);
    pool
}
