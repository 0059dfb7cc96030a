//! Odd values that the contract takes, or that only the command itself can judge.

use contract::api::Ref;
use contract::{CommandInfo, WireType};
use rand::rngs::StdRng;

use super::base::Base;
use super::{Actor, Case, Expect, reads, some};

/// Where a number below zero means something, with the reason.
const BELOW_ZERO: &[(&str, &str)] = &[
    // Unlimited.
    ("updateResourceLimit", "max"),
    // Any account, any type.
    ("updateResourceLimit", "resourcetype"),
    // Sorting goes both ways.
    ("*", "sortkey"),
];

/// Requests of one command with odd values.
pub fn lenient(info: &CommandInfo, actor: &Actor, each: usize, random: &mut StdRng) -> Vec<Case> {
    let mut out = Vec::new();
    for param in info.params.iter().filter(|p| p.is_for(actor.role) && !p.refused) {
        let base = Base::of(info, Some(&param.name), actor);
        if !base.resolves {
            continue;
        }
        if reads(info) {
            for value in some(odd(param.kind, param.reference), each, random) {
                let params = base.with(&param.name, value);
                out.push(Case { fault: "odd value", params, post: false, expect: Expect::Answered });
            }
        } else if matches!(param.kind, WireType::Integer | WireType::Long | WireType::Short)
            && !param.positive
            && !BELOW_ZERO.iter().any(|(command, name)| ["*", &info.name].contains(command) && *name == param.name)
        {
            let value = some(vec!["-7", "-32768"], 1, random).pop().unwrap_or_default();
            let params = base.with(&param.name, value);
            out.push(Case { fault: "below zero", params, post: false, expect: Expect::Refused });
        }
    }
    out
}

fn odd(kind: WireType, reference: Ref) -> Vec<&'static str> {
    match kind {
        _ if reference != Ref::None => vec!["", "-1", "x", ",", "1", "00000000-0000-0000-0000-000000000000"],
        WireType::String => {
            vec![
                "",
                " ",
                "%",
                "_",
                "' OR 1=1 --",
                "\\",
                "ä\u{30}\u{308}𝄞",
                "null",
                "\r\n",
                "<b>&amp;\"",
                "*",
                "${jndi:x}",
                "-1",
            ]
        }
        WireType::Boolean => vec!["", "TRUE", "maybe", "1", "yes"],
        WireType::Integer => vec!["", " ", "-1", "0", "-2147483648", "2147483647", "+5"],
        WireType::Long => vec!["-1", "0", "9223372036854775807", "-9223372036854775808"],
        WireType::Short => vec!["-1", "0", "32767", "-32768"],
        WireType::Float | WireType::Double => vec!["", "-0.0", "1e300", "1f"],
        WireType::Date | WireType::DateTime | WireType::DateTimeEnd => vec!["0001-01-01", "9999-12-31", "2024-02-29"],
        WireType::TzDate => vec!["0001-01-01T00:00:00+0000", "9999-12-31T23:59:59-2359"],
        WireType::List | WireType::Uuid | WireType::UuidList => vec!["", ",", ",,a,,b,", "'", "all"],
        WireType::Map => Vec::new(),
    }
}
