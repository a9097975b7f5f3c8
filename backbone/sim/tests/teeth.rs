//! Proves that the auditor bites: each test breaks one rule in an honest journal and expects that rule by name.

use modchain_core::membership::TokenEnd;
use modchain_core::{Event, EventBody, Settlement};
use modchain_sim::{Auditor, Breach, Rule, journal};
use modchain_types::{
    AccountId, AttemptId, CertificateSerial, IdentityId, JobId, JobState, List, Micro, NodeId, NodeWish, Reason, Role,
    Span, Text, Timestamp,
};

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

/// Puts an event before the one at `index`, in the moment of the one before that.
fn insert(events: &mut Vec<Event>, index: usize, body: EventBody) {
    let at = events[index - 1].at;
    events.insert(index, Event { number: 0, at, body });
    renumber(events);
}

fn revoked(identity: IdentityId) -> EventBody {
    EventBody::IdentityRevoked { identity, by: None, why: Text::default() }
}

/// Revokes somebody just before the first event for which `who` tells whom.
fn revoke_before(events: &mut Vec<Event>, who: impl Fn(&[Event], &EventBody) -> Option<IdentityId>) -> bool {
    let found = events.iter().enumerate().find_map(|(index, event)| Some((index, who(events, &event.body)?)));
    let Some((index, identity)) = found else { return false };
    insert(events, index, revoked(identity));
    true
}

/// The node that an attempt was assigned to.
fn node_of(events: &[Event], wanted: AttemptId) -> Option<NodeId> {
    events.iter().find_map(|event| match &event.body {
        EventBody::AttemptAssigned { attempt, node, .. } if *attempt == wanted => Some(*node),
        _ => None,
    })
}

