//! The query API over HTTP, against a running gateway.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{ADMIN, Answer, Cloud, USER, signed};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const UNVERIFIED: &str = "unable to verify user credentials and/or request signature";

fn error(wrapper: &str, code: u16, text: &str) -> serde_json::Value {
    json!({wrapper: {"uuidList": [], "errorcode": code, "errortext": text}})
}

// covers: API-001 API-002 API-003 API-040
#[tokio::test]
async fn a_signed_request_is_answered() {
    let cloud = Cloud::start().await;
    let answer = cloud.get(ADMIN, &[("command", "listZones"), ("listAll", "TRUE"), ("nosuchparameter", "1")]).await;
    assert_eq!(answer.status, 200);
    let zones = &answer.json()["listzonesresponse"];
    assert_eq!((&zones["count"], &zones["zone"][0]["name"]), (&json!(1), &json!("Sandbox-simulator")));
    assert_eq!(answer.header("content-type"), "application/json; charset=UTF-8");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("x-xss-protection"), "1;mode=block");
    assert!(!answer.header("content-security-policy").is_empty());
    assert_eq!(answer.header("x-request-id").len(), 36);
    let caller = cloud.orchestrator.caller.lock().unwrap().clone();
    assert_eq!((caller.user_id, caller.account_name.as_str(), caller.command.as_str()), (2, "admin", "listZones"));
    assert_eq!(caller.request_id, answer.header("x-request-id"));
    assert_eq!((caller.remote_address.as_str(), caller.is_root_admin()), ("127.0.0.1", true));

    let posted = cloud.post_body(signed(ADMIN, &[("command", "listZones")])).await;
    assert_eq!(posted.json(), answer.json());
    // The query string wins over the body.
    let url = format!("{}?{}", cloud.url(), signed(ADMIN, &[("command", "listZones"), ("keyword", "nosuchzone")]));
    let request = cloud.http.post(url).header("content-type", "application/x-www-form-urlencoded");
    let both = Answer::of(request.body("keyword=other&command=createZone").send().await.unwrap()).await;
    assert_eq!(both.body, r#"{"listzonesresponse":{}}"#);
}

// covers: API-039 API-049
#[tokio::test]
async fn xml_is_the_default() {
    let cloud = Cloud::start().await;
    for response in ["xml", "yaml", ""] {
        let answer = cloud.get(ADMIN, &[("command", "listZones"), ("response", response)]).await;
        assert_eq!(answer.header("content-type"), "text/xml; charset=UTF-8");
        assert!(answer.body.contains("<listzonesresponse cloud-stack-version=\"4.11.1.0\"><count>1</count><zone>"));
    }
    assert_eq!(
        cloud.get(ADMIN, &[("command", "listZones"), ("response", "JSON")]).await.json()["listzonesresponse"]["count"],
        1
    );
}

// Recorded: 169, 170, 172, 173, 179.
// covers: API-017 API-022 API-058
#[tokio::test]
async fn whatever_is_wrong_with_the_signature_reads_the_same() {
    let cloud = Cloud::start().await;
    let url = cloud.url();
    let good = signed(USER, &[("command", "listZones")]);
    for (what, query, wrapper) in [
        ("changed", format!("{good}&name=x"), "listzonesresponse"),
        ("changed value", good.replace("listZones", "listHosts"), "listhostsresponse"),
        ("unknown key", signed(("nobody", "x"), &[("command", "listZones")]), "listzonesresponse"),
        ("wrong secret", signed((USER.0, "x"), &[("command", "listZones")]), "listzonesresponse"),
        ("no credentials", "command=listZones&response=json".into(), "listzonesresponse"),
        ("no command", signed(USER, &[("name", "x")]), "null"),
        ("unknown command", signed(USER, &[("command", "listUnicorns")]), "errorresponse"),
        ("command in another case", signed(USER, &[("command", "listzones")]), "errorresponse"),
        ("denied by a rule", signed(USER, &[("command", "createNetwork")]), "createnetworkresponse"),
        ("not among the rules", signed(USER, &[("command", "createZone")]), "createzoneresponse"),
        (
            "expired",
            signed(
                USER,
                &[("command", "listZones"), ("signatureversion", "3"), ("expires", "2011-10-12T12:00:00+0000")],
            ),
            "listzonesresponse",
        ),
        ("no expiry", signed(USER, &[("command", "listZones"), ("signatureVersion", "3")]), "listzonesresponse"),
    ] {
        let answer = cloud.raw(&format!("{url}?{query}")).await;
        assert_eq!((answer.status, answer.json()), (401, error(wrapper, 401, UNVERIFIED)), "{what}");
        assert_eq!(answer.header("x-description"), "", "{what}");
    }
    assert_eq!(cloud.orchestrator.calls.load(Ordering::SeqCst), 0);
    let nothing = cloud.raw(&url).await;
    assert!(nothing.body.contains("<errorresponse") && nothing.status == 401);
    let later = [("command", "listZones"), ("signatureVersion", "3"), ("expires", "2999-10-12T12:00:00+0530")];
    assert_eq!(cloud.get(USER, &later).await.status, 200);
}

