//! `config`: the user's own file of settings. Whatever changes it here is checked before it is there, and comments stay.

use std::fs;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Value};

use super::docs::{ConfigDoc, SettingDoc};
use super::table::pairs;
use crate::args::{ConfigCommand, Format};
use crate::client::config::{Config, create_private_dir, nearest, read_if_there, replace_file};
use crate::exit::{self, Failure, Outcome};
use crate::shell::{Shell, edit_text};

/// What can be set, and what it is if nobody sets it.
pub(super) const SETTINGS: [(&str, &str); 8] = [
    ("output", "table, wide, json, jsonl, yaml, csv (of lists) or name, as --output; table by default"),
    ("color", "auto, always or never, as --color; auto by default"),
    ("utc", "true or false, as --utc; false by default"),
    ("ascii", "true or false, as --ascii; false by default"),
    ("theme", "of the console: dark, light, mono, contrast or colorblind"),
    ("max-cost", "as --max-cost, for every job that says nothing else, such as 2.00"),
    ("connect-timeout", "as --connect-timeout; 5s by default"),
    ("context", "the context to use where nothing else names one"),
];

/// `modchain config ...`.
pub(crate) fn config(shell: &Shell, command: ConfigCommand) -> Outcome {
    let path = &shell.paths.config;
    match command {
        ConfigCommand::Path if shell.format().is_json() => document_of(shell, path, Vec::new())?,
        ConfigCommand::Path => shell.print(&format!("{}\n", path.display()))?,
        ConfigCommand::Get { key } => get(shell, path, key.as_deref())?,
        ConfigCommand::Set { key, value } => {
            let key = known(&key)?;
            let text = read_if_there(path)?.unwrap_or_default();
            let changed = set(&text, key, &value, path)?;
            write(path, &changed)?;
            let done =
                if value.is_empty() { format!("{key} is not set any more") } else { format!("{key} is {value}") };
            shell.say(&done);
            if shell.format().is_json() {
                let value = Some(value).filter(|value| !value.is_empty());
                document_of(shell, path, vec![SettingDoc { key, value }])?;
            }
        }
        ConfigCommand::Edit => return edit(shell, path),
    }
    Ok(exit::OK)
}

/// The setting of this name, or what was probably meant.
fn known(key: &str) -> Result<&'static str, Failure> {
    let keys = || SETTINGS.iter().map(|(key, _)| *key);
    keys().find(|known| *known == key).ok_or_else(|| {
        let failure = Failure::usage(format!("there is no setting `{key}`"));
        match nearest(key, keys()) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint(format!("there are: {}", keys().collect::<Vec<_>>().join(", "))),
        }
    })
}

fn get(shell: &Shell, path: &Path, key: Option<&str>) -> Result<(), Failure> {
    let wanted = key.map(known).transpose()?;
    let text = read_if_there(path)?.unwrap_or_default();
    Config::parse(&text, path)?;
    let document = document(&text, path)?;
    let value = |key: &str| document.get(key).and_then(Item::as_value).map(plain);
    let settings: Vec<(&str, Option<String>)> = SETTINGS
        .iter()
        .filter(|(key, _)| wanted.is_none_or(|w| w == *key))
        .map(|(key, _)| (*key, value(key)))
        .collect();
    match shell.format() {
        Format::Json | Format::Jsonl => {
            document_of(shell, path, settings.into_iter().map(|(key, value)| SettingDoc { key, value }).collect())
        }
        Format::Name => shell.print(&settings.iter().map(|(key, _)| format!("{key}\n")).collect::<String>()),
        // One value alone is for scripts.
        Format::Table if wanted.is_some() => match settings.into_iter().find_map(|(_, value)| value) {
            Some(value) => shell.print(&format!("{}\n", crate::text::one_line(&value))),
            None => Err(Failure::not_found(format!("{} is not set", wanted.unwrap_or_default()))),
        },
        Format::Table => {
            let lines: Vec<(&str, String)> =
                settings.into_iter().map(|(key, value)| (key, value.unwrap_or_else(|| "-".into()))).collect();
            shell.print(&pairs(&lines))
        }
    }
}

fn document_of(shell: &Shell, path: &Path, settings: Vec<SettingDoc>) -> Result<(), Failure> {
    shell.print_document(&ConfigDoc { schema: "modchain.config/v1", path: path.display().to_string(), settings })
}

/// A value without what TOML puts around it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.clone().decorated("", "").to_string(), str::to_owned)
}

fn document(text: &str, path: &Path) -> Result<DocumentMut, Failure> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        let line = error.span().map_or(1, |span| crate::client::config::line_of(text, span.start));
        Failure::usage(format!("{}:{line}: {}", path.display(), error.message()))
    })
}

