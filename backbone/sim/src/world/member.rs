//! Who belongs to the world and how they got in: some by a file on the orchestrator's machine, some by tokens that are
//! stolen, tried with wrong secrets, or run out. They renew their certificates now and then, and some are revoked.

use std::collections::BTreeMap;

use modchain_core::job::Progress;
use modchain_core::membership::Certificate;
use modchain_core::{Actor, Command, Redemption, Refused, Reply};
use modchain_types::{
    AccountId, CertificateSerial, Identity, IdentityId, KeyDigest, Name, NodeId, Role, Span, Text, TokenId, WallTime,
};

use super::client::operator;
use super::network::ToAgent;
use super::orchestrator::Answer;
use super::{Happening, World};
use crate::auditor::{Breach, Rule, rule};

/// Identities that are revoked in one world: more would leave nothing for other faults to befall.
const REVOCATIONS_MAX: u32 = 3;
/// Owners of nodes; each has an account and makes the tokens of its nodes.
const OWNERS: u8 = 3;
/// The first one's number.
const FIRST_OWNER: u8 = 90;

#[derive(Debug, Default)]
pub(super) struct Members {
    holders: BTreeMap<IdentityId, Holder>,
    /// Certificates that were planned so far.
    planned: u64,
    /// Tokens that were asked for so far.
    tokens: u64,
    revocations: u32,
}

/// Somebody with an identity, or who will have it.
#[derive(Debug)]
struct Holder {
    identity: Identity,
    /// Who makes its tokens.
    sponsor: Actor,
    entry: Entry,
    /// The certificate before its own.
    replaced: Option<CertificateSerial>,
}

/// How far somebody has got in.
#[derive(Debug, Clone, Copy)]
enum Entry {
    /// A file tells of it, with this certificate.
    ByFile(CertificateSerial),
    /// It needs a token.
    Outside,
    /// Its token is asked for until there is an answer.
    Asking { token: TokenId, rejoin: bool, ttl: Span },
    /// It has a token, and has made a key for it.
    Invited { token: TokenId },
    /// It has its certificate.
    In(CertificateSerial),
}

