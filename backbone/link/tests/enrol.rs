//! Joining and renewing against an orchestrator that says what a test tells it to: what is asked, what is believed, and what
//! is on the disk afterwards.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::{World, address, id, join_address, soon};
use modchain_certs::{CertificatePlan, Credentials, Exporter, JoinToken, RequestedKey, RootPin, Subject, token};
use modchain_link::enrol::{self, JoinError, JoinWish, Joined, LockError, RenewError, join, join_noting, renew};
use modchain_link::{Accepted, CloseCode, ConnectError, Connection, FrameReader, FrameWriter, JoinEndpoint, Joining};
use modchain_link::{Protocol, reach};
use modchain_types::{
    AccountId, Chunk, Identity, IdentityId, JournalId, KeyDigest, List, Name, Role, Span, Text, WallTime,
};
use modchain_wire::agent::StreamRefused;
use modchain_wire::console::{Refusal, RefusalCode};
use modchain_wire::join::{
    ChainDer, JoinAccept, JoinChallenge, JoinHello, JoinRefusal, JoinRefused, JoinRequest, RenewRequest, Renewed,
};
use modchain_wire::{FromAgent, FromConsole, FromJoiner, Message, Sentence, ToAgent, ToConsole, ToJoiner};

const NONCE: [u8; 32] = [5; 32];
const DAY: Span = Span::from_secs(24 * 3600);

fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    WallTime::default().plus(since.into())
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn token(world: &World, role: Role) -> JoinToken {
    JoinToken::generate(role, RootPin::of_root(world.authority.root()).expect("a root")).expect("a role")
}

fn copy(token: &JoinToken) -> JoinToken {
    JoinToken::parse(token.text().as_bytes()).expect("reads back")
}

fn plan(world: &World, role: Role, id: IdentityId) -> CertificatePlan {
    world.authority.plan(Subject::member(role, id).expect("a member"), DAY, wall()).expect("plans")
}

fn chain(world: &World, key: &RequestedKey, plan: &CertificatePlan) -> ChainDer {
    let issued = world.authority.sign(key, plan).expect("signs");
    List::new(issued.chain.iter().map(|der| Chunk::new(der.to_vec()).expect("fits")).collect()).expect("fits")
}

fn accept(role: Role, chain: ChainDer) -> JoinAccept {
    JoinAccept {
        identity: Identity {
            id: id(7),
            role,
            name: name("oslo-03"),
            account: "alice".parse::<AccountId>().expect("an account"),
        },
        chain,
        pool: name("lab"),
        journal: JournalId([9; 16]),
        main_port: 7443,
        main_host: None,
        existing: false,
    }
}

/// One newcomer, as the orchestrator sees it.
struct Newcomer {
    joining: Joining,
    up: FrameWriter<ToJoiner>,
    down: FrameReader<FromJoiner>,
    hello: JoinHello,
}

impl Newcomer {
    async fn next(endpoint: &JoinEndpoint) -> Self {
        let joining = soon(endpoint.accept()).await.expect("open");
        let (up, mut down) = soon(joining.accept_bi::<ToJoiner, FromJoiner>()).await.expect("a stream");
        match soon(down.read()).await {
            Ok(Some(FromJoiner::Hello(hello))) => Self { joining, up, down, hello },
            other => panic!("no hello: {other:?}"),
        }
    }

    async fn challenge(&mut self, wall: WallTime) -> Option<JoinRequest> {
        self.say(JoinChallenge { nonce: NONCE, wall }).await;
        match soon(self.down.read()).await {
            Ok(Some(FromJoiner::Request(request))) => Some(request),
            Ok(Some(FromJoiner::Hello(_))) => panic!("a second hello"),
            Ok(None) | Err(_) => None,
        }
    }

    async fn say(&mut self, message: impl Into<ToJoiner>) {
        soon(self.up.write(&message.into())).await.expect("writes");
    }

    /// Says it, and waits until the newcomer has gone.
    async fn last(mut self, message: impl Into<ToJoiner>) {
        self.say(message).await;
        soon(self.joining.closed()).await;
    }
}

