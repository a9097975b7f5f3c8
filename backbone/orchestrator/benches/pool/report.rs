//! What is printed.

use std::time::Duration;

use crate::pool::Spread;

/// One line of the table.
pub(crate) fn line(what: &str, value: &str) {
    println!("  {what:<58} {value}");
}

/// A line with the middle and the end of some times.
pub(crate) fn spread(what: &str, times: &[Duration]) {
    let spread = Spread::of(times.iter().copied());
    let value =
        format!("p50 {}, p99 {} ({} times)", millis(spread.percent(50)), millis(spread.percent(99)), times.len());
    line(what, &value);
}

pub(crate) fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

/// The machine's load over the last minute, as the system counts it.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("not told").to_owned()
}
