//! How people get in by a token: once, in time, with its secret, as what it says, and whatever gets lost on the way.

use std::collections::BTreeSet;
use std::process::Command as Process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modchain_certs::{JoinToken, KeyRequest, PeerIdentity, RequestedKey, Subject, TrustDomain};
use modchain_core::membership::Certificate;
use modchain_core::{Command, Event, EventBody, Redemption, Reply};
use modchain_link::{CloseCode, Protocol, connect, join_connect};
use modchain_orchestrator::config::CERT_LIFE;
use modchain_orchestrator::fence::FenceKey;
use modchain_orchestrator::init::{InitOptions, init};
use modchain_orchestrator::store::journal;
use modchain_types::{BootId, Fence, IdentityId, InstanceId, List, Role, Span, Text, TokenId, WallTime};
use modchain_wire::agent::AgentHello;
use modchain_wire::console::{Refusal, RefusalCode, Revoke, TokenCreate, TokenRevoke};
use modchain_wire::join::{JoinChallenge, JoinRefusal};
use modchain_wire::view::TokenState;
use modchain_wire::{FromAgent, FromJoiner, Message, ToAgent, ToConsole, ToJoiner, WireError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::joiner::{Joiner, Outcome, credentials, now, wish};
use super::secrets::{PROGRAM, Program};
use super::world::{Console, World, offer, soon, text};

/// Who redeem one token at once.
const RACERS: usize = 1_000;
/// Of them, on a connection at the same time, each with a socket of its own: few enough that a slow machine serves them within
/// the time that a newcomer has.
const RACERS_AT_ONCE: usize = 32;

impl World {
    /// The first operator's token, as `init` has printed it.
    fn operator_token(&self) -> JoinToken {
        let text = self.made.operator_token.as_ref().expect("it is printed");
        JoinToken::parse(text.0.as_bytes()).expect("a token")
    }

    /// The journal as it is on disk.
    fn journal(&self) -> Vec<Event> {
        let mut all = Vec::new();
        journal::walk(&self.place().join("journal"), |events| all.extend(events)).expect("it is whole");
        all
    }

    /// How often the token was redeemed, by the journal.
    fn joined_with(&self, id: TokenId) -> usize {
        let with = |event: &&Event| matches!(&event.body, EventBody::MemberJoined { token, .. } if *token == id);
        self.journal().iter().filter(with).count()
    }
}

/// Asks until a token is as wanted.
async fn until(console: &Console, id: TokenId, wanted: TokenState) {
    soon("the token's state", async {
        while console.token_view(id).await.expect("it is remembered").state != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_operator_joins_once_with_what_init_printed() {
    let mut world = World::found(InitOptions { name: "lab".parse().ok(), ..InitOptions::default() }).await;
    let file = world.place().join("first-token.json");
    assert!(!file.exists(), "the start has taken it in");
    let token = world.operator_token();
    let key = KeyRequest::generate();
    let accept = Joiner::new(&token, &key).named("root").join(&world.join_address).await.accepted();
    assert_eq!((accept.identity.role, accept.identity.name.as_str()), (Role::Operator, "root"));
    assert_eq!((accept.pool.as_str(), accept.existing), ("lab", false));
    assert!(world.address.ends_with(&format!(":{}", accept.main_port)), "{}", world.address);
    let credentials = credentials(key, &token, &accept, &world);
    let root = Console::connect(&credentials, &world.address, "root").await;
    until(&root, token.id(), TokenState::Spent).await;

    // A second start does not bring it back, nor does another `init`.
    world.stop().await;
    let options = InitOptions { data: world.place(), ..InitOptions::default() };
    assert!(init(&options).expect("additive").operator_token.is_none());
    world.serve().await;
    let thief = KeyRequest::generate();
    let refused = Joiner::new(&token, &thief).join(&world.join_address).await.refused();
    assert_eq!(refused.code, JoinRefusal::TokenUsed);

    // Whoever holds the machine has a way back in.
    let again = init(&InitOptions { operator_token: true, ..options }).expect("additive").operator_token;
    let again = JoinToken::parse(again.expect("asked for").0.as_bytes()).expect("a token");
    let early = Joiner::new(&again, &thief).join(&world.join_address).await.refused();
    assert_eq!(early.code, JoinRefusal::TokenUnknown, "the next start takes it in");
    world.stop().await;
    assert!(file.exists());
    world.serve().await;
    assert!(!file.exists());
    assert_eq!(world.join(&again).await.0.identity.role, Role::Operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_given_wished_for_or_made_up_and_nodes_earn_for_who_made_their_token() {
    let world = World::start().await;
    let (alice, boss) = (world.console("alice").await, world.console("boss").await);
    let given = world.draw(Role::Node);
    alice.make(TokenCreate { name: "rig-2".parse().ok(), ..wish(&given) }).await.expect("a token");
    let other_name = KeyRequest::generate();
    let refused = Joiner::new(&given, &other_name).named("rig-9").join(&world.join_address).await.refused();
    assert_eq!(refused.code, JoinRefusal::Name);
    assert!(refused.message.contains("rig-2"), "{}", refused.message.as_str());
    let (accept, node) = world.join(&given).await;
    assert_eq!((accept.identity.name.as_str(), accept.identity.account.as_str()), ("rig-2", "alice"));

    let wished = alice.token(&world, Role::Node).await;
    let key = KeyRequest::generate();
    let taken = Joiner::new(&wished, &key).named("rig-1").join(&world.join_address).await.refused();
    assert_eq!(taken.code, JoinRefusal::Name);
    assert!(!taken.hint.is_empty());
    let foreign = Joiner::new(&wished, &key).named("mine").join(&world.join_address).await.accepted();
    assert_eq!((foreign.identity.name.as_str(), foreign.identity.account.as_str()), ("mine", "alice"));

    let mut made_up = BTreeSet::new();
    for console in [&boss, &boss, &alice] {
        let token = console.token(&world, Role::Node).await;
        made_up.insert(world.join(&token).await.0.identity.name);
    }
    assert_eq!(made_up.len(), 3);
    assert!(made_up.iter().all(|name| name.as_str().starts_with("node")), "{made_up:?}");

    let client = boss.token(&world, Role::Client).await;
    let key = KeyRequest::generate();
    let accept = Joiner::new(&client, &key).named("carol").join(&world.join_address).await.accepted();
    assert_eq!((accept.identity.role, accept.identity.account.as_str()), (Role::Client, "carol"));
    let carol = Console::connect(&credentials(key, &client, &accept, &world), &world.address, "carol").await;
    until(&boss, client.id(), TokenState::Spent).await;
    assert!(carol.token_view(client.id()).await.is_none(), "it is not hers to look at");
    assert!(carol.make(wish(&world.draw(Role::Client))).await.is_err(), "clients let nodes join and nobody else");

    // The certificate opens what its role opens.
    let connection = connect(&node, &world.address, Protocol::Console).await.expect("a handshake");
    assert_eq!(soon("a close", connection.closed()).await.code(), Some(CloseCode::WrongRole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_again_is_the_same_and_cuts_off_whoever_has_the_certificate_of_before() {
    let world = World::start().await;
    let (alice, boss) = (world.console("alice").await, world.console("boss").await);
    let token = world.draw(Role::Client);
    let again = TokenCreate { name: "alice".parse().ok(), rejoin: true, ..wish(&token) };
    boss.make(again).await.expect("a token");
    let (accept, fresh) = world.join(&token).await;
    assert_eq!(accept.identity.id, alice_id(&world));
    assert_eq!(soon("a close", alice.connection.closed()).await.code(), Some(CloseCode::Revoked));
    // In TLS 1.3 it may seem to be let in before it is judged.
    let error = match connect(&world.credentials("alice"), &world.address, Protocol::Console).await {
        Ok(before) => soon("a verdict", before.why_refused()).await,
        Err(error) => error,
    };
    assert!(error.to_string().contains("revoked"), "{error}");
    let problems = boss.problems().await;
    assert!(problems.len() == 1 && problems[0].starts_with("client alice: a certificate of it came"), "{problems:?}");
    Console::connect(&fresh, &world.address, "alice").await.account().await;

    let agent = world.agent().await;
    let token = world.draw(Role::Node);
    boss.make(TokenCreate { name: "rig-1".parse().ok(), rejoin: true, ..wish(&token) }).await.expect("a token");
    let (accept, _) = world.join(&token).await;
    assert_eq!((accept.identity.name.as_str(), accept.identity.account.as_str()), ("rig-1", "owner"));
    let code = soon("a close", agent.connection.closed()).await.code();
    assert!(matches!(code, Some(CloseCode::Revoked | CloseCode::Superseded)), "{code:?}");
    boss.account().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_dodges_a_revocation_by_a_node_named_like_its_own_id() {
    let world = World::start().await;
    let (alice, boss) = (world.console("alice").await, world.console("boss").await);
    let (token, key) = (alice.token(&world, Role::Node).await, KeyRequest::generate());
    let id = alice_id(&world).to_string();
    Joiner::new(&token, &key).named(&id).join(&world.join_address).await.accepted();
    match boss.ask(Revoke { identity: text(id), why: text("") }).await {
        ToConsole::Revoked(revoked) => assert_eq!(revoked.identity.identity.name.as_str(), "alice"),
        other => panic!("{other:?}"),
    }
    assert_eq!(soon("a close", alice.connection.closed()).await.code(), Some(CloseCode::Revoked));
}

fn alice_id(world: &World) -> IdentityId {
    let alice = world.made.identities.iter().find(|issued| issued.identity.name.as_str() == "alice");
    alice.expect("it was made").identity.id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_thousand_who_redeem_one_token_exactly_one_gets_a_certificate() {
    let mut world = World::start().await;
    let boss = world.console("boss").await;
    let token = Arc::new(boss.token(&world, Role::Node).await);
    let places = Arc::new(Semaphore::new(RACERS_AT_ONCE));
    let mut racers = JoinSet::new();
    let began = Instant::now();
    for _racer in 0..RACERS {
        let (token, address, places) = (token.clone(), world.join_address.clone(), places.clone());
        racers.spawn(async move {
            let _place = places.acquire().await.expect("it stays open");
            let key = KeyRequest::generate();
            soon("a verdict", async {
                loop {
                    match Joiner::new(&token, &key).join(&address).await {
                        // It was too slow; whoever comes again with the same key is still one.
                        Outcome::Closed(reason) if reason.retryable() => {}
                        outcome => return outcome,
                    }
                }
            })
            .await
        });
    }
    let (mut accepted, mut used) = (Vec::new(), 0);
    while let Some(outcome) = racers.join_next().await {
        match outcome.expect("no panic") {
            Outcome::Accepted(accept) => accepted.push(accept),
            Outcome::Refused(refused) => {
                assert_eq!(refused.code, JoinRefusal::TokenUsed, "{}", refused.message.as_str());
                used += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    println!("{RACERS} redemptions of one token: {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!((accepted.len(), used), (1, RACERS - 1));
    let view = boss.token_view(token.id()).await.expect("it is remembered");
    assert_eq!((view.state, view.alarms.len()), (TokenState::Bound, 3), "alarms are bounded");
    world.stop().await;
    assert_eq!(world.joined_with(token.id()), 1);
    let alarm = |event: &&Event| matches!(&event.body, EventBody::TokenAlarm { .. });
    assert_eq!(world.journal().iter().filter(alarm).count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_not_joining_has_its_own_code_and_sentence() {
    let world = World::start().await;
    let (alice, boss) = (world.console("alice").await, world.console("boss").await);
    let address = &world.join_address;
    let key = KeyRequest::generate();
    let mut said = Vec::new();

    let expired = world.draw(Role::Node);
    alice.make(TokenCreate { ttl: Span::from_secs(1), ..wish(&expired) }).await.expect("a token");
    until(&alice, expired.id(), TokenState::Expired).await;
    said.push(Joiner::new(&expired, &key).join(address).await.refused());

    let unknown = world.draw(Role::Node);
    said.push(Joiner::new(&unknown, &key).join(address).await.refused());

    let wrong = alice.token(&world, Role::Node).await;
    let guess = || Joiner { secret_of: &unknown, ..Joiner::new(&wrong, &key) };
    said.push(guess().join(address).await.refused());

    let role = alice.token(&world, Role::Node).await;
    said.push(Joiner { role: Role::Client, ..Joiner::new(&role, &key) }.join(address).await.refused());

    let revoked = alice.token(&world, Role::Node).await;
    assert!(matches!(boss.ask(TokenRevoke { token: revoked.id() }).await, ToConsole::Token(_)));
    said.push(Joiner::new(&revoked, &key).join(address).await.refused());

    let used = alice.token(&world, Role::Node).await;
    world.join(&used).await;
    said.push(Joiner::new(&used, &key).join(address).await.refused());

    said.push(Joiner::new(&role, &key).named("rig-1").join(address).await.refused());

    let behind = Joiner { wall: WallTime(now().0 - 11 * 60_000), ..Joiner::new(&role, &key) };
    said.push(behind.join(address).await.refused());

    let codes: Vec<JoinRefusal> = said.iter().map(|refused| refused.code).collect();
    assert_eq!(
        codes,
        [
            JoinRefusal::TokenExpired,
            JoinRefusal::TokenUnknown,
            JoinRefusal::WrongProof,
            JoinRefusal::RoleMismatch,
            JoinRefusal::TokenRevoked,
            JoinRefusal::TokenUsed,
            JoinRefusal::Name,
            JoinRefusal::ClockTooFar,
        ]
    );
    let sentences: BTreeSet<&str> = said.iter().map(|refused| refused.message.as_str()).collect();
    assert_eq!(sentences.len(), said.len(), "{sentences:?}");
    for refused in &said {
        assert!(!refused.message.is_empty() && !refused.hint.is_empty(), "{refused:?}");
        assert_eq!(refused.code.retryable(), refused.code == JoinRefusal::ClockTooFar);
    }

    // A clock at either end of time is refused as well, and none of it has used the token up.
    for wall in [WallTime(i64::MIN), WallTime(i64::MAX), WallTime(now().0 + 11 * 60_000)] {
        let refused = Joiner { wall, ..Joiner::new(&role, &key) }.join(address).await.refused();
        assert_eq!(refused.code, JoinRefusal::ClockTooFar, "{wall:?}");
    }
    Joiner::new(&role, &key).join(address).await.accepted();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_wrong_secrets_end_a_token_and_a_second_key_is_an_alarm_for_those_whom_it_concerns() {
    let world = World::start().await;
    let (alice, bob, boss) = (world.console("alice").await, world.console("bob").await, world.console("boss").await);
    let address = &world.join_address;
    let (token, key, stranger) =
        (alice.token(&world, Role::Node).await, KeyRequest::generate(), world.draw(Role::Node));
    for guess in 1..=5 {
        assert_eq!(boss.problems().await, Vec::<String>::new(), "before guess {guess}");
        let guess = Joiner { secret_of: &stranger, ..Joiner::new(&token, &key) };
        assert_eq!(guess.join(address).await.refused().code, JoinRefusal::WrongProof);
    }
    assert_eq!(Joiner::new(&token, &key).join(address).await.refused().code, JoinRefusal::TokenRevoked);
    let problems = boss.problems().await;
    assert!(problems.len() == 1 && problems[0].contains(&token.id().to_string()), "{problems:?}");

    let stolen = alice.token(&world, Role::Node).await;
    let (accept, _) = world.join(&stolen).await;
    assert_eq!(Joiner::new(&stolen, &key).join(address).await.refused().code, JoinRefusal::TokenUsed);
    let problems = boss.problems().await;
    let names_both = |problem: &String| {
        problem.contains(&stolen.id().to_string()) && problem.contains(&format!("node/{}", accept.identity.name))
    };
    assert!(problems.iter().any(|problem| names_both(problem) && problem.contains("127.0.0.1")), "{problems:?}");
    for (who, console) in [("the operator", &boss), ("who made it", &alice)] {
        let alarms = console.token_view(stolen.id()).await.expect("it is theirs").alarms;
        assert!(
            alarms.len() == 1 && alarms[0].contains("127.0.0.1 (calls itself test-host, test)"),
            "{who}: {alarms:?}"
        );
    }
    assert!(bob.token_view(stolen.id()).await.is_none());
    for (who, console) in [("who made it", &alice), ("another client", &bob)] {
        assert_eq!(console.problems().await, Vec::<String>::new(), "{who}");
    }
}

/// A frame of a type that joiners send, with a body that is none.
struct Garbage;

impl Message for Garbage {
    const TYPES: &'static [(u8, &'static str, usize)] = &[(0x81, "Garbage", 1024)];

    fn kind(&self) -> u8 {
        0x81
    }

    fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        out.extend_from_slice(&[0xff; 40]);
        Ok(())
    }

    fn decode_body(kind: u8, _: &[u8]) -> Result<Self, WireError> {
        Err(WireError::Unsupported { kind })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_or_comes_out_of_turn_ends_the_conversation_and_uses_nothing_up() {
    let world = World::start().await;
    let boss = world.console("boss").await;
    let (token, key) = (boss.token(&world, Role::Node).await, KeyRequest::generate());
    let link = || async { join_connect(token.root(), &world.join_address).await.expect("a connection") };

    let joining = link().await;
    let (mut out, _input) = joining.open_bi::<Garbage, ToJoiner>().await.expect("a stream");
    out.write(&Garbage).await.expect("it is taken");
    assert_eq!(soon("a close", joining.closed()).await.code(), Some(CloseCode::BadFrame));

    let joiner = Joiner::new(&token, &key);
    let joining = link().await;
    let (mut out, _input) = joining.open_bi::<FromJoiner, ToJoiner>().await.expect("a stream");
    out.write(&joiner.request(&[0; 32], joining.exporter()).into()).await.expect("it is taken");
    assert_eq!(soon("a close", joining.closed()).await.code(), Some(CloseCode::HelloExpected));

    let joining = link().await;
    let (mut out, mut input) = joining.open_bi::<FromJoiner, ToJoiner>().await.expect("a stream");
    out.write(&joiner.hello().into()).await.expect("it is taken");
    assert!(matches!(soon("a challenge", input.read()).await, Ok(Some(ToJoiner::Challenge(_)))));
    out.write(&joiner.hello().into()).await.expect("it is taken");
    assert_eq!(soon("a close", joining.closed()).await.code(), Some(CloseCode::HelloExpected));

    // A proof over another channel, over another challenge, or for another request proves nothing; a request that is
    // none is refused before any proof is looked at.
    let other = KeyRequest::generate();
    let cases: [(&str, JoinRefusal); 4] = [
        ("channel", JoinRefusal::WrongProof),
        ("challenge", JoinRefusal::WrongProof),
        ("request", JoinRefusal::WrongProof),
        ("no request", JoinRefusal::BadRequest),
    ];
    for (what, code) in cases {
        let joining = link().await;
        let (mut out, mut input) = joining.open_bi::<FromJoiner, ToJoiner>().await.expect("a stream");
        out.write(&joiner.hello().into()).await.expect("it is taken");
        let Ok(Some(ToJoiner::Challenge(JoinChallenge { nonce, .. }))) = soon("a challenge", input.read()).await else {
            panic!("no challenge");
        };
        let exporter = joining.exporter();
        let mut request = match what {
            "channel" => joiner.request(&nonce, modchain_certs::Exporter([7; 32])),
            "challenge" => joiner.request(&[7; 32], exporter),
            _ => joiner.request(&nonce, exporter),
        };
        match what {
            "request" => request.request = modchain_types::Chunk::new(other.der().to_vec()).expect("it fits"),
            "no request" => request.request = modchain_types::Chunk::new(vec![0x30; 200]).expect("it fits"),
            _ => {}
        }
        out.write(&request.into()).await.expect("it is taken");
        match soon("an answer", input.read()).await {
            Ok(Some(ToJoiner::Refused(refused))) => assert_eq!(refused.code, code, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    world.join(&token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_too_slow_is_told_so_and_others_join_meanwhile() {
    let world = World::start().await;
    let boss = world.console("boss").await;
    let (token, key) = (boss.token(&world, Role::Node).await, KeyRequest::generate());
    let link = join_connect(token.root(), &world.join_address).await.expect("a connection");
    let (mut out, mut input) = link.open_bi::<FromJoiner, ToJoiner>().await.expect("a stream");
    out.write(&Joiner::new(&token, &key).hello().into()).await.expect("it is taken");
    assert!(matches!(soon("a challenge", input.read()).await, Ok(Some(ToJoiner::Challenge(_)))));
    world.join(&token).await;
    assert_eq!(soon("a close", link.closed()).await.code(), Some(CloseCode::TimeUp));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_given_again_to_the_same_key_also_after_a_restart() {
    let mut world = World::start().await;
    let boss = world.console("boss").await;
    let (token, key) = (boss.token(&world, Role::Node).await, KeyRequest::generate());
    let joiner = Joiner::new(&token, &key);
    let asked = joiner.ask(&world.join_address).await.expect("it is asked");
    until(&boss, token.id(), TokenState::Bound).await;
    // Nobody has read the answer.
    drop(asked);
    let mut serials = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for restart in [false, false, true] {
        if restart {
            world.stop().await;
            world.serve().await;
        }
        let accept = joiner.join(&world.join_address).await.accepted();
        assert!(accept.existing);
        let thief = KeyRequest::generate();
        assert_eq!(Joiner::new(&token, &thief).join(&world.join_address).await.refused().code, JoinRefusal::TokenUsed);
        ids.insert(accept.identity.id);
        let domain = TrustDomain::of_root(world.authority().root()).expect("a root");
        serials.insert(PeerIdentity::from_certificate(&accept.chain[0], &domain).expect("a certificate").serial);
    }
    assert_eq!((serials.len(), ids.len()), (1, 1));
    world.stop().await;
    assert_eq!(world.joined_with(token.id()), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_in_the_journal_when_the_orchestrator_dies_before_it_answers_gets_the_certificate_later() {
    let mut world = World::start().await;
    let boss = world.console("boss").await;
    let (token, key) = (boss.token(&world, Role::Node).await, KeyRequest::generate());
    let (requested, fresh) = (RequestedKey::read(key.der()).expect("a request"), IdentityId([0x21; 16]));
    let subject = Subject::member(Role::Node, fresh).expect("a member");
    let plan = world.authority().plan(subject, CERT_LIFE, now()).expect("a plan");
    // What the join port does, up to the commit.
    let redemption = Redemption {
        token: token.id(),
        role: Role::Node,
        name: None,
        fresh,
        certificate: Certificate {
            serial: plan.serial,
            key: requested.key_digest(),
            not_before: plan.not_before,
            not_after: plan.not_after,
        },
        from: Text::default(),
    };
    let orchestrator = world.orchestrator.as_ref().expect("it runs");
    let reply = orchestrator.engine().command(Command::Redeem(Box::new(redemption))).await.expect("it answers");
    assert!(matches!(reply, Reply::Joined { existing: false, .. }), "{reply:?}");
    world.stop().await;
    world.serve().await;
    let accept = Joiner::new(&token, &key).join(&world.join_address).await.accepted();
    assert!(accept.existing && accept.identity.id == fresh);
    let credentials = credentials(key, &token, &accept, &world);
    assert_eq!(credentials.identity().serial, plan.serial);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_joins_into_an_old_copy_of_the_journal() {
    let world = World::start().await;
    let boss = world.console("boss").await;
    let token = boss.token(&world, Role::Node).await;
    let connection = connect(&world.credentials("rig-1"), &world.address, Protocol::Agent).await.expect("a connection");
    let (mut out, mut input) = connection.open_bi::<FromAgent, ToAgent>().await.expect("a stream");
    let fences = FenceKey::load(&world.place(), world.made.journal).expect("the key");
    let hello = AgentHello {
        types: ToAgent::known_types(),
        instance: InstanceId([1; 16]),
        boot: BootId([1; 16]),
        highest_fence: Some(fences.claim(Fence(1_000))),
        journal: Some(world.made.journal),
        inventory: List::default(),
        offer: offer(),
        wall: now(),
    };
    out.write(&hello.into()).await.expect("it is taken");
    let _ = soon("a verdict", input.read()).await;
    let key = KeyRequest::generate();
    let refused = Joiner::new(&token, &key).join(&world.join_address).await.refused();
    assert_eq!(refused.code, JoinRefusal::Busy);
    assert!(refused.message.contains("rolled back"), "{}", refused.message.as_str());
    let Refusal { code, .. } = boss.make(wish(&world.draw(Role::Node))).await.expect_err("no new tokens either");
    assert_eq!(code, RefusalCode::Frozen);
    assert!(boss.problems().await.iter().any(|problem| problem.contains("rolled back")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_makes_and_ends_tokens_in_a_loop_is_slowed_down_and_others_are_not() {
    let world = World::start().await;
    let (alice, bob) = (world.console("alice").await, world.console("bob").await);
    let mut made = 0;
    let refusal = loop {
        let token = world.draw(Role::Node);
        match alice.make(wish(&token)).await {
            Ok(_) => made += 1,
            Err(refusal) => break refusal,
        }
        assert!(matches!(alice.ask(TokenRevoke { token: token.id() }).await, ToConsole::Token(_)));
        assert!(made < 10_000, "nothing slows it down");
    };
    assert_eq!(refusal.code, RefusalCode::Busy, "{refusal:?}");
    assert!(made >= 200, "{made}");
    bob.token(&world, Role::Node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_who_joined_under_a_name_that_init_gives_away_stops_no_start() {
    let mut world = World::start().await;
    let boss = world.console("boss").await;
    let token = boss.token(&world, Role::Client).await;
    let options = InitOptions {
        data: world.place(),
        clients: vec!["carol".parse().expect("a name"), "dora".parse().expect("a name")],
        ..InitOptions::default()
    };
    let made = init(&options).expect("additive");
    let key = KeyRequest::generate();
    let accept = Joiner::new(&token, &key).named("carol").join(&world.join_address).await.accepted();
    world.stop().await;
    world.serve().await;
    let carol = credentials(key, &token, &accept, &world);
    Console::connect(&carol, &world.address, "carol").await;
    let load = |at: usize| modchain_certs::Credentials::load(&made.identities[at].dir).expect("a certificate");
    Console::connect(&load(1), &world.address, "dora").await;
    let left_out = connect(&load(0), &world.address, Protocol::Console).await.expect("a handshake");
    assert_eq!(soon("a close", left_out.closed()).await.code(), Some(CloseCode::UnknownIdentity));
    let problems = world.console("boss").await.problems().await;
    assert!(problems.iter().any(|problem| problem.contains("does not know its identity (client ")), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_join_while_the_disk_is_nearly_full_and_are_told_the_host_that_is_advertised() {
    let dir = tempfile::tempdir().expect("a directory");
    let apart = |script: &str| {
        let mut process = Process::new("unshare");
        process.args(["--map-root-user", "--mount", "sh", "-ec", script, PROGRAM]).arg(dir.path());
        process
    };
    // A file system of its own, of which less is free than the tenth that is to stay so.
    let small = "mount -t tmpfs -o size=100m none \"$1\"";
    if !apart(small).status().is_ok_and(|status| status.success()) {
        println!("this machine gives no file system to try it on");
        return;
    }
    let program = Program::start(apart(&format!(
        "{small}; head -c 92M /dev/zero >\"$1/filler\"; \"$0\" init --data \"$1/data\" -o json; \
         exec \"$0\" serve --data \"$1/data\" --listen 127.0.0.1:0 --advertise pool.example"
    )));
    let token = program.made()["operator_token"].as_str().expect("it is printed").to_owned();
    let (token, key) = (JoinToken::parse(token.as_bytes()).expect("a token"), KeyRequest::generate());
    let link = join_connect(token.root(), &program.join).await.expect("a connection");
    let accept = Joiner::new(&token, &key).named("root").join(&program.join).await.accepted();
    assert_eq!(accept.main_host.as_deref(), Some("pool.example"));
    let chain = accept.chain.iter().map(|der| der.to_vec().into()).collect();
    let (role, id) = (accept.identity.role, accept.identity.id);
    let credentials = key.accept(chain, link.root().clone(), role, id, now()).expect("a certificate");
    let root = Console::connect(&credentials, &program.main, "root").await;
    let problems = root.problems().await;
    assert!(problems.iter().any(|problem| problem.contains("disk is nearly full")), "{problems:?}");
}
