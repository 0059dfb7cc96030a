//! The recorded answers of `tests/contract/golden`, asked again: keys, kinds of values, wrappers, codes and headers are the
//! same. Ids of the recording are replaced by those of entities that were made for it.

use crate::dev::{Dev, deploy_params};
use crate::wire::{Answer, Wire, query};
use arcus::api_client::ApiClient;
use conformance::declared;
use conformance::form::{Difference, Form, elements, normal};
use conformance::reference::{Recording, Reference, recordings};
use contract::CommandInfo;
use contract::api::Ref;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

/// Name of everything that the recording made.
const NAME: &str = "g2dbe8";
/// Recordings that can't be repeated, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("149-createNetwork-vpc-tier.json", "there are no VPCs yet"),
    ("151-deleteNetwork-tier.json", "there are no VPCs yet"),
    ("044-listAlerts-page.json", "its alerts are of later releases; a fresh install of ours has none"),
    (
        "136-scaleVirtualMachine.json",
        "that it has this offering already is told at once; the recorded job fails with the same text",
    ),
    ("155-prepareHostForMaintenance.json", "the class of its job is that of a later release"),
    ("032-listIsos.json", "no ISO is built in, and the recorded one can't be fetched from here"),
];
/// Differences of form that are meant. `Class.field`, what, why.
const MEANT: &[(&str, &str, &str)] = &[
    ("HostResponse.managementserverid", "type", "a number in 4.11, an id later"),
    ("StoragePoolResponse.capacityiops", "missing", "the recorded pools were made with it"),
    ("NetworkOfferingResponse.serviceofferingid", "missing", "4.11's default offerings name none"),
    ("UserResponse.email", "missing", "4.11's administrator has none on a fresh install"),
    ("listusersresponse/user/email", "missing", "as UserResponse.email"),
    ("AsyncJobResponse.jobinstancetype", "missing", "jobs on networks have none in 4.11 (`job_instance_type` None)"),
];

struct Replay {
    dev: Dev,
    wire: Wire,
    api: ApiClient,
    reference: Reference,
    commands: BTreeMap<String, &'static CommandInfo>,
    /// Live ids by recorded ones.
    known: HashMap<String, String>,
    cookies: String,
    session_key: String,
    failures: Vec<String>,
    /// Entries of [`MEANT`] that were needed.
    used: BTreeSet<usize>,
}

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.matches('-').count() == 4
}

/// Notes which live id stands where a recorded one stood.
fn learn(known: &mut HashMap<String, String>, recorded: &Value, live: &Value) {
    match (recorded, live) {
        (Value::Object(was), Value::Object(is)) => {
            for (key, value) in was {
                if let Some(live) = is.get(key) {
                    learn(known, value, live);
                }
            }
        }
        (Value::Array(was), Value::Array(is)) if was.len() == 1 && is.len() == 1 => learn(known, &was[0], &is[0]),
        (Value::String(was), Value::String(is)) if is_uuid(was) && is_uuid(is) => {
            known.entry(was.clone()).or_insert_with(|| is.clone());
        }
        _ => {}
    }
}

impl Replay {
    async fn begin() -> Replay {
        let dev = Dev::with_zone(2).await;
        let file: Value = serde_json::from_slice(&std::fs::read(dev.data().join("dev.json")).unwrap()).unwrap();
        let wire = Wire::new(&text(&file, "/endpoint"), &text(&file, "/apikey"), &text(&file, "/secretkey"));
        let commands = declared::commands().unwrap().into_iter().map(|d| (d.info.name.to_string(), d.info)).collect();
        let reference = Reference::load().unwrap();
        let api = wire.client();
        let (known, failures) = (HashMap::new(), Vec::new());
        Replay {
            dev,
            wire,
            api,
            reference,
            commands,
            known,
            cookies: String::new(),
            session_key: String::new(),
            failures,
            used: BTreeSet::new(),
        }
    }

    async fn first(&self, command: &str, key: &str, params: &[(&str, &str)]) -> Option<String> {
        let answer = self.api.call(command, params).await.unwrap();
        answer.pointer(&format!("/{key}/0/id")).and_then(Value::as_str).map(str::to_owned)
    }

