//! The join port: a token for a certificate, once.
//!
//! ```text
//! hello ─▶ challenge ─▶ request ─▶ proof checked ─▶ engine: the token is used, the identity is there ─▶ signed ─▶ accept
//! ```
//!
//! Everything that a stranger can reach without a token is here and in `modchain_link::JoinEndpoint`, so it does little: two
//! short frames are read, two signatures checked. The secret of a token never comes here; what is checked is a signature by a
//! key that follows from it, over this very channel. The answer is sent only after the journal has it; a joiner whose answer
//! was lost asks again with the same key.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modchain_certs::{RequestedKey, Subject, token};
use modchain_core::membership::TokenState;
use modchain_core::{Command, Redemption, Refused, Reply};
use modchain_link::enrol::CLOCKS_APART_MAX;
use modchain_link::{CloseCode, FrameReader, FrameWriter, JoinEndpoint, Joining, ReadError, StreamCode};
use modchain_types::{Identity, IdentityId, Span, Text, TokenId};
use modchain_wire::join::{JoinAccept, JoinChallenge, JoinHello, JoinRefusal, JoinRefused, JoinRequest};
use modchain_wire::{FromJoiner, Sentence, ToJoiner};
use tokio::task::JoinSet;

use super::{Context, certify, log_panic, wall_now};
use crate::engine::EngineGone;

/// The whole conversation, to the last byte of the answer.
const CONVERSATION: Duration = Duration::from_secs(10);
/// From the handshake to the first frame, which joiners send with the end of theirs: who says nothing must not hold a place.
const HELLO: Duration = Duration::from_secs(3);
/// How long a joiner may take to close once it has its answer.
const GOODBYE: Duration = Duration::from_secs(1);

type Writer = FrameWriter<ToJoiner>;
type Reader = FrameReader<FromJoiner>;

/// Takes joiners until the endpoint is closed or the server stops.
pub(super) async fn accept(endpoint: Arc<JoinEndpoint>, context: Arc<Context>) {
    let mut joiners = JoinSet::new();
    loop {
        tokio::select! {
            () = context.stopping.cancelled() => break,
            joining = endpoint.accept() => match joining {
                Some(joining) => drop(joiners.spawn(serve(joining, context.clone()))),
                None => break,
            },
            Some(ended) = joiners.join_next() => log_panic(ended, "a joiner's task"),
        }
    }
    // One whose token is used already gets its answer.
    while let Some(ended) = joiners.join_next().await {
        log_panic(ended, "a joiner's task");
    }
}

async fn serve(joining: Joining, context: Arc<Context>) {
    let conversation = async {
        let begun = Instant::now();
        let opened = tokio::time::timeout(HELLO, joining.accept_bi::<ToJoiner, FromJoiner>()).await;
        let Ok(opened) = opened else { return Some(CloseCode::TimeUp) };
        let (mut writer, mut reader) = opened.ok()?;
        let mut conversation = Conversation { context: &context, joining: &joining, begun };
        let answer: ToJoiner = match conversation.hold(&mut writer, &mut reader).await {
            Ok(accept) => accept.into(),
            Err(Unanswered::Refused(refused)) => {
                tracing::info!(remote = %joining.remote, code = refused.code.word(), why = %refused.message, "not joined");
                reader.stop(StreamCode::Refused);
                (*refused).into()
            }
            Err(Unanswered::Closed(code)) => return Some(code),
        };
        writer.write(&answer).await.ok()?;
        writer.finish().await.ok()?;
        writer.delivered().await.ok()?;
        let _ = tokio::time::timeout(GOODBYE, joining.closed()).await;
        None
    };
    let code = match tokio::time::timeout(CONVERSATION, conversation).await {
        Ok(code) => code.unwrap_or(CloseCode::Done),
        Err(_) => CloseCode::TimeUp,
    };
    joining.close(code, "");
}

/// One joiner.
struct Conversation<'a> {
    context: &'a Arc<Context>,
    joining: &'a Joining,
    /// When its handshake was done.
    begun: Instant,
}

/// Why a joiner gets no certificate.
#[derive(Debug)]
enum Unanswered {
    /// It is told.
    Refused(Box<JoinRefused>),
    /// It said nothing that can be answered, or is gone: the connection is closed with this.
    Closed(CloseCode),
}

/// Of a message that is not the one whose turn it is.
fn unexpected<M>(read: Result<Option<M>, ReadError>) -> Unanswered {
    Unanswered::Closed(match read {
        Err(ReadError::Frame(_) | ReadError::Truncated) => CloseCode::BadFrame,
        Err(ReadError::Stalled) => CloseCode::TimeUp,
        Ok(_) => CloseCode::HelloExpected,
        Err(ReadError::Reset(_) | ReadError::Closed(_)) => CloseCode::Done,
    })
}