// Recorded: 158, 163, 077, 181.
// covers: API-056 API-057
#[tokio::test]
async fn faults_are_told_in_the_language_asked_for() {
    let cloud = Cloud::start().await;
    let missing = cloud.get(ADMIN, &[("command", "createZone"), ("dns1", "1.1.1.1"), ("name", "z")]).await;
    let text = "Unable to execute API command createzone due to missing parameter internaldns1";
    let wanted =
        json!({"createzoneresponse": {"uuidList": [], "errorcode": 431, "cserrorcode": 9999, "errortext": text}});
    assert_eq!((missing.status, missing.json(), missing.header("x-description")), (431, wanted, text));
    let bad = cloud.get(ADMIN, &[("command", "listZones"), ("page", "x"), ("pagesize", "y")]).await;
    assert_eq!(
        bad.header("x-description"),
        "Unable to execute API command listzones due to invalid value x for parameter page"
    );
    let xml = cloud.get(ADMIN, &[("command", "createZone"), ("response", "xml")]).await;
    assert!(xml.body.contains("<errorcode>431</errorcode><cserrorcode>9999</cserrorcode><errortext>"), "{}", xml.body);
    assert_eq!(cloud.get(ADMIN, &[("command", "listZones"), ("tags[x].key", "a")]).await.status, 430);

    // What services say, with the entities involved; internal details are for root administrators.
    let fail = |error: contract::ApiError| *cloud.orchestrator.fail.lock().unwrap() = Some(error);
    fail(contract::ApiError::in_use("has hosts").with_entity("u1", "zone"));
    let answer = cloud.get(ADMIN, &[("command", "deleteZone"), ("id", "1")]).await;
    let entities = json!([{"uuid": "u1", "description": "zone"}]);
    assert_eq!((answer.status, &answer.json()["deletezoneresponse"]["uuidList"]), (536, &entities));
    for (keys, seen) in [(ADMIN, true), (USER, false)] {
        fail(contract::ApiError::internal("the disk is on fire"));
        let answer = cloud.get(keys, &[("command", "listZones")]).await;
        assert_eq!((answer.status, answer.body.contains("on fire")), (530, seen));
        assert_eq!(answer.header("x-description").contains("on fire"), seen);
    }
}

