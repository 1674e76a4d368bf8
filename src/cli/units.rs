//! Times, sizes and numbers as people type them: one way to write each.
//!
//! The lab's command line includes this file too; it knows nothing but the standard library.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// What an option that wants a time takes.
pub(crate) const TIME: &str = "a time such as 30s, 5m or 1h30m";
/// What an option that wants a size takes.
pub(crate) const SIZE: &str = "a size in bytes such as 65536, 64K or 10M";
/// What an option that wants a port takes.
pub(crate) const PORT: &str = "a port, 1 to 65535";

const NANOS_A_SECOND: u128 = 1_000_000_000;

/// Longer units stand before shorter ones that they begin with.
const TIME_UNITS: [(&str, u128); 6] = [
    ("ms", NANOS_A_SECOND / 1000),
    ("s", NANOS_A_SECOND),
    ("m", 60 * NANOS_A_SECOND),
    ("h", 3600 * NANOS_A_SECOND),
    ("d", 86_400 * NANOS_A_SECOND),
    ("w", 604_800 * NANOS_A_SECOND),
];

/// As in ssh, a unit is one of 1024. `KB` may mean either, so it means nothing.
const SIZE_UNITS: [(&str, u32); 8] =
    [("kib", 10), ("mib", 20), ("gib", 30), ("tib", 40), ("k", 10), ("m", 20), ("g", 30), ("t", 40)];

/// A time as ssh reads it, `90`, `90s`, `5m` or `1h30m`: a number without a unit is one of seconds. Beyond ssh there are
/// milliseconds (`50ms`) and fractions (`1.5s`).
pub(crate) fn time(text: &str) -> Option<Duration> {
    let (mut nanos, mut rest) = (0_u128, text);
    loop {
        let (number, behind) = Decimal::read(rest)?;
        let unit = TIME_UNITS.iter().find_map(|(unit, nanos)| Some((strip(behind, unit)?, *nanos)));
        // Without a unit it is the last.
        let (behind, unit) = unit.or_else(|| behind.is_empty().then_some((behind, NANOS_A_SECOND)))?;
        nanos = nanos.checked_add(number.times(unit)?)?;
        if behind.is_empty() {
            let seconds = u64::try_from(nanos / NANOS_A_SECOND).ok()?;
            return Some(Duration::new(seconds, u32::try_from(nanos % NANOS_A_SECOND).ok()?));
        }
        rest = behind;
    }
}

/// A number of bytes, or of K, M, G or T (`KiB` and so on) with 1024 of the next smaller one.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, behind) = Decimal::read(text)?;
    let unit = SIZE_UNITS.iter().find(|(unit, _)| behind.eq_ignore_ascii_case(unit)).map(|(_, shift)| 1_u128 << shift);
    let unit = unit.or_else(|| (behind.is_empty() && number.digits == 0).then_some(1))?;
    number.times(unit)?.try_into().ok()
}

/// Kilobits a second, as scp's `-l` counts them, or bits a second with a unit: `10M`.
pub(crate) fn kilobits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { Some(size(text)? / 1024) }
}

/// A TCP port.
pub(crate) fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

/// Reads an option's time.
pub(crate) fn time_option(text: &str) -> Result<Duration, String> {
    time(text).ok_or_else(|| expected(TIME))
}

/// Reads an option's time that may not be longer than `most`.
pub(crate) fn times_up_to(most: Duration) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let time = time_option(text)?;
        let hours = most.as_secs() / 3600;
        if time <= most {
            Ok(time)
        } else {
            Err(format!("expected {hours}h at most: a number without a unit is in seconds"))
        }
    }
}

/// Reads an option's size, which has to lie within `range`.
pub(crate) fn sizes<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let size = size(text).ok_or_else(|| expected(SIZE))?;
        let taken = range.contains(&size).then(|| T::try_from(size).ok()).flatten();
        taken.ok_or_else(|| match *range.end() {
            u64::MAX => format!("expected at least {} bytes", range.start()),
            most => format!("expected {} to {most} bytes", range.start()),
        })
    }
}

/// Reads an option's number; `what` says which are taken.
pub(crate) fn numbers<T: FromStr>(what: &'static str) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| text.parse().map_err(|_| expected(what))
}

