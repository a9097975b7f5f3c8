//! Who belongs: identities, join tokens, certificates, revocation.

use modchain_types::{
    AccountId, CertificateSerial, Identity, IdentityId, JobId, Name, NodeId, OnDisconnect, Role, Span, StopCause, Text,
    Timestamp, TokenId, WallTime,
};

use super::{Control, Draft};
use crate::command::{Actor, Redemption, Refused, Reply};
use crate::deadline::{Deadline, LEASE_MARGIN};
use crate::effect::{Effect, NodeMessage, SessionEnd};
use crate::event::EventBody;
use crate::job::{Job, Phase, Progress};
use crate::membership::{
    ALARMS_MAX, BOUND_FOR, Certificate, LIVE_TOKENS_MAX, Member, RETIRE_AFTER, TOKEN_TTL_MAX, TOKEN_TTL_MIN, Token,
    TokenEnd, TokenGrant, TokenState, WRONG_PROOFS_MAX,
};
use crate::node::Node;

/// Jobs of a revoked identity that are moved or cancelled in one go. Bounds what one deadline adds to a pass, and so to a
/// journal record.
const REVOKED_JOBS_PER_GO_MAX: usize = 512;
/// Time until the next go if an invariant is broken: the go may have been dropped, and must not go round in circles.
const NEXT_GO_IF_BROKEN: Span = Span::from_secs(1);
/// What jobs of a revoked client get between asking and killing.
const REVOKED_GRACE: Span = Span::from_secs(10);

/// What is asked of a new token.
pub(super) struct TokenWish {
    pub(super) role: Role,
    pub(super) name: Option<Name>,
    pub(super) account: Option<AccountId>,
    pub(super) rejoin: bool,
}

impl TokenWish {
    /// Whether this very wish led to the token.
    fn gave(&self, token: &Token, by: &Actor) -> bool {
        let TokenGrant { role, name, account, rejoins } = &token.grant;
        let asked = self.account.clone().or_else(|| account_by_default(by, self.role));
        let same_account = if self.rejoin { self.account.is_none() || asked == *account } else { asked == *account };
        self.role == *role && self.name == *name && self.rejoin == rejoins.is_some() && same_account
    }
}

/// A node earns for the one whose token it joined with; others get an account of their own name.
fn account_by_default(by: &Actor, role: Role) -> Option<AccountId> {
    (role == Role::Node).then(|| by.account.clone())
}

fn may_let_join(by: &Actor, role: Role) -> Result<(), Refused> {
    match (by.role, role) {
        (Role::Operator, Role::Operator | Role::Client | Role::Node) | (Role::Client, Role::Node) => Ok(()),
        (Role::Operator, Role::Orchestrator) => {
            Err(Refused::Invalid { what: "nobody joins as an orchestrator".into() })
        }
        (Role::Client | Role::Node | Role::Orchestrator, _) => {
            Err(Refused::NotAllowed { what: "letting others than nodes of one's own join" })
        }
    }
}

fn check_ttl(ttl: Span) -> Result<(), Refused> {
    if (TOKEN_TTL_MIN..=TOKEN_TTL_MAX).contains(&ttl) {
        return Ok(());
    }
    Err(Refused::Invalid { what: format!("a token may live from {TOKEN_TTL_MIN} to {TOKEN_TTL_MAX}") })
}

/// The role's word, or with some of the id where that is taken.
fn made_up_name(role: Role, id: IdentityId, taken: impl Fn(&Name) -> bool) -> Name {
    let is_name = "a role's word, also with characters of an id, is a name";
    let short: Name = role.word().parse().expect(is_name);
    if !taken(&short) {
        return short;
    }
    // The end of an id: its beginning has three bits less.
    let text = id.to_string();
    format!("{}-{}", role.word(), &text[text.len() - 8..]).parse().expect(is_name)
}

