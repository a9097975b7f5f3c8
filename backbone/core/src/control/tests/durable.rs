//! Snapshots: a state that was kept and the events after it are as good as all events.

use super::*;
use crate::command::Redemption;
use crate::job::Progress;
use crate::membership::Certificate;

/// A small generator; the same seed makes the same history.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn endings() -> [Ending; 5] {
    [
        Ending::Exited { code: 0 },
        Ending::Trapped { message: Text::cut("unreachable") },
        Ending::NodeFault { message: Text::cut("no disk") },
        Ending::Stopped,
        Ending::LeaseEnded,
    ]
}

fn certificate(number: u64) -> Certificate {
    let mut serial = [0; 16];
    serial[..8].copy_from_slice(&number.to_le_bytes());
    let (serial, key) = (CertificateSerial(serial), KeyDigest([7; 32]));
    Certificate { serial, key, not_before: WallTime(0), not_after: WallTime(1 << 40) }
}

/// Does one thing of many.
fn step(world: &mut World, dice: &mut Dice, number: u64) {
    let any_job = |world: &World, dice: &mut Dice| {
        let open: Vec<JobId> = world.control.jobs().map(|job| job.id).collect();
        (!open.is_empty()).then(|| open[dice.roll(open.len() as u64) as usize])
    };
    let session = |world: &World, node: NodeId| world.control.node(node).and_then(Node::session);
    match dice.roll(17) {
        0..=3 => {
            let (people, input) = (["alice", "bob"], [Input::None, Input::Stream]);
            let mut spec = spec();
            spec.max_cost = Micro(1_000 + dice.roll(5_000));
            spec.input = input[dice.roll(2) as usize];
            spec.limits.start_by = (dice.roll(3) == 0).then(|| Span::from_secs(dice.roll(600)));
            spec.limits.on_disconnect = [OnDisconnect::Keep, OnDisconnect::Stop][dice.roll(2) as usize];
            spec.priority = dice.roll(3) as i8 - 1;
            let name = people[dice.roll(2) as usize];
            // Some keys come again: that of a forgotten job makes another one.
            world.submit_as(name, &format!("job-{}", number % 50), spec);
        }
        4 => {
            let id = 1 + dice.roll(2) as u8;
            let (_, reply) = world.connect_with(node(id), World::arrival(number as u8, 36_000 + dice.roll(1_000)));
            assert!(matches!(reply, Reply::Welcome | Reply::Refused(_)), "{reply:?}");
        }
        5..=9 => {
            let Some(job) = any_job(world, dice) else { return };
            let Some(placement) = world.control.job(job).and_then(Job::placement).cloned() else { return };
            let Some(session) = session(world, placement.node) else { return };
            let body = match (&placement.progress, dice.roll(4)) {
                (Progress::Assigned, 0) => ReportBody::Refused { message: Text::cut("busy") },
                (Progress::Assigned, _) => ReportBody::Starting,
                (Progress::Starting, 0) => ReportBody::Pinned { image: Text::cut("alpine@sha256:00") },
                (Progress::Starting, _) => ReportBody::Started,
                (_, 0) => {
                    let attempt = placement.attempt;
                    let stored = OutputLengths { stdout: 9, ..OutputLengths::default() };
                    world.tell(Command::OutputStored { attempt, fence: placement.fence, stored });
                    return;
                }
                _ => {
                    let ending = endings()[dice.roll(5) as usize].clone();
                    let output = OutputLengths { stdout: 9 * dice.roll(2), ..OutputLengths::default() };
                    ReportBody::Ended { ending, usage: Usage { ran: Span::from_secs(1), ..Usage::default() }, output }
                }
            };
            let report = Report { attempt: placement.attempt, fence: placement.fence, body };
            world.tell(Command::Report { node: placement.node, session, report });
        }
        10 => {
            let Some(job) = any_job(world, dice) else { return };
            let by = Actor { account: world.control.job(job).expect("open").account.clone(), ..client("alice") };
            world.tell(Command::Cancel { by, job, grace: Span::from_secs(5), why: Text::default() });
        }
        11 => {
            let wish = match dice.roll(3) {
                0 => NodeWish::Open,
                1 => NodeWish::Cordon,
                _ => NodeWish::Drain { within: Some(Span::from_secs(30)) },
            };
            let id = node(1 + dice.roll(2) as u8);
            world.tell(Command::NodeSet { by: operator(), node: id, wish, why: Text::default() });
        }
        12 => {
            let key = format!("credit-{number}").parse().expect("a key");
            let (by, account) = (operator(), account("bob"));
            world.tell(Command::Credit { by, account, amount: Micro(7_777), key, why: Text::default() });
        }
        13 => {
            let token = TokenId([number as u8, (number >> 8) as u8, 0, 0, 0]);
            let ttl = Span::from_secs(1 + dice.roll(900));
            let name: Name = format!("m{number}").parse().expect("a name");
            world.tell(Command::CreateToken {
                by: operator(),
                token,
                verifier: [3; 32],
                role: Role::Client,
                name: Some(name.clone()),
                account: None,
                rejoin: false,
                ttl,
            });
            if dice.roll(2) == 0 {
                let (fresh, role) = (IdentityId([50 + (number % 50) as u8; 16]), Role::Client);
                let (certificate, from) = (certificate(number), Text::cut("192.0.2.1"));
                let redemption = Redemption { token, role, name: None, fresh, certificate, from };
                world.tell(Command::Redeem(Box::new(redemption)));
            }
        }
        14 => {
            let Some(job) = any_job(world, dice) else { return };
            world.tell(Command::InputFailed { job, message: Text::cut("over its cap") });
        }
        15 => {
            let some = dice.roll(1 + world.control.ended_count() as u64) as usize;
            let jobs = world.control.ended_oldest().take(some).map(|(id, _)| id).collect();
            let reply = world.tell(Command::ForgetJobs { jobs });
            assert!(matches!(reply, Reply::Forgotten { .. }), "{reply:?}");
        }
        _ => world.wait(Span::from_secs(dice.roll(40))),
    }
}