// Recorded: 001, 002, 004, 005, 007, 008.
#[tokio::test]
async fn sessions_begin_and_end() {
    let cloud = Cloud::start().await;
    let wrong =
        cloud.post(&[("command", "login"), ("username", "admin"), ("password", "wrong"), ("response", "json")]).await;
    let text = "Failed to authenticate user admin in domain 1; please provide valid credentials";
    assert_eq!((wrong.status, wrong.json()), (531, error("loginresponse", 531, text)));
    let by_get =
        cloud.raw(&format!("{}?command=login&username=admin&password=password&response=json", cloud.url())).await;
    assert_eq!((by_get.status, by_get.body.as_str()), (405, "Please use HTTP POST to authenticate using this API"));
    let lost = [("command", "login"), ("username", "a"), ("password", "b"), ("response", "json")];
    let nowhere = cloud.post(&[&lost[..], &[("domain", "x/y")]].concat()).await;
    assert_eq!(nowhere.json()["loginresponse"]["errortext"], "Unable to find the domain from the path /x/y/");
    assert_eq!(cloud.post(&[&lost[..], &[("domainId", "99")]].concat()).await.status, 401);

    let login = cloud.login("jo", "secret").await;
    let mut body = login.answer.json()["loginresponse"].clone();
    body.as_object_mut().unwrap().remove("sessionkey");
    let wanted = json!({
        "username": "jo", "userid": "00000000-0000-4000-8000-000000000005",
        "domainid": "00000000-0000-4000-a000-000000000001", "timeout": 1800, "account": "jo", "firstname": "First",
        "lastname": "Last", "type": "0", "timezone": "UTC", "timezoneoffset": "0.0", "registered": "false"
    });
    assert_eq!(body, wanted);
    assert_eq!(login.key.len(), 27, "20 bytes in base64");
    assert!(login.answer.cookies.iter().all(|c| c.contains("; Path=/client; HttpOnly")), "{:?}", login.answer.cookies);

    let list = [("command", "listZones"), ("response", "json")];
    let with_key = [&list[..], &[("sessionkey", &login.key)]].concat();
    assert_eq!(cloud.session(&login, &with_key).await.status, 200);
    assert_eq!(cloud.orchestrator.caller.lock().unwrap().user_id, 5);
    let by_header = cloud.http.get(format!("{}?command=listZones", cloud.url()));
    let by_header = by_header.header("cookie", format!("JSESSIONID={}", login.id)).header("sessionkey", &login.key);
    assert_eq!(by_header.send().await.unwrap().status().as_u16(), 200);
    // Without a command.
    let none = cloud.session(&login, &[("sessionkey", &login.key), ("response", "json")]).await;
    assert_eq!((none.status, none.json()), (400, error("null", 400, "no command specified")));
    // What the role doesn't have, and what nobody has.
    for command in ["createZone", "listUnicorns"] {
        let answer =
            cloud.session(&login, &[("command", command), ("sessionkey", &login.key), ("response", "json")]).await;
        let text = format!("The API {command} does not exist or is not available for this account.");
        assert_eq!((answer.status, &answer.json()["errorresponse"]["errortext"]), (432, &json!(text)));
    }
    let out = cloud.session(&login, &[("command", "logout"), ("sessionkey", &login.key), ("response", "json")]).await;
    assert_eq!(out.json(), json!({"logoutresponse": {"description": "success"}}));
    assert!(out.cookies.iter().all(|c| c.contains("Max-Age=0")) && out.cookies.len() == 2);
    let after = cloud.session(&login, &with_key).await;
    assert_eq!((after.status, after.json()), (401, error("listzonesresponse", 401, UNVERIFIED)));
}

#[tokio::test]
async fn a_session_ends_when_its_key_is_missing_or_wrong() {
    let cloud = Cloud::start().await;
    let list = [("command", "listZones"), ("response", "json")];
    for (what, key) in [("cookie only", None), ("wrong key", Some("wrong"))] {
        let login = cloud.login("jo", "secret").await;
        let given = key.map(|k| ("sessionkey", k));
        let answer = cloud.session(&login, &list.into_iter().chain(given).collect::<Vec<_>>()).await;
        let wanted = error("listzonesresponse", 401, "unable to verify user credentials");
        assert_eq!((answer.status, answer.json()), (401, wanted), "{what}");
        let good = cloud.session(&login, &[list[0], list[1], ("sessionkey", &login.key)]).await;
        assert_eq!(good.json(), error("listzonesresponse", 401, UNVERIFIED), "{what}: the session has ended");
    }
    // The key as cookie must match as well, and isn't enough.
    for cookie in ["wrong", "KEY"] {
        let login = cloud.login("jo", "secret").await;
        let query = if cookie == "wrong" { format!("&sessionkey={}", login.key) } else { String::new() };
        let cookie = cookie.replace("KEY", &login.key);
        let request = cloud.http.get(format!("{}?command=listZones{query}", cloud.url()));
        let request = request.header("cookie", format!("JSESSIONID={}; sessionkey={cookie}", login.id));
        assert_eq!(request.send().await.unwrap().status().as_u16(), 401);
    }
    // A rule that denies ends it, too.
    let login = cloud.login("jo", "secret").await;
    let denied = cloud.session(&login, &[("command", "createNetwork"), ("sessionkey", &login.key)]).await;
    assert_eq!(denied.status, 401);
    assert_eq!(cloud.session(&login, &[("command", "listZones"), ("sessionkey", &login.key)]).await.status, 401);
}

