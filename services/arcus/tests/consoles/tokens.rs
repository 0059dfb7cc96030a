//! What opens a console, and what doesn't.

use crate::world::{World, deploy};
use store::{Sql, now_micros};
use vault::Vault;

/// A token as the gateway makes it, with whatever is to be tried in it.
fn forge(world: &World, vm: &str, user: i64, host: &str, nonce: &str, expires: i64) -> String {
    let vault = Vault::open(&world.dev.data().join("master.key")).unwrap();
    vault.seal("console.token", format!("{vm}\n{user}\n{host}\n{nonce}\n{expires}").as_bytes()).replace(':', ".")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_one_console_once() {
    if !crate::chromium::viewer_is_here() {
        return;
    }
    let world = World::new().await;
    let (host, origin) = (world.host(), format!("http://{}", world.host()));
    let refused = |token: String, origin: Option<String>| {
        let world = &world;
        async move { world.socket(&token, origin.as_deref()).await.err() }
    };
    let fresh = || async { world.access(&world.owner, &world.vm).await.token() };

    // Made up, changed, of another installation.
    for forged in ["", "x", "v1.0.AAAA"] {
        assert_eq!(refused(forged.into(), Some(origin.clone())).await, Some(403), "{forged:?}");
    }
    let token = fresh().await;
    let changed: String = token.char_indices().map(|(i, c)| if i == token.len() - 6 { 'x' } else { c }).collect();
    assert_eq!(refused(changed, Some(origin.clone())).await, Some(403));
    let other = Vault::open(&world.dev.data().join("other.key")).unwrap();
    let soon = now_micros() + 30_000_000;
    let of_other = other.seal("console.token", format!("{}\n2\n{host}\nn\n{soon}", world.vm).as_bytes());
    assert_eq!(refused(of_other.replace(':', "."), Some(origin.clone())).await, Some(403));

    // From another page, or none.
    let token = fresh().await;
    for page in ["http://evil.example", "null", "http://127.0.0.1"] {
        assert_eq!(refused(token.clone(), Some(page.into())).await, Some(403), "{page}");
    }
    assert_eq!(refused(token.clone(), None).await, Some(403));

    // Those refusals didn't use it up; once it has opened a console, it is.
    let socket = world.own_socket(&token).await.unwrap();
    assert_eq!(refused(token.clone(), Some(origin.clone())).await, Some(403), "replayed while it is in use");
    drop(socket);
    assert_eq!(refused(token, Some(origin.clone())).await, Some(403), "replayed afterwards");

    // What the gateway sealed says which machine, whose, until when: here it is made with the installation's own key.
    let db = world.dev.db().await;
    let user = |name: &'static str| {
        let db = db.clone();
        async move {
            let row = db.one(Sql::new("SELECT id FROM users WHERE username_lower = ?").bind(name)).await;
            row.unwrap().at::<i64>(0).unwrap()
        }
    };
    let (owner, stranger) = (user("owner").await, user("stranger").await);
    let ours = forge(&world, &world.vm, owner, &host, "n1", soon);
    assert!(world.own_socket(&ours).await.is_ok(), "this is how tokens are made");
    let expired = forge(&world, &world.vm, owner, &host, "n2", now_micros() - 1);
    assert_eq!(refused(expired, Some(origin.clone())).await, Some(403));
    let foreign = forge(&world, &world.vm, stranger, &host, "n3", soon);
    assert_eq!(refused(foreign, Some(origin.clone())).await, Some(403), "checked again where the machine is known");
    let nothing = forge(&world, "none", owner, &host, "n4", soon);
    assert_eq!(refused(nothing, Some(origin.clone())).await, Some(404));

    // One machine's token shows that machine, whatever the viewer says.
    let ids = world.dev.ids().await;
    let second = deploy(&world.owner, &ids, "web2").await;
    assert_eq!(world.look(&world.owner, &second).await.name, "web2");
    assert_eq!(world.look(&world.owner, &world.vm).await.name, "web1");

    // A user who was disabled meanwhile.
    let token = fresh().await;
    let listed = world.admin.call("listUsers", &[("username", "owner"), ("listall", "true")]).await.unwrap();
    world.admin.run("disableUser", &[("id", &crate::world::text(&listed, "/user/0/id"))]).await.unwrap();
    assert_eq!(refused(token, Some(origin)).await, Some(403));

    // Never logged.
    let log = std::fs::read_to_string(world.dev.data().join("log")).unwrap();
    assert!(!log.contains("v1.") && !log.contains("token="), "{log}");
}
