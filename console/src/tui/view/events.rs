//! What happened, the newest first; `Enter` goes to what it is about.

use modchain_types::JobState;
use modchain_wire::view::{EventKind, EventView};
use ratatui::Frame;
use ratatui::layout::Alignment;
use ratatui::style::Style;
use ratatui::text::Line;

use super::super::app::{App, Ctx};
use super::super::layout::Layout;
use super::super::table::{Column, RowId, Source, TableId, Width, moment, text};
use super::super::theme::Role;
use super::MINUTE_MS;
use crate::cli::events::KINDS;
use crate::client::mirror::Mirror;
use crate::filter::{Kind, Unit, Value};
use crate::text as words;

/// The feed of events.
pub(crate) struct Events;

const EVENTS: &[Column<EventView>] = &[
    Column {
        key: "time",
        title: "TIME",
        width: (8, 8),
        priority: 200,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, event, room| text(if room == u16::MAX { words::rfc3339(event.at) } else { moment(ctx, event.at) }),
        kind: Kind::Text,
        // Filters look at the text: see `value` below.
        value: |_, event| Some(Value::Number(event.number as f64)),
    },
    Column {
        key: "kind",
        title: "KIND",
        width: (7, 7),
        priority: 100,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, event, _| Line::styled(event.kind.word(), ctx.theme.style(tone(event.kind))),
        kind: Kind::Words(KINDS),
        value: |_, event| Some(Value::from(event.kind.word())),
    },
    Column {
        key: "job",
        title: "JOB",
        width: (8, 8),
        priority: 90,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, event, room| {
            let id = |job: modchain_types::JobId| if room == u16::MAX { job.to_string() } else { job.short() };
            text(event.job.map_or_else(|| "-".into(), id))
        },
        kind: Kind::Name,
        value: |_, event| event.job.map(|job| Value::from(job.to_string())),
    },
    Column {
        key: "node",
        title: "NODE",
        width: (9, 16),
        priority: 40,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, event, _| text(event.node.as_ref().map_or_else(|| "-".into(), ToString::to_string)),
        kind: Kind::Name,
        value: |_, event| event.node.as_ref().map(|node| Value::from(node.to_string())),
    },
    Column {
        key: "text",
        title: "WHAT",
        width: (20, 200),
        priority: 254,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, event, _| Line::styled(words::one_line(&event.text), outcome(ctx, event)),
        kind: Kind::Text,
        value: |_, event| Some(Value::from(words::one_line(&event.text))),
    },
    Column {
        key: "account",
        title: "ACCOUNT",
        width: (7, 14),
        priority: 30,
        shown: Width::Wide,
        align: Alignment::Left,
        cell: |_, event, _| text(event.account.as_ref().map_or_else(|| "-".into(), ToString::to_string)),
        kind: Kind::Whole,
        value: |_, event| event.account.as_ref().map(|account| Value::from(account.to_string())),
    },
    Column {
        key: "number",
        title: "NUMBER",
        width: (6, 10),
        priority: 10,
        shown: Width::Wide,
        align: Alignment::Right,
        cell: |_, event, _| text(event.number.to_string()),
        kind: Kind::Number(Unit::Plain),
        value: |_, event| Some(Value::Number(event.number as f64)),
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
        let (mine, mirror) = (ctx.ui.mine, ctx.mirror);
        Box::new(mirror.events.iter().filter(move |event| !mine || is_mine(mirror, event)))
    }

    fn find<'a>(mirror: &'a Mirror, id: &RowId) -> Option<&'a EventView> {
        if let RowId::Event(number) = id { mirror.event(*number) } else { None }
    }

    fn id(row: &EventView) -> RowId {
        RowId::Event(row.number)
    }

    fn revision(mirror: &Mirror) -> u64 {
        mirror.event_changes.revision()
    }

    fn changes(ctx: &Ctx<'_>, since: u64) -> Option<Vec<RowId>> {
        // Whose a job or a node is may become known after its event.
        let changes = ctx.mirror.event_changes.since(since).filter(|_| !ctx.ui.mine)?;
        Some(changes.map(|number| RowId::Event(*number)).collect())
    }

    fn value(ctx: &Ctx<'_>, event: &EventView, name: &str) -> Option<Value<'static>> {
        match name {
            "time" => Some(Value::from(words::date_time(event.at, ctx.utc))),
            _ => EVENTS.iter().find(|column| column.key == name).and_then(|column| (column.value)(ctx, event)),
        }
    }
}

/// Whether it is about one's own money, job or node.
fn is_mine(mirror: &Mirror, event: &EventView) -> bool {
    let Some(mine) = mirror.my_account() else { return false };
    let owner = || event.node.as_ref().and_then(|node| mirror.nodes.get(node)).map(|node| &node.account);
    let payer = || event.job.and_then(|job| mirror.jobs.get(&job)).map(|job| &job.account);
    event.account.as_ref().or_else(payer).or_else(owner) == Some(mine)
}

fn tone(kind: EventKind) -> Role {
    match kind {
        EventKind::Job => Role::Info,
        EventKind::Node => Role::Warn,
        EventKind::Account => Role::Good,
        EventKind::System => Role::Dim,
    }
}

/// How its text looks: by what became of the job, where it says so.
fn outcome(ctx: &Ctx<'_>, event: &EventView) -> Style {
    match event.to {
        Some(JobState::Queued | JobState::Assigned | JobState::Starting | JobState::Running) | None => {
            ctx.theme.style(Role::Text)
        }
        Some(
            state @ (JobState::Unreachable
            | JobState::Cancelling
            | JobState::Completed
            | JobState::Failed
            | JobState::TimedOut
            | JobState::Cancelled
            | JobState::Expired),
        ) => ctx.theme.job(state),
    }
}

/// Draws the feed.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    super::draw_table::<Events>(app, ctx, layout, 0, frame);
}

/// Milliseconds until the age of the newest event reads otherwise.
pub(crate) fn next_age(app: &App) -> Option<u64> {
    let newest = app.shown().events.back()?;
    let age = app.ctx().now.since(newest.at).as_millis();
    Some(if age < MINUTE_MS { 1_000 - age % 1_000 } else { MINUTE_MS - age % MINUTE_MS })
}