/// The client of an account.
fn client_of(events: &[Event], account: &AccountId) -> Option<IdentityId> {
    events.iter().find_map(|event| match &event.body {
        EventBody::IdentityAdded { identity } | EventBody::MemberJoined { identity, .. } => {
            (identity.role == Role::Client && identity.account == *account).then_some(identity.id)
        }
        _ => None,
    })
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

#[test]
fn work_for_a_closed_node_is_noticed() {
    for wish in [NodeWish::Cordon, NodeWish::Drain { within: None }, NodeWish::Drain { within: Some(Span::ZERO) }] {
        expect(Rule::ClosedGetsNothing, |events| {
            let found = events.iter().enumerate().find_map(|(index, event)| match &event.body {
                EventBody::AttemptAssigned { node, .. } => Some((index, *node)),
                _ => None,
            });
            let Some((index, node)) = found else { return false };
            let by = IdentityId([0; 16]);
            insert(events, index, EventBody::NodeSet { node, by, wish, why: Text::default() });
            true
        });
    }
}

#[test]
fn work_for_a_node_that_was_never_opened_again_is_noticed() {
    expect(Rule::ClosedGetsNothing, |events| {
        // Who was closed and opened, and then works: the opening is made a cordon.
        let opened = events.iter().enumerate().find_map(|(index, event)| {
            let EventBody::NodeSet { node, wish: NodeWish::Open, .. } = &event.body else { return None };
            let next = events[index + 1..].iter().find_map(|event| match &event.body {
                EventBody::AttemptAssigned { node: other, .. } if other == node => Some(true),
                EventBody::NodeSet { node: other, .. } if other == node => Some(false),
                _ => None,
            });
            (next == Some(true)).then_some(index)
        });
        let Some(index) = opened else { return false };
        if let EventBody::NodeSet { wish, .. } = &mut events[index].body {
            *wish = NodeWish::Cordon;
        }
        true
    });
}

#[test]
fn work_for_a_revoked_node_is_noticed() {
    expect(Rule::RevokedStaysOut, |events| {
        revoke_before(events, |_, body| match body {
            EventBody::AttemptAssigned { node, .. } => Some((*node).into()),
            _ => None,
        })
    });
}

#[test]
fn progress_by_the_word_of_a_revoked_node_is_noticed() {
    type Fits = fn(&EventBody) -> Option<AttemptId>;
    let fits: [Fits; 3] = [
        |body| match body {
            EventBody::AttemptStarting { attempt } => Some(*attempt),
            _ => None,
        },
        |body| match body {
            EventBody::AttemptStarted { attempt } => Some(*attempt),
            _ => None,
        },
        |body| match body {
            EventBody::ResultRecorded { attempt, .. } => Some(*attempt),
            _ => None,
        },
    ];
    for fits in fits {
        expect(Rule::RevokedStaysOut, |events| {
            revoke_before(events, |events, body| Some(node_of(events, fits(body)?)?.into()))
        });
    }
}

#[test]
fn a_revoked_node_that_connects_is_noticed() {
    expect(Rule::RevokedStaysOut, |events| {
        revoke_before(events, |_, body| match body {
            EventBody::NodeConnected { node, .. } => Some((*node).into()),
            _ => None,
        })
    });
}

#[test]
fn pay_for_an_attempt_whose_node_was_revoked_is_noticed() {
    expect(Rule::RevokedStaysOut, |events| {
        revoke_before(events, |events, body| match body {
            EventBody::JobFinished { job, attempt: Some(number), settlement, .. } if settlement.gross > Micro::ZERO => {
                Some(node_of(events, AttemptId { job: *job, number: *number })?.into())
            }
            _ => None,
        })
    });
}

#[test]
fn a_job_of_a_revoked_client_is_noticed() {
    expect(Rule::RevokedStaysOut, |events| {
        revoke_before(events, |events, body| match body {
            EventBody::JobQueued { account, .. } => client_of(events, account),
            _ => None,
        })
    });
}

#[test]
fn a_job_of_a_revoked_client_that_is_placed_is_noticed() {
    expect(Rule::RevokedStaysOut, |events| {
        revoke_before(events, |events, body| match body {
            EventBody::AttemptAssigned { attempt, .. } => {
                let account = events.iter().find_map(|event| match &event.body {
                    EventBody::JobQueued { job, account, .. } if *job == attempt.job => Some(account),
                    _ => None,
                });
                client_of(events, account?)
            }
            _ => None,
        })
    });
}

#[test]
fn a_job_that_completes_after_its_client_was_revoked_is_noticed() {
    expect(Rule::RevokedStaysOut, |events| {
        // A moment in which nothing happens but that: the completed job is the next event, and later.
        let found = events.windows(2).enumerate().find_map(|(index, pair)| match &pair[1].body {
            EventBody::JobFinished { job, outcome, .. }
                if outcome.state == JobState::Completed && pair[0].at < pair[1].at =>
            {
                Some((index + 1, *job))
            }
            _ => None,
        });
        let Some((index, finished)) = found else { return false };
        let account = events.iter().find_map(|event| match &event.body {
            EventBody::JobQueued { job, account, .. } if *job == finished => Some(account.clone()),
            _ => None,
        });
        let Some(identity) = account.and_then(|account| client_of(events, &account)) else { return false };
        insert(events, index, revoked(identity));
        true
    });
}

#[test]
fn a_certificate_for_somebody_revoked_is_noticed() {
    expect(Rule::RevokedStaysOut, |events| {
        let known = |events: &[Event], who: IdentityId, before: &EventBody| {
            let earlier = events.iter().take_while(|event| event.body != *before);
            let mut joined = earlier.filter(|event| {
                matches!(&event.body,
                    EventBody::IdentityAdded { identity } | EventBody::MemberJoined { identity, .. }
                        if identity.id == who)
            });
            joined.next().is_some()
        };
        // The first certificate comes with the identity, in one decision.
        revoke_before(events, |events, body| match body {
            EventBody::CertificateIssued { identity, .. } => known(events, *identity, body).then_some(*identity),
            _ => None,
        })
    });
}

#[test]
fn a_token_made_by_somebody_revoked_is_noticed() {
    expect(Rule::RevokedStaysOut, |events| {
        revoke_before(events, |_, body| match body {
            EventBody::TokenCreated { by, .. } => *by,
            _ => None,
        })
    });
}

#[test]
fn an_identity_revoked_twice_is_noticed() {
    expect(Rule::Once, |events| {
        let found = events.iter().position(|event| matches!(event.body, EventBody::IdentityRevoked { .. }));
        let Some(index) = found else { return false };
        events.insert(index + 1, events[index].clone());
        renumber(events);
        true
    });
}

#[test]
fn a_token_used_twice_is_noticed() {
    expect(Rule::Once, |events| {
        let found = events.iter().position(|event| matches!(event.body, EventBody::MemberJoined { .. }));
        let Some(index) = found else { return false };
        let mut again = events[index].body.clone();
        if let EventBody::MemberJoined { identity, certificate, .. } = &mut again {
            identity.id = IdentityId([250; 16]);
            certificate.serial = CertificateSerial([250; 16]);
        }
        insert(events, index + 1, again);
        true
    });
}

#[test]
fn a_token_that_gives_more_than_it_was_made_for_is_noticed() {
    type Corrupt = fn(&mut EventBody) -> bool;
    let corruptions: [Corrupt; 5] = [
        |body| match body {
            EventBody::MemberJoined { identity, .. } if identity.role == Role::Node => {
                identity.role = Role::Operator;
                true
            }
            _ => false,
        },
        |body| match body {
            EventBody::MemberJoined { identity, .. } => {
                identity.name = "somebody".parse().expect("a valid name");
                true
            }
            _ => false,
        },
        // Somebody else's account.
        |body| match body {
            EventBody::MemberJoined { identity, .. } if identity.role == Role::Client => {
                identity.account = "owner-0".parse().expect("a valid name");
                true
            }
            _ => false,
        },
        |body| match body {
            EventBody::MemberJoined { identity, .. } if identity.role == Role::Node => {
                identity.account = "operator".parse().expect("a valid name");
                true
            }
            _ => false,
        },
        // After its time.
        |body| match body {
            EventBody::TokenCreated { ttl, .. } => {
                *ttl = Span::ZERO;
                true
            }
            _ => false,
        },
    ];
    for corrupt in corruptions {
        // Only journals in which the first token is used: an unused one that has no time is no breach.
        expect(Rule::GrantKept, |events| {
            let mut tokens = events.iter().filter_map(|event| match &event.body {
                EventBody::TokenCreated { token, .. } => Some(*token),
                _ => None,
            });
            let Some(first) = tokens.next() else { return false };
            let used = events
                .iter()
                .any(|event| matches!(&event.body, EventBody::MemberJoined { token, .. } if *token == first));
            used && events.iter_mut().any(|event| corrupt(&mut event.body))
        });
    }
}

#[test]
fn a_token_that_ends_twice_or_as_it_cannot_is_noticed() {
    expect(Rule::Once, |events| {
        let found = events.iter().position(|event| matches!(event.body, EventBody::TokenEnded { .. }));
        let Some(index) = found else { return false };
        events.insert(index + 1, events[index].clone());
        renumber(events);
        true
    });
    expect_of_one(Rule::StateTable, |body| match body {
        EventBody::TokenEnded { end, .. } if *end == TokenEnd::Spent => {
            *end = TokenEnd::Expired;
            true
        }
        _ => false,
    });
}

#[test]
fn a_certificate_issued_twice_or_used_for_the_first_time_twice_is_noticed() {
    for wanted in [(|body| matches!(body, EventBody::CertificateIssued { .. })) as fn(&EventBody) -> bool, |body| {
        matches!(body, EventBody::CertificateUsed { .. })
    }] {
        expect(Rule::Once, |events| {
            let Some(index) = events.iter().position(|event| wanted(&event.body)) else { return false };
            events.insert(index + 1, events[index].clone());
            renumber(events);
            true
        });
    }
}

#[test]
fn a_certificate_that_is_not_accepted_any_more_is_noticed() {
    expect_of_one(Rule::Known, |body| match body {
        EventBody::CertificateIssued { beside: Some(beside), .. } => {
            *beside = CertificateSerial([250; 16]);
            true
        }
        _ => false,
    });
    expect_of_one(Rule::Known, |body| match body {
        EventBody::CertificateUsed { serial, .. } => {
            *serial = CertificateSerial([250; 16]);
            true
        }
        _ => false,
    });
}

#[test]
fn a_certificate_that_retires_before_its_successor_was_in_use_for_long_is_noticed() {
    // The only one that its holder has.
    expect(Rule::RetiredInTurn, |events| {
        let found = events.iter().enumerate().find_map(|(index, event)| match &event.body {
            EventBody::MemberJoined { identity, certificate, .. } => Some((index, identity.id, certificate.serial)),
            _ => None,
        });
        let Some((index, identity, serial)) = found else { return false };
        insert(events, index + 1, EventBody::CertificateRetired { identity, serial });
        true
    });
    // The older one, at once after the first use of the newer.
    expect(Rule::RetiredInTurn, |events| {
        let found = events.iter().enumerate().find_map(|(index, event)| match &event.body {
            EventBody::CertificateUsed { identity, serial } => {
                let mut issued = events[..index].iter().rev();
                issued.find_map(|earlier| match &earlier.body {
                    EventBody::CertificateIssued { certificate, beside: Some(older), .. }
                        if certificate.serial == *serial =>
                    {
                        Some((index, *identity, *older))
                    }
                    _ => None,
                })
            }
            _ => None,
        });
        let Some((index, identity, serial)) = found else { return false };
        insert(events, index + 1, EventBody::CertificateRetired { identity, serial });
        true
    });
}

#[test]
fn alarms_without_bound_are_noticed() {
    expect(Rule::AlarmsBounded, |events| {
        let found = events.iter().position(|event| matches!(event.body, EventBody::TokenAlarm { .. }));
        let Some(index) = found else { return false };
        for _ in 0..3 {
            events.insert(index + 1, events[index].clone());
        }
        renumber(events);
        true
    });
}

/// Where a job ends.
fn first_end(events: &[Event]) -> Option<(usize, JobId)> {
    events.iter().enumerate().find_map(|(index, event)| match &event.body {
        EventBody::JobFinished { job, .. } => Some((index, *job)),
        _ => None,
    })
}

#[test]
fn a_job_that_is_forgotten_before_it_has_ended_is_noticed() {
    expect(Rule::OnlyEndedForgotten, |events| {
        let Some((index, job)) = first_end(events) else { return false };
        insert(events, index, EventBody::JobsForgotten { jobs: vec![job] });
        true
    });
}

#[test]
fn a_job_that_is_forgotten_twice_is_noticed() {
    expect(Rule::OnlyEndedForgotten, |events| {
        let Some((index, job)) = first_end(events) else { return false };
        insert(events, index + 1, EventBody::JobsForgotten { jobs: vec![job, job] });
        true
    });
}

#[test]
fn whatever_else_is_said_of_a_forgotten_job_is_noticed() {
    expect(Rule::Known, |events| {
        let Some((index, job)) = first_end(events) else { return false };
        let end = events[index].clone();
        insert(events, index + 1, EventBody::JobsForgotten { jobs: vec![job] });
        events.insert(index + 2, Event { at: events[index + 1].at, ..end });
        renumber(events);
        true
    });
}
