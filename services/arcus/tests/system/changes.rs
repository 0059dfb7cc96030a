//! What becomes of a machine through the whole system: its size, its group, its root disk.

use crate::dev::{Dev, deploy_params};
use arcus::api_client::ApiClient;
use serde_json::Value;
use std::time::Duration;
use testkit::wait_until;

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

fn number(value: &Value, pointer: &str) -> i64 {
    let found = value.pointer(pointer).and_then(Value::as_i64);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

/// The number with which a request is refused.
async fn code(api: &ApiClient, command: &str, params: &[(&str, &str)]) -> i64 {
    let body: Value = serde_json::from_slice(&api.raw(command, params).await.unwrap()).unwrap();
    let inner = body.as_object().and_then(|o| o.values().next()).cloned().unwrap_or_default();
    inner.get("errorcode").and_then(Value::as_i64).unwrap_or_else(|| panic!("{command} {params:?} answered {body}"))
}

/// Gives a machine another offering, by this command.
async fn scaled(api: &ApiClient, command: &str, vm: &str, offering: &str, details: &[(&str, &str)]) -> Value {
    let params = [&[("id", vm), ("serviceofferingid", offering)], details].concat();
    api.run(command, &params).await.unwrap()
}

async fn offering(api: &ApiClient, name: &str, size: [&str; 3], more: &[(&str, &str)]) -> String {
    let mut params =
        vec![("name", name), ("displaytext", name), ("cpunumber", size[0]), ("cpuspeed", size[1]), ("memory", size[2])];
    params.extend(more);
    text(&api.call("createServiceOffering", &params).await.unwrap(), "/serviceoffering/id")
}

/// CPUs and MiB that the administrator's account counts.
async fn counted(api: &ApiClient) -> (String, String) {
    let found = api.call("listAccounts", &[("name", "admin"), ("listall", "true")]).await.unwrap();
    let said = |pointer: &str| found.pointer(pointer).map(|v| v.to_string().replace('"', "")).unwrap();
    (said("/account/0/cputotal"), said("/account/0/memorytotal"))
}

/// Waits until an event of this type and state is listed.
async fn told(api: &ApiClient, kind: &str, state: &str) {
    let listed = || async {
        let events = api.call("listEvents", &[("type", kind), ("listall", "true")]).await.unwrap();
        let events = events.pointer("/event").and_then(Value::as_array).cloned().unwrap_or_default();
        events.iter().any(|e| e.pointer("/state").and_then(Value::as_str) == Some(state))
    };
    wait_until(listed, Duration::from_secs(60)).await;
}

async fn shown(api: &ApiClient, vm: &str) -> Value {
    let found = api.call("listVirtualMachines", &[("id", vm), ("listall", "true")]).await.unwrap();
    found.pointer("/virtualmachine/0").unwrap().clone()
}

async fn root(api: &ApiClient, vm: &str) -> String {
    let found = api.call("listVolumes", &[("virtualmachineid", vm), ("type", "ROOT")]).await.unwrap();
    assert_eq!(found.pointer("/volume").and_then(Value::as_array).map(Vec::len), Some(1), "{found}");
    text(&found, "/volume/0/id")
}

/// Memory that hosts count as promised, in bytes.
async fn promised(api: &ApiClient) -> i64 {
    number(&api.call("listCapacity", &[("type", "0")]).await.unwrap(), "/capacity/0/capacityused")
}

// covers: VM-232, VM-233, VM-242, REL-130, REL-161
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_gets_another_size() {
    let dev = Dev::with_zone(2).await;
    let (api, ids) = (dev.api(), dev.ids().await);
    let larger = offering(&api, "larger", ["2", "1000", "1024"], &[]).await;
    let smaller = offering(&api, "smaller", ["1", "250", "256"], &[]).await;
    let local = offering(&api, "local", ["2", "1000", "1024"], &[("storagetype", "local")]).await;
    let tagged = offering(&api, "tagged", ["2", "1000", "1024"], &[("tags", "nowhere")]).await;
    let custom = [("name", "custom"), ("displaytext", "custom"), ("customized", "true")];
    let custom = text(&api.call("createServiceOffering", &custom).await.unwrap(), "/serviceoffering/id");
    let vm = text(&api.run("deployVirtualMachine", &deploy_params(&ids, "vm")).await.unwrap(), "/virtualmachine/id");
    const SCALE: &str = "scaleVirtualMachine";
    const CHANGE: &str = "changeServiceForVirtualMachine";
    let refused = |command: &'static str, offering: &str| {
        let (api, vm, offering) = (&api, vm.clone(), offering.to_owned());
        async move { code(api, command, &[("id", &vm), ("serviceofferingid", &offering)]).await }
    };

    // A running machine: not by changeService, and by scale only where everybody agrees, and only upwards.
    let before = shown(&api, &vm).await;
    assert_eq!(refused(CHANGE, &larger).await, 431);
    assert_eq!(refused(SCALE, &larger).await, 531, "the zone lets none be scaled");
    let zone = ids[0].as_str();
    api.call("updateConfiguration", &[("name", "enable.dynamic.scale.vm"), ("value", "true"), ("zoneid", zone)])
        .await
        .unwrap();
    assert_eq!(refused(SCALE, &larger).await, 530, "its guest can't be");
    api.call("updateVirtualMachine", &[("id", &vm), ("isdynamicallyscalable", "true")]).await.unwrap();
    assert_eq!(refused(SCALE, &smaller).await, 431, "upwards only");
    assert_eq!(refused(SCALE, &ids[2]).await, 431, "it has that already");
    assert_eq!(refused(SCALE, &local).await, 431);
    assert_eq!(refused(SCALE, &tagged).await, 431);
    let unchanged = shown(&api, &vm).await;
    assert_eq!(unchanged.pointer("/serviceofferingid"), before.pointer("/serviceofferingid"), "nothing was changed");
    let (held, counts) = (promised(&api).await, counted(&api).await);
    let grown = scaled(&api, SCALE, &vm, &larger, &[]).await;
    assert_eq!((number(&grown, "/virtualmachine/cpunumber"), number(&grown, "/virtualmachine/memory")), (2, 1024));
    assert_eq!(text(&grown, "/virtualmachine/state"), "Running");
    let now = shown(&api, &vm).await;
    assert_eq!(now.pointer("/hostid"), before.pointer("/hostid"), "on its host");
    let more = 1024 - number(&before, "/memory");
    assert_eq!(promised(&api).await - held, more * 1024 * 1024);
    let of = |counts: &(String, String)| (counts.0.parse::<i64>().unwrap(), counts.1.parse::<i64>().unwrap());
    let (old, new) = (of(&counts), of(&counted(&api).await));
    assert_eq!((new.0 - old.0, new.1 - old.1), (2 - number(&before, "/cpunumber"), more));

    // A stopped one gets any.
    api.run("stopVirtualMachine", &[("id", &vm)]).await.unwrap();
    let changed = scaled(&api, CHANGE, &vm, &smaller, &[]).await;
    assert_eq!((number(&changed, "/virtualmachine/cpunumber"), number(&changed, "/virtualmachine/memory")), (1, 256));
    assert_eq!(refused(CHANGE, &smaller).await, 431);
    assert_eq!(refused(CHANGE, &custom).await, 431, "its values are missing");
    let values =
        |cpus, mib| [("details[0].cpuNumber", cpus), ("details[0].cpuSpeed", "500"), ("details[0].memory", mib)];
    let changed = scaled(&api, SCALE, &vm, &custom, &values("2", "512")).await;
    assert_eq!((number(&changed, "/virtualmachine/cpunumber"), number(&changed, "/virtualmachine/memory")), (2, 512));
    assert_eq!(text(&changed, "/virtualmachine/details/memory"), "512");
    let changed = scaled(&api, SCALE, &vm, &custom, &values("1", "384")).await;
    assert_eq!(number(&changed, "/virtualmachine/memory"), 384, "the same offering, with other values");
    let started = api.run("startVirtualMachine", &[("id", &vm)]).await.unwrap();
    assert_eq!(number(&started, "/virtualmachine/memory"), 384);
    told(&api, "VM.UPGRADE", "Completed").await;
    a_limit_holds(&api, &ids, &larger).await;
    dev.settle().await;
    dev.audit().await;
}

