//! How a command ends when it cannot do what was asked: one error type for the whole program, and the exit codes.
//!
//! Messages are lower case and say what and why; the hint says what next. With `-o json|jsonl` the same error is one
//! `modchain.error/v1` object on standard error.

use std::fmt;

use modchain_wire::console::{Refusal, RefusalCode};
use serde::Serialize;

/// Done.
pub(crate) const OK: u8 = 0;
/// Failed, and no finer code fits.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage, or a confirmation is needed.
pub(crate) const USAGE: u8 = 2;
/// No such thing, or the id is ambiguous.
pub(crate) const NOT_FOUND: u8 = 3;
/// Not logged in, or not allowed.
pub(crate) const NOT_ALLOWED: u8 = 4;
/// The orchestrator was not reached.
pub(crate) const UNREACHABLE: u8 = 5;
/// Refused: funds, limit, policy.
pub(crate) const REFUSED: u8 = 6;
/// The state does not allow it.
pub(crate) const CONFLICT: u8 = 7;
/// `wait --timeout` passed.
pub(crate) const TIMEOUT: u8 = 124;
/// Modchain itself failed an attached job.
pub(crate) const MODCHAIN_FAILED: u8 = 125;
/// An attached job was refused.
pub(crate) const JOB_REFUSED: u8 = 126;
/// Stopped by SIGINT: detached.
pub(crate) const INTERRUPTED: u8 = 130;
/// Stopped by SIGTERM, or the job was cancelled.
pub(crate) const TERMINATED: u8 = 143;
/// Stopped by SIGHUP.
pub(crate) const HUNG_UP: u8 = 129;

/// What every command gives back: the exit code, or why there is nothing better.
pub(crate) type Outcome = Result<u8, Failure>;

/// Why a command could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For programs; one word of a closed list (the refusal codes of the protocol and those of this file).
    pub(crate) code: &'static str,
    /// What and why, in lower case without a final dot.
    pub(crate) message: String,
    /// What next.
    pub(crate) hint: Option<String>,
    /// The process's exit code.
    pub(crate) exit: u8,
    /// Whether the connection was lost: trying again may help.
    pub(crate) lost: bool,
}

impl Failure {
    fn new(code: &'static str, exit: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, exit, lost: false }
    }

    /// No finer code fits.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new("failed", FAILED, message)
    }

    /// The command line, a job file or a setting makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new("usage", USAGE, message)
    }

    /// There is no such thing here.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new("not_found", NOT_FOUND, message)
    }

    /// There is no identity to connect with, or the other side does not take it.
    pub(crate) fn not_logged_in(message: impl Into<String>) -> Self {
        Self::new("not_logged_in", NOT_ALLOWED, message)
    }

    /// A text that is not a token, found out without asking anybody.
    pub(crate) fn bad_token(message: impl Into<String>) -> Self {
        Self::new("token_invalid", USAGE, message)
    }

    /// The certificate's time is over.
    pub(crate) fn certificate_expired(message: impl Into<String>) -> Self {
        Self::new("certificate_expired", NOT_ALLOWED, message)
    }

    /// The orchestrator lets nobody join like that.
    pub(crate) fn join_refused(code: &'static str, exit: u8, message: impl Into<String>) -> Self {
        Self::new(code, exit, message)
    }

    /// No connection could be made.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self { lost: true, ..Self::new("unreachable", UNREACHABLE, message) }
    }

    /// No connection could be made, and none will be: the other side is not who it should be.
    pub(crate) fn untrusted(message: impl Into<String>) -> Self {
        Self::new("untrusted", UNREACHABLE, message)
    }

    /// A connection broke in the middle.
    pub(crate) fn lost(message: impl Into<String>) -> Self {
        Self { lost: true, ..Self::new("connection_lost", UNREACHABLE, message) }
    }

    /// The state does not allow it.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new("conflict", CONFLICT, message)
    }

    /// A wait was longer than allowed.
    pub(crate) fn timeout(message: impl Into<String>) -> Self {
        Self::new("timeout", TIMEOUT, message)
    }

    /// With what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        self.hint = (!hint.is_empty()).then_some(hint);
        self
    }

    /// As an attached `run` says it: what is refused there ends with the codes of a job, see `help exit-codes`.
    pub(crate) fn attached(mut self) -> Self {
        self.exit = match self.exit {
            REFUSED | CONFLICT => JOB_REFUSED,
            FAILED => MODCHAIN_FAILED,
            other => other,
        };
        self
    }

    /// On one line: what and why, and what next.
    pub(crate) fn said(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{} ({hint})", self.message),
            None => self.message.clone(),
        }
    }

    /// The one object of `-o json|jsonl`.
    pub(crate) fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            schema: &'static str,
            code: &'a str,
            message: &'a str,
            hint: Option<&'a str>,
            exit: u8,
        }
        let document = Document {
            schema: "modchain.error/v1",
            code: self.code,
            message: &self.message,
            hint: self.hint.as_deref(),
            exit: self.exit,
        };
        serde_json::to_string(&document).expect("strings and a number always become JSON")
    }
}

