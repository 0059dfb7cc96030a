//! A page in a real browser: Chromium without a window, driven by its DevTools protocol.
#![allow(dead_code, clippy::unwrap_used)] // each test uses a part

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use testkit::{Process, eventually};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Whether noVNC is installed; says so loudly when it isn't.
pub fn viewer_is_here() -> bool {
    let here = Path::new("/usr/share/novnc/core/rfb.js").exists();
    if !here {
        eprintln!("SKIPPED: noVNC isn't installed (apt-get install novnc, or deploy/setup-dev test)");
    }
    here
}

/// Chromium without a window.
pub struct Browser {
    address: String,
    _process: Process,
    _dir: tempfile::TempDir,
}

/// One page, spoken with by the DevTools protocol.
pub struct Tab {
    socket: WebSocketStream<TcpStream>,
    next: u64,
}

impl Browser {
    /// `None` after saying that there is no Chromium.
    pub async fn start() -> Option<Browser> {
        let found =
            ["/usr/bin/chromium", "/usr/bin/chromium-browser"].into_iter().find(|path| Path::new(path).exists());
        let Some(chromium) = found else {
            eprintln!("SKIPPED: Chromium isn't installed (apt-get install chromium, or deploy/setup-dev test)");
            return None;
        };
        let dir = testkit::temp_dir();
        // The sandbox wants rights that containers don't give; only our own page is opened.
        let flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
        let mut command = vec![chromium.to_owned()];
        command.extend(flags.map(str::to_owned));
        command.push("--remote-debugging-port=0".into());
        command.push("--window-size=900,700".into());
        command.push(format!("--user-data-dir={}", dir.path().join("profile").display()));
        command.push("about:blank".into());
        let process = Process::start(&command, &dir.path().join("log"), None);
        let file = dir.path().join("profile/DevToolsActivePort");
        let port = eventually(|| async {
            assert!(process.alive(), "Chromium ended:\n{}", process.log_tail());
            std::fs::read_to_string(&file).ok()?.lines().next().map(str::to_owned)
        })
        .await;
        Some(Browser { address: format!("127.0.0.1:{port}"), _process: process, _dir: dir })
    }

    /// A new page.
    pub async fn tab(&self) -> Tab {
        let url = format!("http://{}/json/new?about:blank", self.address);
        let made: Value = reqwest::Client::new().put(url).send().await.unwrap().json().await.unwrap();
        let address = made["webSocketDebuggerUrl"].as_str().unwrap();
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(address, stream).await.unwrap();
        Tab { socket, next: 0 }
    }
}

impl Tab {
    /// Calls a method of the protocol.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let message = json!({"id": self.next, "method": method, "params": params}).to_string();
        self.socket.send(Message::Text(message.into())).await.unwrap();
        loop {
            let message = self.socket.next().await.unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == self.next {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// What a script comes to.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params).await;
        assert!(answer.get("exceptionDetails").is_none(), "{answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub async fn wait_for(&mut self, expression: &str) {
        let begun = std::time::Instant::now();
        while self.evaluate(expression).await != json!(true) {
            let shown = self.evaluate("document.body.innerText").await;
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{expression} doesn't become true; the page says {shown}"
            );
        }
    }

    /// A PNG of what the page shows, in base64. `ARCUS_SCREENSHOTS` names a folder that gets it too, under this name.
    pub async fn screenshot(&mut self, name: &str) -> String {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        let png = shot["data"].as_str().unwrap().to_owned();
        if let Ok(folder) = std::env::var("ARCUS_SCREENSHOTS") {
            std::fs::write(Path::new(&folder).join(format!("{name}.png")), STANDARD.decode(&png).unwrap()).unwrap();
        }
        png
    }

    /// Presses keys, a character each, of the letters and digits.
    pub async fn type_keys(&mut self, text: &str) {
        for key in text.chars() {
            let upper = key.to_ascii_uppercase();
            let code = if key.is_ascii_digit() { format!("Digit{key}") } else { format!("Key{upper}") };
            for kind in ["keyDown", "keyUp"] {
                let key =
                    json!({"type": kind, "key": key, "code": code, "text": key, "windowsVirtualKeyCode": upper as u32});
                self.call("Input.dispatchKeyEvent", key).await;
            }
        }
    }
}

/// The share of pixels of a PNG that have each of these colours, in thousandths; found out by the browser.
pub async fn shares(tab: &mut Tab, png: &str, colours: &[[u8; 3]]) -> Vec<i64> {
    let script = format!(
        "(async () => {{
           const picture = new Image();
           picture.src = 'data:image/png;base64,{png}';
           await picture.decode();
           const canvas = new OffscreenCanvas(picture.width, picture.height);
           const context = canvas.getContext('2d');
           context.drawImage(picture, 0, 0);
           const {{ data }} = context.getImageData(0, 0, picture.width, picture.height);
           return {colours}.map((colour) => {{
             let count = 0;
             for (let i = 0; i < data.length; i += 4) {{
               count += [0, 1, 2].every((c) => Math.abs(data[i + c] - colour[c]) < 12);
             }}
             return Math.round(count * 4000 / data.length);
           }});
         }})()",
        colours = json!(colours),
    );
    let found = tab.evaluate(&script).await;
    found.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect()
}
