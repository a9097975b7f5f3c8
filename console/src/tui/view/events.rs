//! What happened, the newest first; `Enter` goes to what it is about.

use modchain_wire::view::EventView;
use ratatui::Frame;
use ratatui::layout::Alignment;

use super::super::app::{App, Ctx};
use super::super::layout::Layout;
use super::super::table::{Column, RowId, Source, TableId, Width, moment, text};
use crate::client::mirror::Mirror;
use crate::filter::{Kind, Value};
/// The feed of events.
pub(crate) struct Events;

const EVENTS: &[Column<EventView>] = &[
    Column {
        key: "number",
        title: "NUMBER",
        width: (6, 8),
        priority: 10,
        shown: Width::Wide,
        align: Alignment::Right,
        cell: |_, event, _| text(event.number.to_string()),
        kind: Kind::Whole,
        value: |_, event| Some(Value::from(event.number.to_string())),
    },
    Column {
        key: "time",
        title: "TIME",
        width: (8, 8),
        priority: 200,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, event, _| text(moment(ctx, event.at)),
        kind: Kind::Whole,
        value: |_, event| Some(Value::Number(event.number as f64)),
    },
    Column {
        key: "kind",
        title: "KIND",
        width: (7, 7),
        priority: 100,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, event, _| text(event.kind.word()),
        kind: Kind::Whole,
        value: |_, event| Some(Value::from(event.kind.word())),
    },
    Column {
        key: "text",
        title: "WHAT",
        width: (20, 200),
        priority: 255,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, event, _| text(crate::text::one_line(&event.text)),
        kind: Kind::Text,
        value: |_, event| Some(Value::from(crate::text::one_line(&event.text))),
    },
];

impl Source for Events {
    type Row = EventView;
    const TABLE: TableId = TableId::Events;
    const NOUNS: (&'static str, &'static str) = ("event", "events");

    fn columns() -> &'static [Column<EventView>] {
        EVENTS
    }

    fn order() -> (&'static str, bool) {
        ("time", true)
    }

    fn rows<'a>(ctx: &Ctx<'a>) -> Box<dyn Iterator<Item = &'a EventView> + 'a> {
        Box::new(ctx.mirror.events.iter())
    }

    fn find<'a>(mirror: &'a Mirror, id: &RowId) -> Option<&'a EventView> {
        if let RowId::Event(number) = id { mirror.event(*number) } else { None }
    }

    fn id(row: &EventView) -> RowId {
        RowId::Event(row.number)
    }

    fn revision(mirror: &Mirror) -> u64 {
        mirror.events_revision
    }
}

/// Draws the feed.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    super::draw_table::<Events>(app, ctx, layout, 0, frame);
}
