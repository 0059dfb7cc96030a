//! CD drives as clients see them, through the whole system, with simulated hosts.

use crate::affinity::refusal;
use crate::dev::Dev;
use arcus::api_client::ApiClient;
use serde_json::Value;
use std::time::Duration;
use testkit::wait_until;

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

/// What registerIso takes.
async fn register(api: &ApiClient, zone: &str, name: &str, more: &[(&str, &str)]) -> String {
    let os_types = api.call("listOsTypes", &[("pagesize", "1"), ("page", "1")]).await.unwrap();
    let os_type = text(&os_types, "/ostype/0/id");
    let url = format!("http://images.example/{name}.iso?bytes=4194304&millis=1");
    let mut params = vec![("name", name), ("displaytext", "A CD"), ("zoneid", zone), ("ostypeid", &os_type)];
    if !more.iter().any(|(key, _)| *key == "url") {
        params.push(("url", &url));
    }
    params.extend(more);
    text(&api.call("registerIso", &params).await.unwrap(), "/iso/0/id")
}

async fn ready(api: &ApiClient, id: &str) {
    let isready = || async {
        let listed = api.call("listIsos", &[("isofilter", "executable"), ("id", id)]).await.unwrap();
        listed.pointer("/iso/0/isready").and_then(Value::as_bool) == Some(true)
    };
    wait_until(isready, Duration::from_secs(60)).await;
}

/// The machines that have an ISO in their drive.
async fn readers(api: &ApiClient, iso: &str) -> Vec<String> {
    let listed = api.call("listVirtualMachines", &[("listall", "true"), ("isoid", iso)]).await.unwrap();
    let found = listed.pointer("/virtualmachine").and_then(Value::as_array).cloned().unwrap_or_default();
    found.iter().map(|vm| text(vm, "/id")).collect()
}

async fn shown(api: &ApiClient, vm: &str) -> Value {
    let listed = api.call("listVirtualMachines", &[("listall", "true"), ("id", vm)]).await.unwrap();
    listed.pointer("/virtualmachine/0").cloned().unwrap_or_default()
}

