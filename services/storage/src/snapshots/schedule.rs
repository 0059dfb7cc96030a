//! When a policy's snapshots are due: hourly, daily, weekly or monthly, at a minute in a time zone.
//!
//! Clocks are put forward and back. A time that a day doesn't have, is the moment at which the clock is put forward; one that a
//! day has twice, is the first of them. Hourly ones go by the minute alone, so an hour that is repeated has two.

use contract::ApiError;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Span, Timestamp, ToSpan};

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each hour.
    Hourly,
    /// Each day.
    Daily,
    /// Each week.
    Weekly,
    /// Each month.
    Monthly,
}

/// All kinds, by their numbers on the wire.
const KINDS: [(Kind, &str); 4] =
    [(Kind::Hourly, "HOURLY"), (Kind::Daily, "DAILY"), (Kind::Weekly, "WEEKLY"), (Kind::Monthly, "MONTHLY")];

impl Kind {
    /// The kind with this name, in whichever case.
    pub fn parse(name: &str) -> Option<Kind> {
        KINDS.iter().find(|(_, known)| known.eq_ignore_ascii_case(name.trim())).map(|(kind, _)| *kind)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// Its number in 4.11's answers.
    pub fn number(self) -> i32 {
        KINDS.iter().position(|(kind, _)| *kind == self).and_then(|n| i32::try_from(n).ok()).unwrap_or_default()
    }
}

/// A schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    kind: Kind,
    minute: i8,
    hour: i8,
    /// Of the week, 1 is Sunday; or of the month.
    day: i8,
    zone: TimeZone,
}

impl Schedule {
    /// Reads "MM", "MM:HH", "MM:HH:DD" (a day of the week: 1 is Sunday) or "MM:HH:DD" (a day of the month: 1 to 28).
    ///
    /// # Errors
    /// 431 for another form, for a time that no day has, and for an unknown time zone.
    pub fn parse(kind: Kind, text: &str, timezone: &str) -> Result<Schedule, ApiError> {
        let (form, days) = match kind {
            Kind::Hourly => ("MM", 0),
            Kind::Daily => ("MM:HH", 0),
            Kind::Weekly => ("MM:HH:DD, with DD from 1, Sunday, to 7", 7),
            Kind::Monthly => ("MM:HH:DD, with DD from 1 to 28", 28),
        };
        let wrong = || {
            let name = kind.name();
            ApiError::param(format!("Invalid schedule: {text} for interval type: {name}; a schedule is {form}"))
        };
        let parts: Vec<&str> = text.trim().split(':').collect();
        let wanted = match kind {
            Kind::Hourly => 1,
            Kind::Daily => 2,
            Kind::Weekly | Kind::Monthly => 3,
        };
        if parts.len() != wanted {
            return Err(wrong());
        }
        let number = |n: usize, least: i8, most: i8| -> Result<i8, ApiError> {
            let Some(part) = parts.get(n) else { return Ok(0) };
            part.trim().parse().ok().filter(|x: &i8| (least..=most).contains(x)).ok_or_else(wrong)
        };
        Ok(Schedule {
            kind,
            minute: number(0, 0, 59)?,
            hour: number(1, 0, 23)?,
            day: number(2, 1, days)?,
            zone: zone(timezone)?,
        })
    }

    /// The first moment after `after` at which a snapshot is due.
    ///
    /// # Errors
    /// 530 beyond the end of the calendar.
    pub fn next(&self, after: Timestamp) -> Result<Timestamp, ApiError> {
        let ended = |e: jiff::Error| ApiError::failed(format!("no next time of a snapshot: {e}"));
        let local = after.to_zoned(self.zone.clone());
        if self.kind == Kind::Hourly {
            let whole = local.datetime().with().second(0).subsec_nanosecond(0).build().map_err(ended)?;
            let past: Span = local.datetime() - whole;
            let ahead = (i64::from(self.minute) - i64::from(local.minute())).rem_euclid(60);
            let ahead = if ahead == 0 { 60 } else { ahead };
            return after.checked_sub(past).and_then(|at| at.checked_add(ahead.minutes())).map_err(ended);
        }
        let mut date = local.date();
        // The longest wait is that for a day of the next month.
        for _ in 0..=62 {
            if self.falls_on(date) {
                let at = self.moment(date.at(self.hour, self.minute, 0, 0)).map_err(ended)?;
                if at > after {
                    return Ok(at);
                }
            }
            date = date.tomorrow().map_err(ended)?;
        }
        Err(ApiError::internal("a schedule that never comes"))
    }

    fn falls_on(&self, date: Date) -> bool {
        match self.kind {
            Kind::Hourly | Kind::Daily => true,
            Kind::Weekly => date.weekday() == weekday(self.day),
            Kind::Monthly => date.day() == self.day,
        }
    }

    /// The moment at which clocks show a time.
    fn moment(&self, at: DateTime) -> Result<Timestamp, jiff::Error> {
        match self.zone.to_ambiguous_timestamp(at).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(at),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(at),
            AmbiguousOffset::Gap { after, .. } => {
                // By the clock that holds afterwards this is before it was put forward.
                let early = after.to_timestamp(at)?;
                Ok(self.zone.following(early).next().map_or(early, |change| change.timestamp()))
            }
        }
    }
}

fn weekday(day: i8) -> Weekday {
    Weekday::from_sunday_one_offset(day).unwrap_or(Weekday::Sunday)
}

