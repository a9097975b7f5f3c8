//! An orchestrator that does as it is told: both of its ports, real certificates, and what a real one does only when something
//! breaks. It keeps nothing and judges nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use modchain_certs::{Authority, Credentials, JoinToken, RequestedKey, RootPin, Subject, token};
use modchain_link::join::Joining;
use modchain_link::{Accepted, CloseCode, Connection, Endpoint, EndpointKeys, JoinEndpoint};
use modchain_types::{
    Asset, Chunk, Identity, IdentityId, JournalId, KeyDigest, List, Name, Role, Span, Text, TokenId, WallTime,
};
use modchain_wire::console::{ConsoleWelcome, IdentitiesPage, Refusal, RefusalCode, TokenCreate, TokensPage};
use modchain_wire::join::{ChainDer, JoinAccept, JoinChallenge, JoinRefusal, JoinRefused, JoinRequest, Renewed};
use modchain_wire::view::{CertificateView, IdentityState, IdentityView, LinkView, RevokedView, TokenState, TokenView};
use modchain_wire::{FromConsole, FromJoiner, Message, ToConsole, ToJoiner};
use tokio::runtime::Runtime;

/// What happens to the next newcomer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Joins {
    /// It gets a certificate.
    Accept,
    /// It gets a certificate, and the answer is lost.
    Vanish,
    /// It is refused.
    Refuse(JoinRefusal),
    /// It is told another time.
    Clock(i64),
}

/// What happens to whoever wants to renew.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Renews {
    Works,
    Refused,
    Hangs,
}

/// What it saw and what it is to do.
pub(crate) struct State {
    authority: Authority,
    /// What happens to newcomers, in order; then they are accepted.
    pub(crate) joins: Mutex<Vec<Joins>>,
    pub(crate) renews: Mutex<Renews>,
    /// Keys that newcomers asked with.
    pub(crate) keys: Mutex<Vec<KeyDigest>>,
    /// Requests for tokens, in order.
    pub(crate) tokens: Mutex<Vec<TokenCreate>>,
    /// How many requests for tokens are left without an answer.
    pub(crate) tokens_lost: Mutex<u32>,
    main: SocketAddr,
    name: Mutex<Name>,
}

/// The orchestrator; gone when dropped.
pub(crate) struct Fake {
    pub(crate) state: Arc<State>,
    pub(crate) main: SocketAddr,
    pub(crate) join: SocketAddr,
    folder: tempfile::TempDir,
    _runtime: Runtime,
}

impl Fake {
    pub(crate) fn start() -> Self {
        modchain_certs::install_crypto_provider();
        let folder = tempfile::tempdir().expect("folder");
        let authority = Authority::create(&folder.path().join("ca"), SystemTime::now()).expect("authority");
        let keys = EndpointKeys::load_or_create(&folder.path().join("quic")).expect("keys");
        let life = Duration::from_secs(3600);
        let own = authority.issue(Subject::ORCHESTRATOR, life, SystemTime::now()).expect("issues");
        let runtime = Runtime::new().expect("a runtime");
        let (main, join) = runtime.block_on(async {
            let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let main = Endpoint::bind(loopback, &own, &keys, None).expect("listens");
            (main, JoinEndpoint::bind(loopback, &own).expect("listens"))
        });
        let state = Arc::new(State {
            authority,
            joins: Mutex::default(),
            renews: Mutex::new(Renews::Works),
            keys: Mutex::default(),
            tokens: Mutex::default(),
            tokens_lost: Mutex::default(),
            main: main.local_address().expect("bound"),
            name: Mutex::new("alice".parse().expect("a name")),
        });
        let (main_address, join_address) = (state.main, join.local_address().expect("bound"));
        let for_members = state.clone();
        runtime.spawn(async move {
            while let Some(accepted) = main.accept().await {
                tokio::spawn(for_members.clone().member(accepted));
            }
        });
        let for_newcomers = state.clone();
        runtime.spawn(async move {
            while let Some(joining) = join.accept().await {
                tokio::spawn(for_newcomers.clone().newcomer(joining));
            }
        });
        Self { state, main: main_address, join: join_address, folder, _runtime: runtime }
    }

    /// A token that it will not ask after.
    pub(crate) fn token(&self, role: Role) -> JoinToken {
        let pin = RootPin::of_root(self.state.authority.root()).expect("a root");
        JoinToken::generate(role, pin).expect("a role that joins")
    }

