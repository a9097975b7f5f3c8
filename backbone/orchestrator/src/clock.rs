//! The logical timeline of the journal.
