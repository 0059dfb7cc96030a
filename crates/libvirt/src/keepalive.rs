//! Keepalives: either side may send PING at any time, and the other answers PONG.

use crate::connection::Shared;
use crate::message::{self, Header, Kind, Lost, Program, Status};
use crate::procedure::KEEPALIVE_PING;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// When a silent daemon counts as lost: after `interval` × (`count` + 1).
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// Silence after which a PING is sent, and between further ones.
    pub interval: Duration,
    /// PINGs in a row without any sign of life, after which the connection is given up.
    pub count: u32,
}

impl Default for Keepalive {
    /// libvirt's own: 5 s and 5.
    fn default() -> Self {
        Keepalive { interval: Duration::from_secs(5), count: 5 }
    }
}

pub(crate) fn send(to: &Shared, procedure: i32) {
    let header = Header { program: Program::KEEPALIVE, procedure, kind: Kind::Event, serial: 0, status: Status::Ok };
    if let Ok(bytes) = message::encode(header, ()) {
        to.send(bytes, None);
    }
}

/// Sends PINGs and gives the connection up; ends when it is lost.
///
/// Counts PINGs rather than time: after this process stood still (a suspended machine), the daemon gets its chance to answer.
pub(crate) async fn watch(shared: Arc<Shared>, keepalive: Keepalive) {
    let mut lost = shared.lost();
    let mut unanswered = 0;
    let mut seen = shared.received();
    let mut next = seen + keepalive.interval;
    loop {
        tokio::select! {
            biased;
            _ = lost.wait_for(Option::is_some) => return,
            () = tokio::time::sleep_until(next) => {}
        }
        let received = shared.received();
        if received > seen {
            (seen, unanswered) = (received, 0);
            next = received + keepalive.interval;
            if next > Instant::now() {
                continue;
            }
        }
        if unanswered >= keepalive.count {
            return shared.lose(Lost::Silent(received.elapsed()));
        }
        send(&shared, KEEPALIVE_PING);
        unanswered += 1;
        next = Instant::now() + keepalive.interval;
    }
}