fn wish(token: &JoinToken, address: String, dir: &Path) -> JoinWish {
    JoinWish { token: copy(token), address, dir: dir.to_owned(), name: Some(name("wished")) }
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .map(|entries| entries.map(|entry| entry.expect("lists").file_name().into_string().expect("UTF-8")).collect())
        .unwrap_or_default();
    names.sort();
    names
}

struct Scene {
    world: World,
    endpoint: JoinEndpoint,
    token: JoinToken,
    dir: PathBuf,
}

impl Scene {
    fn new(role: Role) -> Self {
        let world = World::new();
        let (endpoint, token, dir) = (world.listen_join(), token(&world, role), world.dir.path().join("identity"));
        Self { world, endpoint, token, dir }
    }

    fn wish(&self) -> JoinWish {
        wish(&self.token, join_address(&self.endpoint), &self.dir)
    }

    /// Joins while the orchestrator does what it is told.
    async fn play(&self, orchestrator: impl Future<Output = ()>) -> Result<Joined, JoinError> {
        soon(async { tokio::join!(join(self.wish()), orchestrator) }).await.0
    }

    async fn refused(&self, orchestrator: impl Future<Output = ()>) -> JoinError {
        let error = self.play(orchestrator).await.expect_err("does not join");
        assert!(
            !Credentials::exist(&self.dir) && files(&self.dir) == ["enrol.lock", "key.pem.new"],
            "{:?}",
            files(&self.dir)
        );
        error
    }
}

#[tokio::test]
async fn a_joiner_proves_its_token_and_its_key_on_this_very_channel_and_keeps_what_it_gets() {
    for role in [Role::Node, Role::Client, Role::Operator] {
        let scene = Scene::new(role);
        let (world, token) = (&scene.world, &scene.token);
        let orchestrator = async {
            let mut newcomer = Newcomer::next(&scene.endpoint).await;
            assert_eq!(newcomer.hello.token, token.id());
            assert!(newcomer.hello.wall.since(wall()).max(wall().since(newcomer.hello.wall)) < Span::from_secs(60));
            let request = newcomer.challenge(wall()).await.expect("asks");
            assert_eq!((request.role, request.name.as_ref()), (role, Some(&name("wished"))));
            assert!(request.system.starts_with("linux ") && !request.host.is_empty(), "{request:?}");
            let proved = |nonce: &[u8; 32], exporter: Exporter| {
                let verifier = token.verifier();
                token::proves(&verifier, token.id(), nonce, &exporter, &request.request, &request.proof)
            };
            assert!(proved(&NONCE, newcomer.joining.exporter));
            assert!(!proved(&[6; 32], newcomer.joining.exporter) && !proved(&NONCE, Exporter([0; 32])));
            let key = RequestedKey::read(&request.request).expect("sound");
            let accepted = accept(role, chain(world, &key, &plan(world, role, id(7))));
            newcomer.last(accepted).await;
        };
        let joined = scene.play(orchestrator).await.expect("joins");
        let credentials = Credentials::load(&scene.dir).expect("loads");
        let identity = credentials.identity();
        assert_eq!((identity.role, identity.id), (role, id(7)));
        assert_eq!(credentials.root(), world.authority.root());
        assert_eq!((joined.identity.name.as_str(), joined.pool.as_str()), ("oslo-03", "lab"));
        assert_eq!(joined.main_address, "127.0.0.1:7443");
        assert_eq!(&joined.trust_domain, world.authority.trust_domain());
        assert_eq!((joined.expires_at, joined.renews_at), (identity.not_after, identity.renews_at()));
        assert!(!joined.existing);
        assert_eq!(files(&scene.dir), ["ca.pem", "cert.pem", "enrol.lock", "key.pem"]);
        for file in files(&scene.dir) {
            let text = fs::read_to_string(scene.dir.join(&file)).expect("reads");
            assert!(!text.contains(&token.text()[69..95]), "the secret is in {file}");
        }
    }
}

