//! Who belongs: identities and their certificates, join tokens, revocation, and one's own renewal.

use std::sync::Arc;
use std::time::Instant;

use modchain_certs::PeerIdentity;
use modchain_core::membership::{Certificate, Member, Token, TokenEnd, TokenState as Standing};
use modchain_core::{Actor, Command, Control, Reply};
use modchain_link::settings::SOCKET_BUFFER_BYTES;
use modchain_link::{CloseCode, rcvbuf_errors};
use modchain_types::{IdentityId, List, Name, Role, Span, Text, Timestamp, WallTime};
use modchain_wire::Sentence;
use modchain_wire::console::{
    IdentitiesPage, IdentitiesQuery, RefusalCode, Revoke, TokenCreate, TokenRevoke, TokensPage, TokensQuery,
};
use modchain_wire::join::RenewRequest;
use modchain_wire::view::{CertificateView, IdentityState, IdentityView, LinkView, RevokedView, TokenState, TokenView};

use super::super::{Context, certify, wall_now};
use super::{ConsoleSession, Failure, Writer, refuse};

/// Most identities on one page.
const PAGE_ITEMS_MAX: usize = 500;

/// Two clocks at one moment: what the engine's timeline means by the calendar.
#[derive(Debug, Clone, Copy)]
struct Moment {
    now: Timestamp,
    wall: WallTime,
}

impl Moment {
    fn at(self, time: Timestamp) -> WallTime {
        let millis = |span: Span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        if time <= self.now {
            WallTime(self.wall.0.saturating_sub(millis(self.now.since(time))))
        } else {
            WallTime(self.wall.0.saturating_add(millis(time.since(self.now))))
        }
    }
}

impl ConsoleSession {
    pub(super) async fn whoami(&self, writer: &mut Writer) -> Result<(), Failure> {
        let view = self.identity_view(self.identity.id).await?;
        Ok(writer.write(&view.into()).await?)
    }

    pub(super) async fn identities(&self, writer: &mut Writer, query: IdentitiesQuery) -> Result<(), Failure> {
        let actor = self.actor.clone();
        let page = move |control: &Control, now| {
            let moment = Moment { now, wall: wall_now() };
            let fits = |member: &&Member| {
                actor.may_touch(&member.identity.account)
                    && query.role.is_none_or(|role| role == member.identity.role)
                    && (query.revoked || member.revoked.is_none())
            };
            let mut found: Vec<&Member> = control.members().filter(fits).collect();
            found.sort_by(|a, b| a.identity.name.cmp(&b.identity.name));
            let total = found.len() as u64;
            let limit = (query.limit as usize).clamp(1, PAGE_ITEMS_MAX);
            let rest =
                found.iter().filter(|member| query.after.as_ref().is_none_or(|after| member.identity.name > *after));
            let mut items: Vec<IdentityView> = rest.take(limit + 1).map(|member| view_of(member, moment)).collect();
            let more = items.len() > limit;
            items.truncate(limit);
            (items, total, more)
        };
        let (mut items, total, more) = self.context.services.engine.query(page).await?;
        for view in &mut items {
            view.connections = self.connections(view.identity.id);
        }
        Ok(writer.write(&IdentitiesPage { items: List::cut(items), total, more }.into()).await?)
    }

    /// Durable first, then the gate, then every live connection: see [`cut`].
    pub(super) async fn revoke(&self, writer: &mut Writer, revoke: Revoke) -> Result<(), Failure> {
        let begun = Instant::now();
        let wanted = revoke.identity.clone();
        let find = move |control: &Control, _: Timestamp| find(control, &wanted);
        let id =
            self.context.services.engine.query(find).await?.ok_or_else(|| refuse::no_identity(&revoke.identity))?;
        // A task of its own: a revocation that has begun is carried out, whatever becomes of who asked for it.
        let cutting = tokio::spawn(cut(self.context.clone(), self.actor.clone(), id, revoke.why));
        let Cut { jobs, tokens, connections, number } = cutting.await.map_err(refuse::internal)??;
        let took = Span::from(begun.elapsed());
        self.context.feed.reached(number).await?;
        let identity = self.identity_view(id).await?;
        let connections_closed = u32::try_from(connections).unwrap_or(u32::MAX);
        Ok(writer.write(&RevokedView { identity, connections_closed, jobs, tokens, took }.into()).await?)
    }

