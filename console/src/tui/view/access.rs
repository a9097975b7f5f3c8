//! Who is in, and the tokens with which others can come.

use modchain_types::WallTime;
use modchain_wire::view::{IdentityState, IdentityView, TokenState, TokenView};
use ratatui::Frame;
use ratatui::layout::Alignment;
use ratatui::text::Line;

use super::super::act::{self, Demand, Question};
use super::super::app::{App, Ctx, Overlay, Tone};
use super::super::layout::Layout;
use super::super::msg::Effect;
use super::super::table::{Column, RowId, Source, TableId, Width, moment, text};
use super::super::theme::Role;
use super::reader::Reader;
use crate::client::mirror::Mirror;
use crate::filter::{Kind, Unit, Value};
use crate::text as words;

/// The members.
pub(crate) struct Identities;

/// The words of every state of a member, for filters.
const MEMBER_STATES: &[&str] = &["active", "expired", "revoked"];
/// The words of every state of a token, for filters.
const TOKEN_STATES: &[&str] = &["issued", "bound", "spent", "revoked", "expired"];
/// The words of every role, for filters.
const ROLES: &[&str] = &["operator", "client", "node", "orchestrator"];

const IDENTITIES: &[Column<IdentityView>] = &[
    Column {
        key: "name",
        title: "NAME",
        width: (10, 24),
        priority: 255,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, member, _| text(member.identity.name.to_string()),
        kind: Kind::Name,
        value: |_, member| Some(Value::from(member.identity.name.to_string())),
    },
    Column {
        key: "role",
        title: "ROLE",
        width: (8, 12),
        priority: 210,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, member, _| text(member.identity.role.word()),
        kind: Kind::Words(ROLES),
        value: |_, member| Some(Value::from(member.identity.role.word())),
    },
    Column {
        key: "account",
        title: "ACCOUNT",
        width: (8, 16),
        priority: 100,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, member, _| text(member.identity.account.to_string()),
        kind: Kind::Whole,
        value: |_, member| Some(Value::from(member.identity.account.to_string())),
    },
    Column {
        key: "state",
        title: "STATE",
        width: (8, 8),
        priority: 200,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, member, _| Line::styled(member.state.word(), ctx.theme.style(member_tone(member.state))),
        kind: Kind::Words(MEMBER_STATES),
        value: |_, member| Some(Value::from(member.state.word())),
    },
    Column {
        key: "expires",
        title: "EXPIRES",
        width: (7, 10),
        priority: 90,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |ctx, member, room| text(expires(member).map_or_else(|| "-".into(), |at| until(ctx, at, room))),
        kind: Kind::Number(Unit::Millis),
        value: |ctx, member| expires(member).map(|at| Value::Number(at.0.saturating_sub(ctx.now.0) as f64)),
    },
    Column {
        key: "renewals",
        title: "RENEWED",
        width: (7, 7),
        priority: 50,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, member, _| text(format!("{}x", member.renewals)),
        kind: Kind::Number(Unit::Plain),
        value: |_, member| Some(Value::Number(member.renewals as f64)),
    },
    Column {
        key: "connections",
        title: "CONN",
        width: (4, 5),
        priority: 80,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, member, _| text(member.connections.to_string()),
        kind: Kind::Number(Unit::Plain),
        value: |_, member| Some(Value::Number(f64::from(member.connections))),
    },
    Column {
        key: "joined",
        title: "JOINED",
        width: (8, 8),
        priority: 60,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |ctx, member, room| {
            let at = member.joined_at;
            text(if room == u16::MAX { words::rfc3339(at) } else { moment(ctx, at) })
        },
        kind: Kind::Number(Unit::Millis),
        value: |ctx, member| Some(Value::Number(ctx.now.since(member.joined_at).as_millis() as f64)),
    },
    Column {
        key: "serial",
        title: "SERIAL",
        width: (8, 40),
        priority: 20,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, member, _| text(serial(member).unwrap_or_else(|| "-".into())),
        kind: Kind::Name,
        value: |_, member| serial(member).map(Value::from),
    },
];

impl Source for Identities {
    type Row = IdentityView;
    const TABLE: TableId = TableId::Identities;
    const NOUNS: (&'static str, &'static str) = ("member", "members");

