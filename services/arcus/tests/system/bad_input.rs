//! Bad requests, made from the contract: each gets the error that the contract promises, and changes nothing.
//!
//! `ARCUS_SEED=7 ARCUS_CASES=99 cargo test -p arcus --test system bad_input -- --nocapture` repeats a run, with all values
//! of each pool; `ARCUS_COMMAND=createZone` asks one command only.

use crate::books::Books;
use crate::tenants::{Tenant, Tenants};
use crate::wire::{Answer, Wire, query};
use conformance::cases::{Actor, Case, Expect, Victim, faults, foreign, lenient};
use conformance::declared;
use contract::CommandInfo;
use futures::stream::{StreamExt as _, iter};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;
use std::collections::BTreeMap;

/// Requests at a time.
const AT_ONCE: usize = 8;
/// Most failures that are told.
const TOLD: usize = 60;
const UNVERIFIED: &str = "unable to verify user credentials and/or request signature";

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[derive(Default)]
struct Report {
    requests: BTreeMap<&'static str, usize>,
    failures: Vec<String>,
}

/// What is wrong with an answer, if anything.
fn fault_of(answer: &Answer, info: &CommandInfo, expect: &Expect) -> Option<String> {
    let Some(body) = answer.json() else { return Some("isn't JSON".into()) };
    let Some((wrapper, inner)) = body.as_object().filter(|o| o.len() == 1).and_then(|o| o.iter().next()) else {
        return Some("has no wrapper".into());
    };
    if *wrapper != info.response {
        return Some(format!("is wrapped in {wrapper}"));
    }
    let code = inner.get("errorcode").and_then(Value::as_i64);
    if code.is_none() != (answer.status == 200) || code.is_some_and(|c| c != i64::from(answer.status)) {
        return Some(format!("has status {} and errorcode {code:?}", answer.status));
    }
    let text = inner.get("errortext").and_then(Value::as_str).unwrap_or_default();
    // Hidden details belong to faults of the system; the log tells them.
    let known = code.is_none() || matches!(answer.status, 401 | 430 | 431 | 432 | 531 | 532 | 535 | 536 | 537);
    let refused = code.is_none() || !known && answer.status != 530 || text.is_empty();
    match expect {
        Expect::Error { code: wanted, cs_code, text: wanted_text } => {
            let cs = inner.get("cserrorcode").and_then(Value::as_i64);
            let is_text = match wanted_text.get(..1800) {
                Some(beginning) if wanted_text.len() > 2000 => {
                    text.starts_with(beginning.get(..beginning.floor_char_boundary(1700)).unwrap_or_default())
                }
                _ => text == wanted_text,
            };
            let right = code == Some(i64::from(*wanted)) && cs == cs_code.map(i64::from) && is_text;
            if !right {
                return Some(format!("should be {wanted}/{cs_code:?} {wanted_text:.300}"));
            }
            let plain = text.len() < 1500 && text.chars().all(|c| !c.is_control());
            let described = answer.header("x-description");
            (plain && cs_code.is_some() && described.as_deref() != Some(text))
                .then(|| format!("has X-Description {described:?}"))
        }
        Expect::Refused => refused.then(|| "should be refused".into()),
        Expect::RefusedHiding(secrets) => refused.then(|| "should be refused".into()).or_else(|| told(answer, secrets)),
        Expect::Hidden(secrets) => {
            told(answer, secrets).or_else(|| (!known).then(|| "isn't an answer to the caller".into()))
        }
        // A fault of the system is in the log.
        Expect::Answered => (!known && answer.status != 530).then(|| "isn't an answer to the caller".into()),
    }
}

fn told(answer: &Answer, secrets: &[String]) -> Option<String> {
    let text = answer.text();
    secrets.iter().find(|s| text.contains(s.as_str())).map(|s| format!("tells {s}"))
}

/// The same error as XML.
fn xml_fault(answer: &Answer, info: &CommandInfo, expect: &Expect) -> Option<String> {
    let Expect::Error { code, cs_code, .. } = expect else { return None };
    let cs = cs_code.map(|c| format!("<cserrorcode>{c}</cserrorcode>")).unwrap_or_default();
    let wanted = format!("<errorcode>{code}</errorcode>{cs}<errortext>");
    let text = answer.text();
    let framed = text.starts_with("<?xml") && text.contains(&format!("<{} cloud-stack-version=", info.response));
    (!framed || !text.contains(&wanted) || answer.status != *code).then(|| format!("as XML isn't {wanted}"))
}

async fn ask(wire: &Wire, info: &CommandInfo, cases: &[Case], report: &mut Report) {
    let asked = iter(cases.iter().enumerate()).map(|(n, case)| async move {
        let answer = wire.send(&info.name, &case.params, "json", case.post).await;
        let fault = match &answer {
            Err(e) => Some(e.clone()),
            Ok(answer) => fault_of(answer, info, &case.expect),
        };
        let xml = match fault {
            None if n % 7 == 0 => match wire.send(&info.name, &case.params, "xml", case.post).await {
                Err(e) => Some(e),
                Ok(answer) => xml_fault(&answer, info, &case.expect),
            },
            other => other,
        };
        (case, answer, xml)
    });
    let answers: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
    for (case, answer, fault) in answers {
        *report.requests.entry(case.fault).or_default() += 1;
        if let Some(fault) = fault {
            let shown = answer.map_or_else(|e| e, |a| a.text());
            report.failures.push(format!(
                "{} {:.400} ({}): the answer {fault}\n    {shown:.600}",
                info.name,
                query(&case.params),
                case.fault
            ));
        }
    }
}

