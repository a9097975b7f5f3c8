//! Refusals in people's words: what, why, what next.

use std::fmt::Display;

use modchain_core::Refused;
use modchain_types::{JobId, Name, Role};
use modchain_wire::Sentence;
use modchain_wire::console::{Refusal, RefusalCode};

use super::super::certify::NotRenewed;
use super::verbs::Verb;
use crate::store::blobs::BlobError;
use crate::store::input::InputError;
use crate::store::output::OutputError;

/// Any refusal.
pub(super) fn refusal(code: RefusalCode, message: impl Display, hint: impl Display) -> Refusal {
    Refusal { code, message: Sentence::cut(message.to_string()), hint: Sentence::cut(hint.to_string()) }
}

/// The request makes no sense.
pub(super) fn invalid(message: impl Display, hint: impl Display) -> Refusal {
    refusal(RefusalCode::Invalid, message, hint)
}

/// A bug or a broken disk.
pub(super) fn internal(error: impl Display) -> Refusal {
    refusal(RefusalCode::Internal, error, "nothing was changed; the orchestrator's log has more")
}

/// The program is about to end.
pub(super) fn stopping() -> Refusal {
    refusal(RefusalCode::Busy, "the orchestrator is stopping", "try again in a moment")
}

/// The asker's other requests have to end first.
pub(super) fn too_many_requests(max: usize) -> Refusal {
    refusal(RefusalCode::Busy, format!("more than {max} requests at once"), "wait until some of them have ended")
}

/// The disk is nearly full.
pub(super) fn storage_full(message: impl Display) -> Refusal {
    let hint = "running jobs go on; try again later: the operator has to free some space";
    refusal(RefusalCode::StorageFull, message, hint)
}

/// No such job, or one of somebody else, or one that is forgotten by this rule: the very same answer.
pub(super) fn no_job(name: &str, rule: &str) -> Refusal {
    let message = format!("there is no job `{name}`");
    refusal(RefusalCode::NotFound, message, format!("modchain jobs --all lists them; {rule}"))
}

/// The key is one of a job that is just being forgotten.
pub(super) fn being_forgotten(job: JobId) -> Refusal {
    let message = format!("job {job}, which this --id has made, ended long ago and is just being forgotten");
    refusal(RefusalCode::Busy, message, "repeat it in a moment: then it is a new job")
}

/// The name fits several jobs; some of them are told.
pub(super) fn ambiguous(name: &str, some: &[JobId], total: usize) -> Refusal {
    let mut shown = some.iter().map(JobId::to_string).collect::<Vec<_>>().join(", ");
    if some.len() < total {
        shown.push_str(", …");
    }
    refusal(RefusalCode::Ambiguous, format!("job {name} matches {total} jobs ({shown})"), "write more of the id")
}

/// No such identity.
pub(super) fn no_identity(name: &str) -> Refusal {
    refusal(RefusalCode::NotFound, format!("there is no identity `{name}`"), "modchain cert list --all lists them")
}

/// Why there is no new certificate.
pub(super) fn by_certify(error: NotRenewed) -> Refusal {
    match error {
        NotRenewed::Refused(refused) => by_engine(refused, None),
        NotRenewed::BadRequest => invalid(error, "update this program"),
        NotRenewed::TooOften => refusal(RefusalCode::Busy, error, "wait a moment"),
        NotRenewed::Internal(why) => internal(why),
    }
}

/// The role may not do this at all.
pub(super) fn not_allowed(verb: Verb, role: Role) -> Refusal {
    let hint = match (verb, role) {
        (Verb::Credit, _) => "only operators give credit",
        (Verb::Revoke, _) => "only operators revoke identities: ask yours",
        (_, Role::Operator) => "use a client's context: jobs belong to those who pay for them",
        (_, Role::Client | Role::Node | Role::Orchestrator) => "",
    };
    refusal(RefusalCode::NotAllowed, format!("{} is not allowed for the role {role}", verb.word()), hint)
}

/// An account that is not the asker's, whether it exists or not.
pub(super) fn foreign_account() -> Refusal {
    refusal(RefusalCode::NotAllowed, "only operators may name another account", "leave the account out to see your own")
}

/// A node that is neither the asker's nor is the asker an operator.
pub(super) fn foreign_node(node: &Name) -> Refusal {
    let message = format!("the node `{node}` belongs to another account");
    refusal(RefusalCode::NotAllowed, message, "its owner or an operator can do this")
}

