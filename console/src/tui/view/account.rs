//! Money: the balance, what was spent, the ledger.

use modchain_wire::view::LedgerEntryView;
use ratatui::Frame;
use ratatui::layout::Alignment;

use super::super::app::{App, Ctx};
use super::super::layout::Layout;
use super::super::table::{Column, RowId, Source, TableId, Width, moment, text};
use crate::client::mirror::Mirror;
use crate::filter::{Kind, Unit, Value};
/// The ledger.
pub(crate) struct Ledger;

const LEDGER: &[Column<LedgerEntryView>] = &[
    Column {
        key: "time",
        title: "TIME",
        width: (8, 8),
        priority: 200,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, entry, _| text(moment(ctx, entry.at)),
        kind: Kind::Whole,
        value: |_, entry| Some(Value::Number(entry.number as f64)),
    },
    Column {
        key: "type",
        title: "TYPE",
        width: (8, 8),
        priority: 100,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, entry, _| text(entry.kind.word()),
        kind: Kind::Whole,
        value: |_, entry| Some(Value::from(entry.kind.word())),
    },
    Column {
        key: "job",
        title: "JOB",
        width: (8, 8),
        priority: 90,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, entry, _| text(entry.job.map_or_else(|| "-".into(), |job| job.short())),
        kind: Kind::Name,
        value: |_, entry| entry.job.map(|job| Value::from(job.to_string())),
    },
    Column {
        key: "amount",
        title: "AMOUNT",
        width: (10, 14),
        priority: 255,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, entry, _| text(crate::text::signed(entry.amount)),
        kind: Kind::Number(Unit::Micro),
        value: |_, entry| Some(Value::Number(entry.amount as f64)),
    },
];

impl Source for Ledger {
    type Row = LedgerEntryView;
    const TABLE: TableId = TableId::Ledger;
    const NOUNS: (&'static str, &'static str) = ("entry", "entries");

    fn columns() -> &'static [Column<LedgerEntryView>] {
        LEDGER
    }

    fn order() -> (&'static str, bool) {
        ("time", true)
    }

    fn rows<'a>(ctx: &Ctx<'a>) -> Box<dyn Iterator<Item = &'a LedgerEntryView> + 'a> {
        Box::new(ctx.mirror.ledger.iter())
    }

    fn find<'a>(mirror: &'a Mirror, id: &RowId) -> Option<&'a LedgerEntryView> {
        if let RowId::Entry(number, kind) = id { mirror.entry(*number, *kind) } else { None }
    }

    fn id(row: &LedgerEntryView) -> RowId {
        RowId::Entry(row.number, row.kind)
    }

    fn revision(mirror: &Mirror) -> u64 {
        mirror.ledger_revision
    }
}

/// Draws balance, spending and ledger.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    super::draw_table::<Ledger>(app, ctx, layout, 2, frame);
}
