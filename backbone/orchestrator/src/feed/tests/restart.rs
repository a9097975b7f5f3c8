//! A feed that goes on from the view answers as one that has read the whole journal, whenever the one before it died.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use modchain_core::membership::{Certificate, TokenEnd, TokenGrant};
use modchain_types::{Capabilities, CertificateSerial, Ending, KeyDigest, NodeWish, Offer, TokenId};

use super::super::kept;
use super::super::model::{ENDED_KEPT, EVENTS_KEPT};
use super::*;
use crate::store::view::{EntriesWanted, View, ViewError, Wanted};

const JOURNAL: JournalId = JournalId([7; 16]);

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<T: Copy>(&mut self, some: &[T]) -> Option<T> {
        (!some.is_empty()).then(|| some[self.roll(some.len() as u64) as usize])
    }
}

/// What a pool may do next.
#[derive(Default)]
struct Pool {
    at: u64,
    number: u64,
    drawn: u64,
    jobs: BTreeMap<JobId, Option<(u32, u8)>>,
    /// Oldest first.
    ended: Vec<JobId>,
    attempts: BTreeMap<JobId, u32>,
    nodes: Vec<IdentityId>,
    members: Vec<IdentityId>,
    tokens: Vec<TokenId>,
    accounts: Vec<AccountId>,
}

impl Pool {
    /// The next event: always one that could follow.
    fn event(&mut self, dice: &mut Dice) -> Event {
        self.at += dice.roll(3) * 500_000;
        let body = if self.number == 0 { started(dice) } else { self.body(dice) };
        self.number += 1;
        Event { number: self.number, at: Timestamp(self.at), body }
    }

    fn drawn(&mut self) -> u8 {
        self.drawn += 1;
        self.drawn as u8
    }

    fn identity(&mut self, dice: &mut Dice) -> Identity {
        let drawn = self.drawn();
        let role = [Role::Operator, Role::Client, Role::Node][if drawn == 1 { 0 } else { dice.roll(3) as usize }];
        let owner = ["alice", "bob", "boss", "owner"][dice.roll(4) as usize];
        let id = IdentityId([drawn; 16]);
        if role == Role::Node {
            self.nodes.push(id)
        } else {
            self.members.push(id)
        }
        self.accounts.push(account(owner));
        Identity { id, role, name: format!("{role}-{drawn}").parse().expect("a name"), account: account(owner) }
    }