/// A time zone by its name ("Europe/Berlin"), or by its distance from UTC as Java writes it ("GMT+5:30").
fn zone(name: &str) -> Result<TimeZone, ApiError> {
    let name = name.trim();
    if let Ok(zone) = TimeZone::get(name) {
        return Ok(zone);
    }
    let unknown = || {
        ApiError::param(format!(
            "timezone {name} is unknown: give one of the time zone database, such as Europe/Berlin"
        ))
    };
    let rest = name.strip_prefix("GMT").or_else(|| name.strip_prefix("UTC")).ok_or_else(unknown)?;
    let (sign, rest) = match rest.split_at_checked(1) {
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        _ => return Err(unknown()),
    };
    let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
    let part = |text: &str, most: i32| text.parse::<i32>().ok().filter(|n| (0..=most).contains(n)).ok_or_else(unknown);
    let seconds = sign * (part(hours, 23)? * 3600 + part(minutes, 59)? * 60);
    Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(kind: Kind, schedule: &str, zone: &str, after: &str) -> String {
        let schedule = Schedule::parse(kind, schedule, zone).unwrap();
        schedule.next(after.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn the_next_time_is_after_now() {
        use Kind::{Daily, Hourly, Monthly, Weekly};
        for (kind, schedule, zone, after, wanted) in [
            (Hourly, "15", "UTC", "2026-01-01T00:14:59.5Z", "2026-01-01T00:15:00Z"),
            (Hourly, "15", "UTC", "2026-01-01T00:15:00Z", "2026-01-01T01:15:00Z"),
            (Hourly, "0", "Asia/Kolkata", "2026-01-01T00:00:00Z", "2026-01-01T00:30:00Z"),
            (Daily, "30:02", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T02:30:00Z"),
            (Daily, "30:02", "UTC", "2026-01-01T02:30:00Z", "2026-01-02T02:30:00Z"),
            (Daily, "30:02", "Asia/Kolkata", "2026-01-01T00:00:00Z", "2026-01-01T21:00:00Z"),
            (Daily, "0:0", "America/Los_Angeles", "2026-07-01T06:59:59Z", "2026-07-01T07:00:00Z"),
            // 2026-01-01 is a Thursday.
            (Weekly, "0:12:1", "UTC", "2026-01-01T00:00:00Z", "2026-01-04T12:00:00Z"),
            (Weekly, "0:12:5", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z"),
            (Weekly, "0:12:5", "UTC", "2026-01-01T12:00:00Z", "2026-01-08T12:00:00Z"),
            (Monthly, "0:12:1", "UTC", "2026-01-01T12:00:00Z", "2026-02-01T12:00:00Z"),
            (Monthly, "0:0:28", "GMT+5:30", "2026-02-27T18:30:00Z", "2026-03-27T18:30:00Z"),
            (Monthly, "0:0:1", "Pacific/Auckland", "2025-12-31T10:59:59Z", "2025-12-31T11:00:00Z"),
        ] {
            assert_eq!(next(kind, schedule, zone, after), wanted, "{kind:?} {schedule} {zone} {after}");
        }
    }

    #[test]
    fn a_time_that_a_day_has_not_is_when_the_clock_is_put_forward() {
        // In Berlin 02:00 became 03:00 at 01:00 UTC on 2026-03-29.
        let daily = |schedule: &str, after: &str| next(Kind::Daily, schedule, "Europe/Berlin", after);
        assert_eq!(daily("30:02", "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z");
        assert_eq!(daily("00:02", "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z");
        assert_eq!(daily("30:02", "2026-03-29T01:00:00Z"), "2026-03-30T00:30:00Z");
        assert_eq!(daily("30:01", "2026-03-28T12:00:00Z"), "2026-03-29T00:30:00Z");
        assert_eq!(daily("00:03", "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z");
    }

    #[test]
    fn a_time_that_a_day_has_twice_comes_once() {
        // In Berlin 03:00 became 02:00 at 01:00 UTC on 2026-10-25.
        let daily = |after: &str| next(Kind::Daily, "30:02", "Europe/Berlin", after);
        assert_eq!(daily("2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(daily("2026-10-25T00:30:00Z"), "2026-10-26T01:30:00Z");
        let hourly = |after: &str| next(Kind::Hourly, "30", "Europe/Berlin", after);
        assert_eq!(hourly("2026-10-25T00:30:00Z"), "2026-10-25T01:30:00Z");
        assert_eq!(hourly("2026-10-25T01:30:00Z"), "2026-10-25T02:30:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for (kind, schedule, zone) in [
            (Kind::Hourly, "60", "UTC"),
            (Kind::Hourly, "0:0", "UTC"),
            (Kind::Daily, "0", "UTC"),
            (Kind::Daily, "0:24", "UTC"),
            (Kind::Weekly, "0:0:0", "UTC"),
            (Kind::Weekly, "0:0:8", "UTC"),
            (Kind::Monthly, "0:0:29", "UTC"),
            (Kind::Monthly, "x:0:1", "UTC"),
            (Kind::Daily, "0:0", "Nowhere/Land"),
            (Kind::Daily, "0:0", "GMT+99"),
            (Kind::Daily, "0:0", ""),
        ] {
            assert_eq!(Schedule::parse(kind, schedule, zone).unwrap_err().code, 431, "{kind:?} {schedule} {zone}");
        }
        assert_eq!((Kind::parse("weekly"), Kind::parse("yearly")), (Some(Kind::Weekly), None));
        assert_eq!((Kind::Hourly.number(), Kind::Monthly.number(), Kind::Daily.name()), (0, 3, "DAILY"));
    }
}
