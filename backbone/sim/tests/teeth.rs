//! Proves that the auditor bites: each test breaks one rule in an honest journal and expects that rule by name.

use modchain_core::{Event, EventBody, Settlement};
use modchain_sim::{Auditor, Breach, Rule, journal};
use modchain_types::{AccountId, JobState, List, Micro, Reason, Timestamp};

/// Journals that are searched for an event that a corruption fits.
const SEEDS: u64 = 40;

fn audit(events: &[Event]) -> Result<(), Breach> {
    let mut auditor = Auditor::default();
    events.iter().try_for_each(|event| auditor.take(event))
}

/// Corrupts the first journal that `corrupt` fits, and expects the breach of `rule`.
fn expect(rule: Rule, mut corrupt: impl FnMut(&mut Vec<Event>) -> bool) {
    for seed in 1..=SEEDS {
        let mut events = journal(seed).unwrap_or_else(|failure| panic!("{failure}"));
        if corrupt(&mut events) {
            let breach = audit(&events).expect_err("the auditor noticed nothing");
            assert_eq!(breach.rule, rule, "seed {seed}: {breach}");
            return;
        }
    }
    panic!("no journal of {SEEDS} has what this corruption needs");
}

/// Corrupts the first event that `corrupt` fits.
fn expect_of_one(rule: Rule, mut corrupt: impl FnMut(&mut EventBody) -> bool) {
    expect(rule, |events| events.iter_mut().any(|event| corrupt(&mut event.body)));
}

/// Corrupts the first settlement that `corrupt` fits.
fn expect_of_settlement(rule: Rule, mut corrupt: impl FnMut(&mut Settlement) -> bool) {
    expect_of_one(rule, |body| match body {
        EventBody::JobFinished { settlement, .. } => corrupt(settlement),
        _ => false,
    });
}

/// Numbers the events anew, so that only what is meant to be wrong is wrong.
fn renumber(events: &mut [Event]) {
    for (index, event) in events.iter_mut().enumerate() {
        event.number = index as u64 + 1;
    }
}

#[test]
fn honest_journals_pass() {
    for seed in 1..=SEEDS {
        let events = journal(seed).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(audit(&events), Ok(()), "seed {seed}");
    }
}

#[test]
fn a_missing_event_is_a_gap() {
    expect(Rule::NumbersWithoutGap, |events| {
        events.remove(3);
        true
    });
}

#[test]
fn time_that_goes_back_is_noticed() {
    expect(Rule::TimeGoesOn, |events| {
        events.last_mut().expect("not empty").at = Timestamp::ZERO;
        true
    });
}

#[test]
fn a_fence_that_goes_back_is_noticed() {
    expect(Rule::FencesRise, |events| {
        let mut assigned = events.iter_mut().filter(|event| matches!(event.body, EventBody::AttemptAssigned { .. }));
        let (Some(first), Some(second)) = (assigned.next(), assigned.next()) else { return false };
        second.number = first.number;
        true
    });
}

#[test]
fn a_job_settled_twice_is_noticed() {
    expect(Rule::EndedIsEnded, |events| {
        let Some(index) = events.iter().position(|event| matches!(event.body, EventBody::JobFinished { .. })) else {
            return false;
        };
        events.insert(index + 1, events[index].clone());
        renumber(events);
        true
    });
}

#[test]
fn a_forgotten_refund_is_noticed() {
    expect_of_settlement(Rule::SplitAddsUp, |settlement| {
        let had = settlement.refund > Micro::ZERO;
        settlement.refund = Micro::ZERO;
        had
    });
}

#[test]
fn a_fee_that_is_rounded_up_is_noticed() {
    expect_of_settlement(Rule::FeeIsFloored, |settlement| {
        if settlement.gross.0 % 20 == 0 {
            return false;
        }
        settlement.fee.0 += 1;
        settlement.net.0 -= 1;
        true
    });
}

#[test]
fn a_bill_for_the_whole_hold_is_noticed() {
    expect_of_settlement(Rule::BillWithinInterval, |settlement| {
        let hold = settlement.gross.0 + settlement.refund.0;
        // Only where the hold is far above anything that the job can have cost.
        if settlement.gross == Micro::ZERO || settlement.gross.0 > 2_000 || hold < 6_000_000 {
            return false;
        }
        let fee = hold * 5 / 100;
        *settlement = Settlement {
            gross: Micro(hold),
            fee: Micro(fee),
            net: Micro(hold - fee),
            refund: Micro::ZERO,
            owner: settlement.owner.clone(),
        };
        true
    });
}