    /// An identity whose certificate of this life was issued so long ago.
    pub(crate) fn identity(&self, role: Role, life: Duration, ago: Duration) -> std::path::PathBuf {
        let subject = Subject::member(role, IdentityId([9; 16])).expect("a member");
        let issued = self.state.authority.issue(subject, life, SystemTime::now() - ago).expect("issues");
        let folder = self.folder.path().join("identity");
        issued.save(&folder).expect("saves");
        folder
    }

    /// What newcomers are called from now on.
    pub(crate) fn call_them(&self, name: &str) {
        *self.state.name.lock().expect("lock") = name.parse().expect("a name");
    }
}

fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    WallTime(i64::try_from(since.as_millis()).expect("fits"))
}

impl State {
    fn identity(&self, role: Role) -> Identity {
        let name = self.name.lock().expect("lock").clone();
        Identity { id: IdentityId([9; 16]), role, account: name.clone().into(), name }
    }

    fn journal(&self) -> JournalId {
        let [high, low] = self.main.port().to_be_bytes();
        JournalId([high, low, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3])
    }

    fn certify(&self, role: Role, request: &[u8]) -> (KeyDigest, ChainDer) {
        let key = RequestedKey::read(request).expect("a sound request");
        let subject = Subject::member(role, IdentityId([9; 16])).expect("a member");
        let plan = self.authority.plan(subject, Span::from_secs(3600), wall()).expect("plans");
        let issued = self.authority.sign(&key, &plan).expect("signs");
        let chain = issued.chain.iter().map(|der| Chunk::new(der.to_vec()).expect("fits")).collect();
        (key.key_digest(), List::new(chain).expect("fits"))
    }

    async fn newcomer(self: Arc<Self>, joining: Joining) {
        let Ok((mut down, mut up)) = joining.accept_bi::<ToJoiner, FromJoiner>().await else { return };
        let Ok(Some(FromJoiner::Hello(hello))) = up.read().await else { return };
        let act = {
            let mut joins = self.joins.lock().expect("lock");
            if joins.is_empty() { Joins::Accept } else { joins.remove(0) }
        };
        let wall = match act {
            Joins::Clock(off_ms) => WallTime(wall().0 + off_ms),
            Joins::Accept | Joins::Vanish | Joins::Refuse(_) => wall(),
        };
        let nonce = [5; 32];
        down.write(&JoinChallenge { nonce, wall }.into()).await.expect("writes");
        let Ok(Some(FromJoiner::Request(request))) = up.read().await else { return };
        let JoinRequest { role, request, proof, .. } = request;
        let (key, chain) = self.certify(role, &request);
        self.keys.lock().expect("lock").push(key);
        // The verifier is not known here; that the secret is not needed to read the request is what matters.
        assert_eq!(proof.len(), token::PROOF_BYTES);
        assert!(!token::proves(&[0; 32], hello.token, &nonce, &joining.exporter, &request, &proof));
        let answer = match act {
            Joins::Vanish => return joining.close(CloseCode::GoingAway, "lost"),
            Joins::Refuse(code) => ToJoiner::from(JoinRefused {
                code,
                message: Text::cut(format!("refused with {}", code.word())),
                hint: Text::cut("what next"),
            }),
            Joins::Accept | Joins::Clock(_) => ToJoiner::from(JoinAccept {
                identity: self.identity(role),
                chain,
                pool: "lab".parse().expect("a name"),
                journal: self.journal(),
                main_port: self.main.port(),
                main_host: None,
                existing: false,
            }),
        };
        down.write(&answer).await.expect("writes");
        let _ = down.delivered().await;
        joining.closed().await;
    }

    async fn member(self: Arc<Self>, accepted: Accepted) {
        let Accepted { connection, peer, .. } = accepted;
        let Ok((mut down, mut up)) = connection.accept_bi::<ToConsole, FromConsole>().await else { return };
        let Ok(Some(FromConsole::Hello(_))) = up.read().await else { return };
        let streams_max = connection.authorise(32);
        let welcome = ConsoleWelcome {
            types: FromConsole::known_types(),
            version: Text::cut("fake"),
            pool: "fake".parse().expect("a name"),
            identity: self.identity(peer.role),
            journal: self.journal(),
            asset: Asset::Test,
            streams_max,
            wall: wall(),
        };
        down.write(&welcome.into()).await.expect("writes");
        while let Ok((mut down, mut up)) = connection.accept_bi::<ToConsole, FromConsole>().await {
            let (state, connection) = (self.clone(), connection.clone());
            tokio::spawn(async move {
                let Ok(Some(request)) = up.read().await else { return };
                if let Some(answer) = state.answer(&connection, request) {
                    let _ = down.write(&answer).await;
                    let _ = down.finish().await;
                } else {
                    // Keeps the stream open as long as the connection is.
                    connection.closed().await;
                }
            });
        }
    }

