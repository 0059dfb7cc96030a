//! Figures as Markdown tables, each beside the incumbent's.

use crate::anchors;
use crate::report::{Figure, Part};
use std::fmt::Write as _;

/// A number as people read it: three digits count, thousands are parted.
pub fn number(value: f64) -> String {
    let (size, sign) = (value.abs(), if value < 0.0 { "-" } else { "" });
    let digits = match size {
        s if s.fract() == 0.0 || s >= 99.95 => 0,
        s if s >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{size:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut parted = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            parted.push(',');
        }
        parted.push(digit);
    }
    format!("{sign}{parted}{rest}")
}

/// All tables of what was measured.
pub fn render(figures: &[Figure]) -> String {
    let mut out = String::new();
    for part in Part::ALL {
        let of_part: Vec<&Figure> = figures.iter().filter(|f| f.part == part).collect();
        if of_part.is_empty() {
            continue;
        }
        let _ = writeln!(out, "## {}\n", part.title());
        if part.by_size() {
            by_size(&mut out, &of_part)
        } else {
            plain(&mut out, &of_part)
        }
        out.push('\n');
    }
    out
}

/// A line a figure.
fn plain(out: &mut String, figures: &[&Figure]) {
    if figures.iter().all(|f| f.part == Part::Raw) {
        out.push_str("| | measured |\n|---|---|\n");
        figures.iter().for_each(|f| out.push_str(&format!("| {} | {} |\n", name(f), cell(&f.text))));
        return;
    }
    out.push_str("| | Arcus | incumbent |\n|---|---|---|\n");
    for f in figures {
        let _ = writeln!(out, "| {} | {} | {} |", name(f), cell(&f.text), anchors::of(&f.what, &f.load));
    }
}

/// A line for each kind and load, a column for each number of VMs.
fn by_size(out: &mut String, figures: &[&Figure]) {
    let mut sizes: Vec<usize> = figures.iter().map(|f| f.vms).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut lines: Vec<&Figure> = Vec::new();
    for f in figures {
        if !lines.iter().any(|l| l.what == f.what && l.load == f.load) {
            lines.push(f);
        }
    }
    out.push_str("| |");
    for size in &sizes {
        let _ = write!(out, " {} VMs |", number(*size as f64));
    }
    out.push_str(" incumbent |\n|---|");
    out.push_str(&"---|".repeat(sizes.len() + 1));
    out.push('\n');
    for line in lines {
        let _ = write!(out, "| {} |", name(line));
        for size in &sizes {
            let found = figures.iter().find(|f| f.vms == *size && f.what == line.what && f.load == line.load);
            let _ = write!(out, " {} |", found.map_or("–".into(), |f| cell(&f.text)));
        }
        let _ = writeln!(out, " {} |", anchors::of(&line.what, &line.load));
    }
}

fn name(figure: &Figure) -> String {
    if figure.load.is_empty() { figure.what.clone() } else { format!("{}, {}", figure.what, figure.load) }
}

/// Nothing in it may end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "/").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(part: Part, what: &str, load: &str, vms: usize, text: &str) -> Figure {
        Figure::new(part, what, load, vms).with_text(text)
    }

    #[test]
    fn numbers() {
        let pairs = [
            (0.0, "0"),
            (3.0, "3"),
            (0.084, "0.08"),
            (2.456, "2.46"),
            (9.996, "10.0"),
            (12.34, "12.3"),
            (99.97, "100"),
            (482.4, "482"),
            (1173.6, "1,174"),
            (1_234_567.0, "1,234,567"),
            (-1500.0, "-1,500"),
        ];
        for (value, text) in pairs {
            assert_eq!(number(value), text, "{value}");
        }
    }

    #[test]
    fn sizes_are_columns_in_order_and_gaps_are_shown() {
        let figures = [
            figure(Part::Lists, "zones", "1 client", 1000, "B"),
            figure(Part::Lists, "zones", "1 client", 0, "A"),
            figure(Part::Lists, "one VM by id", "8 clients", 1000, "C|\nD"),
        ];
        let text = render(&figures);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "| | 0 VMs | 1,000 VMs | incumbent |");
        assert_eq!(lines[3], "|---|---|---|---|");
        assert_eq!(lines[4], "| zones, 1 client | A | B | 1,000 VMs: 55/s, 15 ms |");
        assert_eq!(lines[5], "| one VM by id, 8 clients | – | C/ D | not measured |");
    }

    #[test]
    fn parts_come_in_their_order_and_only_when_measured() {
        let figures = [
            figure(Part::Recovery, "kill -9 in 32 deploys, to the first listZones", "", 0, "1 s"),
            figure(Part::Start, "memory, idle", "", 0, "65 MiB"),
        ];
        let text = render(&figures);
        let (start, recovery) = (text.find("65 MiB"), text.find("1 s |"));
        assert!(start.is_some() && start < recovery, "{text}");
        assert!(text.contains("| memory, idle | 65 MiB | 1,120 MiB, 248 threads |"), "{text}");
        assert_eq!(text.matches("## ").count(), 2);
    }
}
