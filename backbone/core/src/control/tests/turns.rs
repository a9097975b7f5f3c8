//! Whose turn it is: accounts, priorities, large jobs among small ones, and what is said about it.

use proptest::prelude::*;

use super::*;
use crate::scheduler::outlook::Outlook;

/// A pool whose nodes have four cores each, and accounts with enough money for everything.
struct Pool {
    world: World,
    sessions: Vec<SessionId>,
    submitted: u32,
}

impl Pool {
    fn new(nodes: u8) -> Self {
        Self::with_ceilings(nodes, Ceilings::default())
    }

    fn with_ceilings(nodes: u8, ceilings: Ceilings) -> Self {
        let mut world = World::new();
        let config = ControlConfig { ceilings, ..ControlConfig::new(Asset::Test) };
        world.control = Control::new(config);
        world.journal.iter().for_each(|event| world.control.evolve(event));
        for number in 3..=nodes {
            world.identity(number, Role::Node, &format!("n{number}"), "owen");
        }
        for (_, name) in PEOPLE {
            let key = format!("more-{name}").parse().expect("a key");
            let (by, account, amount) = (operator(), account(name), Micro(1_000_000_000));
            world.done(Command::Credit { by, account, amount, key, why: Text::default() });
        }
        let sessions = (1..=nodes).map(|number| world.connect(number, 36_000)).collect();
        Self { world, sessions, submitted: 0 }
    }

    fn submit(&mut self, name: &str, cores: u32, change: impl FnOnce(&mut JobSpec)) -> JobId {
        let mut spec = spec();
        spec.requirements.cpu_milli = cores * 1_000;
        change(&mut spec);
        self.submitted += 1;
        match self.world.submit_as(name, &self.submitted.to_string(), spec) {
            Reply::Submitted { job, existing: false, .. } => job,
            reply => panic!("not accepted: {reply:?}"),
        }
    }

    fn many(&mut self, name: &str, count: usize, cores: u32) -> Vec<JobId> {
        (0..count).map(|_| self.submit(name, cores, |_| {})).collect()
    }

    fn running_of(&self, name: &str) -> Vec<JobId> {
        let account = account(name);
        let jobs = self.world.control.jobs().filter(|job| job.account == account && job.placement().is_some());
        jobs.map(|job| job.id).collect()
    }

    fn is_placed(&self, job: JobId) -> bool {
        self.world.control.job(job).is_some_and(|job| job.placement().is_some())
    }

    fn finish(&mut self, job: JobId) {
        let placement = self.world.control.job(job).and_then(Job::placement).expect("placed");
        let session = self.sessions[usize::from(placement.node.0[0]) - 1];
        self.world.report(job, session, World::ended(Ending::Exited { code: 0 }, Span::ZERO));
    }

    /// Time goes on, with every node's heartbeats.
    fn wait(&mut self, span: Span) {
        let end = self.world.now + span;
        while self.world.now < end {
            self.world.wait(Span::from_secs(5).min(end.since(self.world.now)));
            for (number, session) in (1u8..).zip(self.sessions.clone()) {
                self.world.done(Command::AgentHeard { node: node(number), session });
            }
        }
    }

    fn outlook(&self, job: JobId) -> Outlook {
        self.world.control.outlook(self.world.now, job).expect("it waits")
    }
}

#[test]
fn an_account_with_a_thousand_jobs_does_not_keep_another_with_one_waiting() {
    let mut pool = Pool::new(1);
    pool.many("alice", 1_000, 1);
    let single = pool.submit("bob", 1, |_| {});
    assert!(!pool.is_placed(single), "the node is full");
    assert_eq!(pool.outlook(single).ahead.all, 0, "it goes before all that wait");
    pool.finish(pool.running_of("alice")[0]);
    assert!(pool.is_placed(single));
}

#[test]
fn where_there_is_room_for_one_job_only_accounts_take_turns() {
    let mut pool = Pool::new(1);
    let first = pool.many("alice", 10, 4);
    let second = pool.many("bob", 3, 4);
    let third = pool.many("owen", 1, 4);
    let mut order = Vec::new();
    while let Some(job) =
        [first.clone(), second.clone(), third.clone()].concat().into_iter().find(|j| pool.is_placed(*j))
    {
        order.push(match () {
            () if first.contains(&job) => 'a',
            () if second.contains(&job) => 'b',
            () => 'o',
        });
        pool.finish(job);
    }
    assert_eq!(order.iter().collect::<String>(), "aboababaaaaaaa");
}

