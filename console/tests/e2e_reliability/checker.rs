//! Judges a history: what clients asked and were told, and when, against what the orchestrator says in the end. Clients may see things
//! late, but never something that was not so, never less than anybody was told before, and never a thing undone.

use std::collections::{BTreeMap, BTreeSet};

/// States in which a job has ended.
pub(crate) const ENDED: [&str; 5] = ["completed", "failed", "timed_out", "cancelled", "expired"];

/// One thing that a client asked, with the answer; times are microseconds on one clock. What got no answer was asked again, and counts
/// from the first time on.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) invoked: u64,
    pub(crate) replied: u64,
    pub(crate) told: Told,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// The job of this key is accepted.
    Accepted { key: String, job: String },
    /// How a job is.
    Job { job: String, attempts: usize, state: String, cost: u64 },
    /// Amounts of an account.
    Balance { account: String, available: u64, held: u64 },
    /// The job is being cancelled.
    Cancelling { job: String },
    /// It cannot be cancelled, because it has ended.
    TooLate { job: String },
    /// Nothing: a wish to cancel, without an answer.
    Nothing { job: String },
}

/// A line of a statement.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Of the event.
    pub(crate) number: u64,
    pub(crate) is_hold: bool,
    /// What it changed about what is available.
    pub(crate) amount: i64,
    pub(crate) job: Option<String>,
}

/// A job in the end.
#[derive(Debug, Clone)]
pub(crate) struct Final {
    pub(crate) state: String,
    pub(crate) cost: u64,
    /// Every state that it came into, in order.
    pub(crate) states: Vec<String>,
}

/// What is so in the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) jobs: BTreeMap<String, Final>,
    /// Of each account, oldest first.
    pub(crate) statements: BTreeMap<String, Vec<Entry>>,
}

/// An account after each of its events.
struct Prefixes {
    /// What was available and held.
    balances: Vec<(u64, u64)>,
    /// After which of them a job's money was held, and came out of it again.
    held: BTreeMap<String, usize>,
    closed: BTreeMap<String, usize>,
}

/// Everything that is wrong; nothing if the history is as it must be.
pub(crate) fn check(history: &[Call], facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    check_jobs(history, facts, &mut wrong);
    check_states(history, facts, &mut wrong);
    for (account, entries) in &facts.statements {
        let prefixes = Prefixes::of(account, entries, &mut wrong);
        check_balances(history, account, &prefixes, &mut wrong);
    }
    wrong
}

/// One job for each key, with one end and one closing; and no job that nobody asked for.
fn check_jobs(history: &[Call], facts: &Facts, wrong: &mut Vec<String>) {
    let mut by_key: BTreeMap<&str, &str> = BTreeMap::new();
    for call in history {
        if let Told::Accepted { key, job } = &call.told
            && *by_key.entry(key).or_insert(job) != job
        {
            wrong.push(format!("{key} is two jobs, {job} is one of them"));
        }
    }
    let asked: BTreeSet<&str> = by_key.values().copied().collect();
    if asked.len() != by_key.len() {
        wrong.push("two keys are one job".to_owned());
    }
    let entries: Vec<&Entry> = facts.statements.values().flatten().collect();
    for job in &asked {
        let Some(end) = facts.jobs.get(*job) else {
            wrong.push(format!("{job} was accepted and is lost"));
            continue;
        };
        let ends = end.states.iter().filter(|state| ENDED.contains(&state.as_str())).count();
        if ends != 1 || end.states.last() != Some(&end.state) {
            wrong.push(format!("{job} has ended {ends} times: {end:?}"));
        }
        let of_job = || entries.iter().filter(|entry| entry.job.as_deref() == Some(*job));
        let holds = of_job().filter(|entry| entry.is_hold).count();
        let closings = of_job().filter(|entry| !entry.is_hold).map(|entry| entry.number).collect::<BTreeSet<_>>();
        if holds != 1 || closings.len() != 1 {
            wrong.push(format!("{job} has {holds} holds and the closings {closings:?}"));
        }
        let wished = |call: &Call| match &call.told {
            Told::Cancelling { job: other } | Told::Nothing { job: other } => other == job,
            _ => false,
        };
        if end.state == "cancelled" && !history.iter().any(wished) {
            wrong.push(format!("{job} was cancelled by nobody"));
        }
    }
    let strangers = facts.jobs.keys().filter(|job| !asked.contains(job.as_str()));
    wrong.extend(strangers.map(|job| format!("{job} was asked for by nobody")));
}

/// How far a job is: the attempt, and how far that is. `None` for a part that the state does not tell.
fn progress(attempts: usize, state: &str) -> (usize, Option<u32>) {
    match state {
        "assigned" => (attempts, Some(0)),
        "starting" => (attempts, Some(1)),
        "running" => (attempts, Some(2)),
        "unreachable" => (attempts, None),
        "cancelling" => (attempts, Some(3)),
        // Behind the attempt that failed, before the next.
        "queued" => (attempts, Some(4)),
        _ => (usize::MAX, Some(5)),
    }
}