    /// An entity of a kind, as the recording has it; made when there is none.
    async fn provide(&self, kind: Ref) -> String {
        let [zone, template, _, _] = self.dev.ids().await;
        let find =
            |command, key, name| async move { self.first(command, key, &[("name", name), ("listall", "true")]).await };
        let make = |command: &'static str, params: Vec<(&'static str, String)>, pointer: &'static str| async move {
            let params: Vec<(&str, &str)> = params.iter().map(|(n, v)| (*n, v.as_str())).collect();
            text(&self.api.run(command, &params).await.unwrap(), pointer)
        };
        match kind {
            Ref::Zone => zone,
            Ref::Template => template,
            Ref::Domain => match find("listDomains", "domain", NAME).await {
                Some(found) => found,
                None => make("createDomain", vec![("name", NAME.into())], "/domain/id").await,
            },
            Ref::Role => self.first("listRoles", "role", &[("name", "User")]).await.unwrap(),
            Ref::Host => self.first("listHosts", "host", &[("type", "Routing")]).await.unwrap(),
            Ref::ServiceOffering => match find("listServiceOfferings", "serviceoffering", NAME).await {
                Some(found) => found,
                None => {
                    let of = |n, v: &str| (n, v.to_owned());
                    let params = vec![
                        of("name", NAME),
                        of("displaytext", "d"),
                        of("cpunumber", "1"),
                        of("cpuspeed", "100"),
                        of("memory", "128"),
                    ];
                    make("createServiceOffering", params, "/serviceoffering/id").await
                }
            },
            Ref::DiskOffering => self.first("listDiskOfferings", "diskoffering", &[("name", "Small")]).await.unwrap(),
            Ref::OsType => self.first("listOsTypes", "ostype", &[]).await.unwrap(),
            Ref::NetworkOffering => {
                let name = [("name", "DefaultIsolatedNetworkOfferingWithSourceNatService")];
                self.first("listNetworkOfferings", "networkoffering", &name).await.unwrap()
            }
            Ref::Network => match self.network().await {
                Some(found) => found,
                None => {
                    let offering = Box::pin(self.provide(Ref::NetworkOffering)).await;
                    let of = |n, v: &str| (n, v.to_owned());
                    let params = vec![
                        of("name", NAME),
                        of("displaytext", "d"),
                        of("zoneid", &zone),
                        of("networkofferingid", &offering),
                    ];
                    make("createNetwork", params, "/network/id").await
                }
            },
            Ref::VirtualMachine => {
                self.key_pair().await;
                let network = Box::pin(self.provide(Ref::Network)).await;
                let name = format!("{NAME}vm");
                let offering = Box::pin(self.provide(Ref::ServiceOffering)).await;
                let ids = [zone, template, offering, network];
                let mut params = deploy_params(&ids, &name);
                params.push(("displayname", "d"));
                params.push(("keypair", NAME));
                text(&self.api.run("deployVirtualMachine", &params).await.unwrap(), "/virtualmachine/id")
            }
            Ref::Volume => {
                let offering = match find("listDiskOfferings", "diskoffering", NAME).await {
                    Some(found) => found,
                    None => Box::pin(self.provide(Ref::DiskOffering)).await,
                };
                let params = vec![("name", NAME.into()), ("zoneid", zone), ("diskofferingid", offering)];
                make("createVolume", params, "/volume/id").await
            }
            Ref::IpAddress => {
                let network = Box::pin(self.provide(Ref::Network)).await;
                make("associateIpAddress", vec![("networkid", network)], "/ipaddress/id").await
            }
            other => panic!("nobody knows how to make a {other:?}"),
        }
    }

    async fn network(&self) -> Option<String> {
        let answer = self.api.call("listNetworks", &[("listall", "true")]).await.unwrap();
        let networks = answer.get("network").and_then(Value::as_array).cloned().unwrap_or_default();
        networks.iter().find(|n| n.get("name").and_then(Value::as_str) == Some(NAME)).map(|n| text(n, "/id"))
    }

    async fn key_pair(&self) {
        let listed = self.api.call("listSSHKeyPairs", &[("name", NAME)]).await.unwrap();
        if listed.get("sshkeypair").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            self.api.call("createSSHKeyPair", &[("name", NAME)]).await.unwrap();
        }
    }

    /// The live id for a recorded one that `param` of `command` names.
    async fn id(&mut self, recorded: &str, kind: Ref) -> String {
        if let Some(live) = self.known.get(recorded) {
            return live.clone();
        }
        let live = self.provide(kind).await;
        self.known.insert(recorded.to_owned(), live.clone());
        live
    }

    /// The recorded parameters with live ids and names.
    async fn params(&mut self, command: &str, recorded: &Option<BTreeMap<String, Value>>) -> Vec<(String, String)> {
        let mut out = Vec::new();
        for (name, value) in recorded.iter().flatten() {
            let mut value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let kind = self.commands.get(command).and_then(|c| c.param(name)).map_or(Ref::None, |p| p.reference);
            // What resource tags hang on in the recording are machines.
            let kind = if name.starts_with("resourceid") { Ref::VirtualMachine } else { kind };
            if is_uuid(&value) && !value.starts_with("00000000") {
                value = self.id(&value, kind).await;
            }
            if value == "Sandbox-simulator" {
                value = "test".into();
            }
            out.push((name.clone(), value));
        }
        out
    }

    /// What the recording did between this recording and the one before it.
    async fn prepare(&mut self, name: &str) {
        let live = |recorded: &str| self.known.get(recorded).cloned().unwrap_or_default();
        let (user, role) = (live("a21eebff-eace-4b12-b53d-78c48ca69770"), live("3b66ad03-5277-48e0-979b-93a9dcabb8a8"));
        let (vm, domain) = (live("e37dc10f-5b99-4852-8c72-811a0bdce06b"), live("058f17e0-6a26-458d-b2ed-d621c9bf8556"));
        let volume = live("9c36ebcf-5aee-405f-b7e5-b15cdbaf0a5c");
        let (network, balancer) =
            (live("46dfbd03-22de-4d12-a674-2d8fb87f3c6f"), live("75cd4a63-04ed-41d3-91c8-cf01298fc462"));
        let steps: Vec<(&str, Vec<(&str, &str)>)> = match name.get(..3).unwrap_or_default() {
            "055" => vec![(
                "createUser",
                vec![
                    ("username", "g2dbe8v"),
                    ("password", "pw12345"),
                    ("firstname", "F"),
                    ("lastname", "L"),
                    ("email", "f@example.org"),
                    ("account", "g2dbe8u"),
                    ("domainid", &domain),
                ],
            )],
            "058" => vec![("registerUserKeys", vec![("id", &user)])],
            "061" => vec![("enableUser", vec![("id", &user)])],
            "067" => {
                vec![("createRolePermission", vec![("roleid", &role), ("rule", "list*"), ("permission", "allow")])]
            }
            "097" => vec![(
                "createTags",
                vec![
                    ("resourceids", &vm),
                    ("resourcetype", "UserVm"),
                    ("tags[0].key", "color"),
                    ("tags[0].value", "red"),
                ],
            )],
            "109" => vec![(
                "createSnapshotPolicy",
                vec![
                    ("volumeid", &volume),
                    ("intervaltype", "daily"),
                    ("schedule", "00:10"),
                    ("maxsnaps", "2"),
                    ("timezone", "UTC"),
                ],
            )],
            "121" => vec![("createEgressFirewallRule", vec![("networkid", &network), ("protocol", "all")])],
            // No address has static NAT and a load balancing rule.
            "131" => vec![("deleteLoadBalancerRule", vec![("id", &balancer)])],
            "137" => vec![("stopVirtualMachine", vec![("id", &vm)])],
            "142" => vec![("destroyVirtualMachine", vec![("id", &vm), ("expunge", "true")])],
            _ => Vec::new(),
        };
        for (command, params) in steps {
            let made = self.api.run(command, &params).await.unwrap_or_else(|e| panic!("before {name}: {e}"));
            if command == "createUser" {
                self.known.insert("a21eebff-eace-4b12-b53d-78c48ca69770".into(), text(&made, "/user/id"));
            }
        }
        if name.starts_with("082") {
            self.key_pair().await;
        }
        if name.starts_with("143") {
            let stopped = self.known.get("d91fab6c-4ff4-4f88-8d35-bc42fcadf316").cloned().unwrap_or_default();
            self.api.run("destroyVirtualMachine", &[("id", &stopped), ("expunge", "true")]).await.unwrap();
        }
    }

    /// Sends what the recording sent.
    async fn send(&mut self, recording: &Recording) -> Result<Answer, String> {
        let wire = self.wire.clone();
        if recording.note.is_none() {
            let command = recording.command.clone().unwrap_or_default();
            let params = self.params(&command, &recording.params).await;
            return wire.send(&command, &params, recording.response.as_deref().unwrap_or("json"), false).await;
        }
        // Those about the protocol itself.
        let plain: Vec<(String, String)> = recording
            .params
            .iter()
            .flatten()
            .map(|(n, v)| {
                let value = v.as_str().unwrap_or_default();
                let value = match (n.as_str(), value) {
                    ("password", "<redacted>") => "password".to_owned(),
                    ("sessionkey", "<redacted>") => self.session_key.clone(),
                    _ => value.to_owned(),
                };
                (n.clone(), value)
            })
            .collect();
        let post = recording.method.as_deref() == Some("POST");
        let query = query(&plain);
        match recording.name.as_str() {
            name if name.starts_with("session") => {
                let cookies = self.cookies.clone();
                let headers = [("cookie", cookies.as_str())];
                let headers = if name.starts_with("session-login") { &headers[..0] } else { &headers[..] };
                wire.plain(&query, post, headers).await
            }
            "error-bad-signature" => {
                let signed = wire.signed("listZones", &[], "json");
                wire.plain(&signed.replace("&signature=", "&another=1&signature="), false, &[]).await
            }
            "error-unknown-apikey" => {
                let stranger = wire.keyed("nobody", &wire.secret.clone());
                stranger.send("listZones", &[], "json", false).await
            }
            "error-no-credentials" => wire.plain("command=listZones&response=json", false, &[]).await,
            "error-no-command" => wire.plain("response=json", false, &[]).await,
            "signature-version-3" => {
                let until =
                    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + Duration::from_secs(600);
                let expires = expires(until.as_secs());
                let params = [("signatureVersion".to_owned(), "3".to_owned()), ("expires".to_owned(), expires)];
                wire.send("listZones", &params, "json", false).await
            }
            "post-form-signed" => wire.send("listZones", &[], "json", true).await,
            other => Err(format!("nobody knows how to send {other}")),
        }
    }

    async fn replay(&mut self, file: &str, recording: &Recording) {
        let answer = match self.send(recording).await {
            Ok(answer) => answer,
            Err(e) => return self.failures.push(format!("{file}: {e}")),
        };
        let mut wrong = Vec::new();
        if answer.status != recording.http_status {
            wrong.push(format!("status {}, recorded {}: {:.400}", answer.status, recording.http_status, answer.text()));
        }
        wrong.extend(headers(recording, &answer));
        self.session(recording, &answer);
        match (&recording.body, answer.json()) {
            (Value::String(recorded), _) if recorded.starts_with("<?xml") => {
                wrong.extend(self.xml(recording, recorded, &answer))
            }
            (Value::String(recorded), _) => {
                if answer.text() != *recorded {
                    wrong.push(format!("text {:.200}", answer.text()));
                }
            }
            (recorded, Some(live)) => {
                learn(&mut self.known, recorded, &live);
                wrong.extend(self.json(recording, recorded, &live));
                if let Some(job) = &recording.job {
                    wrong.extend(self.job(recording, job, &live).await);
                }
            }
            (_, None) => wrong.push(format!("isn't JSON: {:.200}", answer.text())),
        }
        self.failures.extend(wrong.into_iter().map(|w| format!("{file}: {w}")));
    }

    fn session(&mut self, recording: &Recording, answer: &Answer) {
        if recording.name == "session-login" {
            let cookies = answer.headers.get_all("set-cookie").iter().filter_map(|v| v.to_str().ok());
            self.cookies = cookies.filter_map(|c| c.split(';').next()).collect::<Vec<_>>().join("; ");
            self.session_key = answer.inner().get("sessionkey").and_then(Value::as_str).unwrap_or_default().to_owned();
        }
    }

    fn json(&mut self, recording: &Recording, recorded: &Value, live: &Value) -> Vec<String> {
        let name = recording.command.as_deref().unwrap_or("listZones");
        let mut form = Form::new(&self.reference);
        form.answer(&self.reference.commands[name], recorded, live);
        let mut out = self.not_meant(form.found());
        let text = |of: &Value| {
            let inner = of.as_object().and_then(|o| o.values().next()).cloned().unwrap_or_default();
            inner.get("errortext").and_then(Value::as_str).map(normal)
        };
        // Texts of the contract itself are the same to the letter; those of commands say what Arcus has to say.
        let general = ["missing parameter", "invalid value", "verify user", "is required when", "authenticate"];
        if let (Some(was), is) = (text(recorded), text(live))
            && general.iter().any(|g| was.contains(g))
            && is.as_deref() != Some(was.as_str())
        {
            out.push(format!("text {is:?}, recorded {was:?}"));
        }
        out
    }

    /// Differences that aren't meant.
    fn not_meant(&mut self, found: BTreeSet<Difference>) -> Vec<String> {
        let mut out = Vec::new();
        for d in found {
            let fits = |place: &str| place.strip_prefix('*').map_or(place == d.place, |end| d.place.ends_with(end));
            match MEANT.iter().position(|(place, what, _)| *what == d.what && fits(place)) {
                Some(at) => {
                    self.used.insert(at);
                }
                None => out.push(format!("{} [{}] {}", d.place, d.what, d.detail)),
            }
        }
        out
    }

    /// Waits for the job and compares how it ended.
    async fn job(&mut self, recording: &Recording, recorded: &Value, live: &Value) -> Vec<String> {
        let Some(job) = live
            .pointer(&format!("/{}/jobid", live.as_object().unwrap().keys().next().unwrap()))
            .and_then(Value::as_str)
        else {
            return vec![format!("no job: {live:.300}")];
        };
        let answer = self.ended(job).await;
        let recorded = recorded.get("queryasyncjobresultresponse").cloned().unwrap_or_default();
        let (was, is) = (
            recorded.get("jobresult").cloned().unwrap_or_default(),
            answer.get("jobresult").cloned().unwrap_or_default(),
        );
        let mut out = Vec::new();
        if recorded.get("jobstatus") != answer.get("jobstatus") {
            out.push(format!("the job ended as {answer:.600}"));
        }
        learn(&mut self.known, &recorded, &answer);
        let name = recording.command.as_deref().unwrap_or_default();
        let mut form = Form::new(&self.reference);
        let wrap = |inner: &Value| serde_json::json!({ "queryasyncjobresultresponse": inner });
        form.answer(&self.reference.commands["queryAsyncJobResult"], &wrap(&recorded), &wrap(&answer));
        if was.get("errorcode").is_none() && is.get("errorcode").is_none() {
            form.inner(&self.reference.commands[name], &was, &is);
        } else if was.get("errorcode") != is.get("errorcode") {
            out.push(format!("the job's result is {is}, recorded {was}"));
        }
        for key in ["jobprocstatus", "jobresulttype", "jobresultcode"] {
            // The code of a failed job differs between releases: 530 in 4.11.
            let failed = key == "jobresultcode" && answer.get("jobstatus").and_then(Value::as_i64) == Some(2);
            let wanted = if failed { Some(Value::from(530)) } else { recorded.get(key).cloned() };
            if answer.get(key) != wanted.as_ref() {
                out.push(format!("{key} {:?}, wanted {wanted:?}", answer.get(key)));
            }
        }
        if recorded.get("cmd") != answer.get("cmd") {
            out.push(format!("cmd {:?}, recorded {:?}", answer.get("cmd"), recorded.get("cmd")));
        }
        // What 4.11 says a job works on; later releases say it of more.
        let object = self.reference.commands[name].job_instance_type.as_deref().filter(|o| *o != "None");
        if object.is_some() && answer.get("jobinstancetype").and_then(Value::as_str) != object {
            out.push(format!("jobinstancetype {:?}, 4.11 has {object:?}", answer.get("jobinstancetype")));
        }
        let found = form.found();
        out.extend(self.not_meant(found));
        out
    }

    async fn ended(&self, job: &str) -> Value {
        testkit::eventually(|| async {
            let answer = self.api.call("queryAsyncJobResult", &[("jobid", job)]).await.unwrap();
            (answer.get("jobstatus").and_then(Value::as_i64) != Some(0)).then_some(answer)
        })
        .await
    }

    /// The elements that 4.11 has are there.
    fn xml(&mut self, recording: &Recording, recorded: &str, answer: &Answer) -> Vec<String> {
        let live = elements(&answer.text());
        let class =
            recording.command.as_ref().and_then(|c| self.reference.commands.get(c)).map(|c| c.response_class.clone());
        let fields: BTreeSet<&str> = class
            .and_then(|c| self.reference.responses.get(&c))
            .map(|r| r.fields.iter().map(|f| f.name.as_str()).collect())
            .unwrap_or_default();
        let wanted = elements(recorded).into_iter().filter(|path| {
            let name = path.rsplit('/').next().unwrap_or_default();
            path.matches('/').count() < 2 || fields.contains(name)
        });
        let lacking = wanted.filter(|path| !live.contains(path));
        let missing = |place: String| Difference { place, what: "missing", detail: "in XML".into() };
        let framed = answer.text().starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
        let found = lacking.map(missing).chain((!framed).then(|| missing("declaration".into()))).collect();
        self.not_meant(found)
    }
}