/// What its account may not have, a machine doesn't get; it starts as it was.
async fn a_limit_holds(api: &ApiClient, ids: &[String; 4], larger: &str) {
    let account = [
        ("accounttype", "0"),
        ("email", "s@example.org"),
        ("firstname", "S"),
        ("lastname", "S"),
        ("username", "small"),
        ("password", "secret-word"),
    ];
    let made = api.call("createAccount", &account).await.unwrap();
    let domain = text(&made, "/account/domainid");
    let whose = [("account", "small"), ("domainid", domain.as_str())];
    let params = [
        &whose[..],
        &[("zoneid", &ids[0]), ("templateid", &ids[1]), ("serviceofferingid", &ids[2]), ("startvm", "false")],
    ]
    .concat();
    let vm = text(&api.run("deployVirtualMachine", &params).await.unwrap(), "/virtualmachine/id");
    let limit = [&whose[..], &[("resourcetype", "9"), ("max", "1000")]].concat();
    api.call("updateResourceLimit", &limit).await.unwrap();
    let to = [("id", vm.as_str()), ("serviceofferingid", larger)];
    assert_eq!(code(api, "changeServiceForVirtualMachine", &to).await, 535);
    let error = api.run("scaleVirtualMachine", &to).await.unwrap_err();
    assert!(format!("{error:#}").contains("Maximum number of resources of type 'memory'"), "{error:#}");
    let left = shown(api, &vm).await;
    assert_eq!(text(&left, "/serviceofferingid"), ids[2]);
    let started = api.run("startVirtualMachine", &[("id", &vm)]).await.unwrap();
    assert_eq!(text(&started, "/virtualmachine/state"), "Running");
}