/// What was told later is at least as far, and an end stays as it is.
fn check_states(history: &[Call], facts: &Facts, wrong: &mut Vec<String>) {
    let mut by_job: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in history {
        match &call.told {
            Told::Accepted { job, .. } | Told::Job { job, .. } | Told::TooLate { job } => {
                by_job.entry(job).or_default().push(call);
            }
            Told::Balance { .. } | Told::Cancelling { .. } | Told::Nothing { .. } => {}
        }
    }
    let far = |call: &Call| match &call.told {
        Told::Job { attempts, state, .. } => progress(*attempts, state),
        Told::TooLate { .. } => progress(0, "ended"),
        _ => (0, None),
    };
    for (job, calls) in by_job {
        for later in &calls {
            for earlier in calls.iter().filter(|earlier| earlier.replied < later.invoked) {
                let ((before, phase_before), (after, phase_after)) = (far(earlier), far(later));
                let phases = phase_before.zip(phase_after);
                if after < before || (after == before && phases.is_some_and(|(before, after)| after < before)) {
                    wrong.push(format!("{job} went back: {earlier:?}, then {later:?}"));
                }
            }
            if let Told::Job { state, cost, .. } = &later.told
                && ENDED.contains(&state.as_str())
                && facts.jobs.get(job).is_some_and(|end| (&end.state, &end.cost) != (state, cost))
            {
                wrong.push(format!("the end of {job} has changed: {later:?}"));
            }
        }
    }
}

impl Prefixes {
    fn of(account: &str, entries: &[Entry], wrong: &mut Vec<String>) -> Self {
        let mut prefixes = Self { balances: vec![(0, 0)], held: BTreeMap::new(), closed: BTreeMap::new() };
        let (mut available, mut held, mut last) = (0_i64, 0_i64, 0);
        let mut holds: BTreeMap<&str, i64> = BTreeMap::new();
        for entry in entries {
            if entry.number != last {
                prefixes.balances.push((0, 0));
                last = entry.number;
            }
            let index = prefixes.balances.len() - 1;
            available += entry.amount;
            if let Some(job) = &entry.job {
                if entry.is_hold {
                    held -= entry.amount;
                    holds.insert(job, -entry.amount);
                    prefixes.held.insert(job.clone(), index);
                } else {
                    // The first line of a closing takes the hold away, others of it nothing more.
                    held -= holds.remove(job.as_str()).unwrap_or_default();
                    prefixes.closed.insert(job.clone(), index);
                }
            }
            match (u64::try_from(available), u64::try_from(held)) {
                (Ok(available), Ok(held)) => prefixes.balances[index] = (available, held),
                _ => wrong.push(format!("{account} is below zero after {entry:?}")),
            }
        }
        prefixes
    }
}

/// Every balance is that of some prefix of the statement: one with everything of which anybody was told before it was asked for, and
/// nothing that was asked for only after it was told.
fn check_balances(history: &[Call], account: &str, prefixes: &Prefixes, wrong: &mut Vec<String>) {
    let mut calls: Vec<&Call> = history.iter().collect();
    calls.sort_by_key(|call| call.replied);
    // When which prefix was known to be there.
    let mut known: Vec<(u64, usize)> = Vec::new();
    for call in &calls {
        let at_least = known.iter().filter(|(replied, _)| *replied < call.invoked).map(|(_, index)| *index).max();
        let index = match &call.told {
            Told::Accepted { job, .. } => prefixes.held.get(job).copied(),
            Told::TooLate { job } => prefixes.closed.get(job).copied(),
            Told::Job { job, state, .. } if ENDED.contains(&state.as_str()) => prefixes.closed.get(job).copied(),
            Told::Balance { account: of, available, held } if of == account => {
                let later = history.iter().filter(|later| later.invoked > call.replied);
                let not_yet = later.filter_map(|later| match &later.told {
                    Told::Accepted { job, .. } => prefixes.held.get(job).copied(),
                    _ => None,
                });
                let end = not_yet.min().unwrap_or(prefixes.balances.len());
                let begin = at_least.unwrap_or(0);
                let found = (begin..end).find(|index| prefixes.balances[*index] == (*available, *held));
                if found.is_none() {
                    wrong.push(format!("{call:?} is none of the balances {begin} to {end} of {account}"));
                }
                found
            }
            _ => None,
        };
        known.extend(index.map(|index| (call.replied, index)));
    }
}

mod tests {
    use super::*;