#[test]
fn who_submits_one_job_at_a_time_takes_turns_as_well() {
    let mut pool = Pool::new(1);
    let waiting = pool.many("alice", 5, 4);
    let mut bobs = 0;
    for round in 0..8 {
        let job = pool.submit("bob", 4, |_| {});
        while !pool.is_placed(job) {
            let running = pool.running_of("alice");
            pool.finish(running[0]);
        }
        bobs += 1;
        pool.finish(job);
        let done = waiting.iter().filter(|job| pool.world.control.ended(**job).is_some()).count();
        assert!(done + 1 >= bobs.min(5), "after {round} rounds alice had {done} and bob {bobs}");
    }
}

#[test]
fn accounts_that_both_want_more_hold_the_same_part_of_the_scarcest() {
    let mut pool = Pool::new(4);
    // Alice's are twice as large; sixteen cores are there.
    pool.many("alice", 50, 2);
    pool.many("bob", 50, 1);
    for _ in 0..60 {
        let jobs = [pool.running_of("alice"), pool.running_of("bob")].concat();
        let oldest = jobs
            .into_iter()
            .min_by_key(|job| pool.world.control.job(*job).and_then(Job::placement).map(|placement| placement.fence));
        pool.finish(oldest.expect("something runs"));
    }
    let (alice, bob) = (pool.running_of("alice").len(), pool.running_of("bob").len());
    assert!((3..=5).contains(&alice) && (6..=10).contains(&bob), "alice runs {alice} of two cores, bob {bob} of one");
}

#[test]
fn a_priority_orders_ones_own_jobs_and_pushes_nobody_else_back_without_the_operators_word() {
    let mut pool = Pool::new(1);
    let running = pool.submit("owen", 4, |_| {});
    let plain = pool.submit("alice", 4, |_| {});
    let urgent = pool.submit("alice", 4, |spec| spec.priority = 100);
    let other = pool.submit("bob", 4, |_| {});
    let yielding = pool.submit("owen", 4, |spec| spec.priority = -1);
    let ahead =
        |pool: &Pool, job| (pool.outlook(job).ahead.all, pool.outlook(job).ahead.own, pool.outlook(job).counts_as);
    assert_eq!(ahead(&pool, urgent), (0, 0, 0), "her own first");
    assert_eq!(ahead(&pool, other), (1, 0, 0), "she came first");
    assert_eq!(ahead(&pool, plain), (2, 1, 0));
    assert_eq!(ahead(&pool, yielding), (3, 0, -1));
    let mut order = Vec::new();
    let mut now = running;
    for _ in 0..4 {
        pool.finish(now);
        now = [plain, urgent, other, yielding].into_iter().find(|job| pool.is_placed(*job)).expect("the next one");
        order.push(now);
    }
    assert_eq!(order, [urgent, other, plain, yielding]);
}

#[test]
fn as_far_as_the_operator_lets_an_account_its_priority_counts_against_others() {
    let accounts = BTreeMap::from([(account("bob"), 10)]);
    let mut pool = Pool::with_ceilings(1, Ceilings { default: 0, accounts });
    let running = pool.submit("owen", 4, |_| {});
    let first = pool.submit("alice", 4, |spec| spec.priority = 100);
    let urgent = [pool.submit("bob", 4, |spec| spec.priority = 100), pool.submit("bob", 4, |spec| spec.priority = 5)];
    assert_eq!(urgent.map(|job| pool.outlook(job).counts_as), [10, 5]);
    assert_eq!(pool.outlook(first).ahead.all, 2);
    pool.finish(running);
    assert!(pool.is_placed(urgent[0]));
    pool.finish(urgent[0]);
    assert!(pool.is_placed(urgent[1]), "although bob was served last");
    pool.finish(urgent[1]);
    assert!(pool.is_placed(first));
}

