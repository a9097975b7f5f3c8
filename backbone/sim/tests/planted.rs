//! Proves that the simulator finds the bugs that it is there for: each is planted alone, and worlds are lived through until one
//! breaks the rule that the bug breaks. `cargo test -p modchain-sim --features planted --test planted`.

use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use modchain_core::planted::{Bug, plant};
use modchain_sim::Rule;
use modchain_sim::swarm::{Swarm, Trouble};
use modchain_sim::world::{Trace, World};
use modchain_types::Span;

/// Worlds of the ordinary test command: what it would not find in them counts as not found.
const SEEDS: u64 = 5_000;

/// The rules of which one has to be the first that is broken.
fn broken_by(bug: Bug) -> &'static [Rule] {
    match bug {
        Bug::AckBeforeSync => &[Rule::AnswersKept, Rule::NobodyLockedOut],
        Bug::SettledByAttempt | Bug::SettledAndReleased | Bug::FenceNotAbove => &[Rule::SelfAudit],
        Bug::FeeRoundedUp => &[Rule::FeeIsFloored],
        // Where a snapshot comes first, what is restored from it does not hold together.
        Bug::NothingToGiveBack => &[Rule::SelfAudit, Rule::BooksAgree, Rule::ReplayIsLive],
        Bug::LostResultAccepted => &[Rule::TrueOutcome, Rule::StateTable],
        Bug::CancelNotRepeated => &[Rule::CancelIsHeard, Rule::EverythingEnds],
        Bug::KeyWithoutAccount => &[Rule::Known],
        Bug::SpecificationIgnored => &[Rule::AnswersKept],
        Bug::NoTimeToComeBack => &[Rule::TimeToComeBack],
        Bug::ResultForgotten => &[Rule::ResultsKept, Rule::BegunOnce],
        Bug::LeaseFromAnswer => &[Rule::AtMostOneRuns],
        Bug::RefusedAfterTaking => &[Rule::AttemptNumbersRise],
        Bug::LostNotTold => &[Rule::EverythingEnds, Rule::NothingWaitsInVain],
        Bug::TokensOfAnyJob => &[Rule::BillWithinInterval],
    }
}

/// One bug shows only where an answer is on its way for longer than a lease has margin, and the answers after it never arrive, and
/// the job goes on elsewhere before it ends: those worlds have these faults more often than others.
fn aim(bug: Option<Bug>, swarm: &mut Swarm) {
    if bug == Some(Bug::LeaseFromAnswer) {
        swarm.nodes = 8;
        swarm.liars = 0;
        swarm.pace = Span::from_millis(2_000);
        swarm.delay_max = Span::from_secs(15);
        swarm.troubles = vec![Trouble::OneWayLoss];
        swarm.trouble_every = Span::from_secs(20);
        swarm.partition_max = Span::from_secs(400);
    }
}

/// The first seed, of those that were lived through, in which something is broken, and what.
fn first_breach(bug: Option<Bug>, seeds: u64) -> Option<(u64, Rule, String)> {
    let (next, found) = (AtomicU64::new(1), AtomicBool::new(false));
    let worker = || {
        plant(bug);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > seeds || found.load(Ordering::Relaxed) {
                return None;
            }
            if let Err(failure) = World::with(seed, Trace::Off, |swarm| aim(bug, swarm)).live() {
                found.store(true, Ordering::Relaxed);
                return Some((seed, failure.breach.rule, failure.breach.what));
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        let found = workers
            .into_iter()
            .filter_map(|worker| worker.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)));
        found.min_by_key(|(seed, ..)| *seed)
    })
}

#[test]
fn every_planted_bug_is_found_and_nothing_where_none_is_planted() {
    assert_eq!(first_breach(None, 50), None);
    let mut needed = Vec::new();
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        match first_breach(Some(bug), SEEDS) {
            Some((seed, rule, what)) => {
                println!("{bug:?}: seed {seed}, {rule}: {what}");
                assert!(broken_by(bug).contains(&rule), "{bug:?} is not what breaks {rule}");
                needed.push(seed);
            }
            None => missed.push(bug),
        }
    }
    needed.sort_unstable();
    println!("{} of {} found; median {} seeds", needed.len(), Bug::ALL.len(), needed[needed.len() / 2]);
    assert!(missed.is_empty(), "not found in {SEEDS} worlds: {missed:?}");
}