#[tokio::test]
async fn the_orchestrator_may_say_that_members_connect_elsewhere() {
    for (host, expected) in [("main.example", "main.example:9"), ("2001:db8::7", "[2001:db8::7]:9")] {
        let scene = Scene::new(Role::Node);
        let orchestrator = async {
            let mut newcomer = Newcomer::next(&scene.endpoint).await;
            let request = newcomer.challenge(wall()).await.expect("asks");
            let key = RequestedKey::read(&request.request).expect("sound");
            let chain = chain(&scene.world, &key, &plan(&scene.world, Role::Node, id(7)));
            let accepted = accept(Role::Node, chain);
            newcomer.last(JoinAccept { main_port: 9, main_host: Some(Text::cut(host)), ..accepted }).await;
        };
        assert_eq!(scene.play(orchestrator).await.expect("joins").main_address, expected);
    }
}

#[tokio::test]
async fn after_a_lost_answer_the_same_key_comes_again_and_the_second_answer_is_taken() {
    let scene = Scene::new(Role::Node);
    let mut first: Option<(KeyDigest, CertificatePlan)> = None;
    let error = scene
        .refused(async {
            let mut newcomer = Newcomer::next(&scene.endpoint).await;
            let request = newcomer.challenge(wall()).await.expect("asks");
            let key = RequestedKey::read(&request.request).expect("sound");
            // It is in the journal, and then the power goes.
            first = Some((key.key_digest(), plan(&scene.world, Role::Node, id(7))));
            newcomer.joining.close(CloseCode::Internal, "");
        })
        .await;
    assert!(matches!(error, JoinError::Lost(_)) && error.retryable(), "{error}");
    assert!(error.hint().contains("the same command again"), "{}", error.hint());
    let (digest, plan) = first.expect("was asked");
    let joined = scene
        .play(async {
            let mut newcomer = Newcomer::next(&scene.endpoint).await;
            let request = newcomer.challenge(wall()).await.expect("asks");
            let key = RequestedKey::read(&request.request).expect("sound");
            assert_eq!(key.key_digest(), digest, "the key that the first answer was for");
            let accepted = accept(Role::Node, chain(&scene.world, &key, &plan));
            newcomer.last(JoinAccept { existing: true, ..accepted }).await;
        })
        .await
        .expect("joins");
    assert!(joined.existing);
    assert_eq!(Credentials::load(&scene.dir).expect("loads").identity().serial, plan.serial);
}

#[tokio::test]
async fn what_is_to_be_noted_is_noted_before_the_identity_is_in_place_or_there_is_none() {
    let scene = Scene::new(Role::Node);
    let answer = || async {
        let mut newcomer = Newcomer::next(&scene.endpoint).await;
        let request = newcomer.challenge(wall()).await.expect("asks");
        let key = RequestedKey::read(&request.request).expect("sound");
        newcomer.last(accept(Role::Node, chain(&scene.world, &key, &plan(&scene.world, Role::Node, id(7))))).await;
    };
    let full = |_: &Joined| Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
    let failed = soon(async { tokio::join!(join_noting(scene.wish(), full), answer()) }).await.0;
    assert!(matches!(failed, Err(JoinError::Note(_))), "{failed:?}");
    assert_eq!(files(&scene.dir), ["enrol.lock", "key.pem.new"], "the next try goes on with the same key");
    let dir = scene.dir.clone();
    let note = move |joined: &Joined| {
        assert_eq!(joined.identity.name.as_str(), "oslo-03");
        assert!(!Credentials::exist(&dir));
        fs::write(dir.join("note"), "noted")
    };
    soon(async { tokio::join!(join_noting(scene.wish(), note), answer()) }).await.0.expect("joins");
    assert_eq!(files(&scene.dir), ["ca.pem", "cert.pem", "enrol.lock", "key.pem", "note"]);
}

#[tokio::test]
async fn every_refusal_is_told_in_the_orchestrators_words_at_either_step() {
    let scene = Scene::new(Role::Node);
    for (number, code) in JoinRefusal::ALL.into_iter().enumerate() {
        let refused = JoinRefused {
            code,
            message: Sentence::cut(format!("no, because of {}", code.word())),
            hint: Sentence::cut("do this"),
        };
        let error = scene
            .refused(async {
                let mut newcomer = Newcomer::next(&scene.endpoint).await;
                if number % 2 == 0 {
                    newcomer.challenge(wall()).await.expect("asks");
                }
                newcomer.last(refused.clone()).await;
            })
            .await;
        assert_eq!(error.to_string(), format!("no, because of {}", code.word()));
        assert_eq!((error.hint().as_str(), error.retryable()), ("do this", code.retryable()));
        assert!(matches!(&error, JoinError::Refused(said) if *said == refused), "{error}");
    }
}

