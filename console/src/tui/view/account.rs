//! Money: the balance, what was spent, the ledger.

use modchain_types::{Micro, Span as Interval};
use modchain_wire::view::{AccountView, LedgerEntryView, LedgerKind};
use ratatui::Frame;
use ratatui::layout::{Alignment, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::app::{App, Ctx};
use super::super::layout::{Layout, Tier};
use super::super::table::{Column, RowId, Source, TableId, Width, cut, moment, text};
use super::super::theme::Role;
use super::Title;
use crate::cli::money::KINDS;
use crate::client::mirror::Mirror;
use crate::filter::{Kind, Unit, Value};
use crate::text as words;

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
        cell: |ctx, entry, room| text(if room == u16::MAX { words::rfc3339(entry.at) } else { moment(ctx, entry.at) }),
        kind: Kind::Text,
        // Filters look at the text: see `value` below.
        value: |_, entry| Some(Value::Number(entry.number as f64)),
    },
    Column {
        key: "type",
        title: "TYPE",
        width: (8, 8),
        priority: 100,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, entry, _| Line::styled(entry.kind.word(), ctx.theme.style(tone(entry.kind))),
        kind: Kind::Words(KINDS),
        value: |_, entry| Some(Value::from(entry.kind.word())),
    },
    Column {
        key: "job",
        title: "JOB",
        width: (8, 8),
        priority: 90,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, entry, room| {
            let id = |job: modchain_types::JobId| if room == u16::MAX { job.to_string() } else { job.short() };
            text(entry.job.map_or_else(|| "-".into(), id))
        },
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
        cell: |ctx, entry, _| {
            let role = if entry.amount < 0 { Role::Text } else { Role::Good };
            Line::styled(words::signed(entry.amount), ctx.theme.style(role))
        },
        kind: Kind::Number(Unit::Micro),
        value: |_, entry| Some(Value::Number(entry.amount as f64)),
    },
    Column {
        key: "balance",
        title: "BALANCE",
        width: (9, 14),
        priority: 150,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, entry, _| text(entry.balance.to_string()),
        kind: Kind::Number(Unit::Micro),
        value: |_, entry| Some(Value::Number(entry.balance.0 as f64)),
    },
    Column {
        key: "node",
        title: "NODE",
        width: (9, 16),
        priority: 50,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, entry, _| text(node(ctx, entry).unwrap_or_else(|| "-".into())),
        kind: Kind::Name,
        value: |ctx, entry| node(ctx, entry).map(Value::from),
    },
    Column {
        key: "text",
        title: "TEXT",
        width: (10, 80),
        priority: 40,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, entry, _| text(words::one_line(&entry.text)),
        kind: Kind::Text,
        value: |_, entry| Some(Value::from(words::one_line(&entry.text))),
    },
    Column {
        key: "number",
        title: "NUMBER",
        width: (6, 10),
        priority: 10,
        shown: Width::Wide,
        align: Alignment::Right,
        cell: |_, entry, _| text(entry.number.to_string()),
        kind: Kind::Number(Unit::Plain),
        value: |_, entry| Some(Value::Number(entry.number as f64)),
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

    fn value(ctx: &Ctx<'_>, entry: &LedgerEntryView, name: &str) -> Option<Value<'static>> {
        match name {
            "time" => Some(Value::from(words::date_time(entry.at, ctx.utc))),
            _ => LEDGER.iter().find(|column| column.key == name).and_then(|column| (column.value)(ctx, entry)),
        }
    }
}

fn tone(kind: LedgerKind) -> Role {
    match kind {
        LedgerKind::Deposit | LedgerKind::Earning => Role::Good,
        LedgerKind::Hold => Role::Info,
        LedgerKind::Settle | LedgerKind::Fee => Role::Text,
        LedgerKind::Release => Role::Dim,
    }
}

/// Where the job ran that an entry is about, as long as the job is known.
fn node(ctx: &Ctx<'_>, entry: &LedgerEntryView) -> Option<String> {
    ctx.mirror.jobs.get(&entry.job?)?.node.as_ref().map(ToString::to_string)
}

/// How long the free balance lasts at this rate: `68 h`. `None` while nothing is being spent.
pub(crate) fn lasts(account: &AccountView) -> Option<String> {
    let minutes = (u128::from(account.available.0) * 60).checked_div(u128::from(account.burn_per_hour.0))?;
    Some(match minutes {
        0..120 => format!("{minutes} min"),
        120..14_400 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / 1_440),
    })
}

