//! Requests that name entities of others.

use std::collections::BTreeMap;

use contract::api::{Access, Ref};
use contract::{CommandInfo, WireType};

use super::base::Base;
use super::{Actor, Case, Expect, reads};

/// Somebody whose entities are none of the actor's business.
#[derive(Clone, Debug)]
pub struct Victim {
    /// The name of its account.
    pub account: String,
    /// Its domain's UUID.
    pub domain: String,
    /// UUID and number of its entities, by kind.
    pub ids: BTreeMap<i32, (String, i64)>,
    /// Texts that only those who may see its entities may read.
    pub secrets: Vec<String>,
}

/// The requests of `actor` that name entities of `victim`.
pub fn foreign(info: &CommandInfo, actor: &Actor, victim: &Victim) -> Vec<Case> {
    let mut out = Vec::new();
    for param in info.params.iter().filter(|p| p.is_for(actor.role) && !p.refused) {
        let Some((uuid, number)) = victim.ids.get(&(param.reference as i32)) else { continue };
        let base = Base::of(info, Some(&param.name), actor);
        if !base.resolves || param.reference == Ref::None {
            continue;
        }
        let mut forms = vec![("foreign id", uuid.clone())];
        if param.since.is_empty() {
            forms.push(("foreign number", number.to_string()));
        }
        if let Some(own) = actor.id(param.reference)
            && param.kind == WireType::UuidList
        {
            forms.push(("foreign id among own", format!("{own},{uuid}")));
        }
        for (fault, value) in forms {
            let expect = match param.access {
                Access::Nothing if reads(info) => Expect::Hidden(secrets(victim, &value)),
                Access::Nothing => Expect::RefusedHiding(secrets(victim, &value)),
                Access::Use | Access::Operate => Expect::Error {
                    code: 531,
                    cs_code: Some(4365),
                    text: format!("account {} may not use the entity that {} names", actor.account, param.name),
                },
            };
            out.push(Case { fault, params: base.with(&param.name, &value), post: false, expect });
        }
    }
    let named = |name: &str| info.param(name).is_some_and(|p| p.is_for(actor.role) && !p.refused);
    if named("account") && named("domainid") {
        let without = Base::of(info, Some("account"), actor);
        let mut params: Vec<_> = without.params.into_iter().filter(|(n, _)| n != "domainid").collect();
        params.push(("account".into(), victim.account.clone()));
        params.push(("domainid".into(), victim.domain.clone()));
        if without.resolves {
            out.push(Case { fault: "foreign account", params, post: false, expect: Expect::Refused });
        }
    }
    out
}

/// What the answer may not tell. What the request itself says isn't told by the answer.
fn secrets(victim: &Victim, sent: &str) -> Vec<String> {
    victim.secrets.iter().filter(|s| s.as_str() != sent).cloned().collect()
}
