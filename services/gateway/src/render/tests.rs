//! Forms and fields of answers, with a contract that has every kind of field.

use contract::api::{ErrorDetail, JobRef, JobResult, Success};
use contract::{ApiError, RoleType};
use prost::Message as _;
use quick_xml::events::Event;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::{Language, Style, answer, plan, redact};
use crate::catalogue::Catalogue;
use crate::catalogue::testing::every_kind;

static KINDS: LazyLock<Catalogue> = LazyLock::new(every_kind);

const ADMIN: Style = Style { language: Language::Json, role: RoleType::Admin, encode: false };
const USER: Style = Style { language: Language::Json, role: RoleType::User, encode: false };
const XML: Style = Style { language: Language::Xml, role: RoleType::User, encode: false };

fn text(command: &str, bytes: &[u8], style: Style) -> String {
    answer(&KINDS, KINDS.command(command).unwrap(), bytes, style).unwrap()
}

fn json_of(command: &str, bytes: &[u8], style: Style) -> Value {
    serde_json::from_str(&text(command, bytes, style)).unwrap()
}

fn every(extra: Value) -> Vec<u8> {
    KINDS.message_from("arcus.test.v1.EveryKind", extra).encode_to_vec()
}

/// XML as nested pairs of name and content; the wrapper's attributes are checked.
fn tree(xml: &str) -> Value {
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut stack: Vec<(String, Vec<Value>, String)> = vec![(String::new(), Vec::new(), String::new())];
    let mut names = BTreeSet::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Decl(_) => assert!(xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>")),
            Event::Start(start) => {
                let name = start.name().as_ref().to_string();
                if stack.len() == 1 {
                    let attribute = start.try_get_attribute("cloud-stack-version").unwrap().unwrap();
                    assert_eq!(attribute.value.as_ref(), "4.11.1.0");
                }
                names.insert(name.clone());
                stack.push((name, Vec::new(), String::new()));
            }
            Event::End(_) => {
                let (name, children, text) = stack.pop().unwrap();
                let content = if children.is_empty() { Value::String(text) } else { Value::Array(children) };
                stack.last_mut().unwrap().1.push(json!([name, content]));
            }
            Event::Text(part) => stack.last_mut().unwrap().2.push_str(&part),
            Event::GeneralRef(part) => {
                let resolved = match part.resolve_char_ref().unwrap() {
                    Some(c) => c.to_string(),
                    None => quick_xml::escape::resolve_predefined_entity(&part).unwrap().to_owned(),
                };
                stack.last_mut().unwrap().2.push_str(&resolved);
            }
            Event::Eof => return stack.pop().unwrap().1.remove(0),
            _ => {}
        }
    }
}

fn full() -> Value {
    json!({
        "text": "a\"<ü>&\n", "flag": true, "number": -5, "bigNumber": "9223372036854775807",
        "unsigned": "18446744073709551615", "single": 0.1, "real": 2.0, "created": "1530437400123456",
        "asText": "7", "asNumber": "12.50", "renamed": "r", "secretPlace": "s", "onlyJson": "j",
        "names": ["x", "y"], "numbers": [1, -2], "inner": [{"name": "i", "secretPlace": "is"}, {}],
        "one": {"name": "o"}, "details": {"b": "2", "a": "1"}, "counts": {"n": "3"}, "colour": "RED",
        "data": "AQI=", "implicitFlag": true, "zigzag": -3, "fixed": "9", "sfixed": -9, "reals": [0.5, 3.0]
    })
}

