//! Plain aligned text: the `table` format. No frames, two spaces between columns, nothing after the last one.

use unicode_width::width;

/// On which side a column's cells lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table in the making.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: one cell per column. Cells may hold a stranger's text; it is made one line.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "one cell per column");
        self.rows.push(cells.iter().map(|cell| crate::text::one_line(cell)).collect());
    }

    /// The cells of every row.
    pub(crate) fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The text, with a line of names first.
    pub(crate) fn render(&self) -> String {
        let mut widths: Vec<usize> = self.columns.iter().map(|(name, _)| width(name)).collect();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                widths[column] = widths[column].max(width(cell));
            }
        }
        let names: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&names).chain(&self.rows) {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column] - width(cell));
                match self.columns[column].1 {
                    Align::Left => line.extend([cell.as_str(), &padding]),
                    Align::Right => line.extend([padding.as_str(), cell]),
                }
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Lines of a name and a value, the values in one column.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let widest = pairs.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    pairs.iter().fold(String::new(), |mut text, (name, value)| {
        let line = format!("{name}{}  {}", " ".repeat(widest - width(name)), crate::text::one_line(value));
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}

mod unicode_width {
    /// Columns that a text takes: one per character, two for those of East Asia and pictures. Good enough to align a
    /// table; nothing depends on it.
    pub(super) fn width(text: &str) -> usize {
        text.chars()
            .map(|c| match c {
                '\u{0300}'..='\u{036f}' | '\u{200b}'..='\u{200d}' | '\u{fe0f}' => 0,
                '\u{1100}'..='\u{115f}'
                | '\u{2e80}'..='\u{a4cf}'
                | '\u{ac00}'..='\u{d7a3}'
                | '\u{f900}'..='\u{faff}'
                | '\u{fe30}'..='\u{fe6f}'
                | '\u{ff00}'..='\u{ff60}'
                | '\u{1f300}'..='\u{1faff}'
                | '\u{20000}'..='\u{3fffd}' => 2,
                _ => 1,
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let mut table = Table::new(&[("NAME", Align::Left), ("COST", Align::Right), ("NOTE", Align::Left)]);
        table.row(vec!["a".into(), "0.0021".into(), String::new()]);
        table.row(vec!["漢字é".into(), "2.00".into(), "x\x1b[2J\ny".into()]);
        assert_eq!(table.render(), "NAME     COST  NOTE\na      0.0021\n漢字é    2.00  x·[2J·y\n");
    }

    #[test]
    fn an_empty_table_is_its_line_of_names() {
        assert_eq!(Table::new(&[("A", Align::Left), ("B", Align::Right)]).render(), "A  B\n");
    }

    #[test]
    fn pairs_have_their_values_in_one_column() {
        assert_eq!(pairs(&[("a", "1".into()), ("long", String::new())]), "a     1\nlong\n");
    }
}