    fn body(&mut self, dice: &mut Dice) -> EventBody {
        loop {
            let live: Vec<JobId> = self.jobs.keys().copied().collect();
            let why = Text::cut(["", "because"][dice.roll(2) as usize]);
            let body = match dice.roll(40) {
                0 if dice.roll(4) == 0 => Some(EventBody::RestoreAccepted {
                    journal: JournalId([dice.roll(200) as u8; 16]),
                    fence_base: (self.number + 1) << 20,
                }),
                0 => Some(started(dice)),
                1 | 2 if self.drawn < 200 => Some(EventBody::IdentityAdded { identity: self.identity(dice) }),
                3 => dice.pick(&self.members).map(|by| {
                    let (token, role) = (TokenId([self.drawn(); 5]), Role::Client);
                    self.tokens.push(token);
                    let grant = TokenGrant { role, name: None, account: None, rejoins: None };
                    let by = (dice.roll(4) > 0).then_some(by);
                    EventBody::TokenCreated { token, verifier: [0; 32], grant, by, ttl: Span::from_secs(60) }
                }),
                4 => dice.pick(&self.tokens).filter(|_| self.drawn < 200).map(|token| EventBody::MemberJoined {
                    token,
                    identity: self.identity(dice),
                    certificate: certificate(dice),
                    from: Text::cut("somewhere"),
                }),
                5 => dice.pick(&self.tokens).map(|token| match dice.roll(2) {
                    0 => EventBody::TokenEnded { token, end: TokenEnd::Expired },
                    _ => EventBody::TokenAlarm { token, from: Text::cut("elsewhere") },
                }),
                6 => dice.pick(&self.members).map(|identity| match dice.roll(3) {
                    0 => EventBody::CertificateIssued { identity, certificate: certificate(dice), beside: None },
                    1 => EventBody::CertificateUsed { identity, serial: certificate(dice).serial },
                    _ => EventBody::CertificateRetired { identity, serial: certificate(dice).serial },
                }),
                7 if dice.roll(4) == 0 && self.nodes.len() > 2 => {
                    let identity = self.nodes.swap_remove(dice.roll(self.nodes.len() as u64) as usize);
                    Some(EventBody::IdentityRevoked { identity, by: dice.pick(&self.members), why })
                }
                8 => dice.pick(&self.members).and_then(|by| {
                    let wish = match dice.roll(4) {
                        0 => NodeWish::Cordon,
                        1 => NodeWish::Drain { within: None },
                        2 => NodeWish::Drain { within: Some(Span::from_secs(dice.roll(9))) },
                        _ => NodeWish::Open,
                    };
                    Some(EventBody::NodeSet { node: dice.pick(&self.nodes)?.into(), by, wish, why })
                }),
                9 | 10 => dice.pick(&self.nodes).map(|node| EventBody::NodeConnected {
                    node: node.into(),
                    offer: (dice.roll(2) == 0).then(|| Box::new(offer(dice))),
                }),
                11 => dice.pick(&self.nodes).map(|node| EventBody::NodeLost { node: node.into() }),
                12 if !self.accounts.is_empty() => Some(EventBody::Deposited {
                    provider: Text::cut("credit"),
                    key: format!("k{}", self.number).parse().expect("a key"),
                    account: self.accounts[dice.roll(self.accounts.len() as u64) as usize].clone(),
                    amount: Micro(dice.roll(1_000_000)),
                    why,
                }),
                13..=20 if self.jobs.len() < 12 => {
                    let owner = ["alice", "bob"][dice.roll(2) as usize];
                    // Some keys come again, once what they made is forgotten.
                    let number = if dice.roll(4) == 0 { dice.roll(30) } else { self.number };
                    let key: SubmitKey = format!("k{number}").parse().expect("a key");
                    let job = JobId::derive(&account(owner), &key);
                    if self.jobs.contains_key(&job) || self.ended.contains(&job) {
                        continue;
                    }
                    self.attempts.remove(&job);
                    self.jobs.insert(job, None);
                    let mut spec = spec(["", "eval", "train"][dice.roll(3) as usize]);
                    if dice.roll(2) == 0 {
                        spec.labels = Map::new([(Text::cut("team"), Text::cut(owner))].into()).expect("it fits");
                    }
                    Some(EventBody::JobQueued {
                        job,
                        account: account(owner),
                        key,
                        spec: Box::new(spec),
                        spec_digest: Digest::of(b"s"),
                        fee_basis_points: 500,
                    })
                }
                21 if self.ended.len() > 5 && dice.roll(4) == 0 => {
                    let some = 1 + dice.roll(5) as usize;
                    Some(EventBody::JobsForgotten { jobs: self.ended.drain(..some).collect() })
                }
                _ => dice.pick(&live).and_then(|job| self.of_job(job, why, dice)),
            };
            if let Some(body) = body {
                return body;
            }
        }
    }

