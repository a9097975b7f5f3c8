//! What must hold of every job's bill.

use serde_json::Value;

/// An amount of a job in micro-units.
#[track_caller]
pub(crate) fn micro(job: &Value, field: &str) -> u64 {
    job[field]["micro"].as_u64().unwrap_or_else(|| panic!("no {field}: {job:#}"))
}

/// Cost and refund are the hold, and the platform's part is five hundredths of the cost, rounded down.
#[track_caller]
pub(crate) fn adds_up(job: &Value) {
    let (cost, fee) = (micro(job, "cost"), micro(job, "fee"));
    assert_eq!(cost + micro(job, "refund"), micro(job, "hold"), "{job:#}");
    assert_eq!(fee, cost / 20, "{job:#}");
}

/// Nothing was paid.
#[track_caller]
pub(crate) fn unbilled(job: &Value) {
    assert_eq!((micro(job, "cost"), micro(job, "fee")), (0, 0), "{job:#}");
    adds_up(job);
}
