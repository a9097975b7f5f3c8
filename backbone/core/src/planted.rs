//! Bugs on purpose, to prove that the simulator finds such: each is one that a project like this one could have, or that this
//! one has had. Compiled in by the feature `planted` only, which no other crate may ask for but the simulator's tests; and then
//! still asleep until a test plants one in its own thread.

use std::cell::Cell;

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Answers are let out before their events are synced.
    AckBeforeSync,
    /// A job is settled once for each attempt whose result comes, not once.
    SettledByAttempt,
    /// What is paid out of a hold is given back as well.
    SettledAndReleased,
    /// The fee is rounded up.
    FeeRoundedUp,
    /// Where nothing is given back the escrow is not closed.
    NothingToGiveBack,
    /// A node that has seen the very last fence proves a roll-back.
    FenceNotAbove,
    /// The result of an attempt that was replaced counts for the one that replaced it.
    LostResultAccepted,
    /// A node that comes back is not told again what is to end.
    CancelNotRepeated,
    /// The same key of another account is the same job.
    KeyWithoutAccount,
    /// The same key with another specification is the same job.
    SpecificationIgnored,
    /// After a start nodes have no time to come back.
    NoTimeToComeBack,
    /// An agent forgets results that nobody has acknowledged.
    ResultForgotten,
    /// A lease is counted from the answer to a heartbeat, not from its sending.
    LeaseFromAnswer,
    /// Had once: a node that takes an attempt and then refuses it costs the job no attempt.
    RefusedAfterTaking,
    /// Had once: what is lost over a connection that lives is not told to end.
    LostNotTold,
    /// Had once: tokens are paid for jobs of any kind, up to the bytes that a node says there were.
    TokensOfAnyJob,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 16] = [
        Self::AckBeforeSync,
        Self::SettledByAttempt,
        Self::SettledAndReleased,
        Self::FeeRoundedUp,
        Self::NothingToGiveBack,
        Self::FenceNotAbove,
        Self::LostResultAccepted,
        Self::CancelNotRepeated,
        Self::KeyWithoutAccount,
        Self::SpecificationIgnored,
        Self::NoTimeToComeBack,
        Self::ResultForgotten,
        Self::LeaseFromAnswer,
        Self::RefusedAfterTaking,
        Self::LostNotTold,
        Self::TokensOfAnyJob,
    ];
}

/// Plants a bug in this thread in place of any other.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted in this thread.
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
