//! Several clients write down what they ask and what they are told while the programs are killed, and a checker says whether that can be.
//!
//! `HISTORY_SECONDS=3600` goes on for that long; `SEED` repeats the choices of another run.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use modchain_fuzz::Random;
use serde_json::Value;

use crate::checker::{self, Call, Entry, Facts, Final, Told};
use crate::common::Done;
use crate::common::fleet::{Fleet, Site};
use crate::common::money::micro;
use crate::kills::{Killed, end_all, pause};
use crate::{asked, seed};

/// How long it goes on in the test command.
const SECONDS: u64 = 15;
const ACCOUNTS: [&str; 2] = ["alice", "bob"];
/// Clients of each account.
const CLIENTS: u64 = 2;
const AGENTS: usize = 2;
/// Between two kills or pairs of them, up to so many of the pauses of a burst.
const PAUSES_MAX: usize = 8;
/// Most jobs of an account that have not ended: then it waits with more.
const OPEN_MAX: usize = 12;

/// How often a client asks for one thing before it gives up; each time it waits some seconds for the orchestrator.
const TRIES_MAX: u32 = 100;

/// What all clients have in common.
struct Book {
    begun: Instant,
    calls: Mutex<Vec<Call>>,
    /// Accepted jobs of each account.
    jobs: Mutex<BTreeMap<&'static str, Vec<String>>>,
    unanswered: Mutex<u64>,
    is_over: AtomicBool,
}

/// Ends the clients' lives, also when the test breaks.
struct End<'a>(&'a Book);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Relaxed);
    }
}

/// One client, who asks one thing after the other.
struct Client<'a> {
    site: &'a Site,
    book: &'a Book,
    account: &'static str,
    /// Of its keys.
    number: u64,
    module: &'a str,
    random: Random,
}

impl Client<'_> {
    fn live(mut self) {
        let mut made = 0;
        while !self.book.is_over.load(Relaxed) {
            let jobs = self.book.jobs.lock().expect("nobody broke")[self.account].clone();
            match (self.random.below(10), jobs.is_empty()) {
                (0..4, _) | (_, true) => {
                    made += 1;
                    self.submit(&format!("{}-{}-{made}", self.account, self.number));
                }
                (4..7, _) => self.look_at(&jobs),
                (7..9, _) => self.look_at_the_account(),
                _ => self.cancel(&jobs),
            }
        }
    }

    /// Asks, and again until there is an answer if that is wished; gives when it was asked for first, and the answer.
    fn ask(&self, args: &[&str], repeat: bool) -> (u64, Option<Done>) {
        let invoked = self.now();
        for _ in 0..TRIES_MAX {
            let done = self.site.run(&[&["-c", self.account][..], args].concat());
            if done.code != Some(5) {
                return (invoked, Some(done));
            }
            *self.book.unanswered.lock().expect("nobody broke") += 1;
            if !repeat {
                return (invoked, None);
            }
        }
        panic!("{args:?} was never answered")
    }

    fn now(&self) -> u64 {
        self.book.begun.elapsed().as_micros() as u64
    }

    fn note(&self, invoked: u64, told: Told) {
        let call = Call { invoked, replied: self.now(), told };
        self.book.calls.lock().expect("nobody broke").push(call);
    }

    /// A submit that got no answer may have been accepted, so it is asked for until that is known.
    fn submit(&self, key: &str) {
        let open = ["jobs", "-o", "name", "--mine"];
        let (_, done) = self.ask(&open, false);
        if done.is_none_or(|done| done.expect(0).stdout.lines().count() >= OPEN_MAX) {
            return;
        }
        let line = ["run", "-d", "-q", "--id", key, "--wasm", self.module, "--max-cost", "0.05", "--retries", "19"];
        let (invoked, done) = self.ask(&[&line[..], &["--cpus", "0.2", "--memory", "64MiB"]].concat(), true);
        let job = done.expect("it is repeated").expect(0).stdout.trim().to_owned();
        self.note(invoked, Told::Accepted { key: key.to_owned(), job: job.clone() });
        self.book.jobs.lock().expect("nobody broke").get_mut(self.account).expect("an account").push(job);
    }

    fn look_at(&mut self, jobs: &[String]) {
        let id = self.random.pick(jobs).clone();
        let (invoked, Some(done)) = self.ask(&["job", &id, "-o", "json"], false) else { return };
        let view = done.expect(0).json();
        let attempts = view["attempts"].as_array().expect("a list").len();
        let state = view["state"].as_str().expect("a state").to_owned();
        self.note(invoked, Told::Job { job: id, attempts, state, cost: micro(&view, "cost") });
    }

    fn look_at_the_account(&self) {
        let (invoked, Some(done)) = self.ask(&["account", "-o", "json"], false) else { return };
        let view = done.expect(0).json();
        let [available, held] = ["available", "held"].map(|field| micro(&view, field));
        self.note(invoked, Told::Balance { account: self.account.to_owned(), available, held });
    }

    fn cancel(&mut self, jobs: &[String]) {
        let job = self.random.pick(jobs).clone();
        let (invoked, done) = self.ask(&["cancel", "-y", &job, "--grace", "0s"], false);
        let told = match done {
            None => Told::Nothing { job },
            Some(done) => match done.code {
                Some(0) => Told::Cancelling { job },
                Some(7) => Told::TooLate { job },
                _ => panic!("{done:#?}"),
            },
        };
        self.note(invoked, told);
    }
}