impl Conversation<'_> {
    async fn hold(&mut self, writer: &mut Writer, reader: &mut Reader) -> Result<JoinAccept, Unanswered> {
        let remote = self.joining.remote;
        if let Some(left) = self.context.sources.blocked(remote.ip(), Instant::now()) {
            return Err(refused(
                JoinRefusal::Blocked,
                "too many wrong tokens came from this address",
                blocked_hint(left),
            ));
        }
        let hello = match tokio::time::timeout_at((self.begun + HELLO).into(), reader.read()).await {
            Ok(Ok(Some(FromJoiner::Hello(hello)))) => hello,
            Ok(read) => return Err(unexpected(read)),
            Err(_) => return Err(Unanswered::Closed(CloseCode::TimeUp)),
        };
        check_clock(&hello)?;
        let (verifier, state) = self.token(hello.token).await?;
        let nonce = crate::init::random().map_err(|error| internal(error.to_string()))?;
        let challenge = JoinChallenge { nonce, wall: wall_now() };
        writer.write(&challenge.into()).await.map_err(|_| Unanswered::Closed(CloseCode::Done))?;
        let request = match reader.read().await {
            Ok(Some(FromJoiner::Request(request))) => request,
            read => return Err(unexpected(read)),
        };
        let bad = || refused(JoinRefusal::BadRequest, "the signing request is not a sound one for a P-256 key", "");
        let key = RequestedKey::read(&request.request).map_err(|_| bad())?;
        let exporter = self.joining.exporter;
        if !token::proves(&verifier, hello.token, &nonce, &exporter, &request.request, &request.proof) {
            self.context.sources.wrong(remote.ip(), Instant::now());
            return Err(self.wrong_proof(hello.token, state).await);
        }
        self.redeem(hello.token, &request, &key).await
    }

    /// What proofs are checked with; that a token is over is told only to who proves to have had it.
    async fn token(&self, id: TokenId) -> Result<([u8; 32], TokenState), Unanswered> {
        let known = move |control: &modchain_core::Control, _| {
            control.tokens().get(id).map(|token| (token.verifier, token.state))
        };
        let known = self.context.services.engine.query(known).await.map_err(|_| stopping())?;
        known.ok_or_else(|| {
            self.context.sources.wrong(self.joining.remote.ip(), Instant::now());
            refused(
                JoinRefusal::TokenUnknown,
                format!("there is no token {id}"),
                "it may be of another pool, or long over: ask who made it for a new one",
            )
        })
    }

    async fn wrong_proof(&self, token: TokenId, state: TokenState) -> Unanswered {
        if state == TokenState::Issued {
            tracing::warn!(remote = %self.joining.remote, %token, "a wrong secret for a token");
        }
        // The refusal is known; the command counts.
        let _ = self.context.services.engine.command(Command::WrongProof { token }).await;
        refused(
            JoinRefusal::WrongProof,
            format!("the secret part of this text is not the one of token {token}"),
            "copy the token again, whole",
        )
    }

    async fn redeem(
        &self,
        token: TokenId,
        request: &JoinRequest,
        key: &RequestedKey,
    ) -> Result<JoinAccept, Unanswered> {
        let services = &self.context.services;
        let fresh = IdentityId(crate::init::random().map_err(|error| internal(error.to_string()))?);
        let subject = Subject::member(request.role, fresh)
            .ok_or_else(|| refused(JoinRefusal::RoleMismatch, "nobody joins as an orchestrator", ""))?;
        let plan = services
            .issuer
            .authority()
            .plan(subject, services.cert_life, wall_now())
            .map_err(|error| internal(error.to_string()))?;
        let redemption = Redemption {
            token,
            role: request.role,
            name: request.name.clone(),
            fresh,
            certificate: certify::planned(&plan, key),
            from: Text::cut(origin(request, self.joining.remote)),
        };
        // A task of its own: who is in the journal takes its place, whatever becomes of this conversation.
        let settling = tokio::spawn(settle(self.context.clone(), redemption));
        let settled = settling.await.map_err(|error| internal(error.to_string()))?;
        let (reply, number) = settled.map_err(|_| stopping())?;
        let (identity, certificate, existing) = match reply {
            Reply::Joined { identity, certificate, existing } => (identity, certificate, existing),
            Reply::Refused(why) => return Err(by_engine(why)),
            _ => return Err(internal("the engine answered something else".into())),
        };
        // Who has the answer comes to the main port at once, where the feed is asked who that is.
        self.context.feed.reached(number).await.map_err(|_| stopping())?;
        let chain = certify::sign(self.context, key, &identity, &certificate).map_err(internal)?;
        let Identity { role, name, .. } = &identity;
        tracing::info!(remote = %self.joining.remote, %role, %name, %token, existing, "joined");
        Ok(JoinAccept {
            identity,
            chain,
            pool: services.pool.clone(),
            journal: services.journal_id,
            main_port: services.main_port,
            main_host: services.advertise.clone(),
            existing,
        })
    }
}

/// Redeems. Who joins again takes the place of whoever has the certificate of before, a thief perhaps: once the engine
/// answers, the gate lets that one in no more, and what it has open ends here.
async fn settle(context: Arc<Context>, redemption: Redemption) -> Result<(Reply, u64), EngineGone> {
    let command = Command::Redeem(Box::new(redemption));
    let (reply, number) = context.services.engine.command_numbered(command).await?;
    if let Reply::Joined { identity, existing: false, .. } = &reply {
        // Nobody can be connected with the new certificate yet: it is not signed.
        let connections = context.endpoint.close_identity(&identity.id, CloseCode::Revoked, "");
        if connections > 0 {
            tracing::warn!(name = %identity.name, connections, "joined again: the connections of before are cut");
        }
    }
    Ok((reply, number))
}