/// Two lines for people: `error: ...` and, where there is one, `  hint: ...`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let exit = exit_of(refusal.code);
        Self {
            lost: matches!(refusal.code, RefusalCode::Busy),
            ..Self::new(refusal.code.word(), exit, refusal.message.as_str()).hint(refusal.hint.as_str())
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}

/// The exit code of a refused request.
pub(crate) fn exit_of(code: RefusalCode) -> u8 {
    match code {
        RefusalCode::Invalid => USAGE,
        RefusalCode::NotFound | RefusalCode::Ambiguous => NOT_FOUND,
        RefusalCode::NotAllowed => NOT_ALLOWED,
        RefusalCode::InsufficientFunds
        | RefusalCode::Limit
        | RefusalCode::NoFit
        | RefusalCode::IdempotencyConflict
        | RefusalCode::MissingBlob
        | RefusalCode::Busy
        | RefusalCode::StorageFull
        | RefusalCode::Frozen => REFUSED,
        RefusalCode::Conflict => CONFLICT,
        RefusalCode::Unsupported | RefusalCode::Internal => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_exit_code_alone_and_for_an_attached_run() {
        for (code, plain, attached) in [
            (RefusalCode::Invalid, 2, 2),
            (RefusalCode::NotFound, 3, 3),
            (RefusalCode::Ambiguous, 3, 3),
            (RefusalCode::NotAllowed, 4, 4),
            (RefusalCode::InsufficientFunds, 6, 126),
            (RefusalCode::Limit, 6, 126),
            (RefusalCode::NoFit, 6, 126),
            (RefusalCode::Conflict, 7, 126),
            (RefusalCode::IdempotencyConflict, 6, 126),
            (RefusalCode::MissingBlob, 6, 126),
            (RefusalCode::Busy, 6, 126),
            (RefusalCode::StorageFull, 6, 126),
            (RefusalCode::Frozen, 6, 126),
            (RefusalCode::Unsupported, 1, 125),
            (RefusalCode::Internal, 1, 125),
        ] {
            let refusal =
                Refusal { code, message: modchain_types::Text::cut("no"), hint: modchain_types::Text::cut("") };
            let failure = Failure::from(refusal);
            assert_eq!((failure.exit, failure.clone().attached().exit), (plain, attached), "{code:?}");
            assert_eq!(failure.code, code.word());
        }
        assert_eq!(Failure::unreachable("x").attached().exit, 5);
        assert_eq!(Failure::usage("x").attached().exit, 2);
    }

    #[test]
    fn the_help_topic_has_every_reason_and_the_code_that_stands_for_it() {
        let help = include_str!("cli/help/exit-codes.txt");
        let (_, reasons) = help.split_once("Reasons").expect("reasons");
        let reasons: Vec<&str> = reasons.split_whitespace().collect();
        for reason in modchain_types::Reason::ALL {
            assert!(reasons.contains(&reason.word()), "{reason} is not explained");
            let Some(exit) = modchain_types::Exit::of(reason) else { continue };
            assert!(help.contains(&format!("\n  {}    ", exit.code)), "{reason} ends with {}", exit.code);
        }
    }

    #[test]
    fn an_error_is_two_lines_for_people_and_one_object_for_programs() {
        let failure = Failure::not_found("no job `j-7f3`").hint("modchain jobs --all");
        assert_eq!(failure.to_string(), "error: no job `j-7f3`\n  hint: modchain jobs --all");
        assert_eq!(
            failure.to_json(),
            r#"{"schema":"modchain.error/v1","code":"not_found","message":"no job `j-7f3`","hint":"modchain jobs --all","exit":3}"#
        );
    }
}