#[test]
fn a_kept_state_and_the_events_after_it_are_as_good_as_all_events() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 1..=40u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::new();
        for number in 0..150 {
            step(&mut world, &mut dice, number);
        }
        kinds.extend(
            world.journal.iter().map(|event| std::mem::discriminant(&event.body)).map(|kind| format!("{kind:?}")),
        );
        let whole = world.replayed();
        let mut early = Control::new(world.control.config.clone());
        for (at, event) in world.journal.iter().enumerate() {
            early.evolve(event);
            if dice.roll(7) != 0 {
                continue;
            }
            let kept = early.durable();
            let mut late = Control::restore(world.control.config.clone(), kept.clone());
            assert_eq!(late.durable(), kept, "seed {seed}, behind event {}", event.number);
            late.audit().unwrap_or_else(|breach| panic!("seed {seed}, behind event {}: {breach:?}", event.number));
            world.journal[at + 1..].iter().for_each(|event| late.evolve(event));
            assert_eq!(late.durable(), whole.durable(), "seed {seed}, behind event {}", event.number);
            assert_eq!((late.queue.shares(), &late.open_jobs), (whole.queue.shares(), &whole.open_jobs));
            assert_eq!(late.queue.turns(), whole.queue.clone().turns(), "seed {seed}, behind event {}", event.number);
            late.audit().expect("sound");
        }
        // The live machine's state serves as well as a replayed one: what it knows besides is looked at again when it is due.
        let mut live = Control::restore(world.control.config.clone(), world.control.durable());
        let mut replayed = world.replayed();
        let boot = Command::EngineStarted {
            boot: BootId([8; 16]),
            boot_clock: Span::ZERO,
            wall: WallTime(0),
            version: Text::cut("0"),
        };
        let mut now = world.now;
        let (one, other) = (live.apply(now, boot.clone()), replayed.apply(now, boot));
        assert_eq!(one, other);
        for _ in 0..40 {
            now = now + Span::from_secs(60);
            live.advance(now);
            replayed.advance(now);
        }
        // Of two deadlines that come within one step either may be the first; in the end that makes no difference but for the
        // numbers of their events.
        let outcome = |control: &Control| {
            let open: Vec<_> = control.jobs().map(|job| (job.id, job.phase.clone())).collect();
            let lost: Vec<_> = control.nodes().map(|node| (node.id, node.lost)).collect();
            let ended = control.ended.iter().map(|(id, job)| (*id, EndedJob { finished: 0, ..job.clone() }));
            (open, lost, ended.collect::<Vec<_>>(), control.ledger().clone())
        };
        assert_eq!(outcome(&live), outcome(&replayed), "seed {seed}");
        live.audit().expect("sound");
    }
    assert!(kinds.len() >= 19, "the histories have only {} kinds of events", kinds.len());
}