// covers: API-040 API-041 API-048
#[test]
fn fields_by_their_options() {
    let read = json_of("getKind", &every(full()), ADMIN);
    let kind = &read["getkindresponse"]["kind"];
    let wanted = json!({
        "text": "a\"<ü>&\n", "flag": true, "number": -5, "bignumber": i64::MAX, "unsigned": u64::MAX,
        "single": 0.1, "real": 2.0, "created": "2018-07-01T09:30:00+0000", "astext": "7", "asnumber": 12.50,
        "otherName": "r", "secretplace": "s", "onlyjson": "j", "names": ["x", "y"], "numbers": [1, -2],
        "inner": [{"name": "i", "secretplace": "is"}, {}], "one": {"name": "o"},
        "details": {"a": "1", "b": "2"}, "counts": {"n": "3"}, "colour": "RED", "data": "AQI=",
        "implicitflag": true, "implicitnumber": 0, "zigzag": -3, "fixed": 9, "sfixed": -9, "reals": [0.5, 3.0]
    });
    assert_eq!(*kind, wanted);
    assert!(text("getKind", &every(full()), ADMIN).contains("\"real\":2.0,"));
}

#[test]
fn what_is_absent_is_left_out() {
    let read = json_of("getKind", &[], USER);
    let wanted = json!({
        "names": [], "numbers": [], "inner": [], "reals": [], "details": {},
        "data": "", "implicitflag": false, "implicitnumber": 0, "zigzag": 0
    });
    assert_eq!(read, json!({"getkindresponse": {"kind": wanted}}));
}

#[test]
fn roles_see_their_fields() {
    let kind = &json_of("getKind", &every(full()), USER)["getkindresponse"]["kind"];
    assert!(kind.get("secretplace").is_none());
    assert_eq!(kind["inner"], json!([{"name": "i"}, {}]));
    let style = Style { role: RoleType::DomainAdmin, ..USER };
    let kind = &json_of("getKind", &every(full()), style)["getkindresponse"]["kind"];
    assert!(kind.get("secretplace").is_none());
    assert_eq!(kind["inner"][0]["secretplace"], "is");
}

// covers: API-039 API-049
#[test]
fn the_same_in_xml() {
    let read = tree(&text("getKind", &every(full()), XML));
    let wanted = json!([
        "getkindresponse",
        [[
            "kind",
            [
                ["text", "a\"<ü>&\n"],
                ["flag", "true"],
                ["number", "-5"],
                ["bignumber", "9223372036854775807"],
                ["unsigned", "18446744073709551615"],
                ["single", "0.1"],
                ["real", "2.0"],
                ["created", "2018-07-01T09:30:00+0000"],
                ["astext", "7"],
                ["asnumber", "12.50"],
                ["otherName", "r"],
                ["names", "x"],
                ["names", "y"],
                ["inner", [["name", "i"]]],
                ["inner", ""],
                ["one", [["name", "o"]]],
                ["details", "{a=1, b=2}"],
                ["counts", "{n=3}"],
                ["colour", "RED"],
                ["data", "AQI="],
                ["implicitflag", "true"],
                ["implicitnumber", "0"],
                ["zigzag", "-3"],
                ["fixed", "9"],
                ["sfixed", "-9"]
            ]
        ]]
    ]);
    assert_eq!(read, wanted);
}

