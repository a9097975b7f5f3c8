//! The filter of one table: what was typed, and what of it holds. A text that makes no sense shows its fault while the last good one
//! stays in force.

use ratatui::text::{Line, Span};

use super::app::Ctx;
use super::table::{Source, Width};
use super::theme::Role;
use crate::filter::{Field, Filter, parse};

/// What the rows of a table must fit.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableFilter {
    /// As typed; empty means no filter.
    pub(crate) text: String,
    filter: Filter,
}

/// The fields of a table.
pub(crate) fn fields<S: Source>() -> Vec<Field> {
    let columns = || S::columns().iter();
    let kind = |key: &str| columns().find(|column| column.key == key).map(|column| column.kind);
    let also = S::also().iter().filter_map(|(name, key)| Some(Field::new(name, kind(key)?)));
    columns().map(|column| Field::new(column.key, column.kind)).chain(also).collect()
}

impl TableFilter {
    /// Takes a text.
    ///
    /// # Errors
    /// What is wrong with it; the filter stays as it was.
    pub(crate) fn set<S: Source>(&mut self, text: &str) -> Result<(), String> {
        self.filter = parse(text, &fields::<S>()).map_err(|error| error.to_string())?;
        self.text = text.trim().to_owned();
        Ok(())
    }

    /// Whether it lets everything through.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether a row fits. Words without a key are looked for in what the table shows, `width` wide.
    pub(crate) fn fits<S: Source>(&self, ctx: &Ctx<'_>, row: &S::Row, width: Width) -> bool {
        if self.filter.is_empty() {
            return true;
        }
        let value = |name: &str| {
            let also = S::also().iter().find(|(also, _)| *also == name);
            S::value(ctx, row, also.map_or(name, |(_, key)| key))
        };
        let shown = || {
            let shown = S::columns().iter().filter(|column| column.shown <= width);
            let cells = shown.map(|column| (column.cell)(ctx, row, column.width.1).to_string());
            cells.collect::<Vec<_>>().join("  ")
        };
        self.filter.fits(&value, &shown)
    }

    /// Shows what of a cell was looked for.
    pub(crate) fn highlight(&self, ctx: &Ctx<'_>, cell: Line<'static>) -> Line<'static> {
        if self.filter.is_empty() {
            return cell;
        }
        let mut spans = Vec::new();
        for span in cell.spans {
            let mut from = 0;
            for mark in self.filter.marks(&span.content) {
                if mark.start > from {
                    spans.push(Span::styled(span.content[from..mark.start].to_owned(), span.style));
                }
                spans.push(Span::styled(span.content[mark.clone()].to_owned(), ctx.theme.style(Role::Match)));
                from = mark.end;
            }
            if from == 0 {
                spans.push(span);
            } else if from < span.content.len() {
                spans.push(Span::styled(span.content[from..].to_owned(), span.style));
            }
        }
        Line { spans, style: cell.style, alignment: cell.alignment }
    }
}