#[test]
fn a_large_job_that_has_waited_for_long_gets_a_node_that_small_ones_would_never_leave_it() {
    let mut pool = Pool::new(2);
    pool.many("alice", 500, 1);
    let large = pool.submit("bob", 4, |_| {});
    let finish_one = |pool: &mut Pool| {
        // On both nodes by turns, as small jobs do.
        let job = pool
            .running_of("alice")
            .into_iter()
            .min_by_key(|job| pool.world.control.job(*job).and_then(Job::placement).map(|placement| placement.fence));
        pool.finish(job.expect("one of alice's runs"));
    };
    for _ in 0..20 {
        finish_one(&mut pool);
    }
    assert!(!pool.is_placed(large), "for a while it gives way");
    assert_eq!(pool.running_of("alice").len(), 8, "and nothing stands idle");
    pool.wait(super::super::due::KEEP_AFTER);
    let mut finished = 0;
    while !pool.is_placed(large) {
        finish_one(&mut pool);
        finished += 1;
        let waiting = pool.world.control.jobs().find(|job| job.placement().is_none() && job.id != large);
        let waiting = waiting.expect("she has more").id;
        if !pool.is_placed(large) {
            let fits = pool.world.control.fitness_of(pool.world.now, waiting).expect("it waits");
            let kept =
                fits.iter().filter(|fit| fit.reasons.iter().any(|reason| reason.starts_with("it is kept for j-")));
            assert_eq!(kept.count(), 1, "one node is kept, the other works on: {fits:?}");
            assert!(pool.running_of("alice").len() >= 4);
        }
    }
    assert!(finished <= 8, "it starts once the four that were on a node have ended, after {finished}");
    assert_eq!(pool.running_of("alice").len(), 4);
}

#[test]
fn jobs_that_no_node_could_ever_take_are_looked_at_once_and_a_large_one_behind_them_still_gets_a_node() {
    let mut pool = Pool::new(1);
    let small = pool.submit("owen", 1, |_| {});
    pool.world.run(small, pool.sessions[0]);
    // More classes than one pass looks at, and none of them will ever fit; behind them one that waits for the small one's end.
    for price in 0..40 {
        pool.submit("alice", 8, |spec| spec.max_cost = Micro(HOLD + price));
    }
    let large = pool.submit("bob", 4, |_| {});
    pool.wait(super::super::due::KEEP_AFTER);
    // Each change is a pass; while they come to it, what is smaller still passes it by.
    let shorts: Vec<JobId> = (0..6).map(|_| pool.submit("owen", 1, |_| {})).collect();
    let placed: Vec<bool> = shorts.iter().map(|short| pool.is_placed(*short)).collect();
    assert_eq!(placed, [true, true, false, false, false, false]);
    assert_eq!(pool.world.control.hopeless.len(), 40, "those are known now");
    pool.finish(shorts[0]);
    pool.finish(shorts[1]);
    assert!(!pool.is_placed(large));
    pool.finish(small);
    assert!(pool.is_placed(large));
    // A larger node is another matter.
    let mut arrival = World::arrival(2, 36_000);
    arrival.offer.capabilities.cpu_milli = 8_000;
    pool.world.connect_with(node(2), arrival);
    assert!(pool.world.control.hopeless.is_empty());
    assert!(pool.world.control.jobs().any(|job| job.placement().is_some_and(|placement| placement.node == node(2))));
}

#[test]
fn a_client_whose_jobs_all_need_something_else_leaves_the_engine_most_of_its_time() {
    let mut pool = Pool::new(1);
    let world = &mut pool.world;
    // Not audited one by one: each audit looks at all of them.
    for number in 0..2_024 {
        let mut spec = spec();
        (spec.requirements.cpu_milli, spec.max_cost) = (8_000, Micro(HOLD + number));
        let (by, key) = (client("alice"), format!("vain-{number}").parse().expect("a key"));
        let (spec, spec_digest) = (Box::new(spec), Digest([0; 32]));
        let submit = Command::Submit { by, key, spec, spec_digest, no_queue: false };
        world.journal.extend(world.control.apply(world.now, submit).events);
    }
    world.settle_down();
    let rest = Span::from_millis(10);
    let fits = pool.submit("bob", 1, |_| {});
    let hurried = pool.submit("bob", 8, |spec| spec.limits.start_by = Some(Span::from_millis(5)));
    assert!(!pool.is_placed(fits), "a thousand looks too many were made in vain");
    assert_eq!(pool.world.control.next_deadline(), Some(pool.world.now + Span::from_millis(5)));
    pool.world.wait(Span::from_millis(5));
    assert_eq!(pool.world.state(hurried), JobState::Expired, "deadlines do not wait for that");
    assert!(!pool.is_placed(fits));
    pool.world.wait(rest);
    assert!(pool.is_placed(fits));
}