impl Control {
    pub(super) fn add_identity(
        &self,
        identity: Identity,
        certificate: Option<Certificate>,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        let id = identity.id;
        if identity.role == Role::Orchestrator {
            return Err(Refused::Invalid { what: "the orchestrator is not a member".into() });
        }
        let known = match self.members.get(&id) {
            Some(member) if member.identity == identity => Some(member),
            Some(_) => return Err(Refused::NameTaken { name: identity.name }),
            None if self.identity_named(&identity.name).is_some() => {
                return Err(Refused::NameTaken { name: identity.name });
            }
            None => None,
        };
        if known.is_none() {
            draft.emit(EventBody::IdentityAdded { identity });
        }
        let newest = known.and_then(|member| member.certificates.last()).map(|newest| newest.certificate);
        let revoked = known.is_some_and(|member| member.revoked.is_some());
        // The file that this comes from is read at every start, and the certificate may have been renewed since. Dates are
        // whole seconds, and two certificates may be made within one.
        let is_newer = |newest: &Certificate| {
            certificate.is_some_and(|it| it.not_before >= newest.not_before && it.serial != newest.serial)
        };
        if let Some(certificate) = certificate
            && !revoked
            && newest.as_ref().is_none_or(is_newer)
        {
            let beside = newest.map(|newest| newest.serial);
            draft.emit(EventBody::CertificateIssued { identity: id, certificate, beside });
        }
        Ok(Reply::Done)
    }

    pub(super) fn create_token(
        &self,
        by: &Actor,
        id: TokenId,
        verifier: [u8; 32],
        wish: TokenWish,
        ttl: Span,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        // Before anything that could refuse: the answer to a repetition is the first answer.
        if let Some(known) = self.tokens.get(id) {
            let same =
                known.by == Some(by.id) && known.verifier == verifier && known.ttl() == ttl && wish.gave(known, by);
            return if same { Ok(Reply::Token { grant: known.grant.clone() }) } else { Err(Refused::TokenTaken) };
        }
        if let Some(why) = self.rolled_back() {
            return Err(Refused::Frozen { why });
        }
        may_let_join(by, wish.role)?;
        check_ttl(ttl)?;
        let grant = self.granted(by, wish)?;
        let live = || self.tokens.iter().filter(|token| token.is_live(draft.now));
        if live().filter(|token| token.by == Some(by.id)).count() >= LIVE_TOKENS_MAX {
            let what = format!("{LIVE_TOKENS_MAX} tokens wait to be used, which is the most allowed at once");
            return Err(Refused::Limit { what });
        }
        if let Some(name) = &grant.name
            && let Some(other) = self.token_for(name, draft.now)
        {
            return Err(if grant.rejoins.is_some() {
                let what = format!("the token {} for `{name}` waits to be used: revoke it first", other.id);
                Refused::Limit { what }
            } else {
                Refused::NameTaken { name: name.clone() }
            });
        }
        draft.emit(EventBody::TokenCreated { token: id, verifier, grant: grant.clone(), by: Some(by.id), ttl });
        Ok(Reply::Token { grant })
    }

    /// The token that waits to give this name.
    fn token_for(&self, name: &Name, now: Timestamp) -> Option<&Token> {
        self.tokens.iter().find(|token| token.is_live(now) && token.grant.name.as_ref() == Some(name))
    }