    fn of_job(&mut self, job: JobId, why: Text<256>, dice: &mut Dice) -> Option<EventBody> {
        if dice.roll(8) == 0 {
            return Some(match dice.roll(2) {
                0 => EventBody::CancelRequested { job, grace: Span::from_secs(1), why },
                _ => EventBody::InputFailed { job, message: Text::cut("no more") },
            });
        }
        let usage = Usage { ran: Span::from_secs(dice.roll(50)), ..Usage::default() };
        let output = OutputLengths { stdout: dice.roll(9_000), stderr: 0, dropped: 0 };
        let (number, step) = match self.jobs[&job] {
            None if dice.roll(6) == 0 => return Some(self.finished(job, None, usage, output, dice)),
            None => {
                let number = self.attempts.get(&job).map_or(1, |number| number + 1);
                self.attempts.insert(job, number);
                self.jobs.insert(job, Some((number, 0)));
                return Some(EventBody::AttemptAssigned {
                    attempt: AttemptId { job, number },
                    node: dice.pick(&self.nodes)?.into(),
                    tariff: Box::new(Tariff { core_hour: Micro(3_600_000), ..Tariff::default() }),
                    reservation: Reservation { cpu_milli: 500 + dice.roll(500) as u32, ..Reservation::default() },
                    run_limit: Span::from_secs(60),
                    run_limit_reason: Reason::Budget,
                });
            }
            Some(live) => live,
        };
        let attempt = AttemptId { job, number };
        Some(match (dice.roll(5), step) {
            (0, _) => {
                self.jobs.insert(job, None);
                EventBody::AttemptEnded { attempt, reason: Reason::NodeLost, message: Text::cut(why.as_str()) }
            }
            (1, 1) => EventBody::ImagePinned { attempt, image: Text::cut("alpine@sha256:1") },
            (_, 0) => {
                self.jobs.insert(job, Some((number, 1)));
                EventBody::AttemptStarting { attempt }
            }
            (_, 1) => {
                self.jobs.insert(job, Some((number, 2)));
                EventBody::AttemptStarted { attempt }
            }
            (2, 2) => {
                self.jobs.insert(job, Some((number, 3)));
                let ending = Ending::Exited { code: 0 };
                EventBody::ResultRecorded { attempt, ending, usage, output }
            }
            _ => self.finished(job, Some(number), usage, output, dice),
        })
    }

    fn finished(
        &mut self,
        job: JobId,
        attempt: Option<u32>,
        usage: Usage,
        output: OutputLengths,
        dice: &mut Dice,
    ) -> EventBody {
        self.jobs.remove(&job);
        self.ended.push(job);
        let state = if attempt.is_some() { JobState::Completed } else { JobState::Cancelled };
        let gross = if attempt.is_some() { 1 + dice.roll(HOLD.0) } else { 0 };
        let fee = gross / 20;
        EventBody::JobFinished {
            job,
            attempt,
            outcome: Outcome {
                state,
                reason: Reason::Exit,
                exit: Exit::job(0),
                message: Text::cut("so"),
                usage,
                output,
            },
            settlement: Settlement {
                gross: Micro(gross),
                fee: Micro(fee),
                net: Micro(gross - fee),
                refund: Micro(HOLD.0 - gross),
                owner: (gross > 0).then(|| account("owner")),
            },
        }
    }
}

fn started(dice: &mut Dice) -> EventBody {
    let wall = WallTime(1_000_000_000 + dice.roll(100_000_000) as i64);
    EventBody::EngineStarted { boot: BootId([1; 16]), boot_clock: Span::ZERO, wall, version: Text::cut("0") }
}

fn certificate(dice: &mut Dice) -> Certificate {
    let serial = CertificateSerial([dice.roll(256) as u8; 16]);
    Certificate { serial, key: KeyDigest([0; 32]), not_before: WallTime(1), not_after: WallTime(2) }
}

fn offer(dice: &mut Dice) -> Offer {
    Offer {
        capabilities: Capabilities {
            adapters: List::cut(vec![Adapter::Wasm]),
            cpu_milli: 1_000 + dice.roll(9) as u32,
            memory_bytes: 1 << 30,
            disk_bytes: 0,
            slots: 1,
            gpus: List::default(),
            models: List::default(),
            pullable: List::default(),
            exceptions: Exceptions::default(),
            container_gpus: false,
            labels: Map::default(),
            region: Text::default(),
        },
        tariff: Tariff::default(),
        agent_version: Text::cut("0"),
        paused: dice.roll(3) == 0,
        images: List::default(),
    }
}