/// What the engine refuses. `name` is how the asker called the job, where there is one.
pub(super) fn by_engine(refused: Refused, name: Option<&str>) -> Refusal {
    let message = refused.to_string();
    match refused {
        Refused::Frozen { .. } => {
            refusal(RefusalCode::Frozen, message, "running jobs go on; the operator has to look at this")
        }
        Refused::NotAllowed { .. } => refusal(RefusalCode::NotAllowed, message, ""),
        Refused::Invalid { .. } => refusal(RefusalCode::Invalid, message, ""),
        Refused::UnknownJob => refusal(RefusalCode::NotFound, message, ""),
        Refused::UnknownAccount { .. } => {
            refusal(RefusalCode::NotFound, message, "accounts belong to clients: check the spelling")
        }
        Refused::UnknownNode => refusal(RefusalCode::NotFound, message, "modchain nodes lists them"),
        Refused::NameTaken { .. } => refusal(RefusalCode::Conflict, message, "choose another name"),
        Refused::IdempotencyConflict { job } => {
            let message = format!("this --id was used before for another specification, by job {job}");
            refusal(RefusalCode::IdempotencyConflict, message, "use another --id, or the same specification")
        }
        Refused::InsufficientFunds { .. } => {
            refusal(RefusalCode::InsufficientFunds, message, "lower --max-cost, or ask for more credit")
        }
        Refused::Limit { .. } => refusal(RefusalCode::Limit, message, "wait, or end what is not needed any more"),
        Refused::NoFit { .. } => {
            refusal(RefusalCode::NoFit, message, "leave --no-queue out to wait for a node, or ask for less")
        }
        Refused::AlreadyEnded { state } => {
            let job = name.map_or(String::from("the job"), |name| format!("job {name}"));
            refusal(RefusalCode::Conflict, format!("{job} has already ended ({state})"), "")
        }
        Refused::NotTestMoney => refusal(RefusalCode::NotAllowed, message, "this orchestrator works with real money"),
        Refused::StaleSession => refusal(
            RefusalCode::Conflict,
            "this certificate was replaced by a newer one",
            "if no other program of yours has renewed it, it was copied: tell an operator",
        ),
        Refused::Revoked => refusal(RefusalCode::NotAllowed, message, "ask for a new token"),
        Refused::UnknownIdentity => refusal(RefusalCode::NotFound, message, "modchain cert list --all lists them"),
        Refused::AlreadyRevoked { .. } => refusal(RefusalCode::Conflict, message, "who was revoked stays out"),
        Refused::LastOperator { .. } => {
            let hint = "let another one join first: modchain token create --role operator";
            refusal(RefusalCode::Conflict, message, hint)
        }
        Refused::UnknownToken => refusal(RefusalCode::NotFound, message, "modchain token list --all lists them"),
        Refused::TokenTaken => refusal(RefusalCode::Conflict, message, "make another one"),
        Refused::TokenExpired | Refused::TokenUsed | Refused::TokenRevoked => {
            refusal(RefusalCode::Conflict, message, "")
        }
        // About agents' connections and the join port; a console never hears them.
        Refused::DuplicateInstance
        | Refused::Probing
        | Refused::WrongProof
        | Refused::WrongRole { .. }
        | Refused::WrongName { .. } => internal(message),
    }
}

/// What the blob store refuses.
pub(super) fn by_blobs(error: BlobError) -> Refusal {
    let message = error.to_string();
    match error {
        BlobError::TooLarge { .. } => refusal(RefusalCode::Limit, message, "make the file smaller"),
        BlobError::Quota { .. } | BlobError::TooMany { .. } => {
            refusal(RefusalCode::Limit, message, "wait until some jobs have ended")
        }
        BlobError::Mismatch { .. } => {
            refusal(RefusalCode::Invalid, message, "did the file change meanwhile? send it again")
        }
        BlobError::Missing => refusal(RefusalCode::MissingBlob, message, "upload it first"),
        BlobError::Full => storage_full(message),
        BlobError::Damaged | BlobError::Disk(_) => internal(message),
    }
}

/// What the input spool refuses.
pub(super) fn by_input(error: InputError) -> Refusal {
    let message = error.to_string();
    match error {
        InputError::Gap { .. } => {
            refusal(RefusalCode::Invalid, message, "go on from the offset that was confirmed last")
        }
        InputError::OverCap => refusal(RefusalCode::Limit, message, "send less, or put it into the module"),
        InputError::Ended { .. } => refusal(RefusalCode::Conflict, message, "it was ended from elsewhere"),
        InputError::Full => storage_full(message),
        InputError::Disk(_) => internal(message),
    }
}

/// What a job printed is not kept any more.
pub(super) fn output_removed(job: JobId, rule: &str) -> Refusal {
    let message = format!("the output of job {job} was removed: {rule}");
    refusal(RefusalCode::NotFound, message, format!("modchain job {job} still shows how it ended and what it cost"))
}

/// What the output store refuses.
pub(super) fn by_output(error: OutputError) -> Refusal {
    internal(error)
}
