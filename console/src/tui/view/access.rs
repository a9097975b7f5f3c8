//! Who is in, and the tokens with which others can come.

use modchain_wire::view::{IdentityView, TokenView};
use ratatui::Frame;
use ratatui::layout::Alignment;

use super::super::app::{App, Ctx};
use super::super::layout::Layout;
use super::super::msg::Effect;
use super::super::table::{Column, RowId, Source, TableId, Width, text};
use crate::client::mirror::Mirror;
use crate::filter::{Kind, Value};
/// The members.
pub(crate) struct Identities;

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
        key: "state",
        title: "STATE",
        width: (8, 8),
        priority: 200,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, member, _| text(member.state.word()),
        kind: Kind::Whole,
        value: |_, member| Some(Value::from(member.state.word())),
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
        key: "state",
        title: "STATE",
        width: (8, 8),
        priority: 200,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, token, _| text(token.state.word()),
        kind: Kind::Whole,
        value: |_, token| Some(Value::from(token.state.word())),
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

/// Draws both tables.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    super::draw_table::<Identities>(app, ctx, layout, 0, frame);
    super::draw_table::<Tokens>(app, ctx, layout, 1, frame);
}

/// Opens what a row is about.
pub(crate) fn open(_app: &mut App, _row: &RowId) {}

/// Asks whether to revoke a token.
pub(crate) fn revoke_token(_app: &mut App) -> Vec<Effect> {
    Vec::new()
}

/// Asks whether to put a member out.
pub(crate) fn revoke_member(_app: &mut App) -> Vec<Effect> {
    Vec::new()
}