// covers: VM-150
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_sorted_into_groups() {
    let dev = Dev::with_zone(2).await;
    let (api, ids) = (dev.api(), dev.ids().await);
    let web = text(&api.call("createInstanceGroup", &[("name", "Wéb ☃")]).await.unwrap(), "/instancegroup/id");
    assert_eq!(code(&api, "createInstanceGroup", &[("name", "Wéb ☃")]).await, 431);
    let mut params = deploy_params(&ids, "first");
    params.push(("group", "Wéb ☃"));
    let first = api.run("deployVirtualMachine", &params).await.unwrap();
    assert_eq!(text(&first, "/virtualmachine/groupid"), web);
    // One that isn't there is made.
    let mut params = deploy_params(&ids, "second");
    params.push(("group", "db"));
    let second = api.run("deployVirtualMachine", &params).await.unwrap();
    let (db, second) = (text(&second, "/virtualmachine/groupid"), text(&second, "/virtualmachine/id"));
    let listed = api.call("listInstanceGroups", &[("keyword", "db")]).await.unwrap();
    assert_eq!((number(&listed, "/count"), text(&listed, "/instancegroup/0/id")), (1, db.clone()));
    let members = api.call("listVirtualMachines", &[("groupid", &db)]).await.unwrap();
    assert_eq!((number(&members, "/count"), text(&members, "/virtualmachine/0/group")), (1, "db".to_owned()));
    // From one into another, and out.
    let moved = api.call("updateVirtualMachine", &[("id", &second), ("group", "Wéb ☃")]).await.unwrap();
    assert_eq!(text(&moved, "/virtualmachine/groupid"), web);
    assert!(api.call("listVirtualMachines", &[("groupid", &db)]).await.unwrap().pointer("/virtualmachine").is_none());
    let renamed = api.call("updateInstanceGroup", &[("id", &web), ("name", "front")]).await.unwrap();
    assert_eq!(text(&renamed, "/instancegroup/name"), "front");
    assert_eq!(code(&api, "updateInstanceGroup", &[("id", &web), ("name", "db")]).await, 431);
    api.call("deleteInstanceGroup", &[("id", &web)]).await.unwrap();
    assert_eq!(code(&api, "deleteInstanceGroup", &[("id", &web)]).await, 431);
    let left = shown(&api, &second).await;
    assert_eq!((text(&left, "/state"), left.pointer("/groupid")), ("Running".to_owned(), None));
    dev.settle().await;
    dev.audit().await;
}