// covers: VM-178, VM-259, VM-268, VM-269, VM-270
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_boots_from_an_iso_which_is_changed_and_taken_out() {
    let mut dev = Dev::with_zone(2).await;
    let (api, ids) = (dev.api(), dev.ids().await);
    let offerings = api.call("listDiskOfferings", &[("name", "Small")]).await.unwrap();
    let small = text(&offerings, "/diskoffering/0/id");
    let slow = "http://images.example/slow.iso?bytes=4194304&millis=600000";
    let coming = register(&api, &ids[0], "coming", &[("url", slow)]).await;
    let install = register(&api, &ids[0], "install", &[("bootable", "true")]).await;
    let rescue = register(&api, &ids[0], "rescue", &[("bootable", "true")]).await;
    let tools = register(&api, &ids[0], "tools", &[("bootable", "false"), ("ispublic", "true")]).await;
    for iso in [&install, &rescue, &tools] {
        ready(&api, iso).await;
    }
    let deploy = |iso: &str, more: &[(&str, &str)]| {
        let all = [
            ("zoneid", ids[0].as_str()),
            ("templateid", iso),
            ("serviceofferingid", &ids[2]),
            ("networkids", &ids[3]),
            ("diskofferingid", &small),
            ("hypervisor", "simulator"),
            ("name", "blank"),
        ];
        let kept = all.into_iter().filter(|(key, _)| more.iter().all(|(other, _)| other != key));
        let params: Vec<(String, String)> = kept
            .chain(more.iter().copied())
            .filter(|(_, v)| !v.is_empty())
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        params
    };
    // What nothing can be installed from, and what says too little or too much.
    for (params, word) in [
        (deploy(&coming, &[]), "isn't downloaded"),
        (deploy(&tools, &[]), "bootable"),
        (deploy(&install, &[("diskofferingid", "")]), "requires a disk offering"),
        (deploy(&install, &[("hypervisor", "")]), "hypervisor parameter is needed"),
        (deploy(&install, &[("hypervisor", "KVM")]), "hypervisor parameter"),
        (deploy(&install, &[("rootdisksize", "9")]), "rootdisksize"),
    ] {
        let params: Vec<(&str, &str)> = params.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let (code, why) = refusal(&api, "deployVirtualMachine", &params).await;
        assert!(code == 431 && why.contains(word), "{word}: {code} {why}");
    }
    let params = deploy(&install, &[]);
    let params: Vec<(&str, &str)> = params.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let made = api.run("deployVirtualMachine", &params).await.unwrap();
    let vm = text(&made, "/virtualmachine/id");
    assert_eq!(text(&made, "/virtualmachine/state"), "Running");
    for (key, value) in
        [("isoid", install.as_str()), ("isoname", "install"), ("isodisplaytext", "A CD"), ("templateid", &install)]
    {
        assert_eq!(text(&made, &format!("/virtualmachine/{key}")), value);
    }
    let volumes = api.call("listVolumes", &[("virtualmachineid", &vm)]).await.unwrap();
    assert_eq!(
        (volumes["count"].as_i64(), volumes.pointer("/volume/0/size").and_then(Value::as_i64)),
        (Some(1), Some(5 << 30))
    );
    assert_eq!(text(&volumes, "/volume/0/type"), "ROOT");

    // Another one takes its place; what isn't there yet doesn't.
    let (code, early) = refusal(&api, "attachIso", &[("virtualmachineid", &vm), ("id", &coming)]).await;
    assert!(code == 431 && early.contains("isn't downloaded"), "{early}");
    let (code, _) = refusal(&api, "attachIso", &[("virtualmachineid", &vm), ("id", &ids[1])]).await;
    assert_eq!(code, 431, "a template is no ISO");
    let changed = api.run("attachIso", &[("virtualmachineid", &vm), ("id", &tools)]).await.unwrap();
    assert_eq!(text(&changed, "/virtualmachine/isoid"), tools);
    assert_eq!((readers(&api, &tools).await, readers(&api, &install).await), (vec![vm.clone()], vec![]));
    let (code, why) = refusal(&api, "deleteIso", &[("id", &tools)]).await;
    assert!(code == 431 && why.contains("used by other vms") && why.contains(&vm), "{why}");

    // It stays over everything that the machine goes through, kills included.
    api.run("rebootVirtualMachine", &[("id", &vm)]).await.unwrap();
    let hosts = api.call("listHosts", &[("type", "Routing")]).await.unwrap();
    let home = text(&shown(&api, &vm).await, "/hostid");
    let hosts: Vec<String> = hosts["host"].as_array().unwrap().iter().map(|host| text(host, "/id")).collect();
    let other = hosts.iter().find(|host| **host != home).unwrap();
    let moved = api.run("migrateVirtualMachine", &[("virtualmachineid", &vm), ("hostid", other)]).await.unwrap();
    assert_eq!(text(&moved, "/virtualmachine/isoid"), tools);
    dev.kill();
    dev.restart().await;
    let api = dev.api();
    api.run("stopVirtualMachine", &[("id", &vm)]).await.unwrap();
    assert_eq!(text(&shown(&api, &vm).await, "/isoid"), tools);
    let started = api.run("startVirtualMachine", &[("id", &vm)]).await.unwrap();
    assert_eq!(text(&started, "/virtualmachine/isoid"), tools);
    let short = api.call("listVirtualMachines", &[("id", &vm), ("details", "min")]).await.unwrap();
    assert_eq!(short.pointer("/virtualmachine/0/isoid"), None);

    let empty = api.run("detachIso", &[("virtualmachineid", &vm)]).await.unwrap();
    assert_eq!(empty.pointer("/virtualmachine/isoid"), None);
    assert_eq!(refusal(&api, "detachIso", &[("virtualmachineid", &vm)]).await.0, 431);
    // Reinstalled from an ISO, never from a template; and a machine of a template never from an ISO.
    let listed = api.call("listVirtualMachines", &[("listall", "true"), ("templateid", &ids[1])]).await.unwrap();
    let of_template = text(&listed, "/virtualmachine/0/id");
    let wrong = [("virtualmachineid", of_template.as_str()), ("templateid", install.as_str())];
    assert_eq!(refusal(&api, "restoreVirtualMachine", &wrong).await.0, 431);
    let template = [("virtualmachineid", vm.as_str()), ("templateid", ids[1].as_str())];
    assert_eq!(refusal(&api, "restoreVirtualMachine", &template).await.0, 431);
    assert_eq!(refusal(&api, "restoreVirtualMachine", &[("virtualmachineid", &vm)]).await.0, 530);
    let anew = [("virtualmachineid", vm.as_str()), ("templateid", rescue.as_str())];
    let restored = api.run("restoreVirtualMachine", &anew).await.unwrap();
    assert_eq!(
        (text(&restored, "/virtualmachine/isoid"), text(&restored, "/virtualmachine/state")),
        (rescue.clone(), "Running".into())
    );

    // Stopped, it is there at the next start; expunged, nobody has it.
    api.run("stopVirtualMachine", &[("id", &vm)]).await.unwrap();
    api.run("attachIso", &[("virtualmachineid", vm.as_str()), ("id", &tools)]).await.unwrap();
    api.run("startVirtualMachine", &[("id", &vm)]).await.unwrap();
    let told = || async {
        let events = api.call("listEvents", &[("type", "ISO.ATTACH"), ("listall", "true")]).await.unwrap();
        events["count"].as_i64() == Some(4)
    };
    wait_until(told, Duration::from_secs(60)).await; // two that were asked for and done
    api.run("destroyVirtualMachine", &[("id", vm.as_str()), ("expunge", "true")]).await.unwrap();
    for iso in [&tools, &rescue, &install] {
        api.run("deleteIso", &[("id", iso)]).await.unwrap();
    }
    dev.settle().await;
    dev.audit().await;
}