    pub(super) async fn token_create(&self, writer: &mut Writer, create: TokenCreate) -> Result<(), Failure> {
        if let Err(wait) = self.context.tokens.take(self.identity.id, Instant::now()) {
            let message = format!("too many tokens at once; the next is made in {} ms", wait.as_millis() + 1);
            return Err(refuse::refusal(RefusalCode::Busy, message, "wait a moment").into());
        }
        let TokenCreate { token, verifier, role, name, account, rejoin, ttl } = create;
        let by = self.actor.clone();
        let command = Command::CreateToken { by, token, verifier, role, name, account, rejoin, ttl };
        match self.context.services.engine.command(command).await? {
            Reply::Token { .. } => self.token(writer, token).await,
            Reply::Refused(refused) => Err(refuse::by_engine(refused, None).into()),
            _ => Err(refuse::internal("the engine answered something else").into()),
        }
    }

    pub(super) async fn token_revoke(&self, writer: &mut Writer, revoke: TokenRevoke) -> Result<(), Failure> {
        let TokenRevoke { token } = revoke;
        match self.context.services.engine.command(Command::RevokeToken { by: self.actor.clone(), token }).await? {
            Reply::Done => self.token(writer, token).await,
            Reply::Refused(refused) => Err(refuse::by_engine(refused, None).into()),
            _ => Err(refuse::internal("the engine answered something else").into()),
        }
    }

    async fn token(&self, writer: &mut Writer, id: modchain_types::TokenId) -> Result<(), Failure> {
        let view = move |control: &Control, now| {
            let moment = Moment { now, wall: wall_now() };
            control.tokens().get(id).map(|token| token_view(control, token, moment))
        };
        let view = self.context.services.engine.query(view).await?;
        let view = view.ok_or_else(|| refuse::internal("the token is gone"))?;
        Ok(writer.write(&view.into()).await?)
    }

    pub(super) async fn tokens(&self, writer: &mut Writer, query: TokensQuery) -> Result<(), Failure> {
        let actor = self.actor.clone();
        let page = move |control: &Control, now| {
            let moment = Moment { now, wall: wall_now() };
            let fits = |token: &&Token| {
                (actor.role == Role::Operator || token.by == Some(actor.id))
                    && (query.ended || token.is_live(now) || token.state == Standing::Bound)
            };
            let mut found: Vec<&Token> = control.tokens().iter().filter(fits).collect();
            found.sort_by_key(|token| (std::cmp::Reverse(token.issued_at), token.id));
            let total = found.len() as u64;
            let items = found.iter().take(PAGE_ITEMS_MAX).map(|token| token_view(control, token, moment)).collect();
            TokensPage { items: List::cut(items), total }
        };
        let page = self.context.services.engine.query(page).await?;
        Ok(writer.write(&page.into()).await?)
    }

    pub(super) async fn renew(&self, writer: &mut Writer, request: RenewRequest) -> Result<(), Failure> {
        let renewed = certify::renew(&self.context, &self.connection, &self.identity, &request).await;
        let renewed = renewed.map_err(refuse::by_certify)?;
        Ok(writer.write(&renewed.into()).await?)
    }

    pub(super) async fn link(&self, writer: &mut Writer) -> Result<(), Failure> {
        let (endpoint, services) = (&self.context.endpoint, &self.context.services);
        let (buffers, stats) = (endpoint.buffers(), endpoint.stats());
        let address = |address: std::io::Result<std::net::SocketAddr>| {
            Text::cut(address.map_or_else(|error| error.to_string(), |address| address.to_string()))
        };
        let view = LinkView {
            main: address(endpoint.local_address()),
            join: Text::cut(services.join_address.to_string()),
            receive_buffer_bytes: buffers.receive_bytes as u64,
            send_buffer_bytes: buffers.send_bytes as u64,
            asked_buffer_bytes: SOCKET_BUFFER_BYTES as u64,
            receive_buffer_errors: rcvbuf_errors(),
            connections: stats.connections as u64,
            handshakes: stats.handshakes as u64,
            expires_at: services.issuer.own_ends(),
        };
        Ok(writer.write(&view.into()).await?)
    }

    async fn identity_view(&self, id: IdentityId) -> Result<IdentityView, Failure> {
        let view = move |control: &Control, now| {
            let moment = Moment { now, wall: wall_now() };
            control.member(id).map(|member| view_of(member, moment))
        };
        let view = self.context.services.engine.query(view).await?;
        let mut view = view.ok_or_else(|| refuse::internal("the identity is gone"))?;
        view.connections = self.connections(id);
        Ok(view)
    }

    fn connections(&self, id: IdentityId) -> u32 {
        u32::try_from(self.context.endpoint.connections_of(&id)).unwrap_or(u32::MAX)
    }
}