// covers: API-043 API-044 API-045
#[test]
fn lists() {
    let list = |value: Value| KINDS.message_from("arcus.test.v1.Kinds", value).encode_to_vec();
    let inner = |n: &Value| n["kind"].as_array().map(Vec::len);
    let two = list(json!({"count": "7", "kind": [{"text": "a"}, {"text": "b"}]}));
    let read = json_of("listKinds", &two, USER);
    assert_eq!(read["listkindsresponse"]["count"], 7);
    assert_eq!(inner(&read["listkindsresponse"]), Some(2));
    let xml = text("listKinds", &two, XML);
    assert_eq!((xml.matches("<kind>").count(), xml.matches("<count>7</count>").count()), (2, 1));
    // Without a count, the items are counted.
    let read = json_of("listKinds", &list(json!({"kind": [{}]})), USER);
    assert_eq!(read["listkindsresponse"]["count"], 1);
    assert_eq!(text("listKinds", &[], USER), r#"{"listkindsresponse":{}}"#);
    assert_eq!(text("listKinds", &list(json!({"count": "0"})), USER), r#"{"listkindsresponse":{}}"#);
    assert_eq!(text("listKinds", &list(json!({"count": "7"})), USER), r#"{"listkindsresponse":{"count":7}}"#);
    assert_eq!(tree(&text("listKinds", &[], XML)), json!(["listkindsresponse", ""]));
}

// covers: API-060 API-061
#[test]
fn other_forms() {
    assert_eq!(json_of("getNull", &[], USER)["getnullresponse"]["null"]["implicitflag"], false);
    let done = Success { success: true, display_text: Some("done".into()) }.encode_to_vec();
    assert_eq!(text("succeed", &done, USER), r#"{"succeedresponse":{"success":true}}"#);
    assert_eq!(
        tree(&text("succeed", &done, XML)),
        json!(["succeedresponse", [["success", "true"], ["displaytext", "done"]]])
    );
    assert_eq!(text("succeed", &[], USER), r#"{"succeedresponse":{"success":false}}"#);
    assert_eq!(text("nothing", &done, USER), r#"{"nothingresponse":{}}"#);
    let job = JobRef { id: Some("i".into()), job_id: "j".into() }.encode_to_vec();
    assert_eq!(text("startKind", &job, USER), r#"{"startkindresponse":{"id":"i","jobid":"j"}}"#);
    assert_eq!(tree(&text("startKind", &job, XML)), json!(["startkindresponse", [["id", "i"], ["jobid", "j"]]]));
    let job = JobRef { id: None, job_id: "j".into() }.encode_to_vec();
    assert_eq!(text("removeKind", &job, USER), r#"{"removekindresponse":{"jobid":"j"}}"#);
}

fn job(result: JobResult, style: Style) -> String {
    let mut bytes = Vec::new();
    crate::wire::put_varint_field(&mut bytes, 1, 1);
    crate::wire::put_bytes_field(&mut bytes, 2, &result.encode_to_vec());
    text("getFlat", &bytes, style)
}

// covers: API-064 API-065 API-066
#[test]
fn job_results_are_written_as_their_command_declares() {
    let result = |command: &str, output: Vec<u8>| JobResult { command: command.into(), output, error: None };
    let kind = result("startKind", every(json!({"text": "t", "secretPlace": "s"})));
    let read: Value = serde_json::from_str(&job(kind.clone(), USER)).unwrap();
    assert_eq!(read["flatresponse"]["jobresult"]["kind"]["text"], "t");
    assert!(read["flatresponse"]["jobresult"]["kind"].get("secretplace").is_none());
    assert!(job(kind.clone(), ADMIN).contains("secretplace"));
    assert!(job(kind, XML).contains("<jobresult><kind><text>t</text>"));
    let done = result("removeKind", Success { success: true, display_text: Some("d".into()) }.encode_to_vec());
    assert_eq!(job(done, USER), r#"{"flatresponse":{"jobstatus":1,"jobresult":{"success":true}}}"#);
    assert_eq!(job(result("nothing", Vec::new()), USER), r#"{"flatresponse":{"jobstatus":1}}"#);
    let pending = {
        let mut b = Vec::new();
        crate::wire::put_varint_field(&mut b, 1, 0);
        b
    };
    assert_eq!(text("getFlat", &pending, USER), r#"{"flatresponse":{"jobstatus":0}}"#);
    let error = ApiError::capacity("no host").to_detail();
    let failed = JobResult { command: "startKind".into(), output: Vec::new(), error: Some(error) };
    assert!(job(failed.clone(), ADMIN).contains(r#""jobresult":{"errorcode":533,"errortext":"no host"}"#));
    assert!(!job(failed.clone(), USER).contains("no host"));
    assert!(job(failed, XML).contains("<jobresult><errorcode>533</errorcode><errortext>"));
}

#[test]
fn fields_may_come_in_any_order() {
    let mut bytes = every(json!({"names": ["a"], "number": 1}));
    bytes.extend(every(json!({"text": "late", "names": ["b"], "number": 2})));
    let kind = &json_of("getKind", &bytes, USER)["getkindresponse"]["kind"];
    assert_eq!((&kind["text"], &kind["number"]), (&json!("late"), &json!(2)));
    assert_eq!(kind["names"], json!(["a", "b"]));
}

#[test]
fn strange_bytes_are_an_error() {
    for bytes in [&[0xff, 0xff][..], &[0x0a, 1, 0xff], &[0x08, 1], &[0x92, 1, 1]] {
        let got = answer(&KINDS, KINDS.command("getKind").unwrap(), bytes, USER);
        assert_eq!(got.err().map(|e| e.code), Some(530), "{bytes:?}");
    }
    // A field that this build doesn't know.
    let mut bytes = Vec::new();
    crate::wire::put_bytes_field(&mut bytes, 4000, b"new");
    assert!(answer(&KINDS, KINDS.command("getKind").unwrap(), &bytes, USER).is_ok());
    // A message that holds itself too often.
    let mut deep = Vec::new();
    for _ in 0..100 {
        let mut outer = Vec::new();
        crate::wire::put_bytes_field(&mut outer, 3, &deep);
        deep = outer;
    }
    let mut bytes = Vec::new();
    crate::wire::put_bytes_field(&mut bytes, 18, &deep);
    assert!(answer(&KINDS, KINDS.command("getKind").unwrap(), &bytes, USER).is_err());
}

#[test]
fn numbers_that_json_has_not_are_left_out() {
    let kind = &json_of("getKind", &every(json!({"real": "NaN", "single": "Infinity", "asNumber": "x"})), USER);
    let kind = &kind["getkindresponse"]["kind"];
    assert!(kind.get("real").is_none() && kind.get("single").is_none());
    assert_eq!(kind["asnumber"], "x");
}

#[test]
fn plans_stand_under_their_own_name() {
    let entry = KINDS.command("getKind").unwrap();
    let of = entry.plan.as_ref().unwrap();
    assert_eq!(of.path.as_str(), "/arcus.test.v1.Tests/PlanGet");
    let bytes = KINDS.message_from("arcus.test.v1.Inner", json!({"name": "n", "secretPlace": "s"})).encode_to_vec();
    let text = plan(&KINDS, entry, of.result, &bytes, USER).unwrap();
    assert_eq!(text, r#"{"getkindresponse":{"plan":{"name":"n"}}}"#);
    assert!(KINDS.command("listKinds").unwrap().plan.is_none());
}

#[test]
fn bytes_for_grpc_lose_what_the_caller_may_not_see() {
    let entry = KINDS.command("getKind").unwrap();
    let clean = |bytes: Vec<u8>, role| redact(&KINDS, entry.result, bytes.into(), role).unwrap().to_vec();
    let whole = every(full());
    assert_eq!(clean(whole.clone(), RoleType::Admin), whole);
    let user = clean(whole.clone(), RoleType::User);
    // What is left is what the query API shows, to an administrator too.
    assert_eq!(text("getKind", &user, ADMIN), text("getKind", &whole, USER));
    let error = ApiError::internal("inside").to_detail();
    let result = JobResult { command: "startKind".into(), output: whole.clone(), error: Some(error) };
    let mut job = Vec::new();
    crate::wire::put_bytes_field(&mut job, 2, &result.encode_to_vec());
    let flat = KINDS.command("getFlat").unwrap();
    let left = redact(&KINDS, flat.result, job.into(), RoleType::User).unwrap();
    let mut fields = crate::wire::Fields::of(&left);
    let Some(Ok((2, crate::wire::Raw::Bytes(bytes)))) = fields.next() else { panic!("no result") };
    let result = JobResult::decode(bytes).unwrap();
    assert_eq!(result.output, user);
    assert_eq!(
        result.error,
        Some(ErrorDetail { internal_text: String::new(), ..ApiError::internal("inside").to_detail() })
    );
}