#[test]
fn an_estimate_is_what_limits_of_time_allow_and_nothing_where_nothing_is_known() {
    let minutes = |count: u64| Span::from_secs(60 * count);
    let limited = |limit: u64| move |spec: &mut JobSpec| spec.limits.time_limit = Some(minutes(limit));
    let mut pool = Pool::new(1);
    // Two run, of two cores each: up to ten minutes and up to thirty, of which five are gone.
    let (short, long) = (pool.submit("alice", 2, limited(10)), pool.submit("alice", 2, limited(30)));
    let session = pool.sessions[0];
    pool.world.run(short, session);
    pool.world.run(long, session);
    pool.wait(minutes(5));
    let next = pool.submit("bob", 2, limited(20));
    assert_eq!(pool.outlook(next).starts_within, Some(minutes(5)), "after the short one");
    let whole = pool.submit("owen", 4, limited(20));
    assert_eq!(pool.outlook(whole).ahead.all, 1);
    // Room for it is there once the long one has ended; one like it goes before it.
    assert_eq!(pool.outlook(whole).starts_within, Some(minutes(25 + 20)));
    let second = pool.submit("bob", 2, limited(20));
    assert_eq!(pool.outlook(second).ahead.all, 2);
    assert_eq!(pool.outlook(second).starts_within, Some(minutes(25)), "behind two: at 5, at 25, at 25");
    let elsewhere = pool.submit("bob", 8, limited(1));
    assert_eq!(pool.outlook(elsewhere).starts_within, None, "no node is as large");
    // A node that may take jobs again some day says nothing about when.
    pool.world.done(Command::NodeSet { by: operator(), node: node(1), wish: NodeWish::Cordon, why: Text::default() });
    assert_eq!(pool.outlook(next).starts_within, None);
    assert_eq!(pool.world.control.outlook(pool.world.now, short), None, "it does not wait");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Alice floods the pool, and Bob comes with one job after the other. Whatever ends meanwhile, one of hers at most starts
    /// before his.
    #[test]
    fn nobody_is_starved(nodes in 1u8..4, flood in 5usize..60, picks in prop::collection::vec(any::<usize>(), 1..40)) {
        let mut pool = Pool::new(nodes);
        pool.many("alice", flood, 1);
        for pick in picks {
            let single = pool.submit("bob", 1, |_| {});
            let began = pool.world.journal.len();
            while !pool.is_placed(single) {
                let running = pool.running_of("alice");
                pool.finish(running[pick % running.len()]);
            }
            let starts = pool.world.journal[began..].iter().filter_map(|event| match &event.body {
                EventBody::AttemptAssigned { attempt, .. } => Some(attempt.job),
                _ => None,
            });
            prop_assert!(starts.take_while(|job| *job != single).count() <= 1);
            pool.finish(single);
        }
    }

    /// While two accounts both have jobs of the same needs waiting, neither holds more than one job more than the other.
    #[test]
    fn shares_stay_level_under_demand(nodes in 1u8..5, picks in prop::collection::vec(any::<usize>(), 1..60)) {
        let mut pool = Pool::new(nodes);
        let running = pool.submit("owen", 4, |_| {});
        for _ in 0..100 {
            pool.submit("alice", 1, |_| {});
            pool.submit("bob", 1, |_| {});
        }
        pool.finish(running);
        // What was placed while the other had nothing waiting ends first.
        for pick in picks {
            let (alice, bob) = (pool.running_of("alice"), pool.running_of("bob"));
            let more = if alice.len() >= bob.len() { alice } else { bob };
            pool.finish(more[pick % more.len()]);
            let (alice, bob) = (pool.running_of("alice").len(), pool.running_of("bob").len());
            prop_assert!(alice.abs_diff(bob) <= 1, "{alice} and {bob}");
            prop_assert_eq!(alice + bob, 4 * usize::from(nodes), "and the pool is full");
        }
    }

    /// The place in the queue that is told is the one that comes true, where all jobs are alike and end in order.
    #[test]
    fn the_place_that_is_told_is_the_place_that_is_had(
        submits in prop::collection::vec((0usize..3, 0i8..3), 1..40),
        asked: usize,
    ) {
        let mut pool = Pool::new(1);
        let mut last = pool.submit("owen", 4, |_| {});
        let jobs: Vec<JobId> = submits
            .iter()
            .map(|(who, priority)| pool.submit(PEOPLE[*who].1, 4, |spec| spec.priority = *priority))
            .collect();
        // Where there is room for one job, nobody holds anything when the next one is chosen. So is the question asked: while
        // nothing runs, because the node is closed.
        let set = |wish| Command::NodeSet { by: operator(), node: node(1), wish, why: Text::default() };
        pool.world.done(set(NodeWish::Cordon));
        pool.finish(last);
        let asked = jobs[asked % jobs.len()];
        let told = pool.outlook(asked).ahead.all;
        pool.world.done(set(NodeWish::Open));
        let mut before = 0;
        while !pool.is_placed(asked) {
            last = *jobs.iter().find(|job| pool.is_placed(**job)).expect("something runs");
            pool.finish(last);
            before += 1;
        }
        prop_assert_eq!(told, before);
    }
}