    /// What the asker may grant of what it wishes.
    fn granted(&self, by: &Actor, wish: TokenWish) -> Result<TokenGrant, Refused> {
        let TokenWish { role, name, account, rejoin } = wish;
        if let Some(account) = &account
            && !by.may_touch(account)
        {
            return Err(Refused::NotAllowed { what: "naming another account" });
        }
        let taken = name.as_ref().and_then(|name| self.member_named(name));
        if rejoin {
            let Some(name) = name else {
                return Err(Refused::Invalid { what: "who rejoins must be named".into() });
            };
            // What the asker may not see is answered as what does not exist.
            let member = taken
                .filter(|member| by.role == Role::Operator || member.identity.account == by.account)
                .ok_or(Refused::UnknownIdentity)?;
            if member.revoked.is_some() {
                return Err(Refused::AlreadyRevoked { name });
            }
            if member.identity.role != role {
                return Err(Refused::Invalid { what: format!("`{name}` is a {}", member.identity.role) });
            }
            if account.is_some_and(|account| account != member.identity.account) {
                let what = format!("`{name}` belongs to the account `{}`, and that is fixed", member.identity.account);
                return Err(Refused::Invalid { what });
            }
            let (account, rejoins) = (Some(member.identity.account.clone()), Some(member.identity.id));
            return Ok(TokenGrant { role, name: Some(name), account, rejoins });
        }
        if let Some(name) = name.as_ref().filter(|_| taken.is_some()) {
            return Err(Refused::NameTaken { name: name.clone() });
        }
        if let Some(account) = account.as_ref().filter(|account| !self.accounts.contains(*account)) {
            return Err(Refused::UnknownAccount { account: account.clone() });
        }
        let account = account.or_else(|| account_by_default(by, role));
        if let (Some(name), None) = (&name, &account)
            && self.accounts.contains(&AccountId::from(name.clone()))
        {
            // It would be refused to whoever joins, too late for the asker to choose better.
            return Err(Refused::NameTaken { name: name.clone() });
        }
        Ok(TokenGrant { role, name, account, rejoins: None })
    }

    pub(super) fn add_first_token(
        &self,
        id: TokenId,
        verifier: [u8; 32],
        ttl: Span,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        if let Some(known) = self.tokens.get(id) {
            let same = known.by.is_none() && known.verifier == verifier;
            return if same { Ok(Reply::Done) } else { Err(Refused::TokenTaken) };
        }
        if let Some(why) = self.rolled_back() {
            return Err(Refused::Frozen { why });
        }
        check_ttl(ttl)?;
        let grant = TokenGrant { role: Role::Operator, name: None, account: None, rejoins: None };
        draft.emit(EventBody::TokenCreated { token: id, verifier, grant, by: None, ttl });
        Ok(Reply::Done)
    }

    pub(super) fn revoke_token(&self, by: &Actor, id: TokenId, draft: &mut Draft) -> Result<Reply, Refused> {
        let token = self
            .tokens
            .get(id)
            .filter(|token| by.role == Role::Operator || token.by == Some(by.id))
            .ok_or(Refused::UnknownToken)?;
        match token.state {
            TokenState::Issued if token.is_live(draft.now) => {
                draft.emit(EventBody::TokenEnded { token: id, end: TokenEnd::Revoked });
                Ok(Reply::Done)
            }
            TokenState::Issued | TokenState::Ended(TokenEnd::Expired) => Err(Refused::TokenExpired),
            TokenState::Bound | TokenState::Ended(TokenEnd::Spent) => Err(Refused::TokenUsed),
            // It is as the asker wants it.
            TokenState::Ended(TokenEnd::Revoked | TokenEnd::Misused) => Ok(Reply::Done),
        }
    }

    pub(super) fn redeem(&self, redemption: Redemption, draft: &mut Draft) -> Result<Reply, Refused> {
        if let Some(why) = self.rolled_back() {
            return Err(Refused::Frozen { why });
        }
        let Redemption { token: id, role, name, fresh, certificate, from } = redemption;
        let token = self.tokens.get(id).ok_or(Refused::UnknownToken)?;
        match token.state {
            TokenState::Issued if token.is_live(draft.now) => {}
            TokenState::Issued | TokenState::Ended(TokenEnd::Expired) => return Err(Refused::TokenExpired),
            TokenState::Ended(TokenEnd::Revoked | TokenEnd::Misused) => return Err(Refused::TokenRevoked),
            TokenState::Bound | TokenState::Ended(TokenEnd::Spent) => {
                return self.redeemed_before(token, certificate, from, draft);
            }
        }
        if role != token.grant.role {
            return Err(Refused::WrongRole { role: token.grant.role });
        }
        let identity = match token.grant.rejoins {
            Some(id) => {
                let member = self.members.get(&id).ok_or(Refused::UnknownIdentity)?;
                if member.revoked.is_some() {
                    return Err(Refused::AlreadyRevoked { name: member.identity.name.clone() });
                }
                if name.is_some_and(|wish| wish != member.identity.name) {
                    return Err(Refused::WrongName { name: member.identity.name.clone() });
                }
                // Alive as it may be, it is not probed: it must make room for whom the token was made for.
                if let Some(session) = self.nodes.get(&NodeId::from(id)).and_then(Node::session) {
                    draft.effect(Effect::EndSession { node: id.into(), session, why: SessionEnd::Superseded });
                }
                member.identity.clone()
            }
            None => self.new_identity(token, name, fresh, draft.now)?,
        };
        draft.emit(EventBody::MemberJoined { token: id, identity: identity.clone(), certificate, from });
        Ok(Reply::Joined { identity, certificate, existing: false })
    }