/// What is heard besides events. It passes; only what it leaves in what is written would show.
fn noise(model: &mut Model, dice: &mut Dice) {
    let nodes: Vec<NodeId> = model.nodes.keys().copied().collect();
    let jobs: Vec<JobId> = model.live.iter().copied().collect();
    if let Some(node) = dice.pick(&nodes) {
        match dice.roll(3) {
            0 => {
                let seen = WallTime(dice.roll(9_000) as i64);
                let load = HostLoad::default();
                model.heartbeat(node, Pulse { load, rtt: None, seen, boot: BootId([1; 16]), ticks: Vec::new() });
            }
            1 => model.node_changed(node, NodeState::Suspect),
            _ => model.disconnected(node, model.upto()),
        }
    }
    if let Some(job) = dice.pick(&jobs) {
        let attempt = AttemptId { job, number: 1 + dice.roll(2) as u32 };
        model.preparing(attempt, Text::cut("half of it is here"));
        model.output(job, attempt.number, OutputLengths { stdout: dice.roll(100), stderr: 1, dropped: 0 });
    }
}

/// Everything that anybody can be told.
fn told(model: &Model, view: &View, at: u64) -> Result<Vec<String>, ViewError> {
    let now = Timestamp(at + 5_000_000);
    let mut told = Vec::new();
    let anchors: Vec<WallTime> = (0..10).map(|part| model.wall(Timestamp(at / 10 * part))).collect();
    told.push(format!("{:?} {anchors:?} {:?}", model.upto(), model.identities));
    told.push(format!("{:?} {:?}", model.node_names, model.token_makers));
    told.push(format!("{:?} {:?} {}", model.live, model.ended, model.forgotten));
    told.extend(model.nodes.values().map(|node| {
        let attempts = &node.attempts;
        format!("{:?} {:?} {:?} {attempts:?}", node.view(model), node.revoked, node.identity)
    }));
    told.extend(model.accounts.keys().map(|id| {
        let entry = &model.accounts[id];
        format!("{:?} {:?} {:?}", model.account_view(id), entry.jobs, entry.live)
    }));
    told.extend(
        model
            .jobs
            .values()
            .map(|job| format!("{:?} {:?} {:?}", job.view(model, now), job.events(), job.newest_attempt())),
    );
    let actors = [operator(), client("alice"), client("bob"), client("owner")];
    for actor in &actors {
        told.push(format!("{:?}", model.status(actor, Span::ZERO, now)));
        let mut place = Some(model.snapshot_start());
        while let Some(from) = place {
            let (page, next) = model.snapshot_page(actor, None, from, now);
            told.push(format!("{page:?}"));
            place = next;
        }
        for back in [0, 1, 5, 30, 200, 450, 600] {
            let cursor = model.resume(model.upto().saturating_sub(back));
            let Some(cursor) = cursor else { continue };
            told.push(match model.changed_since(actor, None, cursor, now, true) {
                Some(Change::Delta(delta, _)) => {
                    // Within one event the order of what it changed means nothing.
                    let mut jobs: Vec<String> = delta.jobs.iter().map(|job| format!("{job:?}")).collect();
                    let mut nodes: Vec<String> = delta.nodes.iter().map(|node| format!("{node:?}")).collect();
                    let mut gone: Vec<String> = delta.gone.iter().map(|name| name.to_string()).collect();
                    [&mut jobs, &mut nodes, &mut gone].into_iter().for_each(|some| some.sort_unstable());
                    let StateDelta { prev, upto, account, events, .. } = *delta;
                    format!("{prev} {upto} {jobs:?} {nodes:?} {gone:?} {account:?} {events:?}")
                }
                other => format!("{other:?}"),
            });
        }
        for (states, ended, prefix, label) in [
            (vec![], true, "", None),
            (vec![JobState::Completed], false, "", None),
            (vec![], true, "train", None),
            (vec![JobState::Queued, JobState::Cancelled], true, "", Some("alice")),
            (vec![], false, "", None),
        ] {
            let labels: Vec<_> = label.iter().map(|label| (Text::cut("team"), Text::cut(*label))).collect();
            let of = (actor.role != Role::Operator).then(|| actor.account.clone());
            let final_states: Vec<_> = states.iter().copied().filter(|state| state.is_ended()).collect();
            let query = JobsQuery {
                states: List::cut(states.clone()),
                ended,
                account: None,
                labels: List::cut(labels.clone()),
                prefix: Text::cut(prefix),
                since: None,
                limit: 50,
                after: None,
            };
            let wanted = Wanted {
                account: of,
                states: final_states.clone(),
                labels,
                prefix: prefix.into(),
                since: None,
                below: u64::MAX,
                limit: 50,
            };
            let wants_ended = (ended || !final_states.is_empty()) && (states.is_empty() || !final_states.is_empty());
            let applied = if wants_ended { view.applied() } else { 0 };
            let here = model.jobs_part(actor, &query, u64::MAX, applied, now);
            let there = if wants_ended {
                let found = view.jobs(&wanted)?;
                let items = found.items.into_iter().map(|row| (row.number, row.view)).collect();
                JobsPart { items, total: found.total, more: found.more }
            } else {
                JobsPart::default()
            };
            told.push(format!("{:?}", here.merge(there, 50)));
        }
        for text in ["eval", "train", "j-0", "j-zz"] {
            told.push(format!("{:?}", model.candidates(actor, text)));
        }
    }
    let applied = view.applied();
    for id in model.accounts.keys() {
        let filter = LedgerFilter { limit: 900, ..LedgerFilter::default() };
        let here = model.ledger_part(id, &filter, applied).expect("it is there").items;
        let asked = EntriesWanted { limit: 900, ..EntriesWanted::default() };
        told.push(format!("{:?}", here.iter().cloned().chain(view.entries(id, &asked)?.0).collect::<Vec<_>>()));
    }
    let mut seen = 0;
    while seen < model.forgotten {
        let (found, reached) = view.events(seen, model.forgotten, None, 200, |_| true)?;
        told.push(format!("{found:?}"));
        seen = reached.max(seen + 1);
    }
    told.push(format!("{:?}", model.events.iter().map(|row| (&row.view, &row.audience)).collect::<Vec<_>>()));
    Ok(told)
}

