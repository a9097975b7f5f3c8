//! The filter of one table: what was typed, and what of it holds. A text that makes no sense shows its fault while the last good one
//! stays in force.

use ratatui::text::{Line, Span};

use super::app::Ctx;
use super::table::{Source, Value};
use super::theme::Role;

/// What the rows of a table must fit.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableFilter {
    /// As typed; empty means no filter.
    pub(crate) text: String,
    words: Vec<String>,
}

impl TableFilter {
    /// Takes a text.
    ///
    /// # Errors
    /// What is wrong with it; the filter stays as it was.
    pub(crate) fn set<S: Source>(&mut self, text: &str) -> Result<(), String> {
        self.words = text.split_whitespace().map(str::to_lowercase).collect();
        self.text = text.trim().to_owned();
        Ok(())
    }

    /// Whether it lets everything through.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether a row fits.
    pub(crate) fn fits<S: Source>(&self, ctx: &Ctx<'_>, row: &S::Row) -> bool {
        self.words.iter().all(|word| {
            S::columns().iter().any(|column| match (column.value)(ctx, row) {
                Value::Text(text) => text.to_lowercase().contains(word),
                Value::Number(_) | Value::Unknown => {
                    (column.cell)(ctx, row, column.width.1).to_string().to_lowercase().contains(word)
                }
            })
        })
    }

    /// Shows what of a cell was looked for.
    pub(crate) fn highlight(&self, ctx: &Ctx<'_>, _key: &str, cell: Line<'static>) -> Line<'static> {
        if self.words.is_empty() {
            return cell;
        }
        let mut spans = Vec::new();
        for span in cell.spans {
            let lower = span.content.to_lowercase();
            let found = self.words.iter().find_map(|word| lower.find(word.as_str()).map(|at| (at, word.len())));
            match found {
                // Lower case may have other lengths: then there is nothing to point at.
                Some((at, len)) if lower.len() == span.content.len() && span.content.is_char_boundary(at + len) => {
                    let (before, rest) = span.content.split_at(at);
                    let (hit, after) = rest.split_at(len);
                    spans.push(Span::styled(before.to_owned(), span.style));
                    spans.push(Span::styled(hit.to_owned(), ctx.theme.style(Role::Match)));
                    spans.push(Span::styled(after.to_owned(), span.style));
                }
                _ => spans.push(span),
            }
        }
        Line { spans, style: cell.style, alignment: cell.alignment }
    }
}