    /// The same key may ask again for a while, because its answer may have been lost; another key is a thief's, or the
    /// owner's whose token was stolen.
    fn redeemed_before(
        &self,
        token: &Token,
        certificate: Certificate,
        from: Text<192>,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        let binding = token.binding.as_ref().ok_or(Refused::TokenUsed)?;
        if binding.certificate.key == certificate.key {
            let member = self.members.get(&binding.identity).ok_or(Refused::TokenUsed)?;
            let fresh = token.state == TokenState::Bound && draft.now < binding.at + BOUND_FOR;
            if !fresh || !member.accepts(&binding.certificate.serial) {
                return Err(Refused::TokenUsed);
            }
            let identity = member.identity.clone();
            return Ok(Reply::Joined { identity, certificate: binding.certificate, existing: true });
        }
        if token.alarms.len() < ALARMS_MAX {
            draft.emit(EventBody::TokenAlarm { token: token.id, from });
        }
        Err(Refused::TokenUsed)
    }

    fn new_identity(
        &self,
        token: &Token,
        wish: Option<Name>,
        id: IdentityId,
        now: Timestamp,
    ) -> Result<Identity, Refused> {
        let grant = &token.grant;
        // A name that another token waits to give is taken: a stranger must not be quicker than whom it was promised to.
        let promised = |name: &Name| self.token_for(name, now).is_some_and(|other| other.id != token.id);
        // A new name must not lead into an account that is somebody's already.
        let foreign = |name: &Name| grant.account.is_none() && self.accounts.contains(&AccountId::from(name.clone()));
        let taken = |name: &Name| self.member_named(name).is_some() || promised(name) || foreign(name);
        let name = match (&grant.name, wish) {
            (Some(given), Some(wish)) if *given != wish => return Err(Refused::WrongName { name: given.clone() }),
            (Some(given), _) => given.clone(),
            (None, Some(wish)) => wish,
            (None, None) => made_up_name(grant.role, id, taken),
        };
        if taken(&name) || self.members.contains_key(&id) {
            return Err(Refused::NameTaken { name });
        }
        let account = grant.account.clone().unwrap_or_else(|| name.clone().into());
        Ok(Identity { id, role: grant.role, name, account })
    }

    pub(super) fn wrong_proof(&mut self, id: TokenId, draft: &mut Draft) -> Result<Reply, Refused> {
        let token = self.tokens.get_mut(id).ok_or(Refused::UnknownToken)?;
        if token.is_live(draft.now) {
            token.wrong_proofs = token.wrong_proofs.saturating_add(1);
            if token.wrong_proofs >= WRONG_PROOFS_MAX {
                draft.emit(EventBody::TokenEnded { token: id, end: TokenEnd::Misused });
            }
        }
        Err(Refused::WrongProof)
    }