#[test]
fn what_clients_are_told_while_all_is_killed_can_be_explained() {
    let (seconds, seed) = (asked("HISTORY_SECONDS", SECONDS), seed());
    println!("history: seed {seed}");
    let mut fleet = Fleet::start_with(AGENTS, &ACCOUNTS, |site, number| site.agent(number));
    let Fleet { site, orchestrator, agents } = &mut fleet;
    let site = &*site;
    let module = site.ticking(50_000_000);
    let book = Book {
        begun: Instant::now(),
        calls: Mutex::default(),
        jobs: Mutex::new(ACCOUNTS.map(|account| (account, Vec::new())).into()),
        unanswered: Mutex::default(),
        is_over: AtomicBool::new(false),
    };
    let (mut killed, mut random) = (Killed::default(), Random::new(seed));
    thread::scope(|scope| {
        let _end = End(&book);
        let clients = ACCOUNTS.iter().flat_map(|account| (0..CLIENTS).map(move |number| (*account, number)));
        for (account, number) in clients {
            let random = Random::new(random.number());
            let client = Client { site, book: &book, account, number, module: &module, random };
            scope.spawn(|| client.live());
        }
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            killed.one_more(site, orchestrator, agents, &mut random);
            (0..random.below(PAUSES_MAX)).for_each(|_| pause(&mut random));
        }
    });
    end_all(site);
    let calls = book.calls.into_inner().expect("nobody broke");
    let wrong = checker::check(&calls, &facts(site));
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    site.assert_money_is_whole();
    site.assert_nobody_panicked();
    let count = |is_one: fn(&Told) -> bool| calls.iter().filter(|call| is_one(&call.told)).count();
    println!(
        "history: seed {seed}: {seconds} s, {} calls ({} jobs accepted, {} jobs and {} balances looked at, {} cancels), {} without an \
         answer, {} kills of the orchestrator and {} of agents: 0 anomalies",
        calls.len(),
        count(|told| matches!(told, Told::Accepted { .. })),
        count(|told| matches!(told, Told::Job { .. })),
        count(|told| matches!(told, Told::Balance { .. })),
        count(|told| matches!(told, Told::Cancelling { .. } | Told::TooLate { .. } | Told::Nothing { .. })),
        book.unanswered.into_inner().expect("nobody broke"),
        killed.orchestrators,
        killed.agents,
    );
}

/// What is so in the end, asked for when nothing is killed any more.
fn facts(site: &Site) -> Facts {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut facts = Facts::default();
    for job in site.jobs() {
        let id = text(&job["id"]);
        let events = site.run(&["-c", "root", "job", "events", &id, "-o", "jsonl"]).expect(0).stdout;
        let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("a document a line"));
        let states = events.filter_map(|event| event["to"].as_str().map(str::to_owned)).collect();
        facts.jobs.insert(id, Final { state: text(&job["state"]), cost: micro(&job, "cost"), states });
    }
    for account in ACCOUNTS {
        let entry = |line: &Value| Entry {
            number: line["number"].as_u64().expect("a number"),
            is_hold: line["type"] == "hold",
            amount: line["amount"]["micro"].as_i64().expect("a number"),
            job: line["job"].as_str().map(str::to_owned),
        };
        facts.statements.insert(account.to_owned(), site.statement(account).iter().rev().map(entry).collect());
    }
    facts
}
