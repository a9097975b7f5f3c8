//! What is on the screen as a file or as documents.

use super::super::app::App;
use super::super::msg::Effect;
use super::super::table::RowId;

/// Writes the view into a file.
pub(crate) fn export(_app: &mut App) -> Vec<Effect> {
    Vec::new()
}

/// A row as the JSON document of the command line.
pub(crate) fn document(_app: &App, _row: &RowId) -> Option<String> {
    None
}
