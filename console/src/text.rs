//! What people read: times, amounts, sizes, ids, and bytes that came from strangers.

use jiff::tz::TimeZone;
use modchain_types::{Asset, JobId, Micro, Span, WallTime, is_hidden};
use modchain_wire::view::JobView;

/// A point in time as every JSON document writes it: RFC 3339, UTC, milliseconds.
pub(crate) fn rfc3339(at: WallTime) -> String {
    format!("{:.3}", timestamp(at))
}

/// The time of day for a table: local, or UTC if asked.
pub(crate) fn time_of_day(at: WallTime, utc: bool) -> String {
    zoned(at, utc).strftime("%H:%M:%S").to_string()
}

/// Date and time of day for a table: local, or UTC if asked.
pub(crate) fn date_time(at: WallTime, utc: bool) -> String {
    zoned(at, utc).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn zoned(at: WallTime, utc: bool) -> jiff::Zoned {
    timestamp(at).to_zoned(if utc { TimeZone::UTC } else { TimeZone::system() })
}

/// A peer's clock may say anything: what no calendar holds is shown as the epoch.
fn timestamp(at: WallTime) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// This machine's wall clock, for display and for `--since`.
pub(crate) fn wall_now() -> WallTime {
    WallTime(jiff::Timestamp::now().as_millisecond())
}

/// A moment as `--since` takes it: RFC 3339, or a duration before `now`.
pub(crate) fn parse_since(text: &str, now: WallTime) -> Result<WallTime, String> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(WallTime(moment.as_millisecond()));
    }
    let span = modchain_types::time::parse_span(text)
        .map_err(|_| format!("`{text}` is neither a duration such as 10m nor a time such as 2026-11-22T14:03:21Z"))?;
    Ok(WallTime(now.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))))
}

/// How long ago, in one unit: `12s`, `3m`, `2h`, `5d`. What is older than a minute changes once a minute at most.
pub(crate) fn ago(span: modchain_types::Span) -> String {
    let secs = span.0 / 1_000_000;
    match secs {
        0..60 => format!("{secs}s"),
        60..3_600 => format!("{}m", secs / 60),
        3_600..86_400 => format!("{}h", secs / 3_600),
        _ => format!("{}d", secs / 86_400),
    }
}

/// How long a job ran, or has run until now: what its node measured, where that is known. `None` if it never began.
pub(crate) fn ran(job: &JobView, now: WallTime) -> Option<Span> {
    let started = job.started_at?;
    let measured = job.state.is_ended() && job.usage.ran > Span::ZERO;
    Some(if measured { job.usage.ran } else { job.ended_at.unwrap_or(now).since(started) })
}

/// How long something lasted that is over: what begins and ends in one millisecond takes some time all the same.
pub(crate) fn lasted(span: Span) -> String {
    if span == Span::ZERO { "<1ms".to_owned() } else { span.to_string() }
}

/// `2.00 TEST`.
pub(crate) fn money(amount: Micro, asset: Asset) -> String {
    format!("{amount} {asset}")
}

/// A change of a balance, in micro-units: `-1.37`, `+0.50`, `0.00`.
pub(crate) fn signed(micro: i64) -> String {
    let amount = Micro(micro.unsigned_abs());
    match micro {
        0 => amount.to_string(),
        1.. => format!("+{amount}"),
        ..0 => format!("-{amount}"),
    }
}

/// `1.5 GiB`: binary units, at most one decimal.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scale = 1u64;
    while unit + 1 < UNITS.len() && count / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    let (whole, tenth) = (count / scale, count % scale * 10 / scale);
    match tenth {
        0 => format!("{whole} {}", UNITS[unit]),
        _ => format!("{whole}.{tenth} {}", UNITS[unit]),
    }
}

/// Bytes as people write them: `64MiB`, `1.5GiB`, `500MB`, `4096`. Binary and decimal units, exact integers only after
/// scaling down.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not a size: write 64MiB, 2GiB, 500MB or a number of bytes");
    let text_trimmed = text.trim();
    let split = text_trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text_trimmed.len());
    let (number, unit) = (&text_trimmed[..split], text_trimmed[split..].trim());
    let scale: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return Err(bad()),
    };
    decimal(number, scale, 3).ok_or_else(bad)
}

/// Thousandths of a core from `0.5` or `2`.
pub(crate) fn parse_cpus(text: &str) -> Result<u32, String> {
    let bad = || format!("`{text}` is not a number of cores: write 0.001 to 1024 with at most three decimals");
    let milli = decimal(text.trim(), 1_000, 3).ok_or_else(bad)?;
    u32::try_from(milli).ok().filter(|milli| (1..=1_024_000).contains(milli)).ok_or_else(bad)
}

/// `text` × `scale` for a decimal number with at most `places` decimals; floored. `None` for anything else.
pub(crate) fn decimal(text: &str, scale: u64, places: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > places || text.ends_with('.') {
        return None;
    }
    let divisor = 10u64.pow(u32::try_from(fraction.len()).ok()?);
    let parts = format!("{whole}{fraction}").parse::<u64>().ok()?;
    u64::try_from(u128::from(parts) * u128::from(scale) / u128::from(divisor)).ok()
}

/// Cores from thousandths: `1`, `0.5`.
pub(crate) fn cpus(milli: u32) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An id as it is shown: the first 8 characters on a terminal, all of it anywhere else.
pub(crate) fn job_id(id: &JobId, short: bool) -> String {
    if short { id.short() } else { id.to_string() }
}