    fn columns() -> &'static [Column<IdentityView>] {
        IDENTITIES
    }

    fn order() -> (&'static str, bool) {
        ("name", false)
    }

    fn rows<'a>(ctx: &Ctx<'a>) -> Box<dyn Iterator<Item = &'a IdentityView> + 'a> {
        Box::new(ctx.mirror.identities.iter().flatten())
    }

    fn find<'a>(mirror: &'a Mirror, id: &RowId) -> Option<&'a IdentityView> {
        if let RowId::Identity(wanted) = id {
            mirror.identities.iter().flatten().find(|member| member.identity.id == *wanted)
        } else {
            None
        }
    }

    fn id(row: &IdentityView) -> RowId {
        RowId::Identity(row.identity.id)
    }

    fn revision(mirror: &Mirror) -> u64 {
        mirror.members_revision
    }
}

/// The tokens.
pub(crate) struct Tokens;

const TOKENS: &[Column<TokenView>] = &[
    Column {
        key: "token",
        title: "TOKEN",
        width: (8, 8),
        priority: 255,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, token, _| text(token.id.to_string()),
        kind: Kind::Name,
        value: |_, token| Some(Value::from(token.id.to_string())),
    },
    Column {
        key: "role",
        title: "ROLE",
        width: (8, 12),
        priority: 210,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, token, _| text(token.role.word()),
        kind: Kind::Words(ROLES),
        value: |_, token| Some(Value::from(token.role.word())),
    },
    Column {
        key: "name",
        title: "NAME",
        width: (8, 20),
        priority: 150,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, token, _| text(token.name.as_ref().map_or_else(|| "any".into(), ToString::to_string)),
        kind: Kind::Name,
        value: |_, token| token.name.as_ref().map(|name| Value::from(name.to_string())),
    },
    Column {
        key: "account",
        title: "ACCOUNT",
        width: (8, 16),
        priority: 100,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, token, _| text(token.account.as_ref().map_or_else(|| "-".into(), ToString::to_string)),
        kind: Kind::Whole,
        value: |_, token| token.account.as_ref().map(|account| Value::from(account.to_string())),
    },
    Column {
        key: "by",
        title: "BY",
        width: (6, 16),
        priority: 60,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, token, _| text(token.issued_by.as_ref().map_or_else(|| "init".into(), ToString::to_string)),
        kind: Kind::Name,
        value: |_, token| token.issued_by.as_ref().map(|name| Value::from(name.to_string())),
    },
    Column {
        key: "state",
        title: "STATE",
        width: (8, 8),
        priority: 200,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, token, _| {
            let role = if token.alarms.is_empty() { token_tone(token.state) } else { Role::Bad };
            Line::styled(token.state.word(), ctx.theme.style(role))
        },
        kind: Kind::Words(TOKEN_STATES),
        value: |_, token| Some(Value::from(token.state.word())),
    },
    Column {
        key: "expires",
        title: "EXPIRES",
        width: (7, 10),
        priority: 120,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |ctx, token, room| text(until(ctx, token.expires_at, room)),
        kind: Kind::Number(Unit::Millis),
        value: |ctx, token| Some(Value::Number(token.expires_at.0.saturating_sub(ctx.now.0) as f64)),
    },
    Column {
        key: "used",
        title: "USED BY",
        width: (8, 20),
        priority: 40,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, token, _| text(token.identity.as_ref().map_or_else(|| "-".into(), ToString::to_string)),
        kind: Kind::Name,
        value: |_, token| token.identity.as_ref().map(|name| Value::from(name.to_string())),
    },
    Column {
        key: "alarms",
        title: "ALARMS",
        width: (6, 30),
        priority: 70,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, token, _| Line::styled(alarms(token), ctx.theme.style(Role::Bad)),
        kind: Kind::Text,
        value: |_, token| Some(Value::from(alarms(token))),
    },
];

impl Source for Tokens {
    type Row = TokenView;
    const TABLE: TableId = TableId::Tokens;
    const NOUNS: (&'static str, &'static str) = ("token", "tokens");

    fn columns() -> &'static [Column<TokenView>] {
        TOKENS
    }

    fn order() -> (&'static str, bool) {
        ("token", false)
    }

    fn rows<'a>(ctx: &Ctx<'a>) -> Box<dyn Iterator<Item = &'a TokenView> + 'a> {
        Box::new(ctx.mirror.tokens.iter().flatten())
    }

    fn find<'a>(mirror: &'a Mirror, id: &RowId) -> Option<&'a TokenView> {
        if let RowId::Token(wanted) = id {
            mirror.tokens.iter().flatten().find(|token| token.id == *wanted)
        } else {
            None
        }
    }

    fn id(row: &TokenView) -> RowId {
        RowId::Token(row.id)
    }

    fn revision(mirror: &Mirror) -> u64 {
        mirror.members_revision
    }
}

fn member_tone(state: IdentityState) -> Role {
    match state {
        IdentityState::Active => Role::Good,
        IdentityState::Expired => Role::Warn,
        IdentityState::Revoked => Role::Dim,
    }
}