#[tokio::test]
async fn another_orchestrator_hears_nothing_of_the_token() {
    let scene = Scene::new(Role::Node);
    let other = World::new().listen_join();
    let wish = wish(&scene.token, join_address(&other), &scene.dir);
    let heard = async {
        let joining = other.accept().await;
        panic!("somebody came in: {:?}", joining.map(|joining| joining.remote));
    };
    let error = tokio::select! {
        joined = soon(join(wish)) => joined.expect_err("another root"),
        () = heard => unreachable!(),
    };
    assert!(matches!(error, JoinError::Connect(ConnectError::OtherThanToken { .. })), "{error}");
    assert!(error.to_string().contains("is not the one that this token was made for"), "{error}");
    assert_eq!(files(&scene.dir), ["enrol.lock", "key.pem.new"]);
}

#[tokio::test]
async fn a_clock_that_is_far_off_is_told_with_both_times_and_nothing_is_asked() {
    let scene = Scene::new(Role::Node);
    let minutes = |minutes: i64| WallTime(wall().0 + minutes * 60_000);
    let today = || jiff::Timestamp::now().to_string()[..10].to_owned();
    for (offset, word) in [(11, "slow"), (-11, "fast"), (60 * 24 * 400, "slow")] {
        let (there, before) = (minutes(offset), today());
        let error = scene
            .refused(async {
                let mut newcomer = Newcomer::next(&scene.endpoint).await;
                assert_eq!(newcomer.challenge(there).await, None, "no request comes");
            })
            .await;
        let (said, hint) = (error.to_string(), error.hint());
        assert!(said.starts_with("this machine's clock is ") && said.contains(&format!(" {word}: ")), "{said}");
        let orchestrators = jiff::Timestamp::from_millisecond(there.0).expect("a time").to_string();
        assert!(said.ends_with(&format!("the orchestrator's says {}Z", &orchestrators[..19])), "{said}");
        assert!([before, today()].iter().any(|day| said.contains(&format!("it says {day}T"))), "{said}");
        assert!(hint.contains("set the clock"), "{hint}");
    }
    // A little is forgiven.
    let nine = minutes(9);
    let joined = scene.play(async {
        let mut newcomer = Newcomer::next(&scene.endpoint).await;
        let request = newcomer.challenge(nine).await.expect("asks");
        let key = RequestedKey::read(&request.request).expect("sound");
        newcomer.last(accept(Role::Node, chain(&scene.world, &key, &plan(&scene.world, Role::Node, id(7))))).await;
    });
    joined.await.expect("joins");
}

#[tokio::test]
async fn a_chain_that_was_not_asked_for_is_refused_and_nothing_is_written() {
    let scene = Scene::new(Role::Node);
    let other_key = RequestedKey::read(modchain_certs::KeyRequest::generate().der()).expect("sound");
    let other_world = World::new();
    let is = |what: &str, key: &RequestedKey| match what {
        "another key" => chain(&scene.world, &other_key, &plan(&scene.world, Role::Node, id(7))),
        "another role" => chain(&scene.world, key, &plan(&scene.world, Role::Operator, id(7))),
        "another id" => chain(&scene.world, key, &plan(&scene.world, Role::Node, id(8))),
        "another root" => chain(&other_world, key, &plan(&other_world, Role::Node, id(7))),
        "nothing" => List::default(),
        "no certificate" => List::new(vec![Chunk::new(vec![0x30, 0]).expect("fits")]).expect("fits"),
        "the past" => {
            let long_ago = WallTime(wall().0 - 2 * 24 * 3600 * 1000);
            let subject = Subject::member(Role::Node, id(7)).expect("a member");
            let authority = &scene.world.authority;
            chain(&scene.world, key, &authority.plan(subject, DAY, long_ago).expect("plans"))
        }
        other => panic!("{other}"),
    };
    for what in ["another key", "another role", "another id", "another root", "nothing", "no certificate", "the past"] {
        let error = scene
            .refused(async {
                let mut newcomer = Newcomer::next(&scene.endpoint).await;
                let request = newcomer.challenge(wall()).await.expect("asks");
                let key = RequestedKey::read(&request.request).expect("sound");
                newcomer.last(accept(Role::Node, is(what, &key))).await;
            })
            .await;
        assert!(matches!(error, JoinError::Certificate(_)), "{what}: {error}");
    }
}