    /// A job that was accepted, seen, paid, and one that was cancelled.
    fn sound() -> (Vec<Call>, Facts) {
        let text = |text: &str| text.to_owned();
        let call = |invoked, told| Call { invoked, replied: invoked + 5, told };
        let job = |job, attempts, state, cost| Told::Job { job: text(job), attempts, state: text(state), cost };
        let balance = |available, held| Told::Balance { account: text("alice"), available, held };
        let history = vec![
            call(0, balance(100, 0)),
            call(10, Told::Accepted { key: text("k1"), job: text("j1") }),
            call(20, balance(90, 10)),
            call(30, job("j1", 1, "running", 0)),
            call(40, job("j1", 1, "queued", 0)),
            call(50, Told::Accepted { key: text("k2"), job: text("j2") }),
            call(60, job("j1", 2, "unreachable", 0)),
            call(70, Told::Cancelling { job: text("j2") }),
            call(80, job("j1", 2, "completed", 4)),
            call(90, Told::TooLate { job: text("j1") }),
            call(100, balance(96, 0)),
        ];
        let entry = |number, amount, job: Option<&str>| Entry {
            number,
            is_hold: amount < 0,
            amount,
            job: job.map(str::to_owned),
        };
        let entries = vec![
            entry(1, 100, None),
            entry(2, -10, Some("j1")),
            entry(5, -10, Some("j2")),
            entry(8, 10, Some("j2")),
            entry(9, 0, Some("j1")),
            entry(9, 6, Some("j1")),
        ];
        let end = |state, cost, states: &[&str]| Final {
            state: text(state),
            cost,
            states: states.iter().copied().map(str::to_owned).collect(),
        };
        let jobs = BTreeMap::from([
            (text("j1"), end("completed", 4, &["queued", "running", "queued", "running", "completed"])),
            (text("j2"), end("cancelled", 0, &["queued", "cancelled"])),
        ]);
        (history, Facts { jobs, statements: BTreeMap::from([(text("alice"), entries)]) })
    }

    #[test]
    fn a_sound_history_passes() {
        let (history, facts) = sound();
        assert_eq!(check(&history, &facts), Vec::<String>::new());
    }

    /// One lie more, and what must be said of it.
    #[track_caller]
    fn found(said: &str, lie: impl FnOnce(&mut Vec<Call>, &mut Facts)) {
        let (mut history, mut facts) = sound();
        lie(&mut history, &mut facts);
        let wrong = check(&history, &facts);
        assert!(wrong.iter().any(|wrong| wrong.contains(said)), "{said}: {wrong:#?}");
    }

    #[test]
    fn every_kind_of_lie_is_found() {
        let alice = |facts: &mut Facts| facts.statements.get_mut("alice").expect("an account").clone();
        found("j1 was accepted and is lost", |_, facts| drop(facts.jobs.remove("j1")));
        found("j3 was asked for by nobody", |_, facts| drop(facts.jobs.insert("j3".into(), facts.jobs["j1"].clone())));
        found("j2 was cancelled by nobody", |history, _| drop(history.remove(7)));
        found("k1 is two jobs", |history, _| {
            history[5].told = Told::Accepted { key: "k1".into(), job: "j2".into() };
        });
        found("j1 has ended 2 times", |_, facts| {
            facts.jobs.get_mut("j1").expect("a job").states.push("completed".into());
        });
        found("j1 has 1 holds and the closings {9, 10}", |_, facts| {
            let again = Entry { number: 10, ..alice(facts)[5].clone() };
            facts.statements.get_mut("alice").expect("an account").push(again);
        });
        found("j1 went back", |history, _| history.swap_states(3, 4));
        found("the end of j1 has changed", |_, facts| facts.jobs.get_mut("j1").expect("a job").cost = 5);
        found("none of the balances", |history, _| history.set_balance(2, 91, 10));
        // So it was, but before the job was accepted.
        found("none of the balances", |history, _| history.set_balance(2, 100, 0));
        // So it will be, but nobody had asked for the second job.
        found("none of the balances", |history, _| history.set_balance(2, 80, 20));
        // So it was, but somebody was told of the end.
        found("none of the balances", |history, _| history.set_balance(10, 90, 10));
        found("alice is below zero", |_, facts| {
            facts.statements.get_mut("alice").expect("an account")[1].amount = -101
        });
    }

    trait Lie {
        fn swap_states(&mut self, one: usize, other: usize);
        fn set_balance(&mut self, index: usize, available: u64, held: u64);
    }

    impl Lie for Vec<Call> {
        fn swap_states(&mut self, one: usize, other: usize) {
            let kept = self[one].told.clone();
            self[one].told = std::mem::replace(&mut self[other].told, kept);
        }

        fn set_balance(&mut self, index: usize, available: u64, held: u64) {
            self[index].told = Told::Balance { account: "alice".to_owned(), available, held };
        }
    }
}
