//! A scripted joiner: the client side of the join protocol, step by step, so that a test can stop or go wrong anywhere.

use std::time::SystemTime;

use modchain_certs::{Exporter, JoinToken, KeyRequest};
use modchain_link::{CloseReason, FrameReader, FrameWriter, JoinLink, join_connect};
use modchain_types::{Chunk, List, Name, Role, Span, TokenId, WallTime};
use modchain_wire::console::{Refusal, TokenCreate};
use modchain_wire::join::{JoinAccept, JoinHello, JoinRefused, JoinRequest};
use modchain_wire::view::TokenView;
use modchain_wire::{FromJoiner, Message, ToConsole, ToJoiner};

use super::{Console, patiently, soon, text};

/// What became of an attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    Accepted(Box<JoinAccept>),
    Refused(JoinRefused),
    Closed(CloseReason),
}

impl Outcome {
    pub(crate) fn accepted(self) -> JoinAccept {
        match self {
            Self::Accepted(accept) => *accept,
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub(crate) fn refused(self) -> JoinRefused {
        match self {
            Self::Refused(refused) => refused,
            Self::Closed(reason) => panic!("closed: {reason}"),
            Self::Accepted(accept) => panic!("not refused: {accept:?}"),
        }
    }
}

/// How somebody joins; the defaults are those of an honest one.
pub(crate) struct Joiner<'a> {
    pub(crate) token: &'a JoinToken,
    pub(crate) key: &'a KeyRequest,
    /// Makes the proof in the place of `token`.
    pub(crate) secret_of: &'a JoinToken,
    pub(crate) role: Role,
    pub(crate) name: Option<Name>,
    pub(crate) wall: WallTime,
}

/// A conversation as far as the challenge.
pub(crate) struct Challenged {
    link: JoinLink,
    out: FrameWriter<FromJoiner>,
    input: FrameReader<ToJoiner>,
    nonce: [u8; 32],
}

/// A conversation whose request is sent.
pub(crate) struct Asked {
    pub(crate) link: JoinLink,
    _out: FrameWriter<FromJoiner>,
    input: FrameReader<ToJoiner>,
}

pub(crate) fn now() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    WallTime(i64::try_from(since.as_millis()).expect("before the end of time"))
}

impl<'a> Joiner<'a> {
    pub(crate) fn new(token: &'a JoinToken, key: &'a KeyRequest) -> Self {
        Self { token, key, secret_of: token, role: token.role(), name: None, wall: now() }
    }

    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: Some(name.parse().expect("a name")), ..self }
    }

    pub(crate) fn hello(&self) -> JoinHello {
        JoinHello { types: ToJoiner::known_types(), version: text("0"), token: self.token.id(), wall: self.wall }
    }

    pub(crate) fn request(&self, nonce: &[u8; 32], exporter: Exporter) -> JoinRequest {
        let proof = self.secret_of.prove(nonce, &exporter, self.key.der());
        JoinRequest {
            role: self.role,
            request: Chunk::new(self.key.der().to_vec()).expect("it fits"),
            proof: Chunk::new(proof.to_vec()).expect("it fits"),
            name: self.name.clone(),
            host: text("test-host"),
            system: text("test"),
        }
    }

    /// Everything up to the challenge, or what came instead.
    pub(crate) async fn greet(&self, address: &str) -> Result<Challenged, Outcome> {
        let connecting = patiently(|| join_connect(self.token.root(), address));
        let link = soon("a connection", connecting).await.expect("a connection");
        let (mut out, mut input) = link.open_bi::<FromJoiner, ToJoiner>().await.expect("a stream");
        // Errors mean that the answer is there already.
        let _ = out.write(&self.hello().into()).await;
        match soon("a challenge", input.read()).await {
            Ok(Some(ToJoiner::Challenge(challenge))) => Ok(Challenged { link, out, input, nonce: challenge.nonce }),
            other => Err(outcome(&link, other).await),
        }
    }

    /// Sends the request.
    pub(crate) async fn go_on(&self, challenged: Challenged) -> Asked {
        let Challenged { link, mut out, input, nonce } = challenged;
        let _ = out.write(&self.request(&nonce, link.exporter()).into()).await;
        Asked { link, _out: out, input }
    }

    /// Everything up to the request, or what came instead.
    pub(crate) async fn ask(&self, address: &str) -> Result<Asked, Outcome> {
        Ok(self.go_on(self.greet(address).await?).await)
    }

    /// The whole conversation.
    pub(crate) async fn join(&self, address: &str) -> Outcome {
        match self.ask(address).await {
            Ok(asked) => asked.answer().await,
            Err(outcome) => outcome,
        }
    }
}

impl Asked {
    pub(crate) async fn answer(mut self) -> Outcome {
        let read = soon("an answer", self.input.read()).await;
        let outcome = outcome(&self.link, read).await;
        self.link.close_and_wait(modchain_link::CloseCode::Done, "").await;
        outcome
    }
}

async fn outcome(link: &JoinLink, read: Result<Option<ToJoiner>, modchain_link::ReadError>) -> Outcome {
    match read {
        Ok(Some(ToJoiner::Accept(accept))) => Outcome::Accepted(Box::new(accept)),
        Ok(Some(ToJoiner::Refused(refused))) => Outcome::Refused(refused),
        _ => Outcome::Closed(soon("a close", link.closed()).await),
    }
}

/// A token's wish with nothing special.
pub(crate) fn wish(token: &JoinToken) -> TokenCreate {
    TokenCreate {
        token: token.id(),
        verifier: token.verifier(),
        role: token.role(),
        name: None,
        account: None,
        rejoin: false,
        ttl: Span::from_secs(900),
    }
}

impl Console {
    pub(crate) async fn make(&self, wish: TokenCreate) -> Result<TokenView, Refusal> {
        match self.ask(wish).await {
            ToConsole::Token(view) => Ok(view),
            ToConsole::Refusal(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// All tokens that the asker may see.
    pub(crate) async fn tokens(&self) -> List<TokenView, 500> {
        match self.ask(modchain_wire::console::TokensQuery { ended: true }).await {
            ToConsole::Tokens(page) => page.items,
            other => panic!("{other:?}"),
        }
    }

    /// How one of them stands.
    pub(crate) async fn token_view(&self, id: TokenId) -> Option<TokenView> {
        self.tokens().await.iter().find(|token| token.id == id).cloned()
    }

    /// What the status calls wrong.
    pub(crate) async fn problems(&self) -> Vec<String> {
        match self.ask(modchain_wire::console::StatusQuery { detail: false }).await {
            ToConsole::Status(view) => view.problems.iter().map(|problem| problem.as_str().to_owned()).collect(),
            other => panic!("{other:?}"),
        }
    }
}
