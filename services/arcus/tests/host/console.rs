//! The console of a real guest, in a real browser.

use crate::chromium::{Browser, Tab, shares, viewer_is_here};
use crate::world::{Vm, World, text};
use serde_json::json;
use std::time::Duration;
use store::Sql;
use testkit::guest::Guest;
use testkit::until_ok;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

const PATIENCE: Duration = Duration::from_secs(120);

/// Background colours of Linux's console, as escape sequences name them, and as a VGA shows them.
const BARS: [(u8, [u8; 3]); 4] = [(41, [0xa8, 0, 0]), (42, [0, 0xa8, 0]), (44, [0, 0, 0xa8]), (45, [0xa8, 0, 0xa8])];

/// Four bars on the guest's screen of 25 lines, and the last line for what is typed.
fn paint() -> String {
    let bars: Vec<String> = BARS.iter().map(|(colour, _)| colour.to_string()).collect();
    format!(
        "exec >/dev/tty1\nprintf '\\033[2J\\033[H'\nfor colour in {}; do\nfor line in 1 2 3 4 5 6; do\n\
         printf '\\033[%sm\\033[K\\n' $colour\ndone\ndone\nprintf '\\033[0m\\033[K'\n",
        bars.join(" ")
    )
}

/// The page's screen from top to bottom in the middle of each bar: red, green, blue.
const PIXELS: &str = "(() => {
  const canvas = document.querySelector('#screen canvas');
  const context = canvas.getContext('2d');
  return [3, 9, 15, 21].map((line) => {
    const at = context.getImageData(canvas.width / 2, canvas.height * line / 25, 1, 1).data;
    return [at[0], at[1], at[2]];
  });
})()";

async fn open(browser: &Browser, world: &World, vm: &Vm, name: &str) -> Tab {
    let mut tab = browser.tab().await;
    tab.call("Page.enable", json!({})).await;
    let url = world.control.console_url(&world.api, &vm.id);
    tab.call("Page.navigate", json!({ "url": url })).await;
    tab.wait_for("document.getElementById('status')?.textContent === 'Connected'").await;
    assert_eq!(tab.evaluate("document.title").await, name);
    tab
}

/// What the guest has on its screen is what the browser shows, what is typed there reaches the guest, and another guest's console shows
/// something else at the same time. That end users see theirs, too, is shown in `tests/consoles`.
// covers: STO-180, STO-182
pub async fn shown(world: &World, vm: &Vm, guest: &Guest, other: &Vm) {
    if !viewer_is_here() {
        return;
    }
    tokens(world, vm).await;
    let Some(browser) = Browser::start().await else { return };
    guest.run(&paint()).await;
    let mut tab = open(&browser, world, vm, "first").await;
    let mut beside = open(&browser, world, other, "second").await;
    let mut blank = browser.tab().await;
    let colours = BARS.map(|(_, colour)| colour);
    let mut last = String::new();
    let begun = std::time::Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "the guest's screen isn't shown: {last}");
        let pixels = tab.evaluate(PIXELS).await;
        let near = |n: usize, c: usize| (pixels[n][c].as_i64().unwrap() - i64::from(colours[n][c])).abs() < 12;
        let in_place = (0..4).all(|n| (0..3).all(|c| near(n, c)));
        let picture = tab.screenshot("guest").await;
        let found = shares(&mut blank, &picture, &colours).await;
        if in_place && found.iter().all(|share| *share > 60) {
            eprintln!("host test: of a screenshot's pixels, in thousandths, the guest's four bars have {found:?}");
            break;
        }
        last = format!("{pixels} {found:?}");
    }
    let picture = beside.screenshot("beside").await;
    let found = shares(&mut blank, &picture, &colours).await;
    assert!(found.iter().all(|share| *share < 20), "another guest's screen: {found:?}");

    tab.evaluate("document.querySelector('#screen canvas').focus()").await;
    tab.type_keys("arcus").await;
    let read = || async {
        let screen = guest.run("cat /dev/vcs1").await;
        if screen.contains("arcus") { Ok(()) } else { Err(screen) }
    };
    until_ok(read, PATIENCE).await;
}

/// Opens the WebSocket as the page does: the first bytes that the guest's VNC server says, or the status that refuses.
async fn knock(world: &World, token: &str) -> Result<Vec<u8>, u16> {
    let host = world.control.address();
    let mut request = format!("ws://{host}/client/console/socket").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", format!("binary, token.{token}").parse().unwrap());
    headers.insert("origin", format!("http://{host}").parse().unwrap());
    let stream = TcpStream::connect(&host).await.unwrap();
    let mut socket = match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => socket,
        Err(Error::Http(answer)) => return Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    };
    loop {
        let message = futures::StreamExt::next(&mut socket).await.expect("words of the VNC server").unwrap();
        if let Message::Binary(bytes) = message {
            return Ok(bytes.to_vec());
        }
    }
}

async fn tokens(world: &World, vm: &Vm) {
    let page = reqwest::get(world.control.console_url(&world.api, &vm.id)).await.unwrap().text().await.unwrap();
    let (_, rest) = page.split_once("name=\"console-token\" content=\"").unwrap_or_else(|| panic!("{page}"));
    let token = rest.split_once('"').unwrap().0;
    assert!(knock(world, token).await.unwrap().starts_with(b"RFB 003."));
    assert_eq!(knock(world, token).await, Err(403), "it opens one session");

    // What tokens hold, sealed with the installation's key: the machine, who asked, where, a nonce, until when.
    let params = [
        ("accounttype", "0"),
        ("username", "stranger"),
        ("password", "password"),
        ("firstname", "a"),
        ("lastname", "b"),
        ("email", "a@example.com"),
    ];
    world.run("createAccount", &params).await;
    let db = world.control.db().await;
    let user = async |name: &str| {
        let sql = Sql::new("SELECT id FROM users WHERE username_lower = ?").bind(name);
        db.one(sql).await.unwrap().at::<i64>(0).unwrap()
    };
    let (admin, stranger) = (user("admin").await, user("stranger").await);
    let (vault, host) = (world.control.vault(), world.control.address());
    let seal = |vm: &str, user: i64, nonce: &str, until: i64| {
        let words = format!("{vm}\n{user}\n{host}\n{nonce}\n{until}");
        vault.seal("console.token", words.as_bytes()).replace(':', ".")
    };
    let (soon, past) = (store::now_micros() + 60_000_000, store::now_micros() - 1);
    assert!(knock(world, &seal(&vm.id, admin, "n1", soon)).await.is_ok(), "this is how they are made");
    assert_eq!(knock(world, &seal(&vm.id, admin, "n2", past)).await, Err(403), "it is over");
    assert_eq!(knock(world, &seal(&vm.id, stranger, "n3", soon)).await, Err(403), "of one who may not see the machine");
    assert_eq!(knock(world, &seal("none", admin, "n4", soon)).await, Err(404), "of a machine that isn't there");
    let users = world.api.call("listAccounts", &[("name", "stranger"), ("listall", "true")]).await.unwrap();
    world.run("deleteAccount", &[("id", &text(&users, "/account/0/id"))]).await;
}