fn token_tone(state: TokenState) -> Role {
    match state {
        TokenState::Issued => Role::Good,
        TokenState::Bound => Role::Info,
        TokenState::Spent | TokenState::Revoked | TokenState::Expired => Role::Dim,
    }
}

/// End of the newest certificate.
fn expires(member: &IdentityView) -> Option<WallTime> {
    member.certificates.first().map(|certificate| certificate.expires_at)
}

/// Number of the newest certificate.
fn serial(member: &IdentityView) -> Option<String> {
    member.certificates.first().map(|certificate| certificate.serial.to_string())
}

fn alarms(token: &TokenView) -> String {
    token.alarms.iter().map(|alarm| words::one_line(alarm)).collect::<Vec<_>>().join("; ")
}

/// How far away a moment is: `in 22h`, `over`.
fn until(ctx: &Ctx<'_>, at: WallTime, room: u16) -> String {
    if room == u16::MAX {
        return words::rfc3339(at);
    }
    if at <= ctx.now { "over".into() } else { format!("in {}", words::ago(at.since(ctx.now))) }
}

/// Draws both tables.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    super::draw_table::<Identities>(app, ctx, layout, 0, frame);
    super::draw_table::<Tokens>(app, ctx, layout, 1, frame);
}

/// Shows a member or a token in full.
pub(crate) fn open(app: &mut App, row: &RowId) {
    let ctx = app.ctx();
    let at = |at: WallTime| format!("{} ({})", words::date_time(at, ctx.utc), from_now(&ctx, at));
    let mut facts: Vec<(&str, String)> = Vec::new();
    let mut warnings: Vec<String> = Vec::new();
    let title = match row {
        RowId::Identity(_) => {
            let Some(member) = Identities::find(ctx.mirror, row) else { return };
            let identity = &member.identity;
            facts.extend([
                ("name", identity.name.to_string()),
                ("role", identity.role.word().to_owned()),
                ("account", identity.account.to_string()),
                ("id", identity.id.to_string()),
                ("state", member.state.word().to_owned()),
                ("joined", at(member.joined_at)),
                ("renewed", format!("{} times", member.renewals)),
                ("connections", member.connections.to_string()),
            ]);
            for certificate in member.certificates.iter() {
                facts.extend([
                    ("certificate", certificate.serial.to_string()),
                    ("  issued", at(certificate.issued_at)),
                    ("  renews", at(certificate.renews_at)),
                    ("  expires", at(certificate.expires_at)),
                    ("  used", if certificate.used { "yes" } else { "not yet" }.to_owned()),
                ]);
            }
            if let Some(revoked) = member.revoked_at {
                warnings.push(format!("revoked {}: {}", at(revoked), words::one_line(&member.why)));
            }
            format!("{}/{}", identity.role.word(), identity.name)
        }
        RowId::Token(_) => {
            let Some(token) = Tokens::find(ctx.mirror, row) else { return };
            let or = |name: Option<String>, other: &str| name.unwrap_or_else(|| other.to_owned());
            facts.extend([
                ("token", token.id.to_string()),
                ("role", token.role.word().to_owned()),
                ("name", or(token.name.as_ref().map(ToString::to_string), "the joiner chooses")),
                ("account", or(token.account.as_ref().map(ToString::to_string), "one of its own")),
                ("state", token.state.word().to_owned()),
                ("made by", or(token.issued_by.as_ref().map(ToString::to_string), "init")),
                ("made", at(token.issued_at)),
                ("expires", at(token.expires_at)),
                ("used by", or(token.identity.as_ref().map(ToString::to_string), "nobody")),
            ]);
            if let Some(from) = &token.from {
                facts.push(("from", words::one_line(from)));
            }
            warnings.extend(token.alarms.iter().map(|alarm| words::one_line(alarm)));
            format!("Token {}", token.id)
        }
        RowId::Job(_) | RowId::Node(_) | RowId::Event(_) | RowId::Entry(..) => return,
    };
    let mut lines: Vec<(Tone, String)> =
        facts.into_iter().map(|(name, value)| (Tone::Info, format!("{name:<12} {value}"))).collect();
    lines.extend(warnings.into_iter().map(|warning| (Tone::Bad, warning)));
    app.ui.overlay = Some(Overlay::Reader(Reader { title, lines, top: 0, below: None, secret: None }));
}

/// `3m ago`, `in 22h`.
fn from_now(ctx: &Ctx<'_>, at: WallTime) -> String {
    if at > ctx.now {
        format!("in {}", words::ago(at.since(ctx.now)))
    } else {
        format!("{} ago", words::ago(ctx.now.since(at)))
    }
}