fn write(model: &mut Model, view: &View) {
    while let Some(rows) = model.take_rows().expect("encodes") {
        view.apply(&rows).expect("applies");
    }
    model.forget(view.applied());
}

/// As the disk has it when the process dies at this moment.
fn as_it_lies(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("reads") {
        let entry = entry.expect("an entry");
        if entry.path().is_dir() {
            as_it_lies(&entry.path(), &to.join(entry.file_name()));
        } else {
            match fs::copy(entry.path(), to.join(entry.file_name())) {
                // The store has tidied up meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied.expect("copies")),
            }
        }
    }
}

/// Tells how often the feed went on from a view that had something and lacked something.
fn live_through(seed: u64, events: u64, kills: u64) -> usize {
    let dir = tempfile::tempdir().expect("a directory");
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut pool, mut journal) = (Pool::default(), Vec::<Event>::new());
    let mut went_on = 0;
    let mut place = dir.path().join("view-0");
    let mut view = View::open(&place, JOURNAL).expect("opens");
    let mut model = kept::restore(JOURNAL, Asset::Test, &view).expect("it is empty");
    for kill in 1..=kills {
        for _ in 0..dice.roll(2 * events / kills) {
            let event = pool.event(&mut dice);
            model.apply(&event);
            journal.push(event);
            match dice.roll(24) {
                0 | 1 => write(&mut model, &view),
                2 => view.flush().expect("flushes"),
                3..=5 => noise(&mut model, &mut dice),
                // What was handed over to a writer that dies before it writes.
                6 if dice.roll(4) == 0 => break,
                _ => {}
            }
        }
        let next = dir.path().join(format!("view-{kill}"));
        if dice.roll(2) == 0 {
            as_it_lies(&place, &next);
            drop(view);
        } else {
            drop(view);
            fs::rename(&place, &next).expect("moves");
        }
        place = next;
        view = View::open(&place, JOURNAL).expect("opens");
        model = kept::restore(JOURNAL, Asset::Test, &view).expect("it is whole");
        assert_eq!(model.upto(), view.applied());
        let behind = model.upto() as usize;
        went_on += usize::from(0 < behind && behind < journal.len());
        journal[behind..].iter().for_each(|event| model.apply(event));
        if dice.roll(2) == 0 {
            write(&mut model, &view);
        }
        model.replayed();

        let beside = tempfile::tempdir().expect("a directory");
        let whole_view = View::open(beside.path(), JOURNAL).expect("opens");
        let mut whole = Model::new(JOURNAL, Asset::Test);
        for event in &journal {
            whole.apply(event);
            if whole.rows_waiting() >= 100 {
                write(&mut whole, &whole_view);
            }
        }
        write(&mut whole, &whole_view);
        whole.replayed();
        // What has left the memory depends on how far the view is.
        let settled = whole.forgotten == model.forgotten && whole.jobs.len() == model.jobs.len();
        if !settled {
            write(&mut model, &view);
        }
        let expected = told(&whole, &whole_view, pool.at).expect("answers");
        let got = told(&model, &view, pool.at).expect("answers");
        assert_eq!((model.journal, model.fence_base), (whole.journal, whole.fence_base), "seed {seed}, kill {kill}");
        assert_eq!(got.len(), expected.len(), "seed {seed}, kill {kill}, from event {behind}");
        for (got, expected) in got.iter().zip(&expected) {
            let same = got.bytes().zip(expected.bytes()).take_while(|(one, other)| one == other).count();
            let around = |text: &str| -> String { text.chars().skip(same.saturating_sub(300)).take(600).collect() };
            let which = format!("seed {seed}, kill {kill}, from event {behind} of {}", journal.len());
            assert!(got == expected, "{which}\n  got {}\n  not {}", around(got), around(expected));
        }
    }
    went_on
}