#[tokio::test]
async fn what_identity_changes_is_seen_at_once() {
    let cloud = Cloud::start().await;
    let cloud = &cloud;
    let status = async |keys| cloud.get(keys, &[("command", "listZones")]).await.status;
    assert_eq!(status(USER).await, 200);
    let before = cloud.identity.look_ups();
    for _ in 0..5 {
        assert_eq!(status(USER).await, 200);
    }
    assert_eq!(cloud.identity.look_ups(), before, "cached");

    cloud.identity.change(5, |c| c.user_enabled = false);
    assert_eq!(status(USER).await, 200, "nobody has said so yet");
    cloud.node.coord.publish("identity", "user/5");
    testkit::eventually(|| async { (status(USER).await == 401).then_some(()) }).await;
    cloud.identity.change(5, |c| c.user_enabled = true);
    cloud.node.coord.publish("identity", "domain/1");
    testkit::eventually(|| async { (status(USER).await == 200).then_some(()) }).await;
    // A new key that nobody knew before.
    assert_eq!(status(("new-key", "new-secret")).await, 401);
    cloud.identity.change(5, |c| {
        c.api_key = Some("new-key".into());
        c.secret_key = Some("new-secret".into());
    });
    cloud.node.coord.publish("identity", "account/5");
    testkit::eventually(|| async { (status(("new-key", "new-secret")).await == 200).then_some(()) }).await;
    assert_eq!(status(USER).await, 401);
    cloud.identity.role(4, contract::RoleType::User, &[("*", false)]);
    cloud.node.coord.publish("identity", "role/4");
    testkit::eventually(|| async { (status(("new-key", "new-secret")).await == 401).then_some(()) }).await;
}

#[tokio::test]
async fn one_look_up_serves_all_who_wait_for_it() {
    let cloud = Cloud::start().await;
    let answers = futures::future::join_all((0..40).map(|_| cloud.get(USER, &[("command", "listZones")]))).await;
    assert!(answers.iter().all(|a| a.status == 200));
    assert_eq!(cloud.identity.look_ups(), 1);
}

// covers: API-013
#[tokio::test]
async fn source_addresses_are_looked_at() {
    let cloud = Cloud::start().await;
    cloud.identity.change(5, |c| c.allowed_cidrs = vec!["192.0.2.0/24".into()]);
    let list = [("command", "listZones")];
    let denied = cloud.get(USER, &list).await;
    assert_eq!((denied.status, denied.json()), (401, error("listzonesresponse", 401, UNVERIFIED)));
    let login = cloud.login("jo", "secret").await;
    assert_eq!(cloud.session(&login, &[("command", "listZones"), ("sessionkey", &login.key)]).await.status, 401);
    cloud.set("api.source.cidr.checks.enabled", "false").await;
    assert_eq!(cloud.get(USER, &list).await.status, 200);
}

// covers: API-030 API-031 API-035
#[tokio::test]
async fn rates_are_limited_when_asked() {
    let cloud = Cloud::start().await;
    for (name, value) in
        [("api.throttling.interval", "100"), ("api.throttling.max", "2"), ("api.throttling.enabled", "true")]
    {
        cloud.set(name, value).await;
    }
    let list = [("command", "listZones")];
    assert_eq!([cloud.get(USER, &list).await.status, cloud.get(USER, &list).await.status], [200, 200]);
    let over = cloud.get(USER, &list).await;
    let body = &over.json()["listzonesresponse"];
    assert_eq!((over.status, &body["cserrorcode"]), (429, &json!(4545)));
    assert!(body["errortext"].as_str().unwrap().starts_with("The given user has reached his/her account api limit"));
    for _ in 0..5 {
        assert_eq!(cloud.get(ADMIN, &list).await.status, 200, "not for root administrators");
    }
}