/// What a revocation did.
struct Cut {
    jobs: u64,
    tokens: u32,
    connections: usize,
    number: u64,
}

/// Revokes: when the engine answers, the event is on disk and the gate lets nobody in any more; then what is connected is cut.
async fn cut(context: Arc<Context>, by: Actor, identity: IdentityId, why: Text<256>) -> Result<Cut, Failure> {
    let command = Command::RevokeIdentity { by, identity, wall: wall_now(), why };
    let (jobs, tokens, number) = match context.services.engine.command_numbered(command).await? {
        (Reply::Revoked { jobs, tokens }, number) => (jobs, tokens, number),
        (Reply::Refused(refused), _) => return Err(refuse::by_engine(refused, None).into()),
        _ => return Err(refuse::internal("the engine answered something else").into()),
    };
    let connections = context.endpoint.close_identity(&identity, CloseCode::Revoked, "");
    tracing::warn!(%identity, connections, jobs, tokens, "identity revoked");
    Ok(Cut { jobs, tokens, connections, number })
}

/// The identity that is meant by `ROLE/NAME`, a name, or an id. Ids go before names: a name is of its bearer's choice,
/// and must not draw onto a decoy what is meant for the identity with this id.
fn find(control: &Control, text: &str) -> Option<IdentityId> {
    let (role, name) = match text.split_once('/') {
        Some((role, name)) => (Some(role.parse::<Role>().ok()?), name),
        None => (None, text),
    };
    let by_id = name.parse().ok().and_then(|id| control.member(id));
    let member = by_id.or_else(|| control.member_named(&name.parse::<Name>().ok()?))?;
    role.is_none_or(|role| role == member.identity.role).then_some(member.identity.id)
}

fn view_of(member: &Member, moment: Moment) -> IdentityView {
    let (role, id) = (member.identity.role, member.identity.id);
    let mut certificates: Vec<CertificateView> = member
        .certificates
        .iter()
        .map(|accepted| {
            let Certificate { serial, key, not_before, not_after } = accepted.certificate;
            let holder = PeerIdentity { role, id, serial, key, not_before, not_after };
            CertificateView {
                serial,
                issued_at: holder.begins_at(),
                expires_at: not_after,
                renews_at: holder.renews_at(),
                used: accepted.used_at.is_some(),
            }
        })
        .collect();
    certificates.reverse();
    debug_assert!(certificates.len() <= 2, "{role} {id} has more certificates than are accepted");
    let good = certificates.first().is_some_and(|newest| newest.expires_at > moment.wall);
    let state = match (&member.revoked, good) {
        (Some(_), _) => IdentityState::Revoked,
        (None, true) => IdentityState::Active,
        (None, false) => IdentityState::Expired,
    };
    IdentityView {
        identity: member.identity.clone(),
        state,
        joined_at: moment.at(member.joined_at),
        certificates: List::cut(certificates),
        renewals: member.renewals,
        connections: 0,
        revoked_at: member.revoked.as_ref().map(|revoked| moment.at(revoked.at)),
        why: member.revoked.as_ref().map(|revoked| revoked.why.clone()).unwrap_or_default(),
    }
}

fn token_view(control: &Control, token: &Token, moment: Moment) -> TokenView {
    let name = |id: IdentityId| control.identity(id).map(|identity| identity.name.clone());
    let state = match token.state {
        Standing::Issued if token.is_live(moment.now) => TokenState::Issued,
        Standing::Issued | Standing::Ended(TokenEnd::Expired) => TokenState::Expired,
        Standing::Bound => TokenState::Bound,
        Standing::Ended(TokenEnd::Spent) => TokenState::Spent,
        Standing::Ended(TokenEnd::Revoked | TokenEnd::Misused) => TokenState::Revoked,
    };
    let mut alarms: Vec<Sentence> = token
        .alarms
        .iter()
        .map(|alarm| Sentence::cut(format!("a second key came with it from {}", alarm.from.as_str())))
        .collect();
    if token.state == Standing::Ended(TokenEnd::Misused) {
        alarms.push(Sentence::cut("too many wrong secrets were tried"));
    }
    TokenView {
        id: token.id,
        role: token.grant.role,
        name: token.grant.name.clone(),
        account: token.grant.account.clone(),
        issued_by: token.by.and_then(name),
        issued_at: moment.at(token.issued_at),
        expires_at: moment.at(token.expires_at),
        state,
        identity: token.binding.as_ref().and_then(|binding| name(binding.identity)),
        from: token.binding.as_ref().map(|binding| binding.from.clone()),
        alarms: List::cut(alarms),
    }
}