#[test]
fn a_feed_that_goes_on_from_the_view_answers_as_one_that_has_read_the_whole_journal() {
    let went_on: usize = (1..=6).map(|seed| live_through(seed, 700, 4)).sum();
    assert!(went_on > 3, "{went_on} of 24 starts tested anything");
}

#[test]
fn the_same_when_more_has_happened_than_stays_in_memory() {
    live_through(77, EVENTS_KEPT as u64 + 3 * ENDED_KEPT as u64, 2);
}

#[test]
fn what_the_feed_keeps_and_cannot_read_has_the_view_made_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("view");
    let (mut pool, mut dice) = (Pool::default(), Dice(5));
    let view = View::open(&place, JOURNAL).expect("opens");
    let mut model = Model::new(JOURNAL, Asset::Test);
    (0..200).for_each(|_| model.apply(&pool.event(&mut dice)));
    let mut nodes = 0;
    while let Some(mut rows) = model.take_rows().expect("encodes") {
        for (_, garbled) in rows.kept.iter_mut().filter(|(key, row)| key[0] == b'n' && row.is_some()) {
            *garbled = Some(vec![0xff; 3]);
            nodes += 1;
        }
        view.apply(&rows).expect("it does not look into it");
    }
    assert!(nodes > 0);
    drop(view);
    let feed = super::super::Feed::open(JOURNAL, Asset::Test, &place).expect("opens");
    assert_eq!((feed.upto(), feed.view().applied()), (0, 0), "begun anew");
}
