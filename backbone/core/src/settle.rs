//! Who pays for which ending: the one table from an attempt's ending to what becomes of its job.
//!
//! | ending | running, not cancelled | cancelling |
//! |---|---|---|
//! | exited 0 | completed, metered | cancelled, metered |
//! | exited otherwise, signal, trap, own limit of memory or processes | failed, metered | cancelled, metered |
//! | run limit | timed out, metered | cancelled, metered |
//! | stopped as told | (node's fault) retry | cancelled, metered if it had started |
//! | cannot start: job's fault | failed, released | cancelled, released |
//! | cannot start: node's fault; node's fault; lease ended | retry, unpaid | cancelled, released |
//!
//! A job whose input failed is stopped and paid like a cancelled one, and ends as failed.

use modchain_types::{Ending, Exit, ExitFrom, Fault, JobState, Micro, Reason};

use crate::event::Settlement;
use crate::meter;

/// What becomes of a job when its attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The job is over.
    Finish {
        /// How.
        state: JobState,
        /// Why.
        reason: Reason,
        /// The exit code.
        exit: Exit,
        /// Who pays.
        pays: Pays,
    },
    /// Not the job's fault: another attempt, if there is one left.
    Retry {
        /// Why.
        reason: Reason,
    },
}

/// Who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pays {
    /// The client, for what was used.
    Metered,
    /// Nobody: everything goes back.
    Nobody,
}

/// Whether the job was to end before its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// No.
    GoOn,
    /// Its client wanted that.
    Cancel,
    /// It could never have been completed: its input failed.
    GiveUp,
}

/// Whether this ending means that the job's own code had run.
pub fn implies_started(ending: &Ending) -> bool {
    match ending {
        Ending::Exited { .. }
        | Ending::Signalled { .. }
        | Ending::Trapped { .. }
        | Ending::MemoryLimit
        | Ending::PidsLimit { .. }
        | Ending::RunLimit => true,
        Ending::Stopped | Ending::CannotStart { .. } | Ending::NodeFault { .. } | Ending::LeaseEnded => false,
    }
}

/// The table. `limit_reason` is what reaching the run limit means for this attempt; `started` whether its code had run.
pub fn fate(ending: &Ending, wish: Wish, limit_reason: Reason, started: bool) -> Fate {
    let finish = |state, reason, exit, pays| Fate::Finish { state, reason, exit, pays };
    let of = |reason| Exit::of(reason).expect("only exit and signal have codes of their own");
    let fate = match ending {
        Ending::Exited { code: 0 } => finish(JobState::Completed, Reason::Exit, Exit::job(0), Pays::Metered),
        Ending::Exited { code } => finish(JobState::Failed, Reason::Exit, Exit::job(*code), Pays::Metered),
        Ending::Signalled { signal } => {
            finish(JobState::Failed, Reason::Signal, Exit::job(128u8.saturating_add(*signal)), Pays::Metered)
        }
        Ending::Trapped { .. } => finish(JobState::Failed, Reason::Trap, of(Reason::Trap), Pays::Metered),
        Ending::PidsLimit { code } => {
            let exit = Exit { code: *code, from: ExitFrom::Limit };
            finish(JobState::Failed, Reason::Pids, exit, Pays::Metered)
        }
        Ending::MemoryLimit => finish(JobState::Failed, Reason::Memory, of(Reason::Memory), Pays::Metered),
        Ending::RunLimit => finish(JobState::TimedOut, limit_reason, of(limit_reason), Pays::Metered),
        Ending::CannotStart { fault: Fault::Job, .. } => {
            finish(JobState::Failed, Reason::Refused, of(Reason::Refused), Pays::Nobody)
        }
        Ending::CannotStart { fault: Fault::NotFound, .. } => {
            finish(JobState::Failed, Reason::NotFound, of(Reason::NotFound), Pays::Nobody)
        }
        Ending::CannotStart { fault: Fault::Command, .. } => {
            finish(JobState::Failed, Reason::CommandNotFound, of(Reason::CommandNotFound), Pays::Nobody)
        }
        Ending::Stopped | Ending::CannotStart { fault: Fault::Node, .. } | Ending::NodeFault { .. } => {
            Fate::Retry { reason: Reason::NodeFault }
        }
        Ending::LeaseEnded => Fate::Retry { reason: Reason::NodeLost },
    };
    let pays = match fate {
        Fate::Finish { pays, .. } => pays,
        Fate::Retry { .. } if *ending == Ending::Stopped && started => Pays::Metered,
        Fate::Retry { .. } => Pays::Nobody,
    };
    match wish {
        Wish::GoOn => fate,
        Wish::Cancel => finish(JobState::Cancelled, Reason::Cancelled, of(Reason::Cancelled), pays),
        Wish::GiveUp => finish(JobState::Failed, Reason::Refused, of(Reason::Refused), pays),
    }
}

