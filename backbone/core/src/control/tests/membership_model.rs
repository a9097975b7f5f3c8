//! Random lives of a pool against a naive reference: maps, and a clock that is looked at before every step.

use proptest::prelude::*;

use super::*;
use crate::command::Redemption;
use crate::membership::{self, Certificate, TokenState};

const NAMES: [&str; 5] = ["a", "b", "c", "alice", "n1"];

/// One step. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Create { token: u8, by_alice: bool, role: Role, name: Option<usize>, rejoin: bool, secs: u64 },
    RevokeToken { token: u8, by_alice: bool },
    Redeem { token: u8, role: Role, key: u8, name: Option<usize> },
    WrongProof { token: u8 },
    Renew { member: usize, using: usize },
    Use { member: usize, which: usize },
    RevokeIdentity { member: usize },
    Wait { secs: u64 },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let token = || 0u8..8;
    let role = || prop::sample::select(vec![Role::Node, Role::Node, Role::Client, Role::Operator]);
    let name = || prop::option::of(0..NAMES.len());
    let secs = || prop::sample::select(vec![1u64, 60, 300, 600, 900]);
    let create = (token(), any::<bool>(), role(), name(), prop::bool::weighted(0.3), secs());
    let step = prop_oneof![
        4 => create.prop_map(|(token, by_alice, role, name, rejoin, secs)| {
            Step::Create { token, by_alice, role, name, rejoin, secs }
        }),
        1 => (token(), any::<bool>()).prop_map(|(token, by_alice)| Step::RevokeToken { token, by_alice }),
        6 => (token(), role(), 0u8..3, name())
            .prop_map(|(token, role, key, name)| Step::Redeem { token, role, key, name }),
        2 => token().prop_map(|token| Step::WrongProof { token }),
        4 => (0usize..32, 0usize..3).prop_map(|(member, using)| Step::Renew { member, using }),
        4 => (0usize..32, 0usize..3).prop_map(|(member, which)| Step::Use { member, which }),
        1 => (0usize..32).prop_map(|member| Step::RevokeIdentity { member }),
        3 => secs().prop_map(|secs| Step::Wait { secs }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..120)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Life {
    Waits,
    Bound,
    Spent,
    Expired,
    Revoked,
    Misused,
}

#[derive(Debug, Clone)]
struct ReferenceToken {
    by: IdentityId,
    role: Role,
    name: Option<&'static str>,
    account: Option<String>,
    rejoins: Option<IdentityId>,
    made: u64,
    secs: u64,
    life: Life,
    wrong: u32,
    alarms: usize,
    /// Who used it, with which key and serial number, and when.
    used: Option<(IdentityId, u8, u16, u64)>,
}

#[derive(Debug, Clone)]
struct ReferenceMember {
    role: Role,
    name: String,
    account: String,
    /// Accepted serial numbers, oldest first, and when each was used for the first time.
    certificates: Vec<(u16, Option<u64>)>,
    revoked: bool,
}

/// Seconds are its unit of time.
#[derive(Debug, Default)]
struct Reference {
    now: u64,
    tokens: BTreeMap<u8, ReferenceToken>,
    members: BTreeMap<IdentityId, ReferenceMember>,
    serials: u16,
}

impl Reference {
    fn new() -> Self {
        let mut reference = Self::default();
        let member = |role, name: &str, account: &str| ReferenceMember {
            role,
            name: name.into(),
            account: account.into(),
            certificates: Vec::new(),
            revoked: false,
        };
        for (id, name) in PEOPLE {
            reference.members.insert(IdentityId([id; 16]), member(Role::Client, name, name));
        }
        for id in [1, 2] {
            reference.members.insert(IdentityId([id; 16]), member(Role::Node, &format!("n{id}"), "owen"));
        }
        reference
    }

    /// What the clock brings about.
    fn look_at_the_clock(&mut self) {
        for token in self.tokens.values_mut() {
            match (token.life, token.used) {
                (Life::Waits, _) if self.now >= token.made + token.secs => token.life = Life::Expired,
                (Life::Bound, Some((_, _, _, at))) if self.now >= at + 600 => token.life = Life::Spent,
                _ => {}
            }
        }
        for member in self.members.values_mut() {
            if let [_, (newest, Some(at))] = member.certificates[..]
                && self.now >= at + 900
            {
                member.certificates = vec![(newest, Some(at))];
            }
        }
    }

    fn named(&self, name: &str) -> Option<(IdentityId, &ReferenceMember)> {
        self.members.iter().find(|(_, member)| member.name == name).map(|(id, member)| (*id, member))
    }

    fn promised(&self, name: &str, but: u8) -> bool {
        let waits = |token: &ReferenceToken| token.life == Life::Waits && token.name == Some(name);
        self.tokens.iter().any(|(id, token)| *id != but && waits(token))
    }

    fn has_account(&self, account: &str) -> bool {
        self.members.values().any(|member| member.account == account)
    }

    /// In an order that both sides know.
    fn pick(&self, number: usize) -> IdentityId {
        let mut ids: Vec<IdentityId> = self.members.keys().copied().collect();
        ids.sort();
        ids[number % ids.len()]
    }

    /// One that is accepted, or one that nobody has.
    fn serial_of(&self, member: IdentityId, number: usize) -> u16 {
        self.members[&member].certificates.get(number).map_or(u16::MAX, |(serial, _)| *serial)
    }

    fn create(&mut self, id: u8, wish: &ReferenceToken, rejoin: bool) -> &'static str {
        if let Some(known) = self.tokens.get(&id) {
            let same = known.by == wish.by && known.role == wish.role && known.name == wish.name;
            let same = same && known.rejoins.is_some() == rejoin && known.secs == wish.secs;
            return if same { "token" } else { "taken" };
        }
        let by_root = wish.by == operator().id;
        if !by_root && wish.role != Role::Node {
            return "not allowed";
        }
        let mut token = wish.clone();
        if rejoin {
            let Some(name) = wish.name else { return "invalid" };
            let Some((member, known)) = self.named(name).filter(|(_, known)| by_root || known.account == "alice")
            else {
                return "unknown identity";
            };
            if known.revoked {
                return "already revoked";
            }
            if known.role != wish.role {
                return "invalid";
            }
            (token.rejoins, token.account) = (Some(member), Some(known.account.clone()));
        } else {
            if wish.role == Role::Node {
                token.account = Some(if by_root { "root" } else { "alice" }.into());
            }
            if let Some(name) = wish.name
                && (self.named(name).is_some() || (token.account.is_none() && self.has_account(name)))
            {
                return "name taken";
            }
        }
        if let Some(name) = wish.name
            && self.promised(name, id)
        {
            return if rejoin { "limit" } else { "name taken" };
        }
        self.tokens.insert(id, token);
        "token"
    }

    fn redeem(&mut self, id: u8, role: Role, key: u8, wish: Option<&'static str>, fresh: IdentityId) -> &'static str {
        let (now, serial) = (self.now, self.serials);
        let Some(token) = self.tokens.get(&id).cloned() else { return "unknown token" };
        match (token.life, token.used) {
            (Life::Waits, _) => {}
            (Life::Expired, _) => return "expired",
            (Life::Revoked | Life::Misused, _) => return "token revoked",
            (_, Some((member, bound, serial, _))) if bound == key => {
                let accepted = self.members[&member].certificates.iter().any(|(known, _)| *known == serial);
                return if token.life == Life::Bound && accepted { "joined before" } else { "used" };
            }
            _ => {
                self.tokens.get_mut(&id).expect("just seen").alarms = (token.alarms + 1).min(3);
                return "used";
            }
        }
        if role != token.role {
            return "wrong role";
        }
        if let (Some(given), Some(wish)) = (token.name, wish)
            && given != wish
        {
            return "wrong name";
        }
        let member = token.rejoins.unwrap_or(fresh);
        if token.rejoins.is_none() {
            let word = token.role.word();
            let free = |name: &str| {
                let own = token.account.is_some() || !self.has_account(name);
                self.named(name).is_none() && !self.promised(name, id) && own
            };
            let name = match token.name.or(wish) {
                Some(name) => name.to_owned(),
                None if free(word) => word.to_owned(),
                None => format!("{word}-{}", &fresh.to_string()[fresh.to_string().len() - 8..]),
            };
            if !free(&name) {
                return "name taken";
            }
            let account = token.account.clone().unwrap_or_else(|| name.clone());
            let known = ReferenceMember { role: token.role, name, account, certificates: Vec::new(), revoked: false };
            self.members.insert(member, known);
        }
        self.members.get_mut(&member).expect("known or just made").certificates = vec![(serial, None)];
        let token = self.tokens.get_mut(&id).expect("just seen");
        (token.life, token.used) = (Life::Bound, Some((member, key, serial, now)));
        "joined"
    }

    fn renew(&mut self, id: IdentityId, using: u16) -> &'static str {
        let serial = self.serials;
        let member = self.members.get_mut(&id).expect("picked");
        if member.revoked {
            return "revoked";
        }
        let used = match member.certificates[..] {
            [used] if used.0 == using => used,
            [used, (_, None)] if used.0 == using => used,
            [_, used] if used.0 == using => used,
            _ => return "stale",
        };
        member.certificates = vec![used, (serial, None)];
        "done"
    }

    fn first_use(&mut self, id: IdentityId, serial: u16) {
        let now = self.now;
        let certificates = &mut self.members.get_mut(&id).expect("picked").certificates;
        if let Some((_, used)) = certificates.iter_mut().find(|(known, used)| *known == serial && used.is_none()) {
            *used = Some(now);
            for token in self.tokens.values_mut() {
                if token.life == Life::Bound && token.used.is_some_and(|(_, _, known, _)| known == serial) {
                    token.life = Life::Spent;
                }
            }
        }
    }

    fn revoke(&mut self, id: IdentityId) -> (&'static str, u32) {
        if self.members[&id].revoked {
            return ("already revoked", 0);
        }
        let operators = self.members.iter().filter(|(other, member)| {
            **other != id && member.role == Role::Operator && !member.certificates.is_empty()
        });
        if self.members[&id].role == Role::Operator && operators.count() == 0 {
            return ("last operator", 0);
        }
        let member = self.members.get_mut(&id).expect("picked");
        member.revoked = true;
        member.certificates.clear();
        let mut tokens = 0;
        for token in self.tokens.values_mut() {
            if token.life == Life::Waits && (token.by == id || token.rejoins == Some(id)) {
                token.life = Life::Revoked;
                tokens += 1;
            }
        }
        ("revoked now", tokens)
    }
}

