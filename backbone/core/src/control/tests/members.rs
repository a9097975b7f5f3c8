//! Who gets in, who stays, who is out: tokens, certificates, revocation.

use super::*;
use crate::command::Redemption;
use crate::membership::{
    ALARMS_MAX, Certificate, ENDED_TOKENS_MAX, LIVE_TOKENS_MAX, Token, TokenEnd, TokenGrant, TokenState,
};

const MINUTE: Span = Span::from_secs(60);
const QUARTER: Span = Span::from_secs(900);

fn token(number: u8) -> TokenId {
    TokenId([number; 5])
}

/// Of the key `key`, with this serial number; newer ones have higher numbers.
fn certificate(key: u8, serial: u8) -> Certificate {
    Certificate {
        serial: CertificateSerial([serial; 16]),
        key: KeyDigest([key; 32]),
        not_before: WallTime(i64::from(serial)),
        not_after: WallTime(i64::from(serial) + 1_000),
    }
}

fn member(number: u8) -> IdentityId {
    IdentityId([number; 16])
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn revoke(number: u8) -> Command {
    Command::RevokeIdentity { wall: WallTime(0), by: operator(), identity: member(number), why: Text::cut("sold") }
}

#[test]
fn jobs_of_a_revoked_node_move_unpaid_and_nothing_that_comes_later_changes_that() {
    let mut world = World::new();
    let first = world.connect(1, 36_000);
    let output = OutputLengths { stdout: 10, ..OutputLengths::default() };
    let [running, done, last, stopping] = ["running", "done", "last", "stopping"]
        .map(|key| world.submit(key, |spec| spec.limits.attempts_max = if key == "last" { 1 } else { 3 }));
    for job in [running, done, last, stopping] {
        world.run(job, first);
    }
    world.wait_heard(Span::from_secs(100), node(1), first);
    let ended = Ending::Exited { code: 0 };
    let usage = Usage { ran: Span::from_secs(100), ..Usage::default() };
    world.report(done, first, ReportBody::Ended { ending: ended, usage, output });
    world.tell(Command::Cancel { by: client("alice"), job: stopping, grace: MINUTE, why: Text::default() });
    let item = world.item(done, ItemState::Ended);
    world.sent();

    // In one batch with the revocation, before any deadline fires: the output, a report, a hello.
    let late = [
        Command::OutputStored { attempt: item.attempt, fence: item.fence, stored: output },
        Command::AgentHeard { node: node(1), session: first },
        Command::AgentConnected { node: node(1), session: SessionId(99), arrival: World::arrival(1, 36_000) },
    ];
    let decision = world.control.apply(world.now, revoke(1));
    assert_eq!(world.absorb(decision), Some(Reply::Revoked { jobs: 4, tokens: 0 }));
    let replies = late.map(|command| {
        let decision = world.control.apply(world.now, command);
        world.absorb(decision).expect("commands are answered")
    });
    let refused = [Refused::StaleSession, Refused::Revoked].map(Reply::Refused);
    assert_eq!(replies.as_slice(), [&[Reply::Done], refused.as_slice()].concat());
    world.settle_down();
    assert_eq!(world.fate(last), (JobState::Failed, Reason::Revoked, 0));
    assert_eq!(world.fate(stopping), (JobState::Cancelled, Reason::Cancelled, 0));
    assert_eq!([running, done].map(|job| world.state(job)), [JobState::Queued; 2]);
    assert_eq!(world.sent(), [], "nothing is said to who is out");
    let second = world.connect(2, 72_000);
    for job in [running, done] {
        world.run(job, second);
        world.report(job, second, World::ended(Ending::Exited { code: 0 }, Span::ZERO));
        assert_eq!(world.fate(job), (JobState::Completed, Reason::Exit, 1_000), "its new node's minimum, and no more");
    }
    assert_eq!(world.connect_with(node(1), World::arrival(1, 36_000)).1, Reply::Refused(Refused::Revoked));
}

#[test]
fn a_stop_job_leaves_a_revoked_node_only_when_its_lease_is_surely_over_also_after_a_restart() {
    let mut world = World::new();
    let first = world.connect(1, 36_000);
    let stop = |spec: &mut JobSpec| spec.limits.on_disconnect = OnDisconnect::Stop;
    let (strict, loose) = (world.submit("strict", stop), world.submit("loose", |_| {}));
    for job in [strict, loose] {
        world.run(job, first);
    }
    let second = world.connect(2, 72_000);
    world.wait_heard(Span::from_secs(10), node(2), second);
    world.done(Command::AgentHeard { node: node(1), session: first });
    world.tell(revoke(1));
    world.run(loose, second);
    let attempts = |world: &World| [strict, loose].map(|job| world.control.job(job).map(|job| job.attempts_made));
    assert_eq!(attempts(&world), [Some(1), Some(2)]);
    world.wait_heard(Span::from_secs(34), node(2), second);
    assert_eq!(attempts(&world), [Some(1), Some(2)], "it may still run there");
    // The engine stops a moment too early, and the wait begins anew.
    world.control = world.replayed();
    world.start();
    let second = world.connect_holding(2, vec![world.item(loose, ItemState::Running)]);
    world.wait_heard(Span::from_secs(34), node(2), second);
    assert_eq!(attempts(&world), [Some(1), Some(2)]);
    world.wait_heard(Span::from_secs(1), node(2), second);
    assert_eq!(attempts(&world), [Some(2), Some(2)]);
}

#[test]
fn all_jobs_of_a_revoked_client_end_whatever_their_number_in_bounded_records_and_none_is_placed_before() {
    const QUEUED: usize = 10_000;
    let mut world = World::new();
    let by = operator();
    let (account, amount) = (account("alice"), Micro(2 * QUEUED as u64 * HOLD));
    let key = "much".parse().expect("a key");
    world.done(Command::Credit { by, account, amount, key, why: Text::default() });
    let session = world.connect(1, 36_000);
    let [running, done] = ["running", "done"].map(|key| world.submit(key, |_| {}));
    for job in [running, done] {
        world.run(job, session);
    }
    let ended = Ending::Exited { code: 0 };
    let output = OutputLengths { stdout: 10, ..OutputLengths::default() };
    world.report(done, session, ReportBody::Ended { ending: ended, usage: Usage::default(), output });
    let bobs = world.submit_as("bob", "bobs", spec());
    assert!(matches!(bobs, Reply::Submitted { .. }), "{bobs:?}");
    for number in 0..QUEUED {
        let key = format!("q{number}").parse().expect("a key");
        let mut whole_node = spec();
        whole_node.requirements.cpu_milli = 4_000;
        let (by, spec, spec_digest) = (client("alice"), Box::new(whole_node), Digest([0; 32]));
        let decision = world.control.apply(world.now, Command::Submit { by, key, spec, spec_digest, no_queue: false });
        world.journal.extend(decision.events);
    }
    let count = QUEUED as u64 + 2;
    assert_eq!(world.control.jobs().count() as u64, count + 1);
    world.sent();
    let decision = world.control.apply(world.now, revoke(101));
    assert_eq!(world.absorb(decision), Some(Reply::Revoked { jobs: count, tokens: 0 }));
    let mut passes = 0;
    while world.control.next_deadline().is_some_and(|at| at <= world.now) {
        let decision = world.control.advance(world.now);
        assert!(decision.events.len() < 5_000, "one record of {} events", decision.events.len());
        world.absorb(decision);
        passes += 1;
    }
    assert_eq!(passes, 3);
    assert_eq!(assignments(&world.sent()), [], "a job that is to end is not placed");
    assert_eq!([running, done].map(|job| world.state(job)), [JobState::Cancelling; 2]);
    world.report(running, session, World::ended(Ending::Stopped, Span::ZERO));
    world.wait_heard(Span::from_secs(120), node(1), session);
    assert_eq!([running, done].map(|job| world.state(job)), [JobState::Cancelled; 2]);
    assert_eq!(world.control.jobs().count(), 1, "bob's goes on");
    assert_eq!(world.submit_as("alice", "again", spec()), Reply::Refused(Refused::Revoked));
}

/// The wish for a token with something changed.
fn asked(number: u8, role: Role, change: impl FnOnce(&mut Asked)) -> Command {
    let mut asked = Asked { by: operator(), name: None, account: None, rejoin: false, ttl: QUARTER };
    change(&mut asked);
    let Asked { by, name: called, account: of, rejoin, ttl } = asked;
    let (called, of) = (called.map(name), of.map(account));
    let (token, verifier) = (token(number), [number; 32]);
    Command::CreateToken { by, token, verifier, role, name: called, account: of, rejoin, ttl }
}

/// What may be asked of a token.
struct Asked {
    by: Actor,
    name: Option<&'static str>,
    account: Option<&'static str>,
    rejoin: bool,
    ttl: Span,
}

fn node_actor() -> Actor {
    Actor { id: member(1), role: Role::Node, account: account("owen") }
}

/// Somebody with the key `key` comes with a token, wishes for a name, and would get the certificate `serial`.
fn redemption(number: u8, role: Role, wished: Option<&str>, key: u8, serial: u8) -> Command {
    Command::Redeem(Box::new(Redemption {
        token: token(number),
        role,
        name: wished.map(name),
        fresh: member(serial),
        certificate: certificate(key, serial),
        from: Text::cut(format!("10.0.0.{key}:5")),
    }))
}

impl World {
    fn grant(&mut self, command: Command) -> TokenGrant {
        match self.tell(command) {
            Reply::Token { grant } => grant,
            reply => panic!("no token: {reply:?}"),
        }
    }

    fn refused(&mut self, command: Command) -> Refused {
        let before = self.journal.len();
        match self.tell(command) {
            Reply::Refused(refused) => {
                assert_eq!(self.journal.len(), before, "{refused} changes nothing");
                refused
            }
            reply => panic!("granted: {reply:?}"),
        }
    }

    /// With the key and the certificate of that number.
    fn join(&mut self, number: u8, role: Role, wished: Option<&str>, serial: u8) -> Identity {
        match self.tell(redemption(number, role, wished, serial, serial)) {
            Reply::Joined { identity, existing: false, .. } => identity,
            reply => panic!("not joined: {reply:?}"),
        }
    }

    fn accepted(&self, id: IdentityId) -> Vec<u8> {
        let certificates = &self.control.member(id).expect("a member").certificates;
        certificates.iter().map(|known| known.certificate.serial.0[0]).collect()
    }

    fn token_state(&self, number: u8) -> Option<TokenState> {
        self.control.tokens().get(token(number)).map(|token| token.state)
    }

    /// What is durable of membership, after a replay as well as live.
    pub(super) fn check_replay(&self) {
        let replayed = self.replayed();
        assert!(self.control.members().eq(replayed.members()));
        let durable = |control: &Control| -> Vec<Token> {
            control.tokens().iter().map(|token| Token { wrong_proofs: 0, ..token.clone() }).collect()
        };
        assert_eq!(durable(&self.control), durable(&replayed));
        assert_eq!(self.control.ledger(), replayed.ledger());
        assert!(self.control.ended_oldest().eq(replayed.ended_oldest()));
        replayed.audit().expect("every invariant holds");
    }
}

#[test]
fn each_role_may_let_in_whom_the_table_says_and_into_its_own_account() {
    let [root, alice, rig] = [operator(), client("alice"), node_actor()];
    let not_allowed = "letting others than nodes of one's own join is not allowed for this role";
    type Case<'a> = (&'a Actor, Role, Option<&'static str>, Result<Option<&'a str>, &'a str>);
    let cases: [Case<'_>; 15] = [
        (&root, Role::Operator, None, Ok(None)),
        (&root, Role::Client, None, Ok(None)),
        (&root, Role::Client, Some("bob"), Ok(Some("bob"))),
        (&root, Role::Node, None, Ok(Some("root"))),
        (&root, Role::Node, Some("bob"), Ok(Some("bob"))),
        (&root, Role::Node, Some("nobody"), Err("there is no account `nobody`")),
        (&root, Role::Orchestrator, None, Err("nobody joins as an orchestrator")),
        (&alice, Role::Node, None, Ok(Some("alice"))),
        (&alice, Role::Node, Some("alice"), Ok(Some("alice"))),
        (&alice, Role::Node, Some("bob"), Err("naming another account is not allowed for this role")),
        (&alice, Role::Node, Some("nobody"), Err("naming another account is not allowed for this role")),
        (&alice, Role::Client, None, Err(not_allowed)),
        (&alice, Role::Operator, None, Err(not_allowed)),
        (&rig, Role::Node, None, Err(not_allowed)),
        (&rig, Role::Orchestrator, None, Err(not_allowed)),
    ];
    let mut world = World::new();
    for (number, (by, role, of, expected)) in cases.into_iter().enumerate() {
        let command = asked(number as u8, role, |asked| (asked.by, asked.account) = (by.clone(), of));
        match expected {
            Ok(of) => assert_eq!(world.grant(command).account, of.map(account), "case {number}"),
            Err(message) => assert_eq!(world.refused(command).to_string(), message, "case {number}"),
        }
    }
    // Who may not ask at all does not learn first that it asked badly.
    let forbidden = asked(99, Role::Node, |asked| (asked.by, asked.ttl) = (node_actor(), Span::ZERO));
    assert_eq!(world.refused(forbidden).to_string(), not_allowed);
    for ttl in [Span::ZERO, Span::from_secs(24 * 3600 + 1)] {
        let message = world.refused(asked(99, Role::Node, |asked| asked.ttl = ttl)).to_string();
        assert_eq!(message, "a token may live from 1.0s to 1d0h");
    }
}

#[test]
fn the_same_token_asked_for_again_is_the_first_answer_whatever_became_of_it_and_another_one_is_refused() {
    let mut world = World::new();
    let ask = || asked(1, Role::Node, |asked| (asked.by, asked.name) = (client("alice"), Some("rig-1")));
    let grant = world.grant(ask());
    let identity = world.join(1, Role::Node, None, 50);
    assert_eq!((identity.name, identity.account), (name("rig-1"), account("alice")));
    let rejoin = || asked(2, Role::Node, |asked| (asked.name, asked.rejoin) = (Some("rig-1"), true));
    let again = world.grant(rejoin());
    assert_eq!(again.rejoins, Some(member(50)));
    world.tell(Command::RevokeIdentity {
        wall: WallTime(0),
        by: operator(),
        identity: member(50),
        why: Text::default(),
    });
    let before = world.journal.len();
    for _ in 0..3 {
        assert_eq!((world.grant(ask()), world.grant(rejoin())), (grant.clone(), again.clone()));
        world.wait(QUARTER);
    }
    assert_eq!(world.journal.len(), before + 1, "nothing but the end of the first token's wait");
    type Change = fn(&mut Asked);
    let others: [Change; 5] = [
        |asked| asked.by = client("bob"),
        |asked| asked.name = Some("rig-2"),
        |asked| asked.account = Some("bob"),
        |asked| asked.rejoin = true,
        |asked| asked.ttl = MINUTE,
    ];
    for (number, change) in others.into_iter().enumerate() {
        let other = asked(1, Role::Node, |asked| {
            (asked.by, asked.name) = (client("alice"), Some("rig-1"));
            change(asked);
        });
        assert_eq!(world.refused(other), Refused::TokenTaken, "change {number}");
    }
    let mut other = ask();
    if let Command::CreateToken { verifier, .. } = &mut other {
        verifier[0] += 1;
    }
    assert_eq!(world.refused(other), Refused::TokenTaken);
    world.check_replay();
}

#[test]
fn a_hundred_tokens_of_one_maker_may_wait_and_one_that_ends_makes_room() {
    let mut world = World::new();
    let ask = |number, by| asked(number, Role::Node, |asked| asked.by = by);
    for number in 0..LIVE_TOKENS_MAX as u8 {
        world.grant(ask(number, client("alice")));
    }
    let full = "100 tokens wait to be used, which is the most allowed at once";
    assert_eq!(world.refused(ask(200, client("alice"))).to_string(), full);
    world.grant(ask(201, client("bob")));
    world.done(Command::RevokeToken { by: client("alice"), token: token(0) });
    world.grant(ask(200, client("alice")));
    assert_eq!(world.refused(ask(202, client("alice"))).to_string(), full);
    world.join(1, Role::Node, None, 50);
    world.grant(ask(202, client("alice")));
    world.wait(QUARTER);
    world.grant(ask(203, client("alice")));
    world.check_replay();
}

#[test]
fn nobody_gets_into_a_name_or_an_account_that_is_or_was_promised_to_somebody_else() {
    let mut world = World::new();
    let shared = asked(1, Role::Client, |asked| (asked.name, asked.account) = (Some("alice-2"), Some("alice")));
    world.grant(shared);
    let second = world.join(1, Role::Client, None, 50);
    assert_eq!((second.name, second.account), (name("alice-2"), account("alice")), "where an operator says so");
    // A name that would lead into an account that somebody has is refused when the token is made, or when it is used.
    world.identity(51, Role::Client, "anna", "acme");
    let named = |number, called| asked(number, Role::Client, |asked| asked.name = Some(called));
    assert_eq!(world.refused(named(2, "acme")), Refused::NameTaken { name: name("acme") });
    assert_eq!(world.refused(named(2, "alice")), Refused::NameTaken { name: name("alice") });
    world.grant(asked(2, Role::Client, |_| {}));
    for wished in ["acme", "alice", "n1"] {
        let refused = world.refused(redemption(2, Role::Client, Some(wished), 52, 52));
        assert_eq!(refused, Refused::NameTaken { name: name(wished) });
    }
    // A name that another token waits to give.
    world.grant(named(3, "carol"));
    assert_eq!(world.refused(named(4, "carol")), Refused::NameTaken { name: name("carol") });
    world.grant(asked(4, Role::Node, |asked| asked.by = client("bob")));
    for (number, role) in [(2, Role::Client), (4, Role::Node)] {
        let refused = world.refused(redemption(number, role, Some("carol"), 52, 52));
        assert_eq!(refused, Refused::NameTaken { name: name("carol") });
    }
    let wrong = world.refused(redemption(3, Role::Client, Some("karla"), 53, 53));
    assert_eq!(wrong, Refused::WrongName { name: name("carol") });
    assert_eq!(world.join(3, Role::Client, Some("carol"), 53).account, account("carol"));
    // The name of a revoked identity stays its own, and so does its account.
    world.tell(revoke(53));
    assert_eq!(world.refused(named(5, "carol")), Refused::NameTaken { name: name("carol") });
    assert_eq!(
        world.refused(redemption(2, Role::Client, Some("carol"), 52, 52)),
        Refused::NameTaken { name: name("carol") }
    );
    // A promise ends with its token.
    world.grant(named(6, "dora"));
    world.done(Command::RevokeToken { by: operator(), token: token(6) });
    assert_eq!(world.join(2, Role::Client, Some("dora"), 52).name, name("dora"));
    world.check_replay();
}

#[test]
fn who_wishes_for_no_name_gets_a_free_one() {
    let mut world = World::new();
    world.grant(asked(1, Role::Client, |asked| asked.name = Some("node")));
    world.grant(asked(2, Role::Node, |_| {}));
    let id = member(50).to_string();
    assert_eq!(world.join(2, Role::Node, None, 50).name.to_string(), format!("node-{}", &id[id.len() - 8..]));
    for (number, role, called) in [(3, Role::Client, "client"), (4, Role::Operator, "operator")] {
        world.grant(asked(number, role, |_| {}));
        let identity = world.join(number, role, None, 50 + number);
        assert_eq!((identity.name, identity.account), (name(called), account(called)));
    }
}

fn renewal(id: u8, using: u8, serial: u8) -> Command {
    let using = CertificateSerial([using; 16]);
    Command::Renew { identity: member(id), using, certificate: certificate(serial, serial) }
}

fn used(id: u8, serial: u8) -> Command {
    Command::CertificateUsed { identity: member(id), serial: CertificateSerial([serial; 16]) }
}

/// A world in which node 50 has joined and come in.
fn with_rig() -> World {
    let mut world = World::new();
    world.grant(asked(1, Role::Node, |asked| (asked.by, asked.name) = (client("alice"), Some("rig-1"))));
    world.join(1, Role::Node, None, 50);
    world.done(used(50, 50));
    world
}

#[test]
fn a_renewed_certificate_is_good_beside_the_new_one_until_a_quarter_of_an_hour_after_its_first_use() {
    let mut world = with_rig();
    world.done(renewal(50, 50, 60));
    world.wait(QUARTER);
    assert_eq!(world.accepted(member(50)), [50, 60], "the answer may have been lost, however long ago");
    world.done(used(50, 60));
    let before = world.journal.len();
    for _ in 0..3 {
        world.done(used(50, 60));
        world.done(used(50, 50));
    }
    assert_eq!(world.journal.len(), before, "only the first use is remembered");
    world.wait(Span(QUARTER.0 - 1));
    assert_eq!(world.accepted(member(50)), [50, 60]);
    // The engine stops in between, and the moment stays the same.
    world.control = world.replayed();
    world.start();
    assert_eq!(world.accepted(member(50)), [50, 60]);
    world.wait(Span(1));
    assert_eq!(world.accepted(member(50)), [60]);
    assert_eq!(world.control.member(member(50)).map(|member| member.renewals), Some(1));
    world.wait(Span::from_secs(24 * 3600));
    assert_eq!(world.accepted(member(50)), [60], "the last one never retires");
    world.check_replay();
}

#[test]
fn lost_answers_to_renewals_lock_nobody_out_and_only_two_certificates_are_accepted() {
    let mut world = with_rig();
    for serial in 60..70 {
        world.done(renewal(50, 50, serial));
        assert_eq!(world.accepted(member(50)), [50, serial]);
    }
    world.done(used(50, 69));
    // The old connection must not push out what is in use: it may be a thief's.
    assert_eq!(world.refused(renewal(50, 50, 70)), Refused::StaleSession);
    world.done(renewal(50, 69, 71));
    assert_eq!(world.accepted(member(50)), [69, 71]);
    // The wait that the first use of 69 began is about 50, and 71 was never shown: 69 stays.
    world.wait(QUARTER);
    assert_eq!(world.accepted(member(50)), [69, 71]);
    for stale in [50, 60, 99] {
        assert_eq!(world.refused(renewal(50, stale, 80)), Refused::StaleSession);
    }
    world.tell(revoke(50));
    assert_eq!(world.refused(renewal(50, 69, 80)), Refused::Revoked);
    world.done(used(50, 69));
    assert_eq!(world.accepted(member(50)), [0; 0]);
    assert_eq!(world.refused(renewal(77, 69, 80)), Refused::UnknownIdentity);
    world.check_replay();
}

#[test]
fn ended_tokens_are_forgotten_fairly_so_that_nobody_washes_away_what_others_must_know() {
    let mut world = World::new();
    let first = Command::AddFirstToken { token: token(1), verifier: [1; 32], ttl: MINUTE };
    world.done(first.clone());
    world.grant(asked(2, Role::Client, |_| {}));
    world.join(2, Role::Client, None, 50);
    world.done(used(50, 50));
    world.wait(MINUTE);
    for number in 0..2 * ENDED_TOKENS_MAX {
        let token = TokenId([9, 9, 9, (number / 256) as u8, (number % 256) as u8]);
        let (by, ttl) = (client("bob"), QUARTER);
        let (name, account) = (None, None);
        let create =
            Command::CreateToken { by, token, verifier: [9; 32], role: Role::Node, name, account, rejoin: false, ttl };
        world.control.apply(world.now, create).events.into_iter().for_each(|event| world.journal.push(event));
        let end = Command::RevokeToken { by: client("bob"), token };
        world.control.apply(world.now, end).events.into_iter().for_each(|event| world.journal.push(event));
    }
    assert_eq!(world.control.tokens().iter().count(), ENDED_TOKENS_MAX);
    let spent = TokenState::Ended(TokenEnd::Spent);
    assert_eq!([1, 2].map(|n| world.token_state(n)), [Some(TokenState::Ended(TokenEnd::Expired)), Some(spent)]);
    // So a first token that is offered again at every start never comes back to life, and a thief is still noticed.
    let before = world.journal.len();
    world.done(first);
    assert_eq!(world.journal.len(), before);
    world.tell(redemption(2, Role::Client, None, 66, 66));
    assert_eq!(world.control.alarms(world.now).len(), 1);
    world.check_replay();
}

#[test]
fn a_pool_s_first_token_lets_one_operator_in_and_is_recorded_once() {
    let mut world = World::new();
    let first = |verifier, ttl| Command::AddFirstToken { token: token(1), verifier: [verifier; 32], ttl };
    assert!(matches!(world.refused(first(1, Span::ZERO)), Refused::Invalid { .. }));
    world.done(first(1, MINUTE));
    let before = world.journal.len();
    world.done(first(1, QUARTER));
    assert_eq!(world.journal.len(), before);
    assert_eq!(world.refused(first(2, MINUTE)), Refused::TokenTaken);
    let identity = world.join(1, Role::Operator, Some("root"), 50);
    assert_eq!((identity.role, identity.account), (Role::Operator, account("root")));
    world.done(first(1, MINUTE));
}

#[test]
fn a_token_is_used_once_its_key_may_ask_again_and_every_other_key_raises_a_bounded_alarm() {
    let mut world = World::new();
    world.grant(asked(1, Role::Node, |asked| (asked.by, asked.ttl) = (client("alice"), QUARTER)));
    assert_eq!(world.refused(redemption(7, Role::Node, None, 50, 50)), Refused::UnknownToken);
    assert_eq!(world.refused(redemption(1, Role::Client, None, 50, 50)), Refused::WrongRole { role: Role::Node });
    let identity = world.join(1, Role::Node, Some("rig-1"), 50);
    let again = |existing| Reply::Joined { identity: identity.clone(), certificate: certificate(50, 50), existing };
    // The same key, with what would be another identity and certificate: the first answer.
    for _ in 0..3 {
        world.wait(MINUTE);
        let before = world.journal.len();
        assert_eq!(world.tell(redemption(1, Role::Node, Some("other"), 50, 51)), again(true));
        assert_eq!(world.journal.len(), before);
    }
    for key in 60..70 {
        assert_eq!(world.tell(redemption(1, Role::Node, None, key, key)), Reply::Refused(Refused::TokenUsed));
    }
    let alarms = world.control.alarms(world.now);
    assert_eq!(alarms.len(), ALARMS_MAX);
    let text = |token: TokenId| {
        format!(
            "token {token} came a second time with another key, from 10.0.0.60:5; the first user is node/rig-1, from \
             10.0.0.50:5: if one of them is a stranger, revoke node/rig-1"
        )
    };
    assert!(alarms.contains(&text(token(1))), "{alarms:?}");
    // Its holder has come in: the answer is known to have arrived.
    world.done(used(50, 50));
    assert_eq!(world.token_state(1), Some(TokenState::Ended(TokenEnd::Spent)));
    assert_eq!(world.refused(redemption(1, Role::Node, None, 50, 51)), Refused::TokenUsed);
    world.wait(crate::membership::ALARM_SHOWN_FOR);
    assert_eq!(world.control.alarms(world.now), [""; 0]);
    world.check_replay();
}

#[test]
fn a_key_may_ask_for_a_lost_answer_for_ten_minutes_also_after_a_restart() {
    let mut world = World::new();
    world.grant(asked(1, Role::Client, |asked| asked.ttl = MINUTE));
    world.join(1, Role::Client, Some("carol"), 50);
    world.control = world.replayed();
    world.start();
    world.wait(Span::from_secs(599));
    let asks = || redemption(1, Role::Client, Some("carol"), 50, 51);
    assert!(matches!(world.tell(asks()), Reply::Joined { existing: true, .. }), "its time to live is no matter now");
    world.wait(Span::from_secs(1));
    assert_eq!(world.token_state(1), Some(TokenState::Ended(TokenEnd::Spent)));
    assert_eq!(world.refused(asks()), Refused::TokenUsed);
    world.check_replay();
}

#[test]
fn what_is_over_is_over_each_in_its_own_words() {
    let mut world = World::new();
    for number in 1..=5 {
        world.grant(asked(number, Role::Node, |asked| asked.by = client("alice")));
    }
    world.done(Command::RevokeToken { by: client("alice"), token: token(1) });
    for _ in 0..4 {
        assert_eq!(world.refused(Command::WrongProof { token: token(2) }), Refused::WrongProof);
    }
    // A restart forgives wrong proofs: they are not worth a record each.
    world.control = world.replayed();
    world.start();
    for _ in 0..4 {
        assert_eq!(world.refused(Command::WrongProof { token: token(2) }), Refused::WrongProof);
    }
    assert_eq!(world.token_state(2), Some(TokenState::Issued));
    assert_eq!(world.tell(Command::WrongProof { token: token(2) }), Reply::Refused(Refused::WrongProof));
    assert_eq!(world.token_state(2), Some(TokenState::Ended(TokenEnd::Misused)));
    let alarms = world.control.alarms(world.now);
    assert!(matches!(&alarms[..], [alarm] if alarm.contains("5 times with a wrong secret")), "{alarms:?}");
    world.join(3, Role::Node, None, 50);
    for _ in 0..10 {
        assert_eq!(world.refused(Command::WrongProof { token: token(3) }), Refused::WrongProof, "nobody burns it now");
    }
    world.done(used(50, 50));
    // The last moment, and the one after it; the engine was down in between.
    world.wait(Span(QUARTER.0 - 1));
    world.join(4, Role::Node, None, 51);
    world.control = world.replayed();
    world.now = world.now + Span(1);
    let late = redemption(5, Role::Node, None, 52, 52);
    let decision = world.control.apply(world.now, late.clone());
    assert_eq!(world.absorb(decision), Some(Reply::Refused(Refused::TokenExpired)), "whether its deadline came or not");
    world.start();
    assert_eq!(world.token_state(5), Some(TokenState::Ended(TokenEnd::Expired)));
    let [revoked, used, expired] = [Refused::TokenRevoked, Refused::TokenUsed, Refused::TokenExpired];
    for (number, refused) in [(1, &revoked), (2, &revoked), (3, &used), (5, &expired)] {
        let key = 49 + number - 2; // of 3, the one that used it
        assert_eq!(world.refused(redemption(number, Role::Node, None, key, 90)), *refused, "token {number}");
    }
    // Ending what is over says why it is; what is ended as wished is no trouble.
    for (number, reply) in [(1, None), (2, None), (3, Some(used)), (5, Some(expired))] {
        let reply = reply.map_or(Reply::Done, Reply::Refused);
        assert_eq!(world.tell(Command::RevokeToken { by: operator(), token: token(number) }), reply, "token {number}");
    }
    for by in [client("bob"), node_actor()] {
        for number in [4, 99] {
            let foreign = Command::RevokeToken { by: by.clone(), token: token(number) };
            assert_eq!(world.refused(foreign), Refused::UnknownToken, "another's looks like none at all");
        }
    }
    assert_eq!(world.refused(Command::WrongProof { token: token(99) }), Refused::UnknownToken);
    world.check_replay();
}

#[test]
fn an_identity_is_joined_again_only_as_itself_and_then_nothing_older_counts() {
    let mut world = World::new();
    world.grant(asked(1, Role::Node, |asked| (asked.by, asked.name) = (client("alice"), Some("rig-1"))));
    world.join(1, Role::Node, None, 50);
    world.done(used(50, 50));
    let old = world.connect(50, 36_000);
    let rejoin = |number, by: Actor, role, called| {
        asked(number, role, |asked| (asked.by, asked.name, asked.rejoin) = (by, called, true))
    };
    let cases = [
        (operator(), Role::Node, None, "who rejoins must be named"),
        (operator(), Role::Node, Some("nobody"), "there is no such identity"),
        (client("bob"), Role::Node, Some("nobody"), "there is no such identity"),
        (client("bob"), Role::Node, Some("rig-1"), "there is no such identity"),
        (operator(), Role::Client, Some("rig-1"), "`rig-1` is a node"),
        (client("alice"), Role::Node, Some("alice"), "`alice` is a client"),
    ];
    for (by, role, called, message) in cases {
        assert_eq!(world.refused(rejoin(2, by, role, called)).to_string(), message);
    }
    let elsewhere = asked(2, Role::Node, |asked| {
        (asked.name, asked.account, asked.rejoin) = (Some("rig-1"), Some("bob"), true);
    });
    let fixed = "`rig-1` belongs to the account `alice`, and that is fixed";
    assert_eq!(world.refused(elsewhere).to_string(), fixed);
    let grant = world.grant(rejoin(2, operator(), Role::Node, Some("rig-1")));
    assert_eq!(grant.account, Some(account("alice")), "its own, whoever asks");
    let waits = format!("the token {} for `rig-1` waits to be used: revoke it first", token(2));
    assert_eq!(world.refused(rejoin(3, client("alice"), Role::Node, Some("rig-1"))).to_string(), waits);
    assert_eq!(
        world.refused(redemption(2, Role::Node, Some("rig-2"), 51, 51)),
        Refused::WrongName { name: name("rig-1") }
    );
    let decision = world.control.apply(world.now, redemption(2, Role::Node, None, 51, 51));
    let end = Effect::EndSession { node: node(50), session: old, why: crate::effect::SessionEnd::Superseded };
    assert_eq!(decision.effects, [end], "alive or not");
    let Some(Reply::Joined { identity, .. }) = world.absorb(decision) else { panic!("not joined") };
    assert_eq!((identity.id, identity.account), (member(50), account("alice")));
    assert_eq!(world.accepted(member(50)), [51]);
    assert_eq!(world.refused(Command::AgentHeard { node: node(50), session: old }), Refused::StaleSession);
    assert_eq!(world.refused(renewal(50, 50, 60)), Refused::StaleSession);
    assert_eq!(world.connect_with(node(50), World::arrival(77, 36_000)).1, Reply::Welcome, "nobody is probed");
    // The first token's key gets no old certificate back.
    assert_eq!(world.refused(redemption(1, Role::Node, None, 50, 52)), Refused::TokenUsed);
    // A revoked identity is not brought back: not by a token that waits, nor by one made later.
    world.grant(rejoin(4, operator(), Role::Node, Some("rig-1")));
    assert_eq!(world.tell(revoke(50)), Reply::Revoked { jobs: 0, tokens: 1 });
    assert_eq!(world.refused(redemption(4, Role::Node, None, 53, 53)), Refused::TokenRevoked);
    let gone = Refused::AlreadyRevoked { name: name("rig-1") };
    assert_eq!(world.refused(rejoin(5, operator(), Role::Node, Some("rig-1"))), gone);
    assert_eq!(world.refused(redemption(2, Role::Node, None, 51, 54)), Refused::TokenUsed);
    world.check_replay();
}

#[test]
fn who_is_revoked_takes_its_waiting_tokens_along_and_is_refused_everything() {
    let mut world = World::new();
    for number in 1..=3 {
        world.grant(asked(number, Role::Node, |asked| asked.by = client("alice")));
    }
    world.grant(asked(4, Role::Node, |asked| asked.by = client("bob")));
    world.join(3, Role::Node, None, 50);
    for by in [client("alice"), client("bob"), node_actor()] {
        for identity in [101, 99] {
            let command = Command::RevokeIdentity {
                wall: WallTime(0),
                by: by.clone(),
                identity: member(identity),
                why: Text::default(),
            };
            assert!(matches!(world.refused(command), Refused::NotAllowed { .. }));
        }
    }
    assert_eq!(world.refused(revoke(99)), Refused::UnknownIdentity);
    assert_eq!(world.tell(revoke(101)), Reply::Revoked { jobs: 0, tokens: 2 });
    assert_eq!(world.refused(revoke(101)), Refused::AlreadyRevoked { name: name("alice") });
    for (number, refused) in [(1, Some(Refused::TokenRevoked)), (2, Some(Refused::TokenRevoked)), (4, None)] {
        let reply = world.tell(redemption(number, Role::Node, None, 60 + number, 60 + number));
        let got = if let Reply::Refused(refused) = reply { Some(refused) } else { None };
        assert_eq!(got, refused, "token {number}");
    }
    let by = || client("alice");
    let job = JobId([1; 16]);
    let key = || "k".parse().expect("a key");
    let commands = [
        asked(9, Role::Node, |asked| asked.by = by()),
        Command::RevokeToken { by: by(), token: token(1) },
        Command::RevokeIdentity { wall: WallTime(0), by: by(), identity: member(102), why: Text::default() },
        Command::Credit { by: by(), account: account("alice"), amount: Micro(1), key: key(), why: Text::default() },
        Command::Submit { by: by(), key: key(), spec: Box::new(spec()), spec_digest: Digest([0; 32]), no_queue: false },
        Command::Cancel { by: by(), job, grace: Span::ZERO, why: Text::default() },
    ];
    for command in commands {
        assert_eq!(world.refused(command), Refused::Revoked);
    }
    world.check_replay();
}

#[test]
fn jobs_of_a_revoked_client_go_on_while_somebody_else_holds_the_account() {
    let mut world = World::new();
    world.identity(50, Role::Client, "alice-2", "alice");
    let job = world.submit("k", |_| {});
    assert_eq!(world.tell(revoke(101)), Reply::Revoked { jobs: 0, tokens: 0 });
    world.wait(MINUTE);
    assert_eq!(world.state(job), JobState::Queued);
    assert_eq!(world.tell(revoke(50)), Reply::Revoked { jobs: 1, tokens: 0 });
    assert_eq!(world.fate(job), (JobState::Cancelled, Reason::Cancelled, 0));
}

#[test]
fn a_revocation_that_was_synced_is_carried_out_after_a_restart() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let (moved, cancelled) = (world.submit("moved", |_| {}), world.submit_as("bob", "cancelled", spec()));
    let Reply::Submitted { job: cancelled, .. } = cancelled else { panic!("{cancelled:?}") };
    world.run(moved, session);
    for number in [1, 102] {
        let decision = world.control.apply(world.now, revoke(number));
        world.absorb(decision);
    }
    assert_eq!([moved, cancelled].map(|job| world.state(job)), [JobState::Running, JobState::Assigned]);
    world.control = world.replayed();
    world.start();
    assert_eq!([moved, cancelled].map(|job| world.state(job)), [JobState::Queued, JobState::Cancelled]);
    let before = world.journal.len();
    world.control = world.replayed();
    world.start();
    assert_eq!(world.journal.len(), before + 1, "and only once");
    assert_eq!(world.connect_with(node(1), World::arrival(1, 36_000)).1, Reply::Refused(Refused::Revoked));
}

