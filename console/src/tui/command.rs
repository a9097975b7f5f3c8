//! Command lines inside the console: what a dialog or the `:` prompt asks for is read by the same parser as in a shell, so that the
//! console and the command line can never mean different things.

use clap::Parser;
use modchain_types::{NodeWish, Text};
use modchain_wire::FromConsole;
use modchain_wire::console::{Cancel, Credit, JobRef, NodeSet, Revoke, TokenRevoke};

use super::keys::Action;
use crate::args::{CertCommand, Cli, Command, NodeCommand, TokenCommand, complaint};
use crate::exit::Failure;

/// Where a command of the command line is in the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Here {
    /// On the key of this action, and after `:`.
    Key(Action),
    /// After `:` only.
    Prompt,
    /// Nowhere, for this reason.
    Not(&'static str),
}

/// Every command of the command line, and where it is in the console.
pub(crate) const HERE: &[(&str, Here)] = &[
    ("console", Here::Not("this is it")),
    ("up", Here::Not("it starts a stack, and opens a console on it")),
    ("run", Here::Key(Action::NewJob)),
    ("quote", Here::Prompt),
    ("logs", Here::Key(Action::Output)),
    ("jobs", Here::Key(Action::ViewJobs)),
    ("job", Here::Key(Action::Open)),
    ("job show", Here::Key(Action::Open)),
    ("job explain", Here::Key(Action::Explain)),
    ("job events", Here::Prompt),
    ("job spec", Here::Prompt),
    ("job rerun", Here::Key(Action::RunAgain)),
    ("cancel", Here::Key(Action::Cancel)),
    ("wait", Here::Key(Action::Open)),
    ("status", Here::Key(Action::ViewOverview)),
    ("nodes", Here::Key(Action::ViewNodes)),
    ("node show", Here::Key(Action::Open)),
    ("node cordon", Here::Key(Action::Cordon)),
    ("node uncordon", Here::Key(Action::Cordon)),
    ("node drain", Here::Key(Action::Drain)),
    ("node resume", Here::Key(Action::Resume)),
    ("account", Here::Key(Action::ViewAccount)),
    ("ledger", Here::Key(Action::ViewAccount)),
    ("events", Here::Key(Action::ViewEvents)),
    ("credit", Here::Key(Action::Credit)),
    ("join", Here::Not("it makes the identity that a console needs to connect")),
    ("logout", Here::Not("it wipes the key that this console uses")),
    ("token create", Here::Key(Action::TokenCreate)),
    ("token list", Here::Key(Action::ViewAccess)),
    ("token revoke", Here::Key(Action::TokenRevoke)),
    ("cert list", Here::Key(Action::ViewAccess)),
    ("cert revoke", Here::Key(Action::Revoke)),
    ("whoami", Here::Prompt),
    ("doctor", Here::Not("it looks at what keeps a console from starting")),
    ("version", Here::Prompt),
    ("context add", Here::Not("it changes files of this machine")),
    ("context list", Here::Prompt),
    ("context use", Here::Prompt),
    ("context remove", Here::Not("it changes files of this machine")),
    ("context show", Here::Not("line 0 shows the context; the rest are files of this machine")),
    ("config get", Here::Not("it reads files of this machine")),
    ("config set", Here::Not("it changes files of this machine")),
    ("config path", Here::Not("it reads files of this machine")),
    ("config edit", Here::Not("it changes files of this machine")),
    ("completions", Here::Not("it is for shells; Tab completes here")),
    ("man", Here::Not("it writes pages for man")),
    ("help", Here::Key(Action::Help)),
];

/// Reads a command line, without the program's name.
pub(crate) fn parse(line: &[String]) -> Result<Command, Failure> {
    let words = std::iter::once("modchain".to_owned()).chain(line.iter().cloned());
    match Cli::try_parse_from(words) {
        Ok(Cli { command: Some(command), .. }) => Ok(command),
        Ok(Cli { command: None, .. }) => Err(Failure::usage("there is no command")),
        Err(error) => Err(complaint(&error)),
    }
}

