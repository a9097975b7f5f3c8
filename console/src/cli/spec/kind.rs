//! Which kind of job flags and job file describe together. A word that belongs to another kind is a mistake that is told with
//! its flag or line: running something else than was meant costs money.

use std::fmt;

use super::super::job_file::JobFile;
use crate::args::{ContainerFlags, JobFlags, JobType, LlmFlags, MachineFlags};
use crate::exit::Failure;

use JobType::{Docker, Llm, Wasm};

/// Words that not every kind of job knows, and the kinds that do; those that name what runs come first.
const WORDS: &[(&str, &[JobType])] = &[
    ("wasm", &[Wasm]),
    ("image", &[Docker]),
    ("model", &[Llm]),
    ("entrypoint", &[Docker]),
    ("workdir", &[Docker]),
    ("pull-timeout", &[Docker]),
    ("pids", &[Docker]),
    ("tmp-size", &[Docker]),
    ("writable-root", &[Docker]),
    ("network", &[Docker]),
    ("prompt", &[Llm]),
    ("system", &[Llm]),
    ("temperature", &[Llm]),
    ("max-tokens", &[Llm]),
    ("seed", &[Llm]),
    ("json", &[Llm]),
    ("history", &[Llm]),
    ("embed", &[Llm]),
    ("args", &[Wasm, Docker]),
    ("env", &[Wasm, Docker]),
    ("env-file", &[Wasm, Docker]),
    ("allow-secrets-on-node", &[Wasm, Docker]),
    ("stdin", &[Wasm, Docker]),
    ("gpus", &[Docker, Llm]),
    ("gpu-memory", &[Docker, Llm]),
    ("gpu-model", &[Docker, Llm]),
];

/// A word and where it stands: in the file of this place, or on the line.
struct Said<'a> {
    word: &'a str,
    place: Option<&'a str>,
}

impl Said<'_> {
    /// At the beginning of a complaint, with its line first.
    fn accused(&self) -> String {
        match self.place {
            Some(place) => format!("{place}: `{}`", self.word),
            None => self.to_string(),
        }
    }
}

/// Within a sentence.
impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.word, self.place) {
            (word, Some(place)) => write!(f, "`{word}` ({place})"),
            ("args", None) => write!(f, "what stands after `--`"),
            (word, None) => write!(f, "`--{word}`"),
        }
    }
}

/// The kind of job, if everything that was said belongs to one.
pub(super) fn kind(flags: &JobFlags, file: &JobFile) -> Result<JobType, Failure> {
    let on_line = words(flags);
    let said = |word: &'static str| {
        let in_file = file.places.get(word).map(|place| Said { word, place: Some(place) });
        on_line.contains(&word).then_some(Said { word, place: None }).or(in_file)
    };
    let explicit = match (flags.kind, file.kind) {
        (Some(kind), _) => Some((kind, Said { word: "type", place: None })),
        (None, Some(kind)) => said("type").map(|said| (kind, said)),
        (None, None) => None,
    };
    let alone = WORDS.iter().filter_map(|(word, kinds)| match kinds {
        [kind] => said(word).map(|said| (*kind, said)),
        _ => None,
    });
    let (kind, decider) = explicit.or_else(|| alone.into_iter().next()).ok_or_else(|| {
        Failure::usage("there is nothing to run").hint(
            "name an image with -i IMAGE, a model with -m MODEL, a module with --wasm FILE, or a job file with -f FILE",
        )
    })?;
    let stranger = WORDS.iter().filter(|(_, kinds)| !kinds.contains(&kind)).find_map(|(word, kinds)| {
        let said = said(word)?;
        Some((said, kinds.iter().map(|kind| kind.people()).collect::<Vec<_>>().join(" or ")))
    });
    let Some((said, owner)) = stranger else { return Ok(kind) };
    let why = format!("{} belongs to {owner}, and {decider} makes this {}", said.accused(), kind.people());
    let failure = Failure::usage(why);
    Err(match (said.word, kind) {
        ("stdin", Llm) => failure.hint("-p - takes the prompt from standard input"),
        _ => failure.hint("leave one of the two out"),
    })
}