#[test]
fn the_last_operator_that_can_come_in_is_not_revoked() {
    let mut world = World::new();
    let add = |number: u8, serial: Option<u8>| {
        let (id, name, account) = (member(number), name(&format!("op-{number}")), account("root"));
        let certificate = serial.map(|serial| certificate(serial, serial));
        Command::AddIdentity { identity: Identity { id, role: Role::Operator, name, account }, certificate }
    };
    world.done(add(50, Some(50)));
    world.done(add(51, None));
    assert_eq!(world.refused(revoke(50)), Refused::LastOperator { name: name("op-50") });
    world.done(add(52, Some(52)));
    world.tell(revoke(50));
    assert_eq!(world.refused(revoke(52)), Refused::LastOperator { name: name("op-52") });
    // One whose certificates have all ended cannot come in, so it is none that is left.
    let at = |wall: i64| Command::RevokeIdentity {
        by: operator(),
        identity: member(53),
        wall: WallTime(wall),
        why: Text::default(),
    };
    world.done(add(53, Some(55)));
    assert_eq!(world.refused(at(1_052)), Refused::LastOperator { name: name("op-53") }, "that of 52 ends at 1052");
    assert_eq!(world.tell(at(1_051)), Reply::Revoked { jobs: 0, tokens: 0 });
    // The file that an identity was read from is read again at every start: it brings nobody back, and no older certificate.
    for (number, serial, accepted) in [(50, 60, vec![]), (52, 51, vec![52]), (52, 53, vec![52, 53]), (51, 54, vec![54])]
    {
        world.done(add(number, Some(serial)));
        assert_eq!(world.accepted(member(number)), accepted);
    }
    world.tell(revoke(52));
    let orchestrator = Identity { id: member(60), role: Role::Orchestrator, name: name("o"), account: account("o") };
    let refused = world.refused(Command::AddIdentity { identity: orchestrator, certificate: None });
    assert_eq!(refused.to_string(), "the orchestrator is not a member");
    world.check_replay();
}