#[tokio::test]
async fn what_does_not_belong_there_ends_it() {
    let scene = Scene::new(Role::Node);
    let error = scene.refused(async {
        let newcomer = Newcomer::next(&scene.endpoint).await;
        newcomer.last(accept(Role::Node, List::default())).await;
    });
    assert!(matches!(error.await, JoinError::Unexpected(_)), "an answer before the question");
    let error = scene.refused(async {
        let mut newcomer = Newcomer::next(&scene.endpoint).await;
        newcomer.challenge(wall()).await.expect("asks");
        newcomer.last(JoinChallenge { nonce: NONCE, wall: wall() }).await;
    });
    assert!(matches!(error.await, JoinError::Unexpected(_)), "a second question");
}

/// A member of `role` with files in a folder, and its connection.
struct Renewing {
    world: World,
    dir: PathBuf,
    role: Role,
    here: Connection,
    there: Accepted,
}

impl Renewing {
    async fn new(role: Role) -> Self {
        let world = World::new();
        let dir = world.dir.path().join("identity");
        world.member(role, 7).save(&dir).expect("saves");
        let credentials = Credentials::load(&dir).expect("loads");
        let (endpoint, protocol) = (world.listen(), protocol(role));
        let at = address(&endpoint);
        let (here, there) =
            soon(async { tokio::join!(modchain_link::connect(&credentials, &at, protocol), endpoint.accept()) }).await;
        let (here, there) = (here.expect("connects"), there.expect("accepts"));
        there.connection.authorise(4);
        Self { world, dir, role, here, there }
    }

    /// Takes one renewal, and answers with what is made of it.
    async fn answer<Out: Message, In: Message>(
        &self,
        request_of: fn(In) -> RenewRequest,
        answer: impl FnOnce(&RequestedKey) -> Out,
    ) {
        let (mut up, mut down) = soon(self.there.connection.accept_bi::<Out, In>()).await.expect("a stream");
        let request = request_of(soon(down.read()).await.expect("reads").expect("a frame"));
        let key = RequestedKey::read(&request.request).expect("sound");
        assert!(key.is_possessed(&self.there.connection.exporter(), &request.proof));
        assert!(!key.is_possessed(&Exporter([0; 32]), &request.proof));
        soon(up.write(&answer(&key))).await.expect("writes");
        soon(up.finish()).await.expect("finishes");
        soon(up.delivered()).await.expect("arrives");
    }

    async fn renew(&self, answer: impl Future<Output = ()>) -> Result<enrol::Renewal, RenewError> {
        soon(async { tokio::join!(renew(&self.here, &self.dir), answer) }).await.0
    }

    fn chain(&self, key: &RequestedKey) -> ChainDer {
        chain(&self.world, key, &plan(&self.world, self.role, id(7)))
    }
}

fn protocol(role: Role) -> Protocol {
    if role == Role::Node { Protocol::Agent } else { Protocol::Console }
}

fn of_agent(message: FromAgent) -> RenewRequest {
    match message {
        FromAgent::Renew(request) => request,
        other => panic!("no renewal: {other:?}"),
    }
}

fn of_console(message: FromConsole) -> RenewRequest {
    match message {
        FromConsole::Renew(request) => request,
        other => panic!("no renewal: {other:?}"),
    }
}