/// Reads an option's port.
pub(crate) fn port_option(text: &str) -> Result<u16, String> {
    port(text).ok_or_else(|| expected(PORT))
}

fn expected(what: &str) -> String {
    format!("expected {what}")
}

/// A decimal fraction, kept exact.
#[derive(Debug, Clone, Copy)]
struct Decimal {
    /// All digits, as one number.
    number: u64,
    /// How many of them stand behind the point.
    digits: u32,
}

impl Decimal {
    /// The number at the beginning of `text`, and what stands behind it.
    fn read(text: &str) -> Option<(Self, &str)> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = text.split_at(digits(text));
        let Some(rest) = rest.strip_prefix('.') else {
            return Some((Self { number: whole.parse().ok()?, digits: 0 }, rest));
        };
        let (fraction, rest) = rest.split_at(digits(rest));
        // More digits than that are no number that anybody typed.
        let is_number = !whole.is_empty() && (1..=9).contains(&fraction.len());
        let number = format!("{whole}{fraction}").parse().ok().filter(|_| is_number)?;
        Some((Self { number, digits: fraction.len().try_into().ok()? }, rest))
    }

    fn times(self, unit: u128) -> Option<u128> {
        u128::from(self.number).checked_mul(unit).map(|product| product / 10_u128.pow(self.digits))
    }
}

fn strip<'a>(text: &'a str, unit: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(unit.len())?;
    head.eq_ignore_ascii_case(unit).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_for_ssh() {
        let seconds = |text| time(text).map(|time| time.as_secs_f64());
        for (text, expected) in [
            ("0", 0.0),
            ("90", 90.0),
            ("90s", 90.0),
            ("5m", 300.0),
            ("5M", 300.0),
            ("1h30m", 5400.0),
            ("1h30", 3630.0),
            ("1d2h", 93_600.0),
            ("2w", 1_209_600.0),
            ("50ms", 0.05),
            ("1m500ms", 60.5),
            ("1.5s", 1.5),
            ("0.25h", 900.0),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for wrong in [
            "",
            "s",
            "-1",
            "-1s",
            "+1",
            "1x",
            "1 s",
            " 1",
            "1s ",
            "m5",
            "1..5s",
            ".5s",
            "1.s",
            "abc",
            "1h-3m",
            "1e9",
            "99999999999999999999",
            "18446744073709551615w",
            "5µs",
            "٣s",
        ] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_are_counted_in_units_of_1024() {
        for (text, expected) in [
            ("0", 0),
            ("65536", 65_536),
            ("64K", 65_536),
            ("64k", 65_536),
            ("64KiB", 65_536),
            ("10M", 10 << 20),
            ("1.5M", 3 << 19),
            ("1g", 1 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(size(text), Some(expected), "{text}");
        }
        for wrong in ["", "K", "-1", "1.5", "1KB", "1 M", "1MM", "abc", "1e3", "99999999999G", "0x10", "\u{212a}"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_one_of_kilobits_unless_it_has_a_unit() {
        let rates = ["800", "800K", "10M", "1G"].map(kilobits);
        assert_eq!(rates, [Some(800), Some(800), Some(10 << 10), Some(1 << 20)]);
        assert_eq!(["", "x", "-1", "10MB"].map(kilobits), [None; 4]);
    }

    #[test]
    fn what_cannot_be_taken_is_answered_with_what_can() {
        let long = times_up_to(Duration::from_hours(24))("2d");
        assert_eq!(long.unwrap_err(), "expected 24h at most: a number without a unit is in seconds");
        assert_eq!(time_option("abc").unwrap_err(), "expected a time such as 30s, 5m or 1h30m");
        assert_eq!(sizes::<u32>(1024..=65_536)("1M").unwrap_err(), "expected 1024 to 65536 bytes");
        assert_eq!(sizes::<u64>(1..=u64::MAX)("0").unwrap_err(), "expected at least 1 bytes");
        assert_eq!(numbers::<u32>("a whole number")("many").unwrap_err(), "expected a whole number");
        assert_eq!(port_option("0").unwrap_err(), "expected a port, 1 to 65535");
    }
}