#[test]
fn of_two_certificates_of_one_second_the_one_that_comes_later_counts() {
    let mut world = World::new();
    let (id, account) = (member(50), account("root"));
    let identity = Identity { id, role: Role::Operator, name: name("op"), account };
    let twin = |serial: u8| Certificate { not_before: WallTime(50), ..certificate(serial, serial) };
    let add = |serial| Command::AddIdentity { identity: identity.clone(), certificate: Some(twin(serial)) };
    world.done(add(50));
    world.done(add(51));
    assert_eq!(world.accepted(id), [50, 51]);
    world.done(add(51));
    assert_eq!(world.accepted(id), [50, 51], "the same one again changes nothing");
    world.check_replay();
}

#[test]
fn an_old_copy_of_the_journal_lets_nobody_in_and_still_revokes() {
    let mut world = with_rig();
    world.grant(asked(2, Role::Node, |_| {}));
    let mut arrival = World::arrival(1, 36_000);
    arrival.highest_fence = Some(Fence(10_000));
    world.control.apply(world.now, Command::AgentConnected { node: node(1), session: SessionId(9), arrival });
    let frozen = [
        asked(3, Role::Node, |_| {}),
        redemption(1, Role::Node, None, 50, 51),
        redemption(2, Role::Node, None, 52, 52),
        renewal(50, 50, 60),
        Command::AddFirstToken { token: token(4), verifier: [4; 32], ttl: MINUTE },
    ];
    for command in frozen {
        let reply = world.control.apply(world.now, command).reply;
        assert!(matches!(reply, Some(Reply::Refused(Refused::Frozen { .. }))), "{reply:?}");
    }
    for command in [Command::RevokeToken { by: operator(), token: token(2) }, revoke(50)] {
        let reply = world.control.apply(world.now, command).reply;
        assert!(matches!(reply, Some(Reply::Done | Reply::Revoked { .. })), "{reply:?}");
    }
}
