//! Images on secondary storage: where they may lie, and the long work of hosts that brings them there.
//!
//! * [`reach`]: what hosts are told of a store; its secrets are opened nowhere else.
//! * [`rooms`]: which stores take an image.
//! * [`work`]: the driver of long work. It chooses a host, asks it again and again how far it is, and goes on with another
//!   when that one is lost. It knows neither what is done nor what its progress means.
//! * [`duty`]: one replica at a time brings in the copies that `template_store_refs` wants, and deletes the images that
//!   `image_deletions` names; in between it sleeps until the next one is due. Whoever wants one writes the row and calls
//!   [`nudge`]; whoever waits for one follows [`DONE`].
//! * [`download`]: one copy that comes in.
//!
//! A copy belongs to the duty while it is `Creating`: all others may only delete its row. Each write of the duty is fenced by
//! its term and names the copy's path, so a replica that was replaced changes nothing (TPL-051).

pub mod download;
pub mod duty;
pub mod reach;
pub mod rooms;
pub mod work;

use crate::Storage;

/// What is told when there is something to do.
const TOPIC: &str = "images";
/// What is told when the duty has done a piece of work: a copy is there, or can't be made. It may be lost: whoever waits looks
/// by himself now and then.
pub const DONE: &str = "images/done";

/// Tells the duty that there is something to do; it looks by itself, too, but not at once.
pub fn nudge(s: &Storage) {
    s.node.coord.publish(TOPIC, "");
}