#[tokio::test]
async fn a_renewal_puts_a_new_key_and_certificate_of_the_same_identity_in_place() {
    for role in [Role::Node, Role::Client, Role::Operator] {
        let member = Renewing::new(role).await;
        let old = *Credentials::load(&member.dir).expect("loads").identity();
        let renewed = match protocol(role) {
            Protocol::Agent => {
                let answer = member.answer::<ToAgent, _>(of_agent, |key| Renewed { chain: member.chain(key) }.into());
                member.renew(answer).await
            }
            Protocol::Console => {
                let answer =
                    member.answer::<ToConsole, _>(of_console, |key| Renewed { chain: member.chain(key) }.into());
                member.renew(answer).await
            }
        };
        let new = *Credentials::load(&member.dir).expect("loads").identity();
        assert_eq!(renewed.expect("renews").identity, new);
        assert_eq!((new.role, new.id), (old.role, old.id));
        assert!(new.key != old.key && new.serial != old.serial);
        assert_eq!(files(&member.dir), ["ca.pem", "cert.pem", "enrol.lock", "key.pem"]);
        assert_eq!(member.here.close_reason(), None, "the connection goes on");
    }
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_the_old_files_as_they_were() {
    let member = Renewing::new(Role::Node).await;
    let content = || ["key.pem", "cert.pem", "ca.pem"].map(|file| fs::read(member.dir.join(file)).expect("reads"));
    let before = content();
    let refuse = |_: &RequestedKey| ToAgent::from(StreamRefused { why: Sentence::cut("not now"), retryable: true });
    let refused = member.renew(member.answer::<ToAgent, _>(of_agent, refuse)).await;
    assert!(matches!(&refused, Err(RenewError::Refused { message }) if message == "not now"), "{refused:?}");
    let other = |key: &RequestedKey| {
        let other = plan(&member.world, Role::Node, id(8));
        ToAgent::from(Renewed { chain: chain(&member.world, key, &other) })
    };
    let mistaken = member.renew(member.answer::<ToAgent, _>(of_agent, other)).await;
    assert!(matches!(mistaken, Err(RenewError::Certificate(_))), "{mistaken:?}");
    let cut = member.renew(async {
        let (up, _down) = soon(member.there.connection.accept_bi::<ToAgent, FromAgent>()).await.expect("a stream");
        drop(up);
    });
    let cut = cut.await;
    assert!(matches!(cut, Err(RenewError::Lost(_))), "{cut:?}");
    assert_eq!(content(), before);
    Credentials::load(&member.dir).expect("is as good as before");
    // And another try succeeds.
    let answer = member.answer::<ToAgent, _>(of_agent, |key| Renewed { chain: member.chain(key) }.into());
    member.renew(answer).await.expect("renews");
    assert_ne!(content()[0], before[0]);
}

#[tokio::test]
async fn a_console_is_refused_in_the_words_of_its_own_protocol() {
    let member = Renewing::new(Role::Client).await;
    let refuse = |_: &RequestedKey| {
        let message = Sentence::cut("this identity was revoked");
        ToConsole::from(Refusal { code: RefusalCode::NotAllowed, message, hint: Sentence::default() })
    };
    let refused = member.renew(member.answer::<ToConsole, _>(of_console, refuse)).await;
    assert!(matches!(&refused, Err(RenewError::Refused { message }) if message.contains("revoked")), "{refused:?}");
}

#[tokio::test]
async fn a_key_whose_answer_was_lost_is_used_again_and_one_whose_answer_is_of_no_use_is_not() {
    let member = Renewing::new(Role::Node).await;
    let mut keys = Vec::new();
    let lose = async {
        let (up, mut down) = soon(member.there.connection.accept_bi::<ToAgent, FromAgent>()).await.expect("a stream");
        let request = of_agent(soon(down.read()).await.expect("reads").expect("a frame"));
        keys.push(RequestedKey::read(&request.request).expect("sound").key_digest());
        drop((up, down));
    };
    member.renew(lose).await.expect_err("lost");
    // The same answer, but so late that the certificate is over.
    let long_ago = WallTime(wall().0 - 2 * 24 * 3600 * 1000);
    let subject = Subject::member(Role::Node, id(7)).expect("a member");
    let old = member.world.authority.plan(subject, DAY, long_ago).expect("plans");
    let late = member.answer::<ToAgent, _>(of_agent, |key| {
        keys.push(key.key_digest());
        Renewed { chain: chain(&member.world, key, &old) }.into()
    });
    member.renew(late).await.expect_err("of no use");
    let answer = member.answer::<ToAgent, _>(of_agent, |key| {
        keys.push(key.key_digest());
        Renewed { chain: member.chain(key) }.into()
    });
    member.renew(answer).await.expect("renews");
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[1], keys[2]);
}