    pub(super) fn renew(
        &self,
        id: IdentityId,
        using: CertificateSerial,
        certificate: Certificate,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        if let Some(why) = self.rolled_back() {
            return Err(Refused::Frozen { why });
        }
        let member = self.members.get(&id).ok_or(Refused::UnknownIdentity)?;
        if member.revoked.is_some() {
            return Err(Refused::Revoked);
        }
        // Once a newer one has been used its holder has it: who still comes with the older one must not push it out.
        if !member.accepts(&using) || member.newer_in_use_since(&using).is_some() {
            return Err(Refused::StaleSession);
        }
        draft.emit(EventBody::CertificateIssued { identity: id, certificate, beside: Some(using) });
        Ok(Reply::Done)
    }

    pub(super) fn certificate_used(&self, id: IdentityId, serial: CertificateSerial, draft: &mut Draft) -> Reply {
        let unused = self.members.get(&id).is_some_and(|member| {
            let known = member.certificates.iter().find(|known| known.certificate.serial == serial);
            member.revoked.is_none() && known.is_some_and(|known| known.used_at.is_none())
        });
        if unused {
            draft.emit(EventBody::CertificateUsed { identity: id, serial });
            let bound = |token: &&Token| {
                let here = |binding: &crate::membership::Binding| binding.certificate.serial == serial;
                token.state == TokenState::Bound && token.binding.as_ref().is_some_and(here)
            };
            if let Some(token) = self.tokens.iter().find(bound) {
                draft.emit(EventBody::TokenEnded { token: token.id, end: TokenEnd::Spent });
            }
        }
        Reply::Done
    }

