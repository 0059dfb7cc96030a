//! Consoles in the browser: from the page to the (simulated) machine's screen, through the whole system.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../common/browser.rs"]
mod chromium;
#[path = "../system/dev.rs"]
#[allow(dead_code)] // other tests use the rest of it
mod dev;
#[path = "../../../agent/tests/common/rfb.rs"]
mod rfb;

mod browser;
mod page;
mod sessions;
mod tokens;
mod world;