#[tokio::test]
async fn two_do_not_renew_one_identity_at_once() {
    let member = Renewing::new(Role::Node).await;
    let second = async {
        let refused = renew(&member.here, &member.dir).await;
        assert!(matches!(refused, Err(RenewError::Lock(LockError::Busy { .. }))), "{refused:?}");
        member.answer::<ToAgent, _>(of_agent, |key| Renewed { chain: member.chain(key) }.into()).await;
    };
    member.renew(second).await.expect("the first one renews");
}

#[tokio::test]
async fn nobody_joins_in_a_folder_whose_identity_is_being_renewed() {
    let member = Renewing::new(Role::Node).await;
    let (join_port, token) = (member.world.listen_join(), token(&member.world, Role::Node));
    let joining = async {
        let refused = join(wish(&token, join_address(&join_port), &member.dir)).await;
        assert!(matches!(&refused, Err(error @ JoinError::Lock(LockError::Busy { .. })) if error.retryable()));
        member.answer::<ToAgent, _>(of_agent, |key| Renewed { chain: member.chain(key) }.into()).await;
    };
    member.renew(joining).await.expect("renews");
    assert_eq!(Credentials::load(&member.dir).expect("loads").identity().id, id(7));
}

#[tokio::test]
async fn whoever_only_looks_takes_no_place_and_learns_the_time() {
    let scene = Scene::new(Role::Node);
    let pin = scene.token.root();
    let (address_of_join, there) = (join_address(&scene.endpoint), WallTime(1_234_567));
    let told = async || {
        let joining = scene.endpoint.accept().await.expect("open");
        // Errors mean that it has looked for long enough and is gone.
        let Ok((mut up, mut down)) = joining.accept_bi::<ToJoiner, FromJoiner>().await else { return };
        let hello = down.read().await;
        assert!(matches!(&hello, Ok(Some(FromJoiner::Hello(_))) | Err(_)), "{hello:?}");
        let _ = up.write(&JoinChallenge { nonce: NONCE, wall: there }.into()).await;
        let after = down.read().await;
        assert!(matches!(&after, Ok(None) | Err(_)), "{after:?}");
    };
    // It waits for the answer no longer than a person likes to, and this machine may be slower.
    let time = soon(async {
        loop {
            let asked = reach::join_port(pin, &address_of_join, Some(scene.token.id()), wall());
            if let Some(time) = tokio::join!(asked, told()).0.expect("is there") {
                return time;
            }
        }
    });
    assert_eq!(time.await, there);
    let endpoint = scene.world.listen();
    let at = address(&endpoint);
    let credentials = scene.world.member(Role::Node, 7);
    soon(reach::main_port(&credentials, &at, Protocol::Agent)).await.expect("is there");
    let stranger = World::new().member(Role::Node, 7);
    let error = soon(reach::main_port(&stranger, &at, Protocol::Agent)).await.expect_err("another root");
    assert!(matches!(error, ConnectError::NotTrusted { .. }), "{error}");
    soon(reach::certificate(&credentials, &at, Protocol::Agent)).await.expect("is taken");
    let misfit = scene.world.member(Role::Client, 7);
    // A refusal that comes later than it waits for one is not seen.
    let error = soon(async {
        loop {
            if let Err(error) = reach::certificate(&misfit, &at, Protocol::Agent).await {
                return error;
            }
        }
    });
    let error = error.await;
    assert!(matches!(error, ConnectError::WrongRole), "{error:?}");
    // Of those that were let in at all, only the one with the fitting certificate was handed out.
    let accepted = soon(endpoint.accept()).await.expect("open");
    assert_eq!(accepted.peer.id, id(7));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(1), endpoint.accept()).await.is_err());
    assert!(reach::buffers().expect("a socket").receive_bytes > 0);
}