/// Names, amounts, and what they mean, a line each. `brief` leaves out what an overview has no room for.
pub(crate) fn balance(ctx: &Ctx<'_>, width: usize, brief: bool) -> Vec<Line<'static>> {
    let dim = |text: &str| Line::styled(text.to_owned(), ctx.theme.style(Role::Dim));
    let Some(account) = &ctx.mirror.account else {
        return vec![dim(if ctx.mirror.mark.is_some() {
            "this identity has no money of its own"
        } else {
            "waiting for the orchestrator"
        })];
    };
    let asset = ctx.asset();
    let line = |name: &str, amount: Micro, unit: &str, more: String| {
        let amount = amount.to_string();
        let line = Line::from(vec![
            Span::styled(format!("{name:<14}"), ctx.theme.style(Role::Dim)),
            Span::raw(format!("{amount:>11} {asset}{unit}")),
            Span::styled(if more.is_empty() { more } else { format!("   {more}") }, ctx.theme.style(Role::Dim)),
        ]);
        cut(line, width)
    };
    let jobs = match account.open_jobs {
        0 => String::new(),
        1 => "for 1 job".to_owned(),
        count => format!("for {count} jobs"),
    };
    let spent = ctx.ui.known.spending;
    let mut lines = vec![line("available", account.available, "", String::new())];
    lines.push(line("in escrow", account.held, "", if brief { String::new() } else { jobs }));
    if account.earned > Micro::ZERO {
        lines.push(line("earned", account.earned, "", if brief { String::new() } else { "by your nodes".into() }));
    }
    if !brief {
        let total = account.available.0.saturating_add(account.held.0).saturating_add(account.earned.0);
        lines.push(line("total", Micro(total), "", String::new()));
        lines.push(Line::default());
    } else {
        lines.push(line("spent today", spent.today, "", String::new()));
    }
    let left = lasts(account);
    if brief {
        lines.push(line("burn now", account.burn_per_hour, "/h", String::new()));
        if let Some(left) = left {
            lines.push(cut(
                Line::from(vec![
                    Span::styled(format!("{:<14}", "at this rate"), ctx.theme.style(Role::Dim)),
                    Span::raw(format!("{left:>11} left")),
                ]),
                width,
            ));
        }
    } else {
        let left = left.map(|left| format!("{left} left")).unwrap_or_default();
        lines.push(line("burn now", account.burn_per_hour, "/h", left));
        let text = format!("today {}   7 days {}   30 days {}", spent.today, spent.week, spent.month);
        let spans = vec![Span::styled(format!("{:<8}", "spent"), ctx.theme.style(Role::Dim)), Span::raw(text)];
        lines.push(cut(Line::from(spans), width));
    }
    lines
}

/// The balance in the lines of a small screen.
fn compact(ctx: &Ctx<'_>, width: usize) -> Vec<Line<'static>> {
    let Some(account) = &ctx.mirror.account else { return balance(ctx, width, true) };
    let asset = ctx.asset();
    let spent = ctx.ui.known.spending;
    let earned = if account.earned > Micro::ZERO { format!("   {} earned", account.earned) } else { String::new() };
    let left = lasts(account).map(|left| format!("   {left} left")).unwrap_or_default();
    let lines = [
        format!("{} {asset} free   {} held{earned}", account.available, account.held),
        format!("burn {}/h{left}", account.burn_per_hour),
        format!("spent today {}   7 d {}   30 d {}", spent.today, spent.week, spent.month),
    ];
    lines.into_iter().map(|line| cut(Line::from(line), width)).collect()
}

/// A bar for each of the last 24 hours, with both axes.
fn spend(ctx: &Ctx<'_>, area: Rect) -> Vec<Line<'static>> {
    let spending = ctx.ui.known.spending;
    let most = spending.hours.iter().map(|hour| hour.0).max().unwrap_or(0);
    if most == 0 {
        let why = if ctx.mirror.mark.is_some() {
            "nothing was spent in the last 24 hours"
        } else {
            "waiting for the orchestrator"
        };
        return vec![Line::styled(why, ctx.theme.style(Role::Dim))];
    }
    let top = ceiling(most);
    let label = top.to_string();
    let margin = label.len() + 1;
    let rows = usize::from(area.height).saturating_sub(2).max(1);
    let columns = (usize::from(area.width).saturating_sub(margin + 2) / 24).clamp(1, 3);
    let values = spending.hours.iter().flat_map(|hour| {
        let permille = u32::try_from(u128::from(hour.0) * 1_000 / u128::from(top.0.max(1))).unwrap_or(1_000);
        // What is there shows, however little it is.
        let permille = if hour.0 > 0 { permille.max(1) } else { 0 };
        std::iter::repeat_n(Some(permille), columns)
    });
    let values: Vec<Option<u32>> = values.collect();
    let (tick, edge) = (ctx.glyphs.pick("┤", "+"), ctx.glyphs.pick("│", "|"));
    let dim = ctx.theme.style(Role::Dim);
    let pictures = ctx.glyphs.chart(&values, rows);
    let mut lines: Vec<Line<'static>> = pictures
        .into_iter()
        .enumerate()
        .map(|(row, picture)| {
            let scale = if row == 0 { format!("{label} {tick}") } else { format!("{:margin$}{edge}", "") };
            Line::from(vec![Span::styled(scale, dim), Span::styled(picture, ctx.theme.style(Role::Info))])
        })
        .collect();
    let (corner, rule, mark) = (ctx.glyphs.pick("└", "+"), ctx.glyphs.pick("─", "-"), ctx.glyphs.pick("┬", "+"));
    let mut axis = format!("{:margin$}{corner}", "");
    let mut hours = " ".repeat(margin + 1);
    for column in 0..24 * columns {
        let hour = column / columns;
        let marked = column % columns == 0 && hour % 6 == 0;
        axis.push_str(if marked { mark } else { rule });
        if marked {
            let ago = Interval::from_secs(u64::try_from(23 - hour).unwrap_or(0) * 3_600);
            let at = modchain_types::WallTime(
                ctx.now.0.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(0)).div_euclid(3_600_000) * 3_600_000,
            );
            let clock = words::time_of_day(at, ctx.utc);
            let free = (margin + 1 + column).saturating_sub(hours.len());
            hours.push_str(&" ".repeat(free));
            hours.push_str(if columns > 1 { &clock[..5] } else { &clock[..2] });
        }
    }
    lines.push(Line::styled(axis, dim));
    lines.push(Line::styled(hours, dim));
    lines
}

/// The next round amount that is not less: 1, 2 or 5 and zeros.
fn ceiling(micro: u64) -> Micro {
    let mut step = 1u64;
    loop {
        for factor in [1, 2, 5] {
            let round = step.saturating_mul(factor);
            if round >= micro || round == u64::MAX {
                return Micro(round);
            }
        }
        step = step.saturating_mul(10);
    }
}

/// Draws balance, spending and ledger.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    let owner = ctx.mirror.account.as_ref().map(|account| account.id.to_string()).unwrap_or_default();
    let inside = |area: Rect| Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    if layout.shows(0) {
        let focused = app.focus() == 0;
        let area = inside(super::pane(ctx, layout, 0, frame, Title { left: "Balance", right: &owner, focused }));
        let width = usize::from(area.width);
        let large = layout.tier == Tier::Large || area.height > 6;
        let lines = if large { balance(ctx, width, false) } else { compact(ctx, width) };
        frame.render_widget(Paragraph::new(lines), area);
    }
    if layout.shows(1) {
        let left = format!("Spent per hour, {}", ctx.asset());
        let focused = app.focus() == 1;
        let area = inside(super::pane(ctx, layout, 1, frame, Title { left: &left, right: "24 h", focused }));
        let lines: Vec<Line<'static>> =
            spend(ctx, area).into_iter().map(|line| cut(line, usize::from(area.width))).collect();
        frame.render_widget(Paragraph::new(lines), area);
    }
    super::draw_table::<Ledger>(app, ctx, layout, 2, frame);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::samples;

    #[test]
    fn an_axis_ends_at_a_round_amount() {
        for (micro, round) in
            [(1, 1), (3, 5), (6_020_000, 10_000_000), (10_000_000, 10_000_000), (11_500_000, 20_000_000)]
        {
            assert_eq!(ceiling(micro), Micro(round));
        }
        assert_eq!(ceiling(u64::MAX), Micro(u64::MAX));
    }

    #[test]
    fn a_balance_lasts_as_long_as_it_is_spent() {
        let account = samples::account_view(Micro(412_700_000));
        assert_eq!(lasts(&account).as_deref(), Some("68 h"));
        assert_eq!(lasts(&AccountView { available: Micro(3_010_000), ..account.clone() }).as_deref(), Some("30 min"));
        assert_eq!(lasts(&AccountView { burn_per_hour: Micro::ZERO, ..account }), None);
    }
}
