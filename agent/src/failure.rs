//! How a command ends when it cannot do what was asked. Messages are lower case and say what and why; the hint says what next.
//! With `-o json` the same is one `modchain.error/v1` object on standard error.

use modchain_link::ConnectError;
use modchain_link::enrol::JoinError;
use serde_json::json;

/// Failed, and no finer code fits.
pub(crate) const FAILED: u8 = 1;
/// The command line or a file makes no sense.
pub(crate) const USAGE: u8 = 2;
/// The orchestrator said no.
pub(crate) const NOT_ALLOWED: u8 = 4;
/// The orchestrator was not reached.
pub(crate) const UNREACHABLE: u8 = 5;
/// What is there already does not allow it.
pub(crate) const CONFLICT: u8 = 7;

/// Why a command could not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For programs: one word of a closed list, the refusals of the protocol and those of this file.
    code: &'static str,
    message: String,
    hint: String,
    pub(crate) exit: u8,
}

impl Failure {
    pub(crate) fn new(code: &'static str, exit: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new(), exit }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new("usage", USAGE, message)
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    /// For people, or as one JSON object.
    pub(crate) fn print(&self, as_json: bool) {
        let Self { code, message, hint, exit } = self;
        let hint = Some(hint).filter(|hint| !hint.is_empty());
        if as_json {
            let error = json!({
                "schema": "modchain.error/v1",
                "code": code,
                "message": message,
                "hint": hint,
                "exit": exit,
            });
            eprintln!("{error}");
        } else {
            eprintln!("error: {}", clean(message));
            if let Some(hint) = hint {
                eprintln!("  hint: {}", clean(hint));
            }
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new("failed", FAILED, format!("{error:#}"))
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let (code, exit) = match &error {
            JoinError::Files { .. } | JoinError::Lock(_) | JoinError::Note(_) => ("failed", FAILED),
            JoinError::Connect(ConnectError::NotTrusted { .. } | ConnectError::OtherThanToken { .. }) => {
                ("untrusted", UNREACHABLE)
            }
            JoinError::Connect(_) | JoinError::Lost(_) | JoinError::NoAnswer => ("unreachable", UNREACHABLE),
            JoinError::Refused(refused) => (refused.code.word(), NOT_ALLOWED),
            JoinError::Clock { .. } => (modchain_wire::join::JoinRefusal::ClockTooFar.word(), NOT_ALLOWED),
            JoinError::Unexpected(_) | JoinError::Certificate(_) => ("protocol", FAILED),
        };
        let hint = error.hint();
        Self::new(code, exit, format!("{:#}", anyhow::Error::new(error))).hint(hint)
    }
}

/// Words that may come from elsewhere, for a terminal: nothing in them steers it.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !(c.is_control() || modchain_types::is_hidden(*c))).collect()
}