/// Asks whether to revoke the selected token, or the marked ones.
pub(crate) fn revoke_token(app: &mut App) -> Vec<Effect> {
    if app.focused_table() != Some(TableId::Tokens) {
        app.toast(Tone::Info, "x revokes a token: Tab goes to the tokens, X revokes a member");
        return Vec::new();
    }
    let rows = app.ui.table(TableId::Tokens).targets();
    let tokens: Vec<TokenView> = rows
        .iter()
        .filter_map(|row| Tokens::find(&app.mirror, row))
        .filter(|token| is_usable(token))
        .cloned()
        .collect();
    let Some(first) = tokens.first() else {
        let over = rows.iter().find_map(|row| Tokens::find(&app.mirror, row));
        if let Some(token) = over {
            let text = format!("token {} is {} already", token.id, token.state.word());
            app.toast(Tone::Bad, text);
        }
        return Vec::new();
    };
    let mut line: Vec<String> = ["token", "revoke"].into_iter().map(str::to_owned).collect();
    line.extend(tokens.iter().map(|token| token.id.to_string()));
    line.push("-y".to_owned());
    let (title, what, demand) = match tokens.len() {
        1 => {
            let name = first.name.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
            let what = format!("{}  a token of the role {}{name}", first.id, first.role.word());
            ("Revoke token?".to_owned(), what, first.id.to_string())
        }
        count => (
            format!("Revoke {count} tokens?"),
            list(tokens.iter().map(|token| token.id.to_string())),
            count.to_string(),
        ),
    };
    let lines = vec![what, String::new(), "Nobody can join with it any more. Who has joined stays.".to_owned()];
    let subjects = tokens.iter().map(|token| RowId::Token(token.id)).collect();
    let demand = Demand::Type(demand);
    act::confirm(app, line, Question { title, lines, demand, yes: "revoke".into(), subjects })
}

/// Whether somebody could still join with it.
fn is_usable(token: &TokenView) -> bool {
    match token.state {
        TokenState::Issued | TokenState::Bound => true,
        TokenState::Spent | TokenState::Revoked | TokenState::Expired => false,
    }
}

/// Asks whether to put the selected member out, or the marked ones.
pub(crate) fn revoke_member(app: &mut App) -> Vec<Effect> {
    if app.focused_table() != Some(TableId::Identities) {
        app.toast(Tone::Info, "X revokes a member: Tab goes to the members, x revokes a token");
        return Vec::new();
    }
    let rows = app.ui.table(TableId::Identities).targets();
    let members: Vec<IdentityView> = rows
        .iter()
        .filter_map(|row| Identities::find(&app.mirror, row))
        .filter(|member| member.state != IdentityState::Revoked)
        .cloned()
        .collect();
    let Some(first) = members.first() else {
        if let Some(member) = rows.iter().find_map(|row| Identities::find(&app.mirror, row)) {
            let text = format!("{} is revoked already", member.identity.name);
            app.toast(Tone::Bad, text);
        }
        return Vec::new();
    };
    let called = |member: &IdentityView| format!("{}/{}", member.identity.role.word(), member.identity.name);
    let mut line: Vec<String> = ["cert", "revoke"].into_iter().map(str::to_owned).collect();
    line.extend(members.iter().map(called));
    line.push("-y".to_owned());
    let connections: u32 = members.iter().map(|member| member.connections).sum();
    let (title, mut what, demand) = match members.len() {
        1 => {
            let name = first.identity.name.to_string();
            ("Revoke member?".to_owned(), vec![format!("{}  account {}", called(first), first.identity.account)], name)
        }
        count => (format!("Revoke {count} members?"), vec![list(members.iter().map(called))], count.to_string()),
    };
    if app.mirror.me.as_ref().is_some_and(|me| members.iter().any(|member| member.identity.id == me.identity.id)) {
        what.push("That is you: this console is cut off, too.".to_owned());
    }
    what.extend([
        match connections {
            0 => "Nobody of them is connected now.".to_owned(),
            1 => "One connection is cut.".to_owned(),
            count => format!("{count} connections are cut."),
        },
        String::new(),
        "This is for good.".to_owned(),
        "Jobs of a node move to others, jobs of a client are cancelled.".to_owned(),
    ]);
    let subjects = members.iter().map(|member| RowId::Identity(member.identity.id)).collect();
    let demand = Demand::Type(demand);
    act::confirm(app, line, Question { title, lines: what, demand, yes: "revoke".into(), subjects })
}

/// The first few of several.
fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(4);
    let first = names.take(4).collect::<Vec<_>>().join(" ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}