impl World {
    pub(super) fn populate_members(&mut self) {
        let clients: Vec<AccountId> = self.clients.accounts().to_vec();
        for (number, account) in clients.into_iter().enumerate() {
            let id = IdentityId([100 + number as u8; 16]);
            let name = account.as_str().parse().expect("an account is a name");
            self.holder(Identity { id, role: Role::Client, name, account }, operator());
        }
        let nodes: Vec<NodeId> = self.agents.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.machine(node));
    }

    /// A machine that belongs to one of the owners.
    pub(super) fn machine(&mut self, node: NodeId) {
        let number = node.0[0] - 1;
        let sponsor = owner(number % OWNERS);
        let name = node_name(node).parse().expect("a valid name");
        let account = sponsor.account.clone();
        self.holder(Identity { id: node.into(), role: Role::Node, name, account }, sponsor);
    }

    fn holder(&mut self, identity: Identity, sponsor: Actor) {
        let id = identity.id;
        // Files are read at the beginning only.
        let by_token = self.clients.introduced() || self.random.chance(self.swarm.joins_by_token);
        let entry = if by_token { Entry::Outside } else { Entry::ByFile(self.plan(0).serial) };
        self.members.holders.insert(id, Holder { identity, sponsor, entry, replaced: None });
        let at = self.soon(Span::from_secs(2));
        self.at(at, Happening::Joins(id));
    }

    /// What the orchestrator's own machine tells at its start.
    pub(super) fn introductions(&self) -> Vec<Command> {
        let root = Identity {
            id: operator().id,
            role: Role::Operator,
            name: "operator".parse().expect("a valid name"),
            account: operator().account,
        };
        let owners = (0..OWNERS).map(|number| {
            let Actor { id, role, account } = owner(number);
            let name = account.as_str().parse().expect("an account is a name");
            (Identity { id, role, name, account }, None)
        });
        let by_file = self.members.holders.values().filter_map(|holder| match holder.entry {
            Entry::ByFile(serial) => Some((holder.identity.clone(), Some(certificate(serial, 0)))),
            Entry::Outside | Entry::Asking { .. } | Entry::Invited { .. } | Entry::In(_) => None,
        });
        let everybody = [(root, None)].into_iter().chain(owners).chain(by_file);
        everybody.map(|(identity, certificate)| Command::AddIdentity { identity, certificate }).collect()
    }

    /// Whether the identity's holder has a certificate.
    pub(super) fn is_in(&self, id: IdentityId) -> bool {
        matches!(self.members.holders.get(&id).map(|holder| holder.entry), Some(Entry::In(_)))
    }

    /// A handshake with the holder's certificate; `false` if it may not come in, or the orchestrator dies over it.
    pub(super) fn comes_in(&mut self, id: IdentityId) -> Result<bool, Breach> {
        let Some(Entry::In(serial)) = self.members.holders.get(&id).map(|holder| holder.entry) else {
            return Ok(false);
        };
        let Some(member) = self.orchestrator.control.as_ref().and_then(|control| control.member(id)) else {
            return Ok(false);
        };
        if self.auditor.is_revoked(id) {
            rule(Rule::RevokedStaysOut, !member.accepts(&serial), || format!("{id} comes in"))?;
            return Ok(false);
        }
        rule(Rule::NobodyLockedOut, member.accepts(&serial), || format!("{id} comes with {serial}: {member:?}"))?;
        let known = member.certificates.iter().find(|known| known.certificate.serial == serial);
        if known.is_some_and(|known| known.used_at.is_some()) {
            return Ok(true);
        }
        let used = self.command(Command::CertificateUsed { identity: id, serial })?;
        Ok(matches!(used, Answer::Reply(Reply::Done)))
    }

    /// The next step of somebody who is not in yet.
    pub(super) fn joins(&mut self, id: IdentityId) -> Result<(), Breach> {
        let up = self.orchestrator.control.is_some() && self.clients.introduced();
        let entry = self.members.holders[&id].entry;
        if up {
            match entry {
                Entry::ByFile(serial) => self.enters(id, serial),
                Entry::Outside => self.wants_a_token(id),
                Entry::Asking { token, rejoin, ttl } => self.asks_for_a_token(id, token, rejoin, ttl)?,
                Entry::Invited { token } => self.redeems(id, token)?,
                Entry::In(_) => {}
            }
        }
        if !self.is_in(id) {
            let again = self.soon(Span::from_secs(5)) + Span::from_millis(100);
            self.at(again, Happening::Joins(id));
        }
        Ok(())
    }

    fn enters(&mut self, id: IdentityId, serial: CertificateSerial) {
        self.note(|| format!("{id} is in with {serial}"));
        let holder = self.members.holders.get_mut(&id).expect("just seen");
        holder.entry = Entry::In(serial);
        let identity = holder.identity.clone();
        if identity.role == Role::Client {
            self.welcome(&identity.account);
        }
        let at = self.soon(self.swarm.renew_every);
        self.at(at, Happening::Renews(id));
    }

    fn wants_a_token(&mut self, id: IdentityId) {
        self.members.tokens += 1;
        let number = self.members.tokens;
        let token = TokenId(number.to_be_bytes()[3..].try_into().expect("five bytes"));
        let ttl = Span::from_secs(self.random.pick(&[20, 900]));
        let control = self.orchestrator.control.as_ref().expect("it is up");
        let rejoin = control.member(id).is_some();
        let free = |name: &Name| control.identity_named(name).is_none();
        let holder = self.members.holders.get_mut(&id).expect("just seen");
        if !rejoin && !free(&holder.identity.name) {
            // A thief has the name.
            holder.identity.name = format!("{}-{number}", node_name(id.into())).parse().expect("a valid name");
        }
        holder.entry = Entry::Asking { token, rejoin, ttl };
    }

    fn asks_for_a_token(&mut self, id: IdentityId, token: TokenId, rejoin: bool, ttl: Span) -> Result<(), Breach> {
        let Holder { identity, sponsor, .. } = &self.members.holders[&id];
        let (by, role, name) = (sponsor.clone(), identity.role, Some(identity.name.clone()));
        let create = Command::CreateToken { by, token, verifier: [0; 32], role, name, account: None, rejoin, ttl };
        if let Answer::Reply(reply) = self.command(create)? {
            let made = matches!(reply, Reply::Token { .. });
            rule(Rule::AnswersKept, made, || format!("asking for a token gives {reply:?}"))?;
            if !self.random.chance(self.swarm.answer_lost) {
                self.members.holders.get_mut(&id).expect("just seen").entry = Entry::Invited { token };
            }
        }
        Ok(())
    }

    fn redeems(&mut self, id: IdentityId, token: TokenId) -> Result<(), Breach> {
        let role = self.members.holders[&id].identity.role;
        if self.random.chance(self.swarm.wrong_proofs) {
            for _ in 0..self.random.between(1, 5) {
                self.command(Command::WrongProof { token })?;
            }
        }
        // Where a thief's client came first, its account would be the honest one's for ever.
        if role == Role::Node && self.random.chance(self.swarm.tokens_stolen) {
            self.a_thief_redeems(role, token)?;
        }
        let plan = self.plan(token.0[4]);
        let fresh = id;
        let redemption = Redemption { token, role, name: None, fresh, certificate: plan, from: Text::cut("home") };
        let Answer::Reply(reply) = self.command(Command::Redeem(Box::new(redemption)))? else { return Ok(()) };
        let lost = self.random.chance(self.swarm.answer_lost);
        match reply {
            Reply::Joined { identity, certificate, existing } => {
                let expected = identity == self.members.holders[&id].identity && certificate.key == plan.key;
                let expected = expected && existing == (certificate.serial != plan.serial);
                rule(Rule::AnswersKept, expected, || format!("{id} joins as {identity:?} with {certificate:?}"))?;
                if !lost {
                    self.enters(id, certificate.serial);
                }
            }
            Reply::Refused(Refused::TokenUsed | Refused::TokenExpired | Refused::TokenRevoked) => {
                self.members.holders.get_mut(&id).expect("just seen").entry = Entry::Outside;
                self.revoke_who_used(token, id)?;
            }
            reply => rule(Rule::AnswersKept, false, || format!("redeeming gives {reply:?}"))?,
        }
        if self.random.chance(self.swarm.tokens_stolen) {
            self.a_thief_redeems(role, token)?;
        }
        Ok(())
    }

    /// Somebody else has the token, and a key of its own.
    fn a_thief_redeems(&mut self, role: Role, token: TokenId) -> Result<(), Breach> {
        let (fresh, certificate) = (IdentityId(self.random.bytes()), self.plan(255));
        let redemption = Redemption { token, role, name: None, fresh, certificate, from: Text::cut("elsewhere") };
        self.command(Command::Redeem(Box::new(redemption)))?;
        Ok(())
    }

    /// The alarm has been read: whoever used the token in place of `honest` is revoked.
    fn revoke_who_used(&mut self, token: TokenId, honest: IdentityId) -> Result<(), Breach> {
        let wall = self.wall();
        let Some(control) = &self.orchestrator.control else { return Ok(()) };
        let used = control.tokens().get(token).and_then(|token| token.binding.as_ref());
        let Some(thief) = used.map(|binding| binding.identity).filter(|thief| *thief != honest) else {
            return Ok(());
        };
        let why = Text::cut("it used another's token");
        self.command(Command::RevokeIdentity { wall, by: operator(), identity: thief, why }).map(|_| ())
    }

    /// A new certificate for a new key; both answers to it and the orchestrator may be lost over it.
    pub(super) fn renews(&mut self, id: IdentityId) -> Result<(), Breach> {
        let Entry::In(using) = self.members.holders[&id].entry else { return Ok(()) };
        let again = self.soon(self.swarm.renew_every) + Span::from_secs(1);
        self.at(again, Happening::Renews(id));
        if self.orchestrator.control.is_none() {
            return Ok(());
        }
        if !self.comes_in(id)? {
            return self.stays_out(id, using);
        }
        if let Some(old) = self.members.holders[&id].replaced {
            // Whoever has stolen the old key cannot push out its successor, which has just been shown.
            let certificate = self.plan(255);
            if let Answer::Reply(reply) = self.command(Command::Renew { identity: id, using: old, certificate })? {
                let refused = reply == Reply::Refused(Refused::StaleSession);
                rule(Rule::NobodyLockedOut, refused, || format!("an old key's renewal for {id} gives {reply:?}"))?;
            }
        }
        let certificate = self.plan(1);
        if let Answer::Reply(reply) = self.command(Command::Renew { identity: id, using, certificate })? {
            rule(Rule::AnswersKept, reply == Reply::Done, || format!("renewing {id} gives {reply:?}"))?;
            if !self.random.chance(self.swarm.answer_lost) {
                let holder = self.members.holders.get_mut(&id).expect("just seen");
                (holder.entry, holder.replaced) = (Entry::In(certificate.serial), Some(using));
            }
        }
        if self.random.chance(50_000) {
            self.comes_in(id)?;
        }
        Ok(())
    }

    /// Nobody who was revoked gets a new certificate.
    fn stays_out(&mut self, id: IdentityId, using: CertificateSerial) -> Result<(), Breach> {
        if !self.auditor.is_revoked(id) {
            return Ok(()); // the orchestrator died over it
        }
        let certificate = self.plan(1);
        let Answer::Reply(reply) = self.command(Command::Renew { identity: id, using, certificate })? else {
            return Ok(());
        };
        let out = reply == Reply::Refused(Refused::Revoked);
        rule(Rule::RevokedStaysOut, out, || format!("renewing {id}, which was revoked, gives {reply:?}"))
    }

    /// A node or a client is revoked. There is always another one, or a new one joins.
    pub(super) fn revocation(&mut self) -> Result<(), Breach> {
        let role = self.random.pick(&[Role::Node, Role::Client]);
        let left = |(id, holder): (&IdentityId, &Holder)| {
            let there = holder.identity.role == role && matches!(holder.entry, Entry::In(_));
            (there && !self.auditor.is_revoked(*id)).then_some(*id)
        };
        let left: Vec<IdentityId> = self.members.holders.iter().filter_map(left).collect();
        if self.members.revocations == REVOCATIONS_MAX || left.is_empty() || (role == Role::Client && left.len() < 2) {
            return Ok(());
        }
        let id = self.random.pick(&left);
        let why = Text::cut("sold");
        let late = self.output_on_its_way(id.into());
        let wall = self.wall();
        let answer = self.command_in_batch(Command::RevokeIdentity { wall, by: operator(), identity: id, why })?;
        for command in late {
            self.command_in_batch(command)?;
        }
        self.advance()?;
        if let Answer::Reply(reply) = &answer {
            let revoked = matches!(reply, Reply::Revoked { .. });
            rule(Rule::AnswersKept, revoked, || format!("revoking {id} gives {reply:?}"))?;
        }
        if !self.auditor.is_revoked(id) {
            return Ok(()); // the orchestrator died before it was synced
        }
        self.members.revocations += 1;
        if role == Role::Node {
            // What is on its way may still arrive before the connection is closed.
            for connection in self.sessions_of(id.into()) {
                self.send_down(connection, ToAgent::Close);
            }
            if left.len() == 1 || self.random.chance(50_000) {
                let node = self.new_machine();
                self.machine(node);
            }
        }
        Ok(())
    }

    /// The whole output of every attempt of the node whose result is here already.
    fn output_on_its_way(&self, node: NodeId) -> Vec<Command> {
        let jobs = self.orchestrator.control.iter().flat_map(|control| control.jobs());
        let here = jobs.filter_map(|job| job.placement()).filter(|placement| placement.node == node);
        here.filter_map(|placement| match &placement.progress {
            Progress::Done(done) => {
                let (attempt, fence, stored) = (placement.attempt, placement.fence, done.output);
                Some(Command::OutputStored { attempt, fence, stored })
            }
            Progress::Assigned | Progress::Starting | Progress::Running { .. } => None,
        })
        .collect()
    }

    /// Machines whose identity was revoked are gone for good.
    pub(super) fn take_revoked_machines_away(&mut self) {
        let revoked = |node: &&NodeId| self.auditor.is_revoked((**node).into());
        let nodes: Vec<NodeId> = self.agents.keys().filter(revoked).copied().collect();
        nodes.into_iter().for_each(|node| self.take_away(node));
    }

    /// Everybody who has a certificate comes in with it, or was revoked.
    pub(super) fn everybody_comes_in(&mut self) -> Result<(), Breach> {
        let everybody: Vec<IdentityId> = self.members.holders.keys().copied().collect();
        for id in everybody {
            rule(Rule::EverythingEnds, self.is_in(id), || format!("{id} never got in"))?;
            let comes = self.comes_in(id)?;
            let revoked = self.auditor.is_revoked(id);
            rule(Rule::NobodyLockedOut, comes != revoked, || format!("{id}: revoked {revoked}, comes in {comes}"))?;
        }
        Ok(())
    }

    fn plan(&mut self, key: u8) -> Certificate {
        self.members.planned += 1;
        let mut serial = [0; 16];
        serial[8..].copy_from_slice(&self.members.planned.to_be_bytes());
        certificate(CertificateSerial(serial), key)
    }
}

fn certificate(serial: CertificateSerial, key: u8) -> Certificate {
    Certificate { serial, key: KeyDigest([key; 32]), not_before: WallTime(0), not_after: WallTime(i64::MAX) }
}

fn node_name(node: NodeId) -> String {
    format!("node-{}", node.0[0] - 1)
}

/// The owner of nodes whose account this is.
pub(super) fn owner_with(account: &AccountId) -> Option<Actor> {
    (0..OWNERS).map(owner).find(|owner| owner.account == *account)
}

fn owner(number: u8) -> Actor {
    let account = format!("owner-{number}").parse().expect("a valid name");
    Actor { id: IdentityId([FIRST_OWNER + number; 16]), role: Role::Client, account }
}