#[test]
fn pay_for_the_wrong_owner_is_noticed() {
    expect_of_settlement(Rule::OwnerIsPaid, |settlement| {
        let stranger: AccountId = "stranger".parse().expect("a valid name");
        settlement.owner.replace(stranger).is_some()
    });
}

#[test]
fn pay_for_a_node_s_fault_is_noticed() {
    expect_of_one(Rule::PaidOnlyForWork, |body| match body {
        EventBody::JobFinished { outcome, settlement, .. } if settlement.gross > Micro::ZERO => {
            if outcome.state == JobState::Cancelled {
                return false;
            }
            outcome.state = JobState::Failed;
            outcome.reason = Reason::NodeFault;
            true
        }
        _ => false,
    });
}

#[test]
fn pay_without_an_attempt_is_noticed() {
    expect_of_one(Rule::PaidOnlyForWork, |body| match body {
        EventBody::JobFinished { attempt: None, settlement, .. } if settlement.refund.0 >= 20 => {
            let hold = settlement.refund.0;
            let fee = hold * 5 / 100;
            let owner = Some("owner-0".parse().expect("a valid name"));
            *settlement =
                Settlement { gross: Micro(hold), fee: Micro(fee), net: Micro(hold - fee), refund: Micro::ZERO, owner };
            true
        }
        _ => false,
    });
}

#[test]
fn an_overdraft_is_noticed() {
    expect_of_one(Rule::NoOverdraft, |body| match body {
        EventBody::JobQueued { spec, .. } => {
            spec.max_cost = Micro::INPUT_MAX;
            true
        }
        _ => false,
    });
}

#[test]
fn a_deposit_made_twice_is_noticed() {
    expect(Rule::Once, |events| {
        let Some(index) = events.iter().position(|event| matches!(event.body, EventBody::Deposited { .. })) else {
            return false;
        };
        events.insert(index + 1, events[index].clone());
        renumber(events);
        true
    });
}

#[test]
fn an_overbooked_node_is_noticed() {
    expect_of_one(Rule::NodeNotOverbooked, |body| match body {
        EventBody::AttemptAssigned { reservation, .. } => {
            reservation.cpu_milli = u32::MAX;
            true
        }
        _ => false,
    });
}

#[test]
fn a_gpu_given_out_twice_is_noticed() {
    expect_of_one(Rule::GpuOnce, |body| match body {
        EventBody::AttemptAssigned { reservation, .. } => {
            let Some(gpu) = reservation.gpus.first().cloned() else { return false };
            reservation.gpus = List::cut(vec![gpu.clone(), gpu]);
            true
        }
        _ => false,
    });
}

#[test]
fn the_result_of_an_older_attempt_is_noticed() {
    expect_of_one(Rule::NewestAttemptOnly, |body| match body {
        EventBody::JobFinished { attempt: Some(number), .. } if *number > 1 => {
            *number -= 1;
            true
        }
        _ => false,
    });
}

#[test]
fn progress_of_an_older_attempt_is_noticed() {
    expect_of_one(Rule::NewestAttemptOnly, |body| match body {
        EventBody::AttemptStarted { attempt } if attempt.number > 1 => {
            attempt.number -= 1;
            true
        }
        _ => false,
    });
}

#[test]
fn a_skipped_attempt_number_is_noticed() {
    expect_of_one(Rule::AttemptNumbersRise, |body| match body {
        EventBody::AttemptAssigned { attempt, .. } => {
            attempt.number += 1;
            true
        }
        _ => false,
    });
}

#[test]
fn a_skipped_state_is_noticed() {
    expect(Rule::StateTable, |events| {
        let Some(index) = events.windows(2).position(|pair| {
            matches!(pair[0].body, EventBody::AttemptStarting { .. })
                && matches!(pair[1].body, EventBody::AttemptStarted { .. })
        }) else {
            return false;
        };
        events.remove(index);
        renumber(events);
        true
    });
}

#[test]
fn a_cancelled_job_that_completes_is_noticed() {
    let mut cancelled = None;
    expect(Rule::CancelIsFinal, |events| {
        for event in events {
            match &mut event.body {
                EventBody::CancelRequested { job, .. } => cancelled = Some(*job),
                EventBody::JobFinished { job, outcome, .. } if cancelled == Some(*job) => {
                    outcome.state = JobState::Completed;
                    return true;
                }
                _ => {}
            }
        }
        false
    });
}