// covers: VM-257
/// One's own, public ones and those that are shared; never somebody else's, and never into somebody else's machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isos_are_attached_by_those_who_may_use_them() {
    let dev = Dev::with_zone(1).await;
    let (admin, ids) = (dev.api(), dev.ids().await);
    let account = [
        ("accounttype", "0"),
        ("email", "x@example.org"),
        ("firstname", "X"),
        ("lastname", "X"),
        ("username", "guest"),
        ("password", "secret-word"),
    ];
    let made = admin.call("createAccount", &account).await.unwrap();
    let keys = admin.call("registerUserKeys", &[("id", &text(&made, "/account/user/0/id"))]).await.unwrap();
    let user = dev.api_as(&text(&keys, "/userkeys/apikey"), &text(&keys, "/userkeys/secretkey"));
    let secret = register(&admin, &ids[0], "secret", &[]).await;
    let public = register(&admin, &ids[0], "public", &[("ispublic", "true")]).await;
    let own = register(&user, &ids[0], "own", &[("bootable", "false")]).await;
    for iso in [&secret, &public, &own] {
        ready(&admin, iso).await;
    }
    let listed = user.call("listIsos", &[("isofilter", "executable")]).await.unwrap();
    let seen: Vec<String> = listed["iso"].as_array().unwrap().iter().map(|iso| text(iso, "/id")).collect();
    assert_eq!(seen, [public.clone(), own.clone()]);
    let bootless = [
        ("zoneid", ids[0].as_str()),
        ("templateid", &own),
        ("serviceofferingid", &ids[2]),
        ("hypervisor", "Simulator"),
    ];
    assert_eq!(refusal(&user, "deployVirtualMachine", &bootless).await.0, 431);
    let machine =
        [("zoneid", ids[0].as_str()), ("templateid", &ids[1]), ("serviceofferingid", &ids[2]), ("startvm", "false")];
    let vm = text(&user.run("deployVirtualMachine", &machine).await.unwrap(), "/virtualmachine/id");
    let listed = admin.call("listVirtualMachines", &[]).await.unwrap();
    let foreign = text(&listed, "/virtualmachine/0/id");
    for iso in [&public, &own] {
        user.run("attachIso", &[("virtualmachineid", &vm), ("id", iso)]).await.unwrap();
    }
    // Nor by an administrator: the machine's owner may not use it.
    for (api, vm, iso) in [(&user, &vm, &secret), (&user, &foreign, &own), (&admin, &vm, &secret)] {
        assert_eq!(refusal(api, "attachIso", &[("virtualmachineid", vm), ("id", iso)]).await.0, 531);
    }
    assert_eq!(text(&shown(&user, &vm).await, "/isoid"), own, "what was refused changed nothing");
    let share = [("id", secret.as_str()), ("op", "add"), ("accounts", "guest")];
    admin.call("updateIsoPermissions", &share).await.unwrap();
    user.run("attachIso", &[("virtualmachineid", &vm), ("id", &secret)]).await.unwrap();
    user.run("detachIso", &[("virtualmachineid", &vm)]).await.unwrap();
    dev.settle().await;
    dev.audit().await;
}
