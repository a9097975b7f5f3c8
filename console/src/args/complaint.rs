//! A line that does not parse, said the way this program says every other error: what and why on one line, what next on
//! another.

use clap::error::ErrorKind;

use crate::exit::Failure;

/// The complaint of clap as an error of this program.
pub(crate) fn complaint(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::usage("a command or an argument is missing").hint("modchain help");
    }
    // Paragraphs: what is wrong, tips, the usage, and where there is more.
    let text = error.render().to_string();
    let joined = |paragraph: &str| paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let mut paragraphs = text.split("\n\n");
    let message = joined(paragraphs.next().unwrap_or_default()).trim_start_matches("error: ").to_owned();
    let (mut tips, mut usage) = (Vec::new(), None);
    for line in paragraphs.flat_map(str::lines).map(str::trim) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            // How to pass the mistake as a value helps nobody who mistyped a flag.
            tips.extend((!tip.starts_with("to pass ")).then(|| tip.to_owned()));
        } else if let Some(line) = line.strip_prefix("Usage: ") {
            usage = Some(format!("usage: {line}"));
        }
    }
    let hint = match (tips.as_slice(), error.kind()) {
        ([], ErrorKind::InvalidSubcommand) => Some("modchain help lists the commands".to_owned()),
        ([], _) => usage,
        (tips, _) => Some(tips.join("; ")),
    };
    Failure::usage(message).hint(hint.unwrap_or_else(|| "--help after the command says what it takes".into()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn what_is_wrong_is_one_line_and_the_hint_says_what_was_probably_meant() {
        for (line, message, hint) in [
            (&["frobnicate"][..], "unrecognized subcommand 'frobnicate'", "modchain help lists the commands"),
            (&["run", "--wsam", "x"][..], "unexpected argument '--wsam' found", "a similar argument exists: '--wasm'"),
            (&["stauts"], "unrecognized subcommand 'stauts'", "a similar subcommand exists: 'status'"),
            (&["logs"], "the following required arguments were not provided: <JOB>", "usage: modchain logs <JOB>"),
            (
                &["status", "-o", "xml"],
                "invalid value 'xml' for '--output <FORMAT>' [possible values: table, wide, json, jsonl, yaml, csv, name]",
                "a similar value exists: 'yaml'",
            ),
            (&["credit", "a", "-5"], "invalid value '-5' for '<AMOUNT>': `-5` is negative", "--help"),
            (&["run", "--retries", "-1"], "invalid value '-1' for '--retries <N>': -1 is not in 0..=19", "--help"),
            (
                &["job", "-o", "json"],
                "the following required arguments were not provided: <JOB>",
                "usage: modchain job",
            ),
            (&["job"], "a command or an argument is missing", "modchain help"),
        ] {
            let error = Cli::try_parse_from(std::iter::once(&"modchain").chain(line)).expect_err("nonsense");
            let failure = complaint(&error);
            assert!(failure.message.starts_with(message), "{line:?} says: {}", failure.message);
            assert!(failure.hint.clone().unwrap_or_default().starts_with(hint), "{line:?} hints: {:?}", failure.hint);
            assert_eq!(failure.exit, 2);
        }
    }
}