// covers: API-008
#[tokio::test]
async fn apis_are_listed_by_role() {
    let cloud = Cloud::start().await;
    let names = |answer: &Answer| -> Vec<String> {
        let body = answer.json()["listapisresponse"].clone();
        let apis = body["api"].as_array().unwrap();
        assert_eq!(body["count"], apis.len());
        apis.iter().map(|a| a["name"].as_str().unwrap().to_owned()).collect()
    };
    let admin = names(&cloud.get(ADMIN, &[("command", "listApis")]).await);
    let user = names(&cloud.get(USER, &[("command", "listApis")]).await);
    assert!(admin.len() > 100 && admin.contains(&"createZone".into()));
    assert!(user.contains(&"listZones".into()) && user.contains(&"listApis".into()));
    assert!(!user.contains(&"createZone".into()) && !user.contains(&"createNetwork".into()));

    let one = cloud.get(USER, &[("command", "listApis"), ("name", "listZones")]).await.json();
    let api = &one["listapisresponse"]["api"][0];
    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/contract/golden/049-listApis-one.json")).unwrap();
    let recorded = &recorded["body"]["listapisresponse"]["api"][0];
    assert_eq!((&api["name"], &api["isasync"]), (&recorded["name"], &recorded["isasync"]));
    let find = |of: &serde_json::Value, name: &str| {
        of["params"].as_array().unwrap().iter().find(|p| p["name"] == name).cloned().unwrap_or_default()
    };
    for param in api["params"].as_array().unwrap() {
        let theirs = find(recorded, param["name"].as_str().unwrap());
        for key in ["type", "length", "required"] {
            assert_eq!(param[key], theirs[key], "{param} {theirs}");
        }
    }
    let fields = |of: &serde_json::Value| -> Vec<(String, String)> {
        let list = of["response"].as_array().unwrap();
        list.iter().filter_map(|f| Some((f["name"].as_str()?.into(), f["type"].as_str()?.into()))).collect()
    };
    let theirs = fields(recorded);
    for (name, of_type) in fields(api) {
        if let Some((_, recorded)) = theirs.iter().find(|(n, _)| *n == name) {
            // Java distinguishes sets from lists; no client does.
            assert_eq!(of_type, recorded.replace("set", "list"), "{name}");
        }
    }
    let tags = api["response"].as_array().unwrap().iter().find(|f| f["name"] == "tags").unwrap();
    assert!(tags["response"].as_array().unwrap().iter().any(|f| f["name"] == "resourceid"));

    let none = cloud.get(USER, &[("command", "listApis"), ("name", "createZone")]).await;
    assert_eq!(none.status, 530);
    let xml = cloud.get(USER, &[("command", "listApis"), ("name", "listZones"), ("response", "xml")]).await;
    assert!(xml.body.contains("<api><name>listZones</name>") && xml.body.contains("<params><name>id</name>"));
}

// covers: API-062 API-064
#[tokio::test]
async fn job_results_are_rendered() {
    let cloud = Cloud::start().await;
    let answer = cloud.get(USER, &[("command", "queryAsyncJobResult"), ("jobid", "x")]).await.json();
    assert_eq!(answer["queryasyncjobresultresponse"], json!({"jobstatus": 1, "jobresult": {"success": true}}));
}

#[tokio::test]
async fn idempotency_keys_travel() {
    let cloud = Cloud::start().await;
    let zone =
        [("command", "createZone"), ("dns1", "1"), ("internaldns1", "2"), ("name", "z"), ("networktype", "Basic")];
    let caller = || cloud.orchestrator.caller.lock().unwrap().clone();
    assert_eq!(cloud.get(ADMIN, &zone).await.json()["createzoneresponse"]["zone"]["name"], "z");
    assert_eq!((caller().idempotency_key, caller().request_hash), (None, Vec::new()));
    cloud.get(ADMIN, &[&zone[..], &[("idempotencyKey", "k1")]].concat()).await;
    let by_parameter = caller();
    assert_eq!((by_parameter.idempotency_key.as_deref(), by_parameter.request_hash.len()), (Some("k1"), 32));
    let url = format!("{}?{}", cloud.url(), signed(ADMIN, &zone));
    cloud.http.get(url).header("Idempotency-Key", "k2").send().await.unwrap();
    let by_header = caller();
    assert_eq!(by_header.idempotency_key.as_deref(), Some("k2"));
    assert_eq!(by_header.request_hash, by_parameter.request_hash);
    let long = "x".repeat(300);
    assert_eq!(cloud.get(ADMIN, &[&zone[..], &[("idempotencyKey", &long)]].concat()).await.status, 431);
}

#[tokio::test]
async fn plans_fail_closed() {
    let cloud = Cloud::start().await;
    let url = format!("http://{}/client/plan", cloud.serving.http[0]);
    let zone =
        [("command", "createZone"), ("dns1", "1"), ("internaldns1", "2"), ("name", "z"), ("networktype", "Basic")];
    let answer = cloud.raw(&format!("{url}?{}", signed(ADMIN, &zone))).await;
    assert_eq!(answer.status, 431, "{}", answer.body);
    assert_eq!(cloud.orchestrator.calls.load(Ordering::SeqCst), 0);
    assert_eq!(cloud.raw(&format!("{url}?{}", signed(USER, &zone))).await.status, 401);
    assert_eq!(cloud.raw(&format!("{url}?command=login&username=admin&password=password")).await.status, 401);
}