fn serial_number(number: u16) -> CertificateSerial {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    CertificateSerial(bytes)
}

fn certificate(key: u8, serial: u16) -> Certificate {
    let serial = serial_number(serial);
    Certificate { serial, key: KeyDigest([key; 32]), not_before: WallTime(0), not_after: WallTime(1) }
}

/// The answer, as one word.
fn word(reply: &Reply) -> &'static str {
    match reply {
        Reply::Done => "done",
        Reply::Token { .. } => "token",
        Reply::Joined { existing: false, .. } => "joined",
        Reply::Joined { existing: true, .. } => "joined before",
        Reply::Revoked { .. } => "revoked now",
        Reply::Refused(refused) => match refused {
            Refused::NotAllowed { .. } => "not allowed",
            Refused::Invalid { .. } => "invalid",
            Refused::NameTaken { .. } => "name taken",
            Refused::Limit { .. } => "limit",
            Refused::Revoked => "revoked",
            Refused::StaleSession => "stale",
            Refused::UnknownIdentity => "unknown identity",
            Refused::AlreadyRevoked { .. } => "already revoked",
            Refused::LastOperator { .. } => "last operator",
            Refused::UnknownToken => "unknown token",
            Refused::TokenTaken => "taken",
            Refused::TokenExpired => "expired",
            Refused::TokenUsed => "used",
            Refused::TokenRevoked => "token revoked",
            Refused::WrongProof => "wrong proof",
            Refused::WrongRole { .. } => "wrong role",
            Refused::WrongName { .. } => "wrong name",
            other => panic!("nobody expects {other}"),
        },
        other => panic!("nobody expects {other:?}"),
    }
}