/// What a command line asks the orchestrator to change.
///
/// # Errors
/// The line makes no sense, or it is one that changes nothing there.
pub(crate) fn requests(line: &[String]) -> Result<Vec<FromConsole>, Failure> {
    let too_long = |what: &str, error: &dyn std::fmt::Display| Failure::usage(format!("{what}: {error}"));
    Ok(match parse(line)? {
        Command::Cancel(args) => {
            let why = Text::new(args.reason).map_err(|error| too_long("reason", &error))?;
            let cancel = |job: String| {
                let job = JobRef::new(job).map_err(|error| too_long("job", &error))?;
                Ok(Cancel { job, grace: args.grace, why: why.clone() }.into())
            };
            args.jobs.into_iter().map(cancel).collect::<Result<_, Failure>>()?
        }
        Command::Node(command) => {
            let (names, wish) = match command {
                NodeCommand::Cordon(names) => (names, NodeWish::Cordon),
                NodeCommand::Uncordon(names) | NodeCommand::Resume(names) => (names, NodeWish::Open),
                NodeCommand::Drain(args) => (args.names, NodeWish::Drain { within: args.deadline }),
                NodeCommand::Show { .. } => return Err(Failure::usage("this command changes nothing")),
            };
            let why = Text::new(names.reason).map_err(|error| too_long("reason", &error))?;
            let set = |node: String| {
                let node = node.parse().map_err(|error| too_long("node", &error as &modchain_types::id::BadId))?;
                Ok(NodeSet { node, wish, why: Text::clone(&why) }.into())
            };
            names.nodes.into_iter().map(set).collect::<Result<_, Failure>>()?
        }
        Command::Credit(args) => {
            let why = Text::new(args.reason).map_err(|error| too_long("reason", &error))?;
            let Some(key) = args.id else { return Err(Failure::usage("a credit needs a key (--id)")) };
            vec![Credit { account: args.account, amount: args.amount, key, why }.into()]
        }
        Command::Token(TokenCommand::Revoke { tokens }) => {
            let revoke = |token: String| {
                let token = token.parse().map_err(|error| too_long("token", &error as &modchain_types::id::BadId))?;
                Ok(TokenRevoke { token }.into())
            };
            tokens.into_iter().map(revoke).collect::<Result<_, Failure>>()?
        }
        Command::Cert(CertCommand::Revoke { identities, reason, .. }) => {
            let why: Text<256> = Text::new(reason).map_err(|error| too_long("reason", &error))?;
            let revoke = |identity: String| {
                let identity = Text::new(identity).map_err(|error| too_long("identity", &error))?;
                Ok(Revoke { identity, why: why.clone() }.into())
            };
            identities.into_iter().map(revoke).collect::<Result<_, Failure>>()?
        }
        _ => return Err(Failure::usage("this command changes nothing")),
    })
}

/// A command line as one types it in a shell, with the program's name.
pub(crate) fn shown(line: &[String]) -> String {
    let words = std::iter::once("modchain".to_owned()).chain(line.iter().map(|word| quoted(word)));
    words.collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Splits a line into words as a shell does, without any of a shell's other magic.
///
/// # Errors
/// A quote is not closed.
pub(crate) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a ' is not closed".into()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("a \" is not closed".into()),
                        },
                        Some(c) => word.push(c),
                        None => return Err("a \" is not closed".into()),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next().unwrap_or('\\')),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_as_a_shell_would() {
        for (line, words) in [
            ("", &[][..]),
            ("  a  b\t", &["a", "b"]),
            (r#"sh -c 'echo "$HOME"' "it's" a\ b"#, &["sh", "-c", "echo \"$HOME\"", "it's", "a b"]),
            (r#"'' "" x''"#, &["", "", "x"]),
            (r#""a\"b\n""#, &["a\"b\\n"]),
        ] {
            assert_eq!(split(line), Ok(words.iter().map(|word| (*word).to_owned()).collect()), "{line}");
            let again: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            assert_eq!(split(&again.join(" ")), Ok(words.iter().map(|word| (*word).to_owned()).collect()));
        }
        for line in ["'a", "a \"b", "\"\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_line_becomes_the_request_that_the_command_would_send() {
        let sent = requests(&words("cancel -y j-7f3 j-7f4 --grace 3s")).expect("good");
        assert_eq!(sent.len(), 2);
        assert!(
            matches!(&sent[0], FromConsole::Cancel(cancel) if cancel.job.as_str() == "j-7f3" && cancel.grace.as_millis() == 3_000)
        );
        let sent = requests(&words("node drain rig-1 --deadline 10m -y")).expect("good");
        assert!(matches!(&sent[..], [FromConsole::NodeSet(NodeSet { wish: NodeWish::Drain { within: Some(_) }, .. })]));
        assert!(requests(&words("jobs")).is_err());
        assert!(requests(&words("cancle x")).expect_err("no command").message.contains("cancle"));
    }

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        assert_eq!(
            shown(&["run".into(), "--".into(), "sh".into(), "-c".into(), "echo it's $HOME".into(), String::new()]),
            r"modchain run -- sh -c 'echo it'\''s $HOME' ''"
        );
    }
}