#[tokio::test]
async fn the_integration_port_trusts_everybody() {
    let port = testkit::free_port();
    let cloud = Cloud::with(|_| {}, Some(("integration.api.port", &port.to_string()))).await;
    let address = cloud.serving.integration.unwrap();
    let answer = cloud.raw(&format!("http://{address}/any/path?command=listZones&response=json")).await;
    assert_eq!(answer.json()["listzonesresponse"]["count"], 1);
    let caller = cloud.orchestrator.caller.lock().unwrap().clone();
    assert_eq!((caller.account_id, caller.is_root_admin()), (1, true));
    let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"GET /?command=listUnicorns HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 432 Unknown API command: listUnicorns\r\n"), "{text}");
    assert!(text.contains("<errorresponse"));
    assert_eq!(cloud.raw(&format!("http://{address}/?response=json")).await.status, 432);
}

#[tokio::test]
async fn connections_are_kept_and_drained() {
    let cloud = Cloud::start().await;
    let mut tcp = tokio::net::TcpStream::connect(cloud.serving.http[0]).await.unwrap();
    let request = format!("GET /client/api?{} HTTP/1.1\r\nhost: x\r\n\r\n", signed(USER, &[("command", "listZones")]));
    let mut buffer = vec![0; 65536];
    for _ in 0..3 {
        tcp.write_all(request.as_bytes()).await.unwrap();
        let n = tcp.read(&mut buffer).await.unwrap();
        assert!(buffer[..n].starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    // A request under way is finished after the stop.
    let held = cloud.orchestrator.gate.clone().lock_owned().await;
    let calls = cloud.orchestrator.calls.load(Ordering::SeqCst);
    tcp.write_all(request.as_bytes()).await.unwrap();
    testkit::eventually(|| async { (cloud.orchestrator.calls.load(Ordering::SeqCst) > calls).then_some(()) }).await;
    let node = cloud.node.clone();
    node.stop.cancel();
    testkit::eventually(|| async { tokio::net::TcpStream::connect(cloud.serving.http[0]).await.err() }).await;
    drop(held);
    let n = tcp.read(&mut buffer).await.unwrap();
    assert!(buffer[..n].starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(tcp.read(&mut buffer).await.unwrap(), 0, "closed afterwards");
    node.tasks.close();
    tokio::time::timeout(Duration::from_secs(10), node.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let cloud = Cloud::with(
        |options| {
            options.limits.body = 1000;
            options.limits.answer = Duration::from_millis(300);
        },
        None,
    )
    .await;
    assert_eq!(cloud.post_body("x".repeat(2000)).await.status, 413);
    let flood = (0..3000).map(|n| format!("{n}")).collect::<Vec<_>>().join("&");
    assert_eq!(cloud.raw(&format!("{}?{flood}", cloud.url())).await.status, 400);
    let put = cloud.http.put(cloud.url()).send().await.unwrap();
    assert_eq!(put.status().as_u16(), 405);
    let held = cloud.orchestrator.gate.clone().lock_owned().await;
    let slow = cloud.get(USER, &[("command", "listZones")]).await;
    assert_eq!((slow.status, slow.header("retry-after").len()), (503, 1), "a list may be asked for again");
    drop(held);
    let base = format!("http://{}", cloud.serving.http[0]);
    assert_eq!(cloud.raw(&format!("{base}/client/")).await.status, 200);
    assert_eq!(cloud.raw(&base).await.header("location"), "/client/");
    assert_eq!(cloud.raw(&format!("{base}/other")).await.status, 404);
}

#[tokio::test]
async fn settings_of_answers() {
    let cloud = Cloud::start().await;
    cloud.set("json.content.type", "text/javascript").await;
    cloud.set("encode.api.response", "true").await;
    let zone =
        [("command", "createZone"), ("dns1", "1"), ("internaldns1", "2"), ("name", "a b"), ("networktype", "Basic")];
    let answer = cloud.get(ADMIN, &zone).await;
    assert_eq!(answer.header("content-type"), "text/javascript");
    assert_eq!(answer.json()["createzoneresponse"]["zone"]["name"], "a%20b");
}