    fn answer(&self, connection: &Connection, request: FromConsole) -> Option<ToConsole> {
        let role = connection.peer().role;
        Some(match request {
            FromConsole::Renew(renew) => match *self.renews.lock().expect("lock") {
                Renews::Works => Renewed { chain: self.certify(role, &renew.request).1 }.into(),
                Renews::Refused => refusal(RefusalCode::NotAllowed, "nobody is renewed today"),
                Renews::Hangs => return None,
            },
            FromConsole::Whoami(_) => self.view(connection).into(),
            FromConsole::Identities(_) => {
                IdentitiesPage { items: List::new(vec![self.view(connection)]).expect("fits"), total: 1, more: false }
                    .into()
            }
            FromConsole::Revoke(revoke) if revoke.identity.as_str() == "node/nobody" => {
                refusal(RefusalCode::NotFound, "there is no identity node/nobody")
            }
            FromConsole::Revoke(revoke) => RevokedView {
                identity: IdentityView {
                    state: IdentityState::Revoked,
                    revoked_at: Some(wall()),
                    why: revoke.why,
                    ..self.view(connection)
                },
                connections_closed: 1,
                jobs: 2,
                tokens: 1,
                took: Span::from_micros(3_140),
            }
            .into(),
            FromConsole::TokenCreate(create) => {
                let view = token_view(&create);
                self.tokens.lock().expect("lock").push(create);
                let mut lost = self.tokens_lost.lock().expect("lock");
                if *lost > 0 {
                    *lost -= 1;
                    connection.close(CloseCode::GoingAway, "lost");
                    return None;
                }
                view.into()
            }
            FromConsole::Tokens(_) => {
                let tokens = self.tokens.lock().expect("lock");
                let items: Vec<TokenView> = tokens.iter().map(token_view).collect();
                TokensPage { total: items.len() as u64, items: List::new(items).expect("fits") }.into()
            }
            FromConsole::TokenRevoke(revoke) => {
                let tokens = self.tokens.lock().expect("lock");
                match tokens.iter().find(|token| token.token == revoke.token) {
                    Some(create) => TokenView { state: TokenState::Revoked, ..token_view(create) }.into(),
                    None => refusal(RefusalCode::NotFound, "there is no such token"),
                }
            }
            FromConsole::Link(_) => LinkView {
                main: Text::cut(self.main.to_string()),
                join: Text::cut("127.0.0.1:7444"),
                receive_buffer_bytes: 1 << 20,
                send_buffer_bytes: 8 << 20,
                asked_buffer_bytes: 8 << 20,
                receive_buffer_errors: Some(0),
                connections: 1,
                handshakes: 0,
                expires_at: wall().plus(Span::from_secs(3600)),
            }
            .into(),
            _ => refusal(RefusalCode::Unsupported, "not here"),
        })
    }

    fn view(&self, connection: &Connection) -> IdentityView {
        let peer = connection.peer();
        IdentityView {
            identity: self.identity(peer.role),
            state: IdentityState::Active,
            joined_at: peer.begins_at(),
            certificates: List::new(vec![CertificateView {
                serial: peer.serial,
                issued_at: peer.begins_at(),
                expires_at: peer.not_after,
                renews_at: peer.renews_at(),
                used: true,
            }])
            .expect("fits"),
            renewals: 3,
            connections: 1,
            revoked_at: None,
            why: Text::default(),
        }
    }
}

fn token_view(create: &TokenCreate) -> TokenView {
    TokenView {
        id: create.token,
        role: create.role,
        name: create.name.clone(),
        account: create.account.clone(),
        issued_by: None,
        issued_at: WallTime(0),
        expires_at: WallTime(0).plus(create.ttl),
        state: TokenState::Issued,
        identity: None,
        from: None,
        alarms: List::default(),
    }
}

fn refusal(code: RefusalCode, message: &str) -> ToConsole {
    Refusal { code, message: Text::cut(message), hint: Text::default() }.into()
}

/// The id in a token's text.
pub(crate) fn id_of(text: &str) -> TokenId {
    JoinToken::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}")).id()
}

/// The serial number of the certificate in a folder.
pub(crate) fn serial_in(folder: &std::path::Path) -> String {
    Credentials::load(folder).unwrap_or_else(|error| panic!("{error}")).identity().serial.to_string()
}
