//! What somebody holds to a guest while something happens to it: a TCP connection, pings.

use crate::{Place, wait_until};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Between two lines of a session.
const PAUSE: Duration = Duration::from_millis(20);
/// How long what is held may stay silent before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(300);

/// When something was heard.
#[derive(Debug)]
struct Heard {
    times: u64,
    last: Instant,
    longest: Duration,
    /// Why nothing more is heard.
    ended: Option<String>,
}

/// Counts what is heard and measures the silence between.
#[derive(Clone, Debug)]
struct Ear(Arc<Mutex<Heard>>);

impl Ear {
    fn new() -> Ear {
        Ear(Arc::new(Mutex::new(Heard { times: 0, last: Instant::now(), longest: Duration::ZERO, ended: None })))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Heard) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hears(&self) {
        self.with(|heard| {
            // The first word ends no silence.
            if heard.times > 0 {
                heard.longest = heard.longest.max(heard.last.elapsed());
            }
            (heard.times, heard.last) = (heard.times + 1, Instant::now());
        });
    }

    fn times(&self) -> u64 {
        self.with(|heard| heard.times)
    }

    /// The longest silence since this was asked last.
    fn longest(&self) -> Duration {
        self.with(|heard| std::mem::take(&mut heard.longest))
    }

    /// Waits until more was heard; `ends` is what would be over then.
    async fn hears_more(&self) {
        let before = self.times();
        let more = || async {
            if let Some(why) = self.with(|heard| heard.ended.clone()) {
                panic!("what was to be held has ended: {why}");
            }
            self.times() > before + 2
        };
        wait_until(more, PATIENCE).await;
    }
}

fn spawn(place: &Place, command: &[&str]) -> Child {
    let command = place.command(command.iter().map(|word| (*word).to_owned()).collect());
    tokio::process::Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .expect("busybox (Debian package busybox)")
}

/// One TCP connection to the guest's port 2007, on which numbered lines go out all the time. Each comes back with the number that the
/// guest itself has counted to on this connection: one that got lost, came twice or out of order, on whichever way, ends it.
#[derive(Debug)]
pub struct Session {
    ear: Ear,
    hang_up: watch::Sender<bool>,
    talk: JoinHandle<Result<(), String>>,
}

impl Session {
    /// Connects to the address by which port 2007 is reached from `place`; returns when lines come back.
    ///
    /// # Panics
    /// When there is no connection within five minutes, or it ends at once.
    pub async fn open(place: &Place, address: SocketAddr) -> Session {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let (ear, (hang_up, hung_up)) = (Ear::new(), watch::channel(false));
        let (hears, place, begun) = (ear.clone(), place.clone(), Instant::now());
        let talk = tokio::spawn(async move {
            let held = loop {
                let child = spawn(&place, &["busybox", "nc", &ip, &port]);
                let held = hold(child, &hears, hung_up.clone()).await;
                // One that didn't come about isn't one that was lost.
                if hears.times() > 0 || held.is_ok() || begun.elapsed() > PATIENCE {
                    break held;
                }
                eprintln!("no connection to {ip}:{port} yet: {held:?}");
                tokio::time::sleep(PAUSE).await;
            };
            hears.with(|heard| heard.ended = held.as_ref().err().cloned());
            held
        });
        let session = Session { ear, hang_up, talk };
        session.goes_on().await;
        session
    }

    /// Waits until more lines have come back.
    ///
    /// # Panics
    /// When the connection has ended, or none come within five minutes.
    pub async fn goes_on(&self) {
        self.ear.hears_more().await;
    }

    /// The longest time between two lines that came back, since this was asked last.
    pub fn silence(&self) -> Duration {
        self.ear.longest()
    }

    /// Says that this is all and waits for the last line; gives how many there were.
    ///
    /// # Panics
    /// When the connection has ended before, or a line got lost.
    pub async fn close(self) -> u64 {
        self.hang_up.send_replace(true);
        if let Err(why) = self.talk.await.expect("a talk") {
            panic!("the connection was to be held: {why}");
        }
        self.ear.times()
    }
}

async fn hold(mut child: Child, ear: &Ear, hung_up: watch::Receiver<bool>) -> Result<(), String> {
    let (stdin, stdout) = (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
    let (told, said) = watch::channel(None);
    let out = async move {
        let said = say(stdin, hung_up).await;
        told.send_replace(said.as_ref().ok().copied());
        said
    };
    let (said, listened) = tokio::join!(out, listen(BufReader::new(stdout).lines(), ear, said));
    // Why nothing comes any more tells more than why nothing can be said.
    listened?;
    said.map(drop)
}

/// Says numbers until it is told to hang up; gives the last.
async fn say(mut stdin: ChildStdin, mut hung_up: watch::Receiver<bool>) -> Result<u64, String> {
    let mut number = 0_u64;
    while !*hung_up.borrow_and_update() {
        number += 1;
        let line = format!("{number}\n");
        stdin.write_all(line.as_bytes()).await.map_err(|e| format!("line {number} can't be sent: {e}"))?;
        if matches!(tokio::time::timeout(PAUSE, hung_up.changed()).await, Ok(Err(_))) {
            break; // who held it is gone
        }
    }
    Ok(number)
}

/// Hears each number once and in order, and then the end. `said`: the last number, once that is known.
async fn listen(
    mut lines: Lines<BufReader<ChildStdout>>,
    ear: &Ear,
    said: watch::Receiver<Option<u64>>,
) -> Result<(), String> {
    loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let heard = ear.times();
        let line = line.map_err(|_| format!("nothing came after line {heard}"))?;
        match line.map_err(|e| format!("after line {heard}: {e}"))? {
            Some(line) if line == format!("{0} {0}", heard + 1) => ear.hears(),
            Some(line) => return Err(format!("after line {heard} came {line:?}")),
            None if *said.borrow() == Some(heard) => return Ok(()),
            None => return Err(format!("it ended after line {heard}, of {:?}", *said.borrow())),
        }
    }
}

/// Pings, five a second.
#[derive(Debug)]
pub struct Pings {
    ear: Ear,
    pinging: JoinHandle<()>,
}

impl Pings {
    /// Begins to ping from `place`; returns when there are answers. Only those count that passed `hops` routers on their way.
    ///
    /// # Panics
    /// When there are none within five minutes.
    pub async fn begin(place: &Place, ip: IpAddr, hops: u8) -> Pings {
        let (ear, place, ip) = (Ear::new(), place.clone(), ip.to_string());
        let hears = ear.clone();
        // Linux begins at 64.
        let way = format!(" ttl={} ", 64 - hops);
        let pinging = tokio::spawn(async move {
            // It ends when a packet can't even be sent.
            loop {
                let mut child = spawn(&place, &["busybox", "ping", "-i", "0.2", &ip]);
                let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.contains(" seq=") && line.contains(&way) {
                        hears.hears();
                    }
                }
                let ended = child.wait().await;
                eprintln!("pings ended: {ended:?}");
                tokio::time::sleep(PAUSE).await;
            }
        });
        let pings = Pings { ear, pinging };
        pings.goes_on().await;
        pings
    }

    /// Waits until more were answered.
    ///
    /// # Panics
    /// When none are within five minutes.
    pub async fn goes_on(&self) {
        self.ear.hears_more().await;
    }

    /// The longest time between two answers, since this was asked last.
    pub fn silence(&self) -> Duration {
        self.ear.longest()
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        self.pinging.abort();
    }
}
