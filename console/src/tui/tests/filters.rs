//! A filter means the same in the console and on the command line.

use super::super::filter::fields;
use super::super::table::{Source, TableId};
use super::super::view::{account, events, jobs, nodes};
use super::world::{Link, press, seen};
use crate::cli;
use crate::filter::Field;

/// Asserts that both have the same fields of the same kinds, but for those that only one of them can have.
#[track_caller]
fn the_same(console: &[Field], command: &[Field], console_alone: &[&str], command_alone: &[&str]) {
    for (these, those, alone) in [(console, command, console_alone), (command, console, command_alone)] {
        for field in these {
            let other = those.iter().find(|other| other.name == field.name);
            match other {
                Some(other) => assert_eq!(field.kind, other.kind, "{}", field.name),
                None => assert!(alone.contains(&field.name), "{} is missing on one side", field.name),
            }
        }
        let known = |name: &&str| these.iter().any(|field| field.name == *name);
        assert!(alone.iter().all(known), "{alone:?}: one of them is not there");
    }
}

#[test]
fn lists_are_filtered_by_the_same_words_in_the_console_and_on_the_command_line() {
    // What nodes measure of a job's GPUs, and five minutes of it, only the console puts beside the job.
    the_same(&fields::<jobs::Jobs>(), &cli::table::fields(&cli::jobs::COLUMNS), &["gpu", "line"], &[]);
    // `models` counts what a model server has.
    let alone = ["line", "temp", "power", "models"];
    the_same(&fields::<nodes::Nodes>(), &cli::table::fields(&cli::pool::COLUMNS), &alone, &[]);
    the_same(&fields::<account::Ledger>(), &cli::table::fields(&cli::money::COLUMNS), &["node"], &[]);
    let alone = ["about", "attempt", "from", "to", "reason"];
    the_same(&fields::<events::Events>(), &cli::table::fields(&cli::events::COLUMNS), &[], &alone);
}

#[test]
fn what_stands_above_a_column_is_a_word_for_it() {
    for (filter, fits) in [("cap=2", 6), ("hold=2", 6), ("try>=1", 5), ("owner:alice", 6), ("owner:bob", 0)] {
        let mut app = seen((120, 36), Link::Live);
        press(&mut app, &["3", "/"]);
        filter.chars().for_each(|c| drop(press(&mut app, &[&c.to_string()])));
        assert_eq!(app.ui.table(TableId::Jobs).order.len(), fits, "{filter}: {:?}", app.ui.prompt);
    }
    assert!(jobs::Jobs::also().iter().all(|(_, key)| jobs::Jobs::columns().iter().any(|column| column.key == *key)));
}
