//! Dates as the API writes them. Everything is UTC.

const MICROS: i64 = 1_000_000;
const DAY: i64 = 86_400;

/// `yyyy-MM-dd`, as the seconds since 1970 of its beginning.
pub fn date(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let year = digits(parts.next()?, 4, 4)?;
    let month = digits(parts.next()?, 1, 2)?;
    let day = digits(parts.next()?, 1, 2)?;
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=month_length(year, month)).contains(&day) {
        return None;
    }
    Some(days_from_civil(year, month, day) * DAY)
}

/// `HH:mm:ss`, as seconds.
fn time(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let hours = digits(parts.next()?, 1, 2)?;
    let minutes = digits(parts.next()?, 1, 2)?;
    let seconds = digits(parts.next()?, 1, 2)?;
    (parts.next().is_none() && hours < 24 && minutes < 60 && seconds < 60)
        .then_some((hours * 60 + minutes) * 60 + seconds)
}

/// `yyyy-MM-dd` or `yyyy-MM-dd HH:mm:ss`, as microseconds since 1970; a bare date means its first or its last second.
pub fn date_time(text: &str, end: bool) -> Option<i64> {
    let seconds = match text.split_once(' ') {
        Some((day, of_day)) => date(day)? + time(of_day)?,
        None => date(text)? + if end { DAY - 1 } else { 0 },
    };
    Some(seconds * MICROS)
}

/// `yyyy-MM-dd`, as microseconds since 1970.
pub fn day(text: &str) -> Option<i64> {
    date(text).map(|seconds| seconds * MICROS)
}

/// `yyyy-MM-dd'T'HH:mm:ssZ` with a numeric zone such as `+0530`, as seconds since 1970.
pub fn zoned(text: &str) -> Option<i64> {
    let (day, rest) = text.split_once('T')?;
    let at = rest.find(['+', '-'])?;
    let (of_day, zone) = rest.split_at_checked(at)?;
    let (sign, offset) = zone.split_at_checked(1)?;
    let offset = digits(offset, 4, 4)?;
    let (hours, minutes) = (offset / 100, offset % 100);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let shift = (hours * 60 + minutes) * 60;
    let local = date(day)? + time(of_day)?;
    Some(if sign == "-" { local + shift } else { local - shift })
}

/// Appends `yyyy-MM-dd'T'HH:mm:ss+0000`.
pub fn write(out: &mut String, micros: i64) {
    use std::fmt::Write as _;
    let seconds = micros.div_euclid(MICROS);
    let (days, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil_from_days(days);
    let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    // Writing to a String can't fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}+0000");
}

fn digits(text: &str, least: usize, most: usize) -> Option<i64> {
    let fits = (least..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

// Days of the proleptic Gregorian calendar, counted in eras of 400 years that begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * years + years / 4 - years / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (years + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(micros: i64) -> String {
        let mut out = String::new();
        write(&mut out, micros);
        out
    }

    #[test]
    fn forms_of_the_contract() {
        assert_eq!(written(1_530_437_400_000_000), "2018-07-01T09:30:00+0000");
        assert_eq!(zoned("2018-07-01T09:30:00+0000"), Some(1_530_437_400));
        assert_eq!(zoned("2018-07-01T15:00:00+0530"), Some(1_530_437_400));
        assert_eq!(day("2018-07-01"), Some(1_530_403_200_000_000));
        assert_eq!(date_time("2018-07-01", true), Some((1_530_403_200 + 86_399) * 1_000_000));
        assert_eq!(date_time("2018-07-01 09:30:00", true), Some(1_530_437_400_000_000));
        for bad in ["", "2018", "2018-13-01", "2018-02-30", "18-01-01", "2018-01-01x", "2018-01-01-1", "+018-01-01"] {
            assert_eq!(date(bad), None, "{bad}");
        }
        for bad in
            ["2018-07-01T09:30:00Z", "2018-07-01T09:30:00", "2018-07-01 09:30:00+0000", "2018-07-01T9+0000", "T+"]
        {
            assert_eq!(zoned(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn as_the_calendar_says(seconds in -62_135_596_800i64..253_402_300_799) {
            let known = jiff::Timestamp::from_second(seconds).unwrap();
            prop_assert_eq!(written(seconds * MICROS), known.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string());
            prop_assert_eq!(zoned(&written(seconds * MICROS)), Some(seconds));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,30}") {
            let _ = (zoned(&text), date_time(&text, true), day(&text));
        }
    }
}