/// What one tenant isn't allowed to call at all.
fn not_allowed(info: &CommandInfo, actor: &Actor) -> Vec<Case> {
    if actor.may_call(info) {
        return Vec::new();
    }
    let expect = Expect::Error { code: 401, cs_code: None, text: UNVERIFIED.into() };
    vec![Case { fault: "not allowed", params: Vec::new(), post: false, expect }]
}

struct Cast<'a> {
    tenant: &'a Tenant,
    actor: Actor,
}

// covers: API-015, API-016, API-043, API-054, API-055, API-056
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gets_the_promised_error_and_changes_nothing() {
    let (seed, each) = (setting("ARCUS_SEED", rand::random()), setting("ARCUS_CASES", 2));
    println!("ARCUS_SEED={seed} ARCUS_CASES={each}");
    let each = usize::try_from(each).unwrap();
    let only = std::env::var("ARCUS_COMMAND").ok();
    let mut random = StdRng::seed_from_u64(seed);
    let tenants = Tenants::settle_in().await;
    let admin = Cast { tenant: &tenants.admin, actor: tenants.actor(&tenants.admin).await };
    let second = Cast { tenant: &tenants.second, actor: tenants.actor(&tenants.second).await };
    let domain_admin = Cast { tenant: &tenants.domain_admin, actor: tenants.actor(&tenants.domain_admin).await };
    let victims: Vec<Victim> = vec![tenants.victim(&tenants.first).await, tenants.victim(&tenants.admin).await];
    let mut report = Report::default();
    let mut books = Books::settled(&tenants.db).await;
    let mut commands = 0;
    for command in declared::commands().unwrap() {
        let info = command.info;
        if info.authenticator || only.as_deref().is_some_and(|name| name != info.name) {
            continue;
        }
        commands += 1;
        ask(&admin.tenant.wire, info, &faults(info, &admin.actor, each, &mut random), &mut report).await;
        ask(&admin.tenant.wire, info, &lenient(info, &admin.actor, each, &mut random), &mut report).await;
        for cast in [&second, &domain_admin] {
            ask(&cast.tenant.wire, info, &not_allowed(info, &cast.actor), &mut report).await;
            if cast.actor.may_call(info) {
                for victim in &victims {
                    ask(&cast.tenant.wire, info, &foreign(info, &cast.actor, victim), &mut report).await;
                }
            }
        }
        ask(&second.tenant.wire, info, &user_faults(info, &second.actor, each, &mut random), &mut report).await;
        let now = Books::read(&tenants.db).await;
        let changes = books.changes(&now);
        if !changes.is_empty() {
            let shown: Vec<String> = changes.iter().take(6).map(|c| format!("{c:.500}")).collect();
            report.failures.push(format!(
                "{} changed {} rows:\n    {}",
                info.name,
                changes.len(),
                shown.join("\n    ")
            ));
            // So that the next command isn't blamed.
            books = Books::settled(&tenants.db).await;
        }
    }
    oversized(&tenants.admin.wire, &mut report).await;
    let total: usize = report.requests.values().sum();
    println!("{commands} commands, {total} requests: {:?}", report.requests);
    let log = std::fs::read_to_string(tenants.dev.data().join("log")).unwrap_or_default();
    for line in log.lines().filter(|l| l.contains("panicked") || l.contains("command failed")).take(20) {
        report.failures.push(format!("the log says: {line:.600}"));
    }
    tenants.dev.audit().await;
    let told: Vec<String> = report.failures.iter().take(TOLD).cloned().collect();
    assert!(told.is_empty(), "{} failures:\n{}", report.failures.len(), told.join("\n"));
}

/// As an ordinary user: a few static faults again, for what is read for administrators only is ignored for it.
fn user_faults(info: &CommandInfo, actor: &Actor, each: usize, random: &mut StdRng) -> Vec<Case> {
    if actor.may_call(info) { faults(info, actor, each.min(1), random) } else { Vec::new() }
}

/// Requests that are too large for the server: it says so, and goes on serving.
async fn oversized(wire: &Wire, report: &mut Report) {
    let pair = |n: &str, v: String| vec![(n.to_owned(), v)];
    let flood: Vec<(String, String)> = (0..3000).map(|n| (format!("p{n}"), "x".to_owned())).collect();
    let huge = wire.send("listZones", &pair("keyword", "x".repeat(3 << 20)), "json", true).await;
    let many = wire.send("listZones", &flood, "json", true).await;
    let long = wire.send("listZones", &pair("keyword", "x".repeat(600_000)), "json", false).await;
    let well = wire.send("listZones", &[], "json", false).await;
    for (what, answer, statuses) in
        [("huge", huge, &[413][..]), ("many", many, &[400]), ("long", long, &[400, 414, 431]), ("well", well, &[200])]
    {
        *report.requests.entry("oversized").or_default() += 1;
        match answer {
            Ok(answer) if statuses.contains(&answer.status) => {}
            // A server may close the connection on who goes on talking.
            Err(_) if what != "well" => {}
            Ok(answer) => report.failures.push(format!("{what}: {} {:.300}", answer.status, answer.text())),
            Err(e) => report.failures.push(format!("{what}: {e}")),
        }
    }
}