// covers: VM-223
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_a_machine_is_changed() {
    const UPDATE: &str = "updateVirtualMachine";
    let dev = Dev::with_zone(2).await;
    let (api, ids) = (dev.api(), dev.ids().await);
    // A guest with a password: its router is told it under the machine's id.
    api.call("updateTemplate", &[("id", &ids[1]), ("passwordenabled", "true")]).await.unwrap();
    let vm = text(&api.run("deployVirtualMachine", &deploy_params(&ids, "vm")).await.unwrap(), "/virtualmachine/id");
    let types = api.call("listOsTypes", &[("page", "1"), ("pagesize", "2")]).await.unwrap();
    let before = shown(&api, &vm).await;
    let os_type =
        if text(&types, "/ostype/0/id") == text(&before, "/ostypeid") { "/ostype/1/id" } else { "/ostype/0/id" };
    let os_type = text(&types, os_type);
    let id = [("id", vm.as_str())];
    let update = async |params: &[(&str, &str)]| {
        let answer = api.call(UPDATE, &[&id[..], params].concat()).await.unwrap();
        let answer = answer.pointer("/virtualmachine").unwrap().clone();
        let now = text(&answer, "/id");
        assert_eq!(answer, shown(&api, &now).await, "the answer is what is listed");
        answer
    };
    let refused = async |params: &[(&str, &str)]| code(&api, UPDATE, &[&id[..], params].concat()).await;

    // While it runs.
    let now = update(&[("displayname", "Shown"), ("ostypeid", &os_type), ("group", "g")]).await;
    assert_eq!((text(&now, "/displayname"), text(&now, "/group")), ("Shown".into(), "g".into()));
    assert_eq!((text(&now, "/ostypeid"), text(&now, "/guestosid")), (os_type.clone(), os_type.clone()));
    let now = update(&[("isdynamicallyscalable", "true"), ("displayvm", "false"), ("haenable", "false")]).await;
    let said = |pointer: &str| now.pointer(pointer).and_then(Value::as_bool);
    assert_eq!(
        (said("/isdynamicallyscalable"), said("/displayvm"), said("/haenable")),
        (Some(true), Some(false), Some(false))
    );
    update(&[("displayvm", "true"), ("userdata", "aGVsbG8=")]).await;
    assert_eq!(refused(&[("haenable", "true")]).await, 431, "its offering has it not");
    assert_eq!(refused(&[("userdata", "not base64!")]).await, 431);
    let uuid = "0f0f0f0f-0000-4000-8000-00000000abcd";
    for at_rest in [
        ("name", "other"),
        ("details[0].a", "b"),
        ("cleanupdetails", "true"),
        ("instancename", "i-x"),
        ("customid", uuid),
    ] {
        assert_eq!(refused(&[at_rest]).await, 431, "{at_rest:?} of a running machine");
    }
    update(&[("name", "vm")]).await;

    // While it is stopped.
    api.run("stopVirtualMachine", &id).await.unwrap();
    let details =
        |now: &Value, key: &str| now.pointer(&format!("/details/{key}")).and_then(Value::as_str).map(str::to_owned);
    let now = update(&[("details[0].a", "b"), ("name", "other"), ("instancename", "i-x")]).await;
    assert_eq!(
        (details(&now, "a"), text(&now, "/name"), text(&now, "/instancename")),
        (Some("b".into()), "other".into(), "i-x".into())
    );
    assert_eq!(refused(&[("details[0].memory", "64")]).await, 431, "its size isn't changed so");
    let now = update(&[("cleanupdetails", "true"), ("group", "")]).await;
    assert_eq!((details(&now, "a"), now.pointer("/group")), (None, None));
    assert_eq!(refused(&[("customid", "x")]).await, 431);
    assert_eq!(refused(&[("instancename", "-")]).await, 431);
    let tag = [("resourcetype", "UserVm"), ("resourceids", vm.as_str()), ("tags[0].key", "k"), ("tags[0].value", "v")];
    api.run("createTags", &tag).await.unwrap();
    let now = update(&[("customid", uuid)]).await;
    assert_eq!((text(&now, "/id"), text(&now, "/tags/0/resourceid")), (uuid.to_owned(), uuid.to_owned()));
    assert!(api.call("listVirtualMachines", &id).await.is_err(), "its former id is nobody's");
    let started = api.run("startVirtualMachine", &[("id", uuid)]).await.unwrap();
    assert_eq!(
        (text(&started, "/virtualmachine/state"), text(&started, "/virtualmachine/name")),
        ("Running".into(), "other".into())
    );
    let nics = api.call("listNics", &[("virtualmachineid", uuid)]).await.unwrap();
    assert_eq!(text(&nics, "/nic/0/virtualmachineid"), uuid);
    told(&api, "VM.UPDATE", "Completed").await;

    // Where the offering has it, a machine is highly available or not.
    let ha = offering(&api, "ha", ["1", "500", "512"], &[("offerha", "true")]).await;
    let mut params = deploy_params(&ids, "second");
    params.iter_mut().filter(|(name, _)| *name == "serviceofferingid").for_each(|(_, value)| *value = ha.as_str());
    let second = text(&api.run("deployVirtualMachine", &params).await.unwrap(), "/virtualmachine/id");
    for wanted in ["false", "true"] {
        let now = api.call(UPDATE, &[("id", &second), ("haenable", wanted)]).await.unwrap();
        assert_eq!(now.pointer("/virtualmachine/haenable").unwrap().to_string(), wanted);
    }
    assert_eq!(
        code(&api, UPDATE, &[("id", &second), ("customid", uuid)]).await,
        431,
        "it runs, and that id is another's"
    );
    dev.settle().await;
    dev.audit().await;
}