/// The text with a setting changed, or taken away if its value is empty; all else stays as it is.
fn set(text: &str, key: &str, value: &str, path: &Path) -> Result<String, Failure> {
    let mut document = document(text, path)?;
    if value.is_empty() {
        document.remove(key);
    } else {
        let mut new = match (key, value) {
            ("utc" | "ascii", "true") => Value::from(true),
            ("utc" | "ascii", "false") => Value::from(false),
            _ => Value::from(value),
        };
        match document.get_mut(key).and_then(Item::as_value_mut) {
            // What stands beside it stays there.
            Some(old) => {
                *new.decor_mut() = old.decor().clone();
                *old = new;
            }
            None => drop(document.insert(key, Item::Value(new))),
        }
    }
    let changed = document.to_string();
    let explain = |failure: Failure| {
        let (_, what) = SETTINGS.iter().find(|(known, _)| *known == key).expect("a known setting");
        Failure::usage(format!("{key} cannot be `{value}`: {}", failure.message)).hint(*what)
    };
    if let Err(failure) = Config::parse(&changed, path) {
        // Of a file that was wrong before, its own complaint is the right one.
        Config::parse(text, path)?;
        return Err(explain(failure));
    }
    Ok(changed)
}

/// Writes the file as a whole. A link stays a link.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    create_private_dir(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    Ok(replace_file(&path, text.as_bytes())?)
}

/// What a new file begins with: everything that can be set, and nothing that is.
fn template() -> String {
    SETTINGS.iter().fold("# Settings of modchain. Everything may be left out.\n".to_owned(), |text, (key, what)| {
        text + &format!("\n# {what}\n#{key} = \n")
    })
}

/// Where an edit that was not right waits for the next try.
fn copy_of(path: &Path) -> PathBuf {
    path.with_extension("edit.toml")
}

fn edit(shell: &Shell, path: &Path) -> Outcome {
    let copy = copy_of(path);
    let current = read_if_there(path)?;
    let begin = match read_if_there(&copy)? {
        Some(text) => {
            shell.say("the edit that was not right goes on");
            text
        }
        None => current.clone().unwrap_or_else(template),
    };
    let text = edit_text(&begin, "config.toml")?;
    if let Err(failure) = Config::parse(&text, path) {
        write(&copy, &text)?;
        return Err(failure.hint(format!("modchain config edit goes on with it; it is kept in {}", copy.display())));
    }
    let same = current.as_deref() == Some(text.as_str()) || current.is_none() && text == template();
    if !same {
        write(path, &text)?;
    }
    match fs::remove_file(&copy) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::failed(format!("cannot remove {}: {error}", copy.display())));
        }
        Ok(()) | Err(_) => {}
    }
    shell.say(&if same { "nothing was changed".into() } else { format!("{} is changed", path.display()) });
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, key: &str, value: &str) -> Result<String, Failure> {
        set(text, key, value, Path::new("config.toml"))
    }

    #[test]
    fn a_setting_changes_and_everything_around_it_stays() {
        let text = "# mine\nutc = true   # always\n\n# money\nmax-cost = '1.00'\n";
        let text = changed(text, "utc", "false").expect("sets");
        let text = changed(&text, "max-cost", "2.00").expect("sets");
        let text = changed(&text, "theme", "light").expect("sets");
        assert_eq!(text, "# mine\nutc = false   # always\n\n# money\nmax-cost = \"2.00\"\ntheme = \"light\"\n");
        assert_eq!(changed(&text, "theme", "").expect("takes away"), text.replace("theme = \"light\"\n", ""));
        assert_eq!(changed("", "theme", "").expect("nothing to take away"), "");
    }

    #[test]
    fn what_a_setting_cannot_be_is_refused_with_what_it_can() {
        for (key, value, hint) in [
            ("utc", "yes", "true or false"),
            ("output", "xml", "table, wide, json"),
            ("theme", "pink", "dark, light"),
            ("max-cost", "lots", "such as 2.00"),
            ("connect-timeout", "soon", "5s"),
            ("color", "red", "auto, always"),
        ] {
            let failure = changed("", key, value).expect_err(value);
            assert!(failure.exit == 2 && failure.hint.clone().unwrap_or_default().contains(hint), "{failure}");
        }
        let failure = changed("colour = 1\n", "utc", "true").expect_err("wrong before");
        assert!(failure.message.starts_with("config.toml:1: unknown field"), "{failure}");
        assert_eq!(changed("utc = 7\n", "utc", "").expect("puts it right"), "");
        assert_eq!(known("colour").expect_err("unknown").hint.as_deref(), Some("did you mean `color`?"));
    }

    #[test]
    fn every_setting_is_one_and_the_template_names_them_all() {
        for (key, value) in [
            ("output", "wide"),
            ("color", "never"),
            ("utc", "true"),
            ("ascii", "true"),
            ("theme", "mono"),
            ("max-cost", "1.00"),
            ("connect-timeout", "2s"),
            ("context", "lab"),
        ] {
            changed("", key, value).expect(key);
            assert!(template().contains(&format!("\n#{key} = \n")));
            known(key).expect(key);
        }
        assert_eq!(SETTINGS.len(), 8);
        Config::parse(&template(), Path::new("x")).expect("sets nothing");
    }
}
