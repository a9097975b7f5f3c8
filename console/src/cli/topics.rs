//! The topics of `modchain help`, beside the commands.

/// A topic: its name, and what makes its text.
type Topic = (&'static str, fn() -> String);

/// Every topic.
pub(crate) const TOPICS: [Topic; 7] = [
    ("exit-codes", || include_str!("help/exit-codes.txt").into()),
    ("output", || include_str!("help/output.txt").into()),
    ("filters", || include_str!("help/filters.txt").into()),
    ("environment", || include_str!("help/environment.txt").into()),
    ("security", || include_str!("help/security.txt").into()),
    ("console", || include_str!("help/console.txt").into()),
    ("keys", || crate::tui::keys::reference()),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_fits_a_terminal_and_is_plain_text() {
        for (name, text) in TOPICS {
            let text = text();
            assert!(text.ends_with('\n') && text.is_ascii(), "{name}");
            for line in text.lines() {
                assert!(line.len() <= 125 && !line.contains('\t') && line.trim_end() == line, "{name}: {line}");
            }
        }
    }
}
