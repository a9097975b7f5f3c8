//! `man`: the help of every command as manual pages.

use std::fs;
use std::io;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::args::{Cli, ManArgs};
use crate::exit::{self, Failure, Outcome};
use crate::shell::Shell;

/// `modchain man`.
pub(crate) fn man(shell: &Shell, args: &ManArgs) -> Outcome {
    let no_page = |error: io::Error| Failure::failed(format!("cannot make a manual page: {error}"));
    let mut command = Cli::command();
    command.build();
    let Some(folder) = &args.dir else {
        return shell.print(&page(&command).map_err(no_page)?).map(|()| exit::OK);
    };
    fs::create_dir_all(folder)
        .map_err(|error| Failure::failed(format!("cannot make the folder {}: {error}", folder.display())))?;
    let mut commands = Vec::new();
    every(&command, &mut commands);
    for command in &commands {
        let path = folder.join(Man::new(Command::clone(command)).get_filename());
        fs::write(&path, page(command).map_err(no_page)?)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
    }
    shell.say(&format!("{} pages in {}", commands.len(), folder.display()));
    Ok(exit::OK)
}

/// A command and all below it.
fn every<'a>(command: &'a Command, all: &mut Vec<&'a Command>) {
    all.push(command);
    command.get_subcommands().filter(|sub| !sub.is_hide_set()).for_each(|sub| every(sub, all));
}

/// One page. As in the help, examples come before what a command takes.
fn page(command: &Command) -> io::Result<String> {
    let man = Man::new(command.clone()).manual("Modchain Manual");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if let Some(examples) = command.get_before_help() {
        out.extend(section("EXAMPLES", examples.to_string().trim_start_matches("Examples:\n")).bytes());
    }
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    if let Some(notes) = command.get_after_help() {
        out.extend(section("NOTES", &notes.to_string()).bytes());
    }
    String::from_utf8(out).map_err(io::Error::other)
}

/// Lines that stay as they are.
fn section(name: &str, text: &str) -> String {
    let mut out = format!(".SH {name}\n.nf\n");
    for line in text.lines() {
        // A line that begins with a dot or a quote would be a command to the formatter.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        out.push_str(&format!("{guard}{}\n", line.replace('\\', "\\(rs").replace('-', "\\-")));
    }
    out + ".fi\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_examples_and_its_flags() {
        let mut command = Cli::command();
        command.build();
        let mut commands = Vec::new();
        every(&command, &mut commands);
        for command in &commands {
            let page = page(command).expect("a page");
            for part in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", "\\-\\-output"] {
                assert!(page.contains(part), "{:?}: {part}", command.get_display_name());
            }
            assert_eq!(page.contains(".SH EXAMPLES"), command.get_before_help().is_some());
            assert!(!page.contains('\x1b'), "{page}");
        }
        let names: Vec<String> =
            commands.iter().map(|command| Man::new(Command::clone(command)).get_filename()).collect();
        for name in ["modchain.1", "modchain-run.1", "modchain-node-drain.1", "modchain-config-set.1"] {
            assert_eq!(names.iter().filter(|known| *known == name).count(), 1, "{name}: {names:?}");
        }
    }

    #[test]
    fn no_line_of_an_example_commands_the_formatter() {
        assert_eq!(section("X", ".so x\n'a\n  a\\b -c\n"), ".SH X\n.nf\n\\&.so x\n\\&'a\n  a\\(rsb \\-c\n.fi\n");
    }
}
