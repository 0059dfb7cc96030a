//! The checks, for people.

use crate::checks::{CHECKS, HOST_CHECKS};
use std::fmt::Write as _;

/// The table of all checks: name, severity, meaning, repair; in Markdown, the form that the documentation has.
pub fn list() -> String {
    let mut text = String::from("| check | severity | what it means | how to repair it |\n|---|---|---|---|\n");
    let all = CHECKS.iter().map(|c| (c.name, c.severity, c.means, c.repair));
    for (name, severity, means, repair) in
        all.chain(HOST_CHECKS.iter().map(|c| (c.name, c.severity, c.means, c.repair)))
    {
        let _ = writeln!(text, "| `{name}` | {} | {means} | {repair} |", severity.as_str()); // a String takes everything
    }
    text
}