/// Splits a hold: `fee = floor(gross × basis points / 10,000)`, the owner gets the rest of the gross, the client what is left.
/// `gross` is at most `hold`.
pub fn split(hold: Micro, gross: Micro, fee_basis_points: u16, owner: Option<modchain_types::AccountId>) -> Settlement {
    let fee = meter::fee(gross, fee_basis_points);
    #[cfg(feature = "planted")]
    if crate::planted::is(crate::planted::Bug::SettledAndReleased) {
        let net = Micro(gross.0 - fee.0);
        return Settlement { gross, fee, net, refund: hold, owner: owner.filter(|_| gross > Micro::ZERO) };
    }
    Settlement {
        gross,
        fee,
        net: gross.checked_sub(fee).expect("a fee is at most a part of its gross"),
        refund: hold.checked_sub(gross).expect("a charge is capped by its hold"),
        owner: owner.filter(|_| gross > Micro::ZERO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modchain_types::Text;

    /// Every ending with its fate when nobody cancelled: state or retry, reason, exit code, who pays.
    fn table() -> Vec<(Ending, Option<JobState>, Reason, u8, Pays)> {
        let message = || Text::<512>::cut("m");
        vec![
            (Ending::Exited { code: 0 }, Some(JobState::Completed), Reason::Exit, 0, Pays::Metered),
            (Ending::Exited { code: 3 }, Some(JobState::Failed), Reason::Exit, 3, Pays::Metered),
            (Ending::Signalled { signal: 11 }, Some(JobState::Failed), Reason::Signal, 139, Pays::Metered),
            (Ending::Trapped { message: message() }, Some(JobState::Failed), Reason::Trap, 134, Pays::Metered),
            (Ending::MemoryLimit, Some(JobState::Failed), Reason::Memory, 137, Pays::Metered),
            (Ending::RunLimit, Some(JobState::TimedOut), Reason::Budget, 124, Pays::Metered),
            (Ending::Stopped, None, Reason::NodeFault, 0, Pays::Nobody),
            (
                Ending::CannotStart { fault: Fault::Job, message: message() },
                Some(JobState::Failed),
                Reason::Refused,
                126,
                Pays::Nobody,
            ),
            (
                Ending::CannotStart { fault: Fault::NotFound, message: message() },
                Some(JobState::Failed),
                Reason::NotFound,
                126,
                Pays::Nobody,
            ),
            (
                Ending::CannotStart { fault: Fault::Command, message: message() },
                Some(JobState::Failed),
                Reason::CommandNotFound,
                127,
                Pays::Nobody,
            ),
            (Ending::PidsLimit { code: 2 }, Some(JobState::Failed), Reason::Pids, 2, Pays::Metered),
            (Ending::CannotStart { fault: Fault::Node, message: message() }, None, Reason::NodeFault, 0, Pays::Nobody),
            (Ending::NodeFault { message: message() }, None, Reason::NodeFault, 0, Pays::Nobody),
            (Ending::LeaseEnded, None, Reason::NodeLost, 0, Pays::Nobody),
        ]
    }

    #[test]
    fn every_ending_has_its_row_and_its_payer() {
        for (ending, state, reason, code, pays) in table() {
            let started = implies_started(&ending);
            match (fate(&ending, Wish::GoOn, Reason::Budget, started), state) {
                (Fate::Finish { state: s, reason: r, exit, pays: p }, Some(state)) => {
                    assert_eq!((s, r, exit.code, p), (state, reason, code, pays), "{ending:?}");
                }
                (Fate::Retry { reason: r }, None) => assert_eq!(r, reason, "{ending:?}"),
                (fate, _) => panic!("{ending:?} gives {fate:?}"),
            }
        }
    }

    #[test]
    fn a_cancelled_job_is_cancelled_whatever_the_ending_and_the_node_s_fault_is_never_paid() {
        for (ending, state, _, _, pays) in table() {
            for started in [false, true] {
                let paid = if ending == Ending::Stopped && started { Pays::Metered } else { pays };
                assert_eq!(
                    fate(&ending, Wish::Cancel, Reason::Budget, started),
                    Fate::Finish {
                        state: JobState::Cancelled,
                        reason: Reason::Cancelled,
                        exit: Exit { code: 143, from: modchain_types::ExitFrom::Client },
                        pays: paid,
                    },
                    "{ending:?} {state:?} {started}"
                );
            }
        }
    }

    #[test]
    fn a_job_whose_input_failed_pays_like_a_cancelled_one_and_fails() {
        for (ending, ..) in table() {
            for started in [false, true] {
                let pays = |wish| match fate(&ending, wish, Reason::Budget, started) {
                    Fate::Finish { state, reason, pays, .. } => (state, reason, pays),
                    Fate::Retry { .. } => panic!("{ending:?} is tried again"),
                };
                let (_, _, cancelled) = pays(Wish::Cancel);
                assert_eq!(pays(Wish::GiveUp), (JobState::Failed, Reason::Refused, cancelled), "{ending:?}");
            }
        }
    }

    #[test]
    fn the_legs_of_every_split_sum_to_the_hold() {
        for hold in [0u64, 1, 19, 20, 21, 999, 1_000_000, u64::MAX] {
            for gross in [0, 1, hold / 3, hold / 2, hold].into_iter().filter(|gross| *gross <= hold) {
                let s = split(Micro(hold), Micro(gross), 500, None);
                assert_eq!(u128::from(s.net.0) + u128::from(s.fee.0) + u128::from(s.refund.0), u128::from(hold));
            }
        }
    }
}