/// Headers that the recording has; values where they say something.
fn headers(recording: &Recording, answer: &Answer) -> Vec<String> {
    let mut out = Vec::new();
    for (name, was) in &recording.headers {
        let is = answer.header(name);
        let plain = |text: &str| text.to_lowercase().replace(' ', "");
        let same = match name.to_lowercase().as_str() {
            // Whether there is one.
            "content-security-policy" | "x-description" => is.is_some(),
            // A line of text says so.
            "content-type" if recording.body.as_str().is_some_and(|b| !b.starts_with('<')) => is.is_some(),
            _ => is.as_deref().map(plain) == Some(plain(was)),
        };
        if !same {
            out.push(format!("header {name}: {is:?}, recorded {was}"));
        }
    }
    if !recording.set_cookie.is_empty() && recording.http_status == 200 {
        for name in ["JSESSIONID=", "sessionkey="] {
            let set = answer.headers.get_all("set-cookie").iter().any(|v| v.as_bytes().starts_with(name.as_bytes()));
            if !set {
                out.push(format!("the cookie {name} isn't set"));
            }
        }
    }
    out
}

/// `yyyy-MM-dd'T'HH:mm:ss+0000` of seconds since 1970.
fn expires(seconds: u64) -> String {
    let out = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%S+0000"])
        .output();
    String::from_utf8(out.unwrap().stdout).unwrap().trim().to_owned()
}

// covers: API-044, API-061, API-064, API-068
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_answers_hold_for_form() {
    let mut replay = Replay::begin().await;
    let mut asked = 0;
    for (file, recording) in recordings().unwrap() {
        let declared = recording.command.as_ref().is_none_or(|c| replay.commands.contains_key(c));
        if !(declared || recording.note.is_some() || recording.http_status == 401)
            || LEFT_OUT.iter().any(|(f, _)| *f == file)
        {
            continue;
        }
        asked += 1;
        replay.prepare(&file).await;
        replay.replay(&file, &recording).await;
    }
    replay.dev.settle().await;
    replay.dev.audit().await;
    println!("{asked} recordings");
    let stale = (0..MEANT.len())
        .filter(|at| !replay.used.contains(at))
        .map(|at| format!("{} is no difference any more", MEANT[at].0));
    replay.failures.extend(stale);
    assert!(replay.failures.is_empty(), "{} differences:\n{}", replay.failures.len(), replay.failures.join("\n"));
}
