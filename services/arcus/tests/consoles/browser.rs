//! The page in a real browser, which draws the machine's screen.

use crate::chromium::{Browser, Tab, shares, viewer_is_here};
use crate::world::World;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_the_screen_and_sends_keys() {
    if !viewer_is_here() {
        return;
    }
    let Some(browser) = Browser::start().await else { return };
    let world = World::new().await;
    let mut tab = browser.tab().await;
    tab.call("Page.enable", json!({})).await;
    let url = world.url(&world.owner, &[("cmd", "access"), ("vm", &world.vm)]);
    tab.call("Page.navigate", json!({ "url": url })).await;
    tab.wait_for("document.getElementById('status')?.textContent === 'Connected'").await;
    assert_eq!(tab.evaluate("document.title").await, "web1");
    assert_eq!(tab.evaluate("document.querySelector('meta[name=console-token]') === null").await, true);

    // The simulator's screen is mostly of its blue, with white letters on it.
    let (blue, white) = ([0x1b, 0x3a, 0x5c], [0xff, 0xff, 0xff]);
    let mut blank = browser.tab().await;
    let shot = async |tab: &mut Tab, blank: &mut Tab| {
        let png = tab.screenshot("console").await;
        shares(blank, &png, &[blue, white]).await
    };
    let begun = std::time::Instant::now();
    let before = loop {
        let shares = shot(&mut tab, &mut blank).await;
        if shares[0] > 500 && shares[1] >= 2 {
            break shares;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the screen isn't drawn: {shares:?}");
    };

    // Keys reach the machine, which writes them on its screen.
    tab.evaluate("document.querySelector('#screen canvas').focus()").await;
    tab.type_keys(&"m".repeat(24)).await;
    let begun = std::time::Instant::now();
    loop {
        let after = shot(&mut tab, &mut blank).await;
        if after[1] > before[1] {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was typed: {before:?} {after:?}");
    }

    // The machine stops, and the page says so.
    world.owner.run("stopVirtualMachine", &[("id", &world.vm), ("forced", "true")]).await.unwrap();
    tab.wait_for("!document.getElementById('again').hidden").await;
}