/// The words of [`WORDS`] that stand on the line.
fn words(flags: &JobFlags) -> Vec<&'static str> {
    let JobFlags { wasm, container, llm, machine, env, env_file, allow_secrets_on_node, stdin, args, .. } = flags;
    let ContainerFlags { image, entrypoint, workdir, pull_timeout, pids, tmp_size, writable_root, network } = container;
    let LlmFlags { model, prompt, system, temperature, max_tokens, seed, json, history, embed } = llm;
    let MachineFlags { gpus, gpu_memory, gpu_model, region: _, price_per_hour: _ } = machine;
    let said = [
        ("wasm", wasm.is_some()),
        ("image", image.is_some()),
        ("entrypoint", entrypoint.is_some()),
        ("workdir", workdir.is_some()),
        ("pull-timeout", pull_timeout.is_some()),
        ("pids", pids.is_some()),
        ("tmp-size", tmp_size.is_some()),
        ("writable-root", *writable_root),
        ("network", *network),
        ("model", model.is_some()),
        ("prompt", prompt.is_some()),
        ("system", system.is_some()),
        ("temperature", temperature.is_some()),
        ("max-tokens", max_tokens.is_some()),
        ("seed", seed.is_some()),
        ("json", *json),
        ("history", history.is_some()),
        ("embed", !embed.is_empty()),
        ("args", !args.is_empty()),
        ("env", !env.is_empty()),
        ("env-file", !env_file.is_empty()),
        ("allow-secrets-on-node", *allow_secrets_on_node),
        ("stdin", *stdin),
        ("gpus", gpus.is_some()),
        ("gpu-memory", gpu_memory.is_some()),
        ("gpu-model", gpu_model.is_some()),
    ];
    said.into_iter().filter(|(_, said)| *said).map(|(word, _)| word).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn of(line: &[&str], body: &str) -> Result<JobType, Failure> {
        let cli = Cli::try_parse_from(["modchain", "run"].iter().chain(line)).expect("a line");
        let Some(Command::Run(run)) = cli.command else { panic!("run") };
        let text = format!("schema = \"modchain.job/v1\"\n{body}");
        kind(&run.job, &JobFile::parse(&text, "job.toml", Path::new("/jobs")).expect("a file"))
    }

    #[test]
    fn the_kind_follows_from_whatever_belongs_to_one() {
        for (line, body, expected) in [
            (&["--wasm", "x.wat"][..], "", Wasm),
            (&["-i", "alpine", "--", "ls"], "", Docker),
            (&["-m", "smollm2", "-p", "hi"], "", Llm),
            (&["-t", "docker"], "", Docker),
            (&[], "image = \"alpine\"\n", Docker),
            (&["-p", "hi"], "model = \"smollm2\"\n", Llm),
            (&["--gpus", "1"], "type = \"docker\"\nimage = \"alpine\"\n", Docker),
            (&["-t", "docker", "-i", "alpine"], "type = \"docker\"\n", Docker),
        ] {
            assert_eq!(of(line, body).expect("one kind"), expected, "{line:?} {body:?}");
        }
    }

    #[test]
    fn what_belongs_to_another_kind_is_named_with_its_flag_or_line() {
        for (line, body, said) in [
            (
                &["-i", "alpine", "-p", "hi"][..],
                "",
                "`--prompt` belongs to a job for a language model, and `--image` makes this a container",
            ),
            (
                &["-i", "alpine"],
                "wasm = \"x.wat\"\n",
                "`--image` belongs to a container, and `wasm` (job.toml:2) makes this a WebAssembly job",
            ),
            (
                &["-i", "alpine"],
                "\nsystem = \"x\"\n",
                "job.toml:3: `system` belongs to a job for a language model, and `--image` makes this a container",
            ),
            (
                &["-m", "a", "-p", "hi", "--", "x"],
                "",
                "what stands after `--` belongs to a WebAssembly job or a container, and `--model` makes this a job for a \
                 language model",
            ),
            (
                &["--wasm", "x.wat", "--gpus", "1"],
                "",
                "`--gpus` belongs to a container or a job for a language model, and `--wasm` makes this a WebAssembly job",
            ),
            (
                &["-m", "a"],
                "type = \"docker\"\n",
                "`--model` belongs to a job for a language model, and `type` (job.toml:2) makes this a container",
            ),
            (
                &["-t", "llm"],
                "[env]\nA = \"1\"\n",
                "job.toml:2: `env` belongs to a WebAssembly job or a container, and `--type` makes this a job for a language \
                 model",
            ),
        ] {
            let failure = of(line, body).expect_err("refused");
            assert_eq!((failure.message.as_str(), failure.exit), (said, 2));
            assert!(failure.hint.is_some());
        }
        let stdin = of(&["-m", "a", "--stdin"], "").expect_err("refused");
        assert!(stdin.hint.expect("a hint").contains("-p -"));
        let nothing = of(&["--memory", "1GiB"], "").expect_err("refused");
        assert!(nothing.message.contains("nothing to run"), "{nothing}");
    }

    #[test]
    fn every_word_of_a_kind_is_a_key_of_job_files_or_a_flag_alone() {
        for (word, _) in WORDS {
            let known = super::super::super::job_file::KEYS.contains(word);
            assert!(known || *word == "allow-secrets-on-node", "{word}");
        }
    }
}