fn actor(by_alice: bool) -> Actor {
    if by_alice { client("alice") } else { operator() }
}

/// Takes one step on both sides; the words of both answers.
fn take(world: &mut World, reference: &mut Reference, step: Step) -> (&'static str, &'static str) {
    reference.serials += 1;
    let serial = reference.serials;
    let revoked = |reference: &Reference, by_alice: bool| by_alice && reference.members[&client("alice").id].revoked;
    match step {
        Step::Create { token, by_alice, role, name, rejoin, secs } => {
            let (by, name) = (actor(by_alice), name.map(|index| NAMES[index]));
            let wish = ReferenceToken {
                by: by.id,
                role,
                name,
                account: None,
                rejoins: None,
                made: reference.now,
                secs,
                life: Life::Waits,
                wrong: 0,
                alarms: 0,
                used: None,
            };
            let expected =
                if revoked(reference, by_alice) { "revoked" } else { reference.create(token, &wish, rejoin) };
            let reply = world.tell(Command::CreateToken {
                by,
                token: TokenId([token; 5]),
                verifier: [token; 32],
                role,
                name: name.map(|name| name.parse().expect("a name")),
                account: None,
                rejoin,
                ttl: Span::from_secs(secs),
            });
            (word(&reply), expected)
        }
        Step::RevokeToken { token, by_alice } => {
            let by = actor(by_alice);
            let visible = |known: &&mut ReferenceToken| !by_alice || known.by == by.id;
            let out = revoked(reference, by_alice);
            let expected = match reference.tokens.get_mut(&token).filter(visible) {
                _ if out => "revoked",
                None => "unknown token",
                Some(known) => match known.life {
                    Life::Waits => {
                        known.life = Life::Revoked;
                        "done"
                    }
                    Life::Revoked | Life::Misused => "done",
                    Life::Bound | Life::Spent => "used",
                    Life::Expired => "expired",
                },
            };
            (word(&world.tell(Command::RevokeToken { by, token: TokenId([token; 5]) })), expected)
        }
        Step::Redeem { token, role, key, name } => {
            let name = name.map(|index| NAMES[index]);
            let mut fresh = [200; 16];
            fresh[..2].copy_from_slice(&serial.to_be_bytes());
            let fresh = IdentityId(fresh);
            let expected = reference.redeem(token, role, key, name, fresh);
            let redemption = Redemption {
                token: TokenId([token; 5]),
                role,
                name: name.map(|name| name.parse().expect("a name")),
                fresh,
                certificate: certificate(key, serial),
                from: Text::default(),
            };
            (word(&world.tell(Command::Redeem(Box::new(redemption)))), expected)
        }
        Step::WrongProof { token } => {
            let expected = match reference.tokens.get_mut(&token) {
                None => "unknown token",
                Some(known) => {
                    if known.life == Life::Waits {
                        known.wrong += 1;
                        if known.wrong == 5 {
                            known.life = Life::Misused;
                        }
                    }
                    "wrong proof"
                }
            };
            (word(&world.tell(Command::WrongProof { token: TokenId([token; 5]) })), expected)
        }
        Step::Renew { member, using } => {
            let identity = reference.pick(member);
            let using = reference.serial_of(identity, using);
            let renew = Command::Renew { identity, using: serial_number(using), certificate: certificate(200, serial) };
            (word(&world.tell(renew)), reference.renew(identity, using))
        }
        Step::Use { member, which } => {
            let identity = reference.pick(member);
            let serial = reference.serial_of(identity, which);
            reference.first_use(identity, serial);
            (word(&world.tell(Command::CertificateUsed { identity, serial: serial_number(serial) })), "done")
        }
        Step::RevokeIdentity { member } => {
            let identity = reference.pick(member);
            let reply = world.tell(Command::RevokeIdentity {
                wall: WallTime(0),
                by: operator(),
                identity,
                why: Text::default(),
            });
            let (expected, tokens) = reference.revoke(identity);
            if let Reply::Revoked { tokens: told, .. } = reply {
                assert_eq!(told, tokens);
            }
            (word(&reply), expected)
        }
        Step::Wait { secs } => {
            world.wait(Span::from_secs(secs));
            reference.now += secs;
            ("", "")
        }
        Step::Restart => {
            world.control = world.replayed();
            world.start();
            reference.tokens.values_mut().for_each(|token| token.wrong = 0);
            ("", "")
        }
    }
}