/// Where a joiner comes from, for people. First what is proved, then what it says of itself: a stranger's words, so
/// only plain characters of them are kept, and they cannot be taken for the address.
fn origin(request: &JoinRequest, remote: SocketAddr) -> String {
    let plain = |text: &str| text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect::<String>();
    let (address, host, system) = (remote.ip().to_canonical(), plain(&request.host), plain(&request.system));
    format!("{address} (calls itself {host}, {system})")
}

fn check_clock(hello: &JoinHello) -> Result<(), Unanswered> {
    let now = wall_now();
    let (behind, ahead) = (now.since(hello.wall), hello.wall.since(now));
    let skew = behind.max(ahead);
    if skew <= CLOCKS_APART_MAX {
        return Ok(());
    }
    let which = if behind > ahead { "behind" } else { "ahead of" };
    Err(refused(
        JoinRefusal::ClockTooFar,
        format!(
            "this machine's clock is {skew} {which} the orchestrator's, and certificates allow for {CLOCKS_APART_MAX}"
        ),
        "set the clock (timedatectl set-ntp true) and join again: the token is not used yet",
    ))
}

fn refused(code: JoinRefusal, message: impl Into<String>, hint: impl Into<String>) -> Unanswered {
    let (message, hint) = (Sentence::cut(message.into()), Sentence::cut(hint.into()));
    Unanswered::Refused(Box::new(JoinRefused { code, message, hint }))
}

fn blocked_hint(left: Duration) -> String {
    format!("wait {}; then check the token", Span::from_secs(left.as_secs() + 1))
}

/// What went wrong is for the operator; a stranger is not told what this machine looks like inside.
fn internal(why: String) -> Unanswered {
    tracing::error!(why, "a joiner could not be served");
    let message = "the orchestrator had an internal error";
    refused(JoinRefusal::Internal, message, "the orchestrator's log has more; repeating it is harmless")
}

fn stopping() -> Unanswered {
    refused(JoinRefusal::Busy, "the orchestrator is stopping", "repeat it in a moment: that is harmless")
}

/// What the engine refuses, in people's words.
fn by_engine(why: Refused) -> Unanswered {
    let message = why.to_string();
    let ask = "ask who made it for a new one";
    match why {
        Refused::TokenExpired => refused(JoinRefusal::TokenExpired, message, ask),
        Refused::TokenUsed => refused(
            JoinRefusal::TokenUsed,
            message,
            "if that was not you, tell the operator at once: the token was stolen; else ask for a new one",
        ),
        Refused::TokenRevoked => refused(JoinRefusal::TokenRevoked, message, ask),
        Refused::UnknownToken => refused(JoinRefusal::TokenUnknown, message, ask),
        Refused::WrongRole { .. } => refused(
            JoinRefusal::RoleMismatch,
            message,
            "nodes join with `modchain-agent join`, clients and operators with `modchain join`",
        ),
        Refused::WrongName { .. } => refused(JoinRefusal::Name, message, "leave --name out"),
        Refused::NameTaken { .. } => refused(JoinRefusal::Name, message, "choose another with --name"),
        Refused::AlreadyRevoked { .. } | Refused::UnknownIdentity => refused(JoinRefusal::TokenRevoked, message, ask),
        Refused::Frozen { .. } => refused(JoinRefusal::Busy, message, "the operator has to look at this"),
        other => internal(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modchain_types::{Chunk, Role};

    #[test]
    fn a_strangers_words_are_cut_down_to_plain_characters() {
        let request = JoinRequest {
            role: Role::Node,
            request: Chunk::default(),
            proof: Chunk::default(),
            name: None,
            host: Text::cut("rig\u{1b}[31m\n-1\u{202e}"),
            system: Text::cut("linux"),
        };
        let remote = "[::ffff:192.0.2.1]:5".parse().expect("address");
        assert_eq!(origin(&request, remote), "192.0.2.1 (calls itself rig[31m-1, linux)");
    }

    #[test]
    fn a_clock_that_is_too_far_off_is_told_by_how_much() {
        let hello = |seconds: i64| JoinHello {
            types: Default::default(),
            version: Text::default(),
            token: TokenId([0; 5]),
            wall: modchain_types::WallTime(wall_now().0 + seconds * 1000),
        };
        for fits in [-590, 0, 590] {
            assert!(check_clock(&hello(fits)).is_ok(), "{fits}");
        }
        for (off, word) in [(-700, "behind"), (700, "ahead of")] {
            let Err(Unanswered::Refused(refused)) = check_clock(&hello(off)) else { panic!("{off} s are too far") };
            assert_eq!(refused.code, JoinRefusal::ClockTooFar);
            assert!(refused.message.contains(word) && refused.message.contains("11m"), "{}", refused.message.as_str());
        }
    }
}