// covers: VM-271, VM-272
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_restored() {
    let dev = Dev::with_zone(2).await;
    let (api, ids) = (dev.api(), dev.ids().await);
    let vm = text(&api.run("deployVirtualMachine", &deploy_params(&ids, "vm")).await.unwrap(), "/virtualmachine/id");
    let (before, disk) = (shown(&api, &vm).await, root(&api, &vm).await);
    let usage = promised_volumes(&api).await;
    let restored = api.run("restoreVirtualMachine", &[("virtualmachineid", &vm)]).await.unwrap();
    assert_eq!(text(&restored, "/virtualmachine/state"), "Running");
    let after = shown(&api, &vm).await;
    for same in ["/id", "/nic/0/id", "/nic/0/ipaddress", "/templateid", "/state"] {
        assert_eq!(after.pointer(same), before.pointer(same), "{same}");
    }
    let fresh = root(&api, &vm).await;
    assert_ne!(fresh, disk, "a new volume");
    assert!(api.call("listVolumes", &[("id", &disk), ("listall", "true")]).await.unwrap().pointer("/volume").is_none());
    assert_eq!(promised_volumes(&api).await, usage, "the old one counts no more");

    // Another template; and a stopped machine stays stopped.
    let snapshot = api.run("createSnapshot", &[("volumeid", &fresh), ("name", "s")]).await.unwrap();
    let snapshot = text(&snapshot, "/snapshot/id");
    let os_type = text(&api.call("listOsTypes", &[("page", "1"), ("pagesize", "1")]).await.unwrap(), "/ostype/0/id");
    let template =
        [("snapshotid", snapshot.as_str()), ("name", "t"), ("displaytext", "t"), ("ostypeid", os_type.as_str())];
    let template = text(&api.run("createTemplate", &template).await.unwrap(), "/template/id");
    api.run("stopVirtualMachine", &[("id", &vm)]).await.unwrap();
    let to = [("virtualmachineid", vm.as_str()), ("templateid", template.as_str())];
    let restored = api.run("restoreVirtualMachine", &to).await.unwrap();
    assert_eq!(text(&restored, "/virtualmachine/state"), "Stopped");
    assert_eq!(text(&restored, "/virtualmachine/templateid"), template);
    let third = root(&api, &vm).await;
    assert_ne!(third, fresh);
    let started = api.run("startVirtualMachine", &[("id", &vm)]).await.unwrap();
    assert_eq!(text(&started, "/virtualmachine/state"), "Running");
    assert_eq!(root(&api, &vm).await, third, "its bytes were made at the start");
    for state in ["Scheduled", "Completed"] {
        told(&api, "VM.RESTORE", state).await;
    }
    api.run("destroyVirtualMachine", &[("id", &vm)]).await.unwrap();
    assert_eq!(code(&api, "restoreVirtualMachine", &[("virtualmachineid", &vm)]).await, 530, "it is destroyed");

    // A volatile one loses its disk at each reboot.
    let volatile = offering(&api, "volatile", ["1", "500", "512"], &[("isvolatile", "true")]).await;
    let mut params = deploy_params(&ids, "volatile");
    params
        .iter_mut()
        .filter(|(name, _)| *name == "serviceofferingid")
        .for_each(|(_, value)| *value = volatile.as_str());
    let vm = text(&api.run("deployVirtualMachine", &params).await.unwrap(), "/virtualmachine/id");
    let (before, disk) = (shown(&api, &vm).await, root(&api, &vm).await);
    let again = api.run("rebootVirtualMachine", &[("id", &vm)]).await.unwrap();
    assert_eq!(text(&again, "/virtualmachine/state"), "Running");
    assert_ne!(root(&api, &vm).await, disk);
    assert_eq!(shown(&api, &vm).await.pointer("/nic/0/ipaddress"), before.pointer("/nic/0/ipaddress"));
    api.run("stopVirtualMachine", &[("id", &vm)]).await.unwrap();
    assert!(api.run("rebootVirtualMachine", &[("id", &vm)]).await.is_err(), "a stopped one isn't rebooted");
    dev.settle().await;
    dev.audit().await;
}