/// Text from a stranger on one line: control characters and hidden ones become `·`.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_hidden(c) { '·' } else { c }).collect()
}

/// The same in plain characters, as wide as before: for terminals and readers that know no others.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '…' => '+',
            '·' => '.',
            'µ' => 'u',
            '▁' | '▂' => '_',
            '▃' | '▄' => '-',
            '▅' | '▆' => '=',
            '▇' | '█' => '#',
            other => other,
        })
        .collect()
}

/// Standard base 64 with padding: how JSON carries bytes that are not UTF-8.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for position in 0..4 {
            if position <= group.len() {
                text.push(char::from(ALPHABET[(number >> (18 - 6 * position) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(WallTime(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(WallTime(1_795_356_201_114)), "2026-11-22T14:03:21.114Z");
        assert_eq!(rfc3339(WallTime(i64::MAX)), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_of_day(WallTime(1_795_356_201_114), true), "14:03:21");
        assert_eq!(date_time(WallTime(1_795_356_201_114), true), "2026-11-22 14:03:21");
    }

    #[test]
    fn a_change_has_a_sign_and_none_has_none() {
        assert_eq!((signed(-1_370_000), signed(500_000), signed(0)), ("-1.37".into(), "+0.50".into(), "0.00".into()));
    }

    #[test]
    fn since_takes_a_duration_or_a_moment() {
        let now = WallTime(1_000_000);
        assert_eq!(parse_since("10s", now), Ok(WallTime(990_000)));
        assert_eq!(parse_since("1970-01-01T00:00:01Z", now), Ok(WallTime(1_000)));
        assert!(parse_since("yesterday", now).expect_err("no time").contains("yesterday"));
    }

    #[test]
    fn sizes_and_cores_are_read_exactly() {
        for (text, expected) in [
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("500MB", 500_000_000),
            ("2G", 2 << 30),
            ("0.5 KiB", 512),
        ] {
            assert_eq!(parse_bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "MiB", "-1", "1e9", "1.", "1,5GiB", "5 parsecs", "99999999999TiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!((parse_cpus("0.5"), parse_cpus("2")), (Ok(500), Ok(2000)));
        for text in ["0", "-1", "0.0001", "5000", "many", ""] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
        assert_eq!((cpus(500), cpus(2000), cpus(10)), ("0.5".into(), "2".into(), "0.01".into()));
        assert_eq!((bytes(512), bytes(1536), bytes(64 << 20)), ("512 B".into(), "1.5 KiB".into(), "64 MiB".into()));
    }

    #[test]
    fn a_strangers_text_cannot_move_the_cursor_or_turn_the_line() {
        assert_eq!(one_line("a\x1b[2Jb\nc\u{202e}d"), "a·[2Jb·c·d");
    }

    #[test]
    fn plain_text_is_as_wide_as_it_was() {
        assert_eq!(plain("7 µs  a…  ·▁▄▆█"), "7 us  a+  ._-=#");
    }

    #[test]
    fn base_64_matches_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe]), "//4=");
    }

    #[test]
    fn any_text_is_one_line_without_anything_hidden() {
        crate::fuzz::target("line").words(&["\u{202e}", "\u{200d}", "\x1b[", "\r", "\u{2028}"]).longest(512).run(
            |input| {
                let text = String::from_utf8_lossy(input);
                let line = one_line(&text);
                assert!(line.chars().all(|c| !c.is_control() && !is_hidden(c)));
                assert_eq!(line.chars().count(), text.chars().count(), "every character has its place");
                modchain_fuzz::signature(&(line.matches('·').count().checked_ilog2(), input.len().checked_ilog2()))
            },
        );
        for bomb in crate::fuzz::bombs("line") {
            assert_eq!(one_line(&String::from_utf8_lossy(&bomb.input)), bomb.answer, "{}", bomb.name);
        }
    }

    #[test]
    fn any_text_is_a_number_that_reads_back_or_a_complaint() {
        use modchain_types::{Digest, IdentityId, Name, NodeId, SubmitKey};
        fn shown<T: std::str::FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str) -> bool {
            let Ok(value) = text.parse::<T>() else { return false };
            assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(&value), "{text:?} does not read back");
            true
        }
        crate::fuzz::target("number").words(&["ms", "s", "h", "GiB", ".", "j-", "T", "Z", "e", "-"]).run(|input| {
            let Ok(text) = std::str::from_utf8(input) else { return 0 };
            let ids = [shown::<JobId>(text), shown::<NodeId>(text), shown::<IdentityId>(text), shown::<Digest>(text)];
            let words = [shown::<Name>(text), shown::<SubmitKey>(text), shown::<Micro>(text)];
            let span = modchain_types::time::parse_span(text);
            if span.is_ok() && text.trim().ends_with(|c: char| c.is_ascii_digit()) {
                assert!(text.trim().bytes().all(|b| b.is_ascii_digit()), "{text:?}: a number without its unit");
            }
            let sizes = (parse_bytes(text).is_ok(), parse_cpus(text).is_ok(), parse_since(text, WallTime(0)).is_ok());
            if let Ok(milli) = parse_cpus(text) {
                assert_eq!(parse_cpus(&cpus(milli)), Ok(milli));
            }
            modchain_fuzz::signature(&(
                ids,
                words,
                sizes,
                span.map_or(0, |span| span.0.checked_ilog2().unwrap_or(0) + 1),
            ))
        });
    }
}
