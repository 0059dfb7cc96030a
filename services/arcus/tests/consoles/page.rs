//! Who gets the page, and what stands in it.

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_for_whoever_may_use_the_machine() {
    let world = World::new().await;
    // Debian's package may not be here: what the page loads is looked at where it is.
    let page = world.access(&world.owner, &world.vm).await;
    if std::path::Path::new("/usr/share/novnc/core/rfb.js").exists() {
        assert_eq!(page.status, 200);
        let (text, policy) = (page.text(), page.headers["content-security-policy"].to_str().unwrap());
        assert!(text.contains("<title>web1</title>") && !text.contains("<script>"), "{text}");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(page.headers["cache-control"], "no-store");
        for file in ["console.js", "console.css", "novnc/core/rfb.js", "novnc/vendor/pako/lib/zlib/inflate.js"] {
            let file = world.get(&format!("http://{}/client/console/{file}", world.host())).await;
            assert_eq!(file.status, 200);
        }
    } else {
        assert_eq!(page.status, 503);
        assert!(page.text().contains("apt-get install novnc"), "{}", page.text());
    }
    assert_eq!(world.get(&format!("http://{}/client/console/novnc/../x.js", world.host())).await.status, 404);

    // Nobody, somebody else, the administrator.
    let url = |query: &str| format!("http://{}/client/console?{query}", world.host());
    let denied = world.get(&url(&format!("cmd=access&vm={}", world.vm))).await;
    assert_eq!(denied.status, 401);
    assert!(denied.text().contains("Access denied. Invalid web session or API key in request"));
    let foreign = world.access(&world.stranger, &world.vm).await;
    assert_eq!((foreign.status, foreign.text().contains("Permission denied")), (403, true));
    assert_eq!(world.access(&world.admin, &world.vm).await.status, page.status);
    let signed = world.url(&world.owner, &[("cmd", "access"), ("vm", &world.vm)]);
    assert_eq!(world.get(&signed.replace("signature=", "signature=A")).await.status, 401);

    // Within a session, by the cookie alone; a session key that is sent must fit.
    let login = [("command", "login"), ("username", "owner"), ("password", "password"), ("response", "json")];
    let form = login.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("&");
    let login = world.http().post(format!("http://{}/client/api", world.host())).body(form);
    let login = world.send(login.header("content-type", "application/x-www-form-urlencoded")).await;
    let cookies: Vec<_> = login.headers.get_all("set-cookie").iter().map(|c| c.to_str().unwrap()).collect();
    let session = cookies.iter().find(|c| c.starts_with("JSESSIONID=")).unwrap().split(';').next().unwrap();
    let ask = |query: String| world.http().get(url(&query)).header("cookie", session);
    let access = format!("cmd=access&vm={}", world.vm);
    assert_eq!(world.send(ask(access.clone())).await.status, page.status);
    assert_eq!(world.send(ask(format!("{access}&sessionkey=forged"))).await.status, 401);
    assert_eq!(world.send(ask("cmd=access&vm=none".into())).await.status, 404);
    assert_eq!(world.send(ask(format!("cmd=format&vm={}", world.vm))).await.status, 400);
    assert_eq!(world.send(ask("cmd=access".into())).await.status, 400);
    let auth = world.send(ask(format!("cmd=auth&vm={}&sid=guess", world.vm))).await;
    assert_eq!((auth.status, auth.text().as_str()), (200, "failed"));

    // A picture of the screen, of the size that was asked for.
    let thumbnail = |who, size: &[(&str, &str)]| {
        let params = [&[("cmd", "thumbnail"), ("vm", world.vm.as_str())], size].concat();
        world.url(who, &params)
    };
    let picture = world.get(&thumbnail(&world.owner, &[("w", "64"), ("h", "40")])).await;
    assert_eq!((picture.status, &picture.headers["content-type"]), (200, &"image/png".parse().unwrap()));
    assert_eq!(picture.body[16..24], [0, 0, 0, 64, 0, 0, 0, 40]);
    assert_eq!(world.get(&thumbnail(&world.stranger, &[])).await.status, 403);

    // A machine that doesn't run shows nothing.
    world.owner.run("stopVirtualMachine", &[("id", &world.vm), ("forced", "true")]).await.unwrap();
    let stopped = world.access(&world.owner, &world.vm).await;
    assert_eq!((stopped.status, stopped.text().contains("is Stopped")), (409, true), "{}", stopped.text());
}