/// Volumes and bytes that the administrator's account counts.
async fn promised_volumes(api: &ApiClient) -> (String, String) {
    let found = api.call("listAccounts", &[("name", "admin"), ("listall", "true")]).await.unwrap();
    let said = |pointer: &str| found.pointer(pointer).map(|v| v.to_string().replace('"', "")).unwrap();
    (said("/account/0/volumetotal"), said("/account/0/primarystoragetotal"))
}

/// Rows of a machine: its own, its volumes', its interfaces'.
async fn left(dev: &Dev, vm: &str) -> i64 {
    let sql = "SELECT (SELECT COUNT(*) FROM vms WHERE id = m.id AND removed IS NULL) \
               + (SELECT COUNT(*) FROM volumes WHERE vm_id = m.id AND removed IS NULL) \
               + (SELECT COUNT(*) FROM nics WHERE vm_id = m.id AND removed IS NULL) FROM vms m WHERE m.uuid = ?";
    dev.db().await.one(store::Sql::new(sql).bind(vm)).await.unwrap().at::<i64>(0).unwrap()
}

// covers: VM-254
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destroyed_machines_go_when_the_settings_say() {
    let dev = Dev::with_zone(1).await;
    let (api, ids) = (dev.api(), dev.ids().await);
    let made = api.run("deployVirtualMachine", &deploy_params(&ids, "gone")).await.unwrap();
    let vm = text(&made, "/virtualmachine/id");
    let destroyed = api.run("destroyVirtualMachine", &[("id", &vm)]).await.unwrap();
    assert_eq!(text(&destroyed, "/virtualmachine/state"), "Destroyed");
    assert_eq!(left(&dev, &vm).await, 3);
    // Both were a day when the duty began to wait.
    for name in ["expunge.delay", "expunge.interval"] {
        api.call("updateConfiguration", &[("name", name), ("value", "2")]).await.unwrap();
    }
    wait_until(async || left(&dev, &vm).await == 0, Duration::from_secs(90)).await;
    let listed = api.call("listVirtualMachines", &[("id", &vm), ("listall", "true")]).await.unwrap();
    assert_eq!(listed.get("virtualmachine").and_then(Value::as_array).map_or(0, Vec::len), 0, "{listed}");
    dev.settle().await;
    dev.audit().await;
}