    pub(super) fn revoke_identity(
        &mut self,
        by: &Actor,
        id: IdentityId,
        wall: WallTime,
        why: Text<256>,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        if by.role != Role::Operator {
            return Err(Refused::NotAllowed { what: "revoking identities" });
        }
        let member = self.members.get(&id).ok_or(Refused::UnknownIdentity)?;
        let name = || member.identity.name.clone();
        if member.revoked.is_some() {
            return Err(Refused::AlreadyRevoked { name: name() });
        }
        // Without a good certificate nobody comes in, so such a one does not count as left.
        let left = |other: &Member| {
            let good = other.certificates.iter().any(|known| known.certificate.not_after > wall);
            other.identity.role == Role::Operator && other.identity.id != id && good
        };
        if member.identity.role == Role::Operator && !self.members.values().any(left) {
            return Err(Refused::LastOperator { name: name() });
        }
        let tokens: Vec<TokenId> = self
            .tokens
            .iter()
            .filter(|token| token.state == TokenState::Issued && self.leads_to(token, id))
            .map(|token| token.id)
            .collect();
        let jobs = self.work_of(member).count() as u64;
        draft.emit(EventBody::IdentityRevoked { identity: id, by: Some(by.id), why });
        for token in &tokens {
            draft.emit(EventBody::TokenEnded { token: *token, end: TokenEnd::Revoked });
        }
        Ok(Reply::Revoked { jobs, tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX) })
    }

    /// Whether the token was made by this identity, or would bring it back.
    fn leads_to(&self, token: &Token, id: IdentityId) -> bool {
        token.by == Some(id) || token.grant.rejoins == Some(id)
    }

    /// The jobs that a revoked identity leaves behind: those on a node, or those of an account that nobody else holds.
    fn work_of<'a>(&'a self, member: &'a Member) -> Box<dyn Iterator<Item = JobId> + 'a> {
        let (id, account) = (member.identity.id, &member.identity.account);
        match member.identity.role {
            Role::Node => Box::new(self.nodes.get(&id.into()).into_iter().flat_map(|node| node.placed.iter().copied())),
            Role::Client => {
                let heir = self.members.values().any(|other| {
                    let Identity { id: other_id, role, account: other_account, .. } = &other.identity;
                    *other_id != id && *role == Role::Client && other_account == account && other.revoked.is_none()
                });
                let stopping = |phase: &Phase, stop: bool| matches!(phase, Phase::Placed(_)) && stop;
                let left = self
                    .jobs
                    .values()
                    .filter(move |job| !heir && job.account == *account && !stopping(&job.phase, job.stop.is_some()));
                Box::new(left.map(|job| job.id))
            }
            Role::Operator | Role::Orchestrator => Box::new(std::iter::empty()),
        }
    }

    /// Moves or cancels what a revoked identity left behind, some at a time.
    pub(super) fn revoked_work(&mut self, id: IdentityId, draft: &mut Draft) {
        let Some(member) = self.members.get(&id).filter(|member| member.revoked.is_some()) else { return };
        let role = member.identity.role;
        let (mut work, mut later) = (Vec::new(), None);
        for job in self.work_of(member) {
            let at = if role == Role::Node { self.leaves_revoked_node_at(&self.jobs[&job]) } else { draft.now };
            if at > draft.now {
                later = Some(later.map_or(at, |before: Timestamp| before.min(at)));
            } else {
                work.push(job);
                if work.len() == REVOKED_JOBS_PER_GO_MAX {
                    break;
                }
            }
        }
        if work.is_empty() {
            if let Some(at) = later {
                self.deadlines.arm(at, Deadline::RevokedWork(id));
            }
            return;
        }
        for job in &work {
            let job = self.jobs[job].clone();
            match (role, job.placement().cloned()) {
                (Role::Node, Some(placement)) => self.node_revoked(&job, &placement, draft),
                (_, None) => self.finish_cancelled(&job, None, draft),
                (_, Some(placement)) => {
                    let (attempt, fence, grace) = (placement.attempt, placement.fence, REVOKED_GRACE);
                    let stop = NodeMessage::Stop { attempt, fence, grace, cause: StopCause::Cancelled };
                    self.tell(placement.node, stop, draft);
                    let why = Text::cut("its client was revoked");
                    draft.emit(EventBody::CancelRequested { job: job.id, grace, why });
                }
            }
        }
        // At this same moment, so that nothing of what is left is placed before.
        let pause = if self.breach.is_none() { Span::ZERO } else { NEXT_GO_IF_BROKEN };
        self.deadlines.arm(draft.now + pause, Deadline::RevokedWork(id));
    }

    /// From when on the job may move. What was promised to run in one place only may still run on the node until its lease
    /// is over, by the slower of two clocks: nobody there can be told any more.
    fn leaves_revoked_node_at(&self, job: &Job) -> Timestamp {
        let Some(placement) = job.placement() else { return Timestamp::ZERO };
        let runs = !matches!(placement.progress, Progress::Done(_));
        let moves = job.stop.is_none() && job.attempts_counted < job.spec.limits.attempts_max;
        match (self.nodes.get(&placement.node), job.spec.limits.on_disconnect) {
            (Some(node), OnDisconnect::Stop) if runs && moves => {
                // Until it was revoked for all to see, a standstill included, it may have been told that it is heard.
                let heard = node.presence.heard.max(self.listening_since());
                heard + self.config.lease.saturating_add(LEASE_MARGIN)
            }
            _ => Timestamp::ZERO,
        }
    }

    pub(super) fn token_expires(&self, id: TokenId, draft: &mut Draft) {
        let over = |token: &Token| token.state == TokenState::Issued && token.expires_at <= draft.now;
        if self.tokens.get(id).is_some_and(over) {
            draft.emit(EventBody::TokenEnded { token: id, end: TokenEnd::Expired });
        }
    }

    pub(super) fn token_bound(&self, id: TokenId, draft: &mut Draft) {
        if self.tokens.get(id).is_some_and(|token| token.state == TokenState::Bound) {
            draft.emit(EventBody::TokenEnded { token: id, end: TokenEnd::Spent });
        }
    }

    pub(super) fn certificate_retires(&self, id: IdentityId, serial: CertificateSerial, draft: &mut Draft) {
        let Some(member) = self.members.get(&id) else { return };
        // The one that was in use when this was armed may be gone since: one that nobody has shown replaces nothing.
        let due = member.newer_in_use_since(&serial).is_some_and(|at| at + RETIRE_AFTER <= draft.now);
        if due && member.accepts(&serial) {
            draft.emit(EventBody::CertificateRetired { identity: id, serial });
        }
    }
}
