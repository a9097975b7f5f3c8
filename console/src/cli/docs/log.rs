//! Documents of job output.

use modchain_types::{Asset, JobId, WallTime};
use modchain_wire::view::JobView;
use serde::Serialize;

use super::super::yaml;
use super::job::{ExitDoc, exit};
use super::{Money, money, time};

/// `modchain.log/v1`: the text of the stream is the `text` (or decoded `bytes`) of its documents one after the other, line
/// ends included.
#[derive(Debug, Serialize)]
pub(crate) struct LogDoc {
    schema: &'static str,
    job: String,
    attempt: u32,
    offset: u64,
    at: String,
    stream: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

/// A piece of output that begins at `offset` of its stream.
pub(crate) fn log(job: &JobId, attempt: u32, offset: u64, at: WallTime, stream: &'static str, data: &[u8]) -> LogDoc {
    let text = std::str::from_utf8(data).ok().map(str::to_owned);
    LogDoc {
        schema: "modchain.log/v1",
        job: job.to_string(),
        attempt,
        offset,
        at: time(at),
        stream,
        bytes: text.is_none().then(|| crate::text::base64(data)),
        text,
    }
}

/// `modchain.log_end/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct LogEndDoc {
    schema: &'static str,
    job: String,
    state: &'static str,
    reason: Option<&'static str>,
    exit: Option<ExitDoc>,
    cost: Money,
}

/// The beginning of `modchain.logs/v1`, a whole log as one document. It is written in pieces, because a log may be larger
/// than memory should be: this, the documents of [`log`] with commas between them, [`logs_end`].
pub(crate) fn logs_begin(job: &JobId, as_yaml: bool) -> String {
    const SCHEMA: &str = "modchain.logs/v1";
    if as_yaml {
        return yaml::begun(&[("schema", SCHEMA), ("job", &job.to_string())], "items");
    }
    format!(r#"{{"schema":"{SCHEMA}","job":"{job}","items":["#)
}

/// The same of a log without a single line.
pub(crate) fn logs_empty(job: &JobId, as_yaml: bool) -> String {
    logs_begin(job, as_yaml) + if as_yaml { yaml::NO_ITEM } else { "" }
}

/// The rest of `modchain.logs/v1` after its items.
pub(crate) fn logs_end(end: &LogEndDoc, as_yaml: bool) -> Result<String, serde_json::Error> {
    if as_yaml {
        return yaml::last("end", end);
    }
    Ok(format!("],\"end\":{}}}\n", serde_json::to_string(end)?))
}

/// The last document of a log.
pub(crate) fn log_end(view: &JobView, asset: Asset) -> LogEndDoc {
    LogEndDoc {
        schema: "modchain.log_end/v1",
        job: view.id.to_string(),
        state: view.state.word(),
        reason: view.reason.map(|reason| reason.word()),
        exit: view.exit.map(exit),
        cost: money(view.cost, asset),
    }
}