/// Both sides know the same tokens and members, and accept the same certificates.
fn compare(world: &World, reference: &Reference) {
    let tokens = world.control.tokens();
    assert_eq!(tokens.iter().count(), reference.tokens.len());
    for (id, known) in &reference.tokens {
        let token = tokens.get(TokenId([*id; 5])).expect("remembered");
        let life = match token.state {
            TokenState::Issued => Life::Waits,
            TokenState::Bound => Life::Bound,
            TokenState::Ended(membership::TokenEnd::Spent) => Life::Spent,
            TokenState::Ended(membership::TokenEnd::Expired) => Life::Expired,
            TokenState::Ended(membership::TokenEnd::Revoked) => Life::Revoked,
            TokenState::Ended(membership::TokenEnd::Misused) => Life::Misused,
        };
        assert_eq!((life, token.alarms.len()), (known.life, known.alarms), "token {id}");
        let account = token.grant.account.as_ref().map(ToString::to_string);
        assert_eq!((account.as_ref(), token.grant.rejoins), (known.account.as_ref(), known.rejoins), "token {id}");
    }
    assert_eq!(world.control.members().count(), reference.members.len());
    for (id, known) in &reference.members {
        let member = world.control.member(*id).expect("known");
        let identity = &member.identity;
        let got = (identity.role, identity.name.to_string(), identity.account.to_string());
        assert_eq!(got, (known.role, known.name.clone(), known.account.clone()));
        let accepted: Vec<CertificateSerial> =
            member.certificates.iter().map(|accepted| accepted.certificate.serial).collect();
        let expected: Vec<CertificateSerial> =
            known.certificates.iter().map(|(serial, _)| serial_number(*serial)).collect();
        assert_eq!((accepted, member.revoked.is_some()), (expected, known.revoked), "{}", known.name);
    }
    let mut certificates: BTreeMap<TokenId, u32> = BTreeMap::new();
    for event in &world.journal {
        if let EventBody::MemberJoined { token, .. } = &event.body {
            *certificates.entry(*token).or_default() += 1;
        }
    }
    assert!(certificates.values().all(|count| *count == 1), "a token gave two certificates: {certificates:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_life_of_a_pool_is_what_a_naive_reference_says(steps in steps()) {
        let (mut world, mut reference) = (World::new(), Reference::new());
        for step in steps {
            let said = format!("{step:?}");
            let (got, expected) = take(&mut world, &mut reference, step);
            assert_eq!(got, expected, "{said}");
            reference.look_at_the_clock();
            compare(&world, &reference);
        }
        world.check_replay();
    }
}
