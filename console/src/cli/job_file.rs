//! The job file: TOML with the same words as the flags. Every complaint names the line; an unknown key is one, with the word
//! that was probably meant.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use modchain_types::{DockerTask, Micro, Name, Policy, Span};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::args::{
    ContainerFlags, GPUS_MAX, JobType, LlmFlags, MachineFlags, OnDisconnectFlag, PolicyFlag, parse_image, parse_memory,
    parse_model, parse_positive_micro, parse_pull_timeout, parse_span, parse_temperature, parse_workdir,
};
use crate::client::config::{line_of, nearest};
use crate::exit::Failure;
use crate::text;

/// Largest job file that is read: far above what fits into a specification.
pub(crate) const JOB_FILE_BYTES_MAX: u64 = 1 << 20;

/// The schema that a job file names.
pub(crate) const SCHEMA: &str = "modchain.job/v1";

/// What may stand at the top of a job file.
pub(super) const KEYS: &[&str] = &[
    "schema",
    "type",
    "wasm",
    "image",
    "entrypoint",
    "workdir",
    "pull-timeout",
    "pids",
    "tmp-size",
    "writable-root",
    "network",
    "model",
    "prompt",
    "system",
    "temperature",
    "max-tokens",
    "seed",
    "json",
    "history",
    "embed",
    "args",
    "name",
    "max-cost",
    "cpus",
    "memory",
    "gpus",
    "gpu-memory",
    "gpu-model",
    "node",
    "region",
    "price-per-hour",
    "env-file",
    "time-limit",
    "start-by",
    "lost-after",
    "on-disconnect",
    "policy",
    "priority",
    "retries",
    "stdin",
    "no-queue",
    "env",
    "labels",
    "require",
    "resources",
];

/// What may stand in `[resources]`.
const RESOURCE_KEYS: &[&str] = &["cpus", "memory", "gpus", "gpu-memory", "gpu-model"];

/// A job as a file describes it. Paths are already relative to the file's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JobFile {
    /// Where each word stands, `job.toml:3`: what is wrong with two words together shows only later.
    pub(crate) places: BTreeMap<&'static str, String>,
    pub(crate) kind: Option<JobType>,
    pub(crate) wasm: Option<PathBuf>,
    pub(crate) container: ContainerFlags,
    pub(crate) llm: LlmFlags,
    pub(crate) machine: MachineFlags,
    pub(crate) args: Option<Vec<String>>,
    pub(crate) name: Option<String>,
    pub(crate) max_cost: Option<Micro>,
    pub(crate) cpus: Option<u32>,
    pub(crate) memory: Option<u64>,
    pub(crate) node: Option<Name>,
    pub(crate) env_file: Vec<PathBuf>,
    pub(crate) time_limit: Option<Span>,
    pub(crate) start_by: Option<Span>,
    pub(crate) lost_after: Option<Span>,
    pub(crate) on_disconnect: Option<OnDisconnectFlag>,
    pub(crate) policy: Option<PolicyFlag>,
    pub(crate) priority: Option<i8>,
    pub(crate) retries: Option<u32>,
    pub(crate) stdin: Option<bool>,
    pub(crate) no_queue: Option<bool>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) require: BTreeMap<String, String>,
}

impl JobFile {
    /// Reads the text of a job file called `source`; paths in it are relative to `folder`.
    pub(crate) fn parse(text: &str, source: &str, folder: &Path) -> Result<Self, Failure> {
        let reader = Reader { text, source, folder };
        let table = DeTable::parse(text).map_err(|error| reader.fail(error.span(), error.message()))?;
        reader.job(table.get_ref())
    }
}

struct Reader<'a> {
    text: &'a str,
    source: &'a str,
    folder: &'a Path,
}

type Value<'i> = Spanned<DeValue<'i>>;

impl Reader<'_> {
    fn fail(&self, at: Option<Range<usize>>, why: impl std::fmt::Display) -> Failure {
        let line = at.map_or(1, |span| line_of(self.text, span.start));
        Failure::usage(format!("{}:{line}: {}", self.source, shortened(why.to_string())))
    }

    /// The first unknown key of a table, by its place in the file.
    fn check_keys(&self, table: &DeTable<'_>, known: &[&str], place: &str) -> Result<(), Failure> {
        let unknown =
            table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())).min_by_key(|key| key.span().start);
        let Some(key) = unknown else { return Ok(()) };
        let word = key.get_ref().as_ref();
        let failure = self.fail(Some(key.span()), format!("unknown key `{word}`{place}"));
        Err(match nearest(&word.replace('_', "-"), known.iter().copied()) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint(format!("known keys: {}", known.join(", "))),
        })
    }

    fn job(&self, table: &DeTable<'_>) -> Result<JobFile, Failure> {
        self.check_keys(table, KEYS, "")?;
        let mut job = JobFile::default();
        let mut schema_named = false;
        for (key, value) in table {
            self.note(key, &mut job);
            match key.get_ref().as_ref() {
                "schema" => {
                    schema_named = true;
                    let schema = self.string(value)?;
                    if schema != SCHEMA {
                        let why = format!("schema is `{schema}`, this program reads `{SCHEMA}`");
                        return Err(self.fail(Some(value.span()), why));
                    }
                }
                "type" => {
                    let words = [JobType::Wasm, JobType::Docker, JobType::Llm].map(|kind| (kind.word(), kind));
                    job.kind = Some(self.word(value, &words)?);
                }
                "wasm" => job.wasm = Some(self.folder.join(self.string(value)?)),
                "image" | "entrypoint" | "workdir" | "pull-timeout" | "pids" | "tmp-size" | "writable-root"
                | "network" => self.container(key.get_ref(), value, &mut job.container)?,
                "model" | "prompt" | "system" | "temperature" | "max-tokens" | "seed" | "json" | "history"
                | "embed" => self.llm(key.get_ref(), value, &mut job.llm)?,
                "args" => job.args = Some(self.strings(value)?),
                "name" => job.name = Some(self.string(value)?.into()),
                "max-cost" => job.max_cost = Some(self.parsed(value, parse_positive_micro)?),
                "cpus" | "memory" | "gpus" | "gpu-memory" | "gpu-model" => {
                    self.resource(key.get_ref(), value, &mut job)?;
                }
                "region" => job.machine.region = Some(self.string(value)?.into()),
                "price-per-hour" => job.machine.price_per_hour = Some(self.parsed(value, parse_positive_micro)?),
                "node" => job.node = Some(self.parsed(value, |text| text.parse::<Name>().map_err(|e| e.to_string()))?),
                "env-file" => {
                    let paths = self.string_or_strings(value)?;
                    job.env_file = paths.into_iter().map(|path| self.folder.join(path)).collect();
                }
                "time-limit" => job.time_limit = Some(self.parsed(value, parse_span)?),
                "start-by" => job.start_by = Some(self.parsed(value, parse_span)?),
                "lost-after" => job.lost_after = Some(self.parsed(value, parse_span)?),
                "on-disconnect" => {
                    let words = [("keep", OnDisconnectFlag::Keep), ("stop", OnDisconnectFlag::Stop)];
                    job.on_disconnect = Some(self.word(value, &words)?);
                }
                "policy" => {
                    let words = Policy::ALL.map(|policy| (policy.word(), policy.into()));
                    job.policy = Some(self.word(value, &words)?);
                }
                "priority" => job.priority = Some(self.integer(value, -100, 100)?),
                "retries" => job.retries = Some(self.integer(value, 0, 19)?),
                "stdin" => job.stdin = Some(self.boolean(value)?),
                "no-queue" => job.no_queue = Some(self.boolean(value)?),
                "env" => job.env = self.table_of_strings(value)?,
                "labels" => job.labels = self.table_of_strings(value)?,
                "require" => job.require = self.table_of_strings(value)?,
                "resources" => self.resources(value, table, &mut job)?,
                other => unreachable!("`{other}` is checked above"),
            }
        }
        if !schema_named {
            let failure = self.fail(None, "the schema is missing");
            return Err(failure.hint(format!("begin the file with: schema = \"{SCHEMA}\"")));
        }
        Ok(job)
    }

    fn resources(&self, value: &Value<'_>, top: &DeTable<'_>, job: &mut JobFile) -> Result<(), Failure> {
        let table = value.get_ref().as_table().ok_or_else(|| self.expected(value, "a table"))?;
        self.check_keys(table, RESOURCE_KEYS, " in [resources]")?;
        for (key, value) in table {
            let word = key.get_ref().as_ref();
            if top.contains_key(word) {
                return Err(self.fail(Some(key.span()), format!("`{word}` stands at the top of the file too")));
            }
            self.note(key, job);
            self.resource(word, value, job)?;
        }
        Ok(())
    }

    /// Remembers where a word stands.
    fn note(&self, key: &Spanned<DeString<'_>>, job: &mut JobFile) {
        let known = KEYS.iter().find(|known| **known == key.get_ref().as_ref());
        if let Some(word) = known {
            job.places.insert(word, format!("{}:{}", self.source, line_of(self.text, key.span().start)));
        }
    }

    fn resource(&self, word: &str, value: &Value<'_>, job: &mut JobFile) -> Result<(), Failure> {
        match word {
            "cpus" => job.cpus = Some(self.parsed(value, text::parse_cpus)?),
            "memory" => job.memory = Some(self.parsed(value, parse_memory)?),
            "gpus" => job.machine.gpus = Some(self.integer(value, 0, i64::from(GPUS_MAX))?),
            "gpu-memory" => job.machine.gpu_memory = Some(self.parsed(value, parse_memory)?),
            "gpu-model" => job.machine.gpu_model = Some(self.string(value)?.into()),
            other => unreachable!("`{other}` is checked above"),
        }
        Ok(())
    }

    fn container(&self, word: &str, value: &Value<'_>, container: &mut ContainerFlags) -> Result<(), Failure> {
        match word {
            "image" => container.image = Some(self.parsed_string(value, parse_image)?),
            "entrypoint" => container.entrypoint = Some(self.string_or_strings(value)?),
            "workdir" => container.workdir = Some(self.parsed_string(value, parse_workdir)?),
            "pull-timeout" => container.pull_timeout = Some(self.parsed(value, parse_pull_timeout)?),
            "pids" => container.pids = Some(self.integer(value, 1, i64::from(DockerTask::PIDS_MAX))?),
            "tmp-size" => container.tmp_size = Some(self.parsed(value, parse_memory)?),
            "writable-root" => container.writable_root = self.boolean(value)?,
            "network" => container.network = self.boolean(value)?,
            other => unreachable!("`{other}` is checked above"),
        }
        Ok(())
    }

    fn llm(&self, word: &str, value: &Value<'_>, llm: &mut LlmFlags) -> Result<(), Failure> {
        match word {
            "model" => llm.model = Some(self.parsed_string(value, parse_model)?),
            "prompt" => llm.prompt = Some(self.string(value)?.into()),
            "system" => llm.system = Some(self.string(value)?.into()),
            "temperature" => llm.temperature = Some(self.parsed(value, parse_temperature)?),
            "max-tokens" => llm.max_tokens = Some(self.integer(value, 1, i64::from(u32::MAX))?),
            "seed" => llm.seed = Some(self.integer(value, 0, i64::from(u32::MAX))?),
            "json" => llm.json = self.boolean(value)?,
            "history" => llm.history = Some(self.folder.join(self.string(value)?)),
            "embed" => llm.embed = self.string_or_strings(value)?,
            other => unreachable!("`{other}` is checked above"),
        }
        Ok(())
    }

    fn expected(&self, value: &Value<'_>, what: &str) -> Failure {
        self.fail(Some(value.span()), format!("expected {what}, found {}", value.get_ref().type_str()))
    }

    fn string<'v>(&self, value: &'v Value<'_>) -> Result<&'v str, Failure> {
        value.get_ref().as_str().ok_or_else(|| self.expected(value, "a string"))
    }

    fn parsed_string<T>(&self, value: &Value<'_>, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Failure> {
        parse(self.string(value)?).map_err(|why| self.fail(Some(value.span()), why))
    }

    fn boolean(&self, value: &Value<'_>) -> Result<bool, Failure> {
        value.get_ref().as_bool().ok_or_else(|| self.expected(value, "true or false"))
    }

    fn strings(&self, value: &Value<'_>) -> Result<Vec<String>, Failure> {
        let array = value.get_ref().as_array().ok_or_else(|| self.expected(value, "a list of strings"))?;
        array.iter().map(|item| self.string(item).map(Into::into)).collect()
    }

    fn string_or_strings(&self, value: &Value<'_>) -> Result<Vec<String>, Failure> {
        match value.get_ref().as_str() {
            Some(text) => Ok(vec![text.into()]),
            None => self.strings(value),
        }
    }

    fn table_of_strings(&self, value: &Value<'_>) -> Result<BTreeMap<String, String>, Failure> {
        let table = value.get_ref().as_table().ok_or_else(|| self.expected(value, "a table"))?;
        table.iter().map(|(key, value)| Ok((key.get_ref().to_string(), self.string(value)?.into()))).collect()
    }

    fn word<T: Copy>(&self, value: &Value<'_>, words: &[(&str, T)]) -> Result<T, Failure> {
        let text = self.string(value)?;
        words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let failure = self.fail(Some(value.span()), format!("`{text}` is not one of: {}", known.join(", ")));
            match nearest(text, known.iter().copied()) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure,
            }
        })
    }

    /// A value as the flag of the same name takes it. Numbers may be written without quotes; their own text counts, so
    /// that no amount passes through a float.
    fn parsed<T>(&self, value: &Value<'_>, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Failure> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            DeValue::Float(float) => float.as_str(),
            _ => return Err(self.expected(value, "a string or a number")),
        };
        parse(text).map_err(|why| self.fail(Some(value.span()), why))
    }

    fn integer<T: TryFrom<i64>>(&self, value: &Value<'_>, min: i64, max: i64) -> Result<T, Failure> {
        let integer = value.get_ref().as_integer().ok_or_else(|| self.expected(value, "a whole number"))?;
        i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| (min..=max).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| self.fail(Some(value.span()), format!("{} is not within {min} to {max}", integer.as_str())))
    }
}

/// A complaint without the middle of what it quotes, where that is long: a file may have a value of a megabyte.
fn shortened(why: String) -> String {
    const BEGINNING_CHARS: usize = 100;
    const END_CHARS: usize = 200;
    let count = why.chars().count();
    if count <= BEGINNING_CHARS + END_CHARS {
        return why;
    }
    let beginning: String = why.chars().take(BEGINNING_CHARS).collect();
    beginning + "…" + &why.chars().skip(count - END_CHARS).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<JobFile, Failure> {
        JobFile::parse(&format!("schema = \"modchain.job/v1\"\n{body}"), "job.toml", Path::new("/jobs"))
    }

    #[test]
    fn a_full_file_is_read_with_paths_beside_it() {
        let job = parse(
            "type = \"wasm\"\nwasm = \"primes.wat\"\nargs = [\"1000\"]\nname = \"primes\"\nmax-cost = 0.10\n\
             env-file = \".env\"\ntime-limit = \"10m\"\nlost-after = 90\non-disconnect = \"stop\"\npolicy = \"spread\"\npriority = -5\n\
             retries = 0\nstdin = true\nno-queue = false\n[env]\nA = \"1\"\n[labels]\nsweep = \"x\"\n[resources]\n\
             cpus = 0.5\nmemory = \"64MiB\"\n",
        )
        .expect("parses");
        assert_eq!(job.wasm.as_deref(), Some(Path::new("/jobs/primes.wat")));
        assert_eq!(job.env_file, [PathBuf::from("/jobs/.env")]);
        assert_eq!((job.max_cost, job.cpus, job.memory), (Some(Micro(100_000)), Some(500), Some(64 << 20)));
        assert_eq!((job.time_limit, job.lost_after), (Some(Span::from_secs(600)), Some(Span::from_secs(90))));
        assert_eq!((job.priority, job.retries, job.stdin, job.no_queue), (Some(-5), Some(0), Some(true), Some(false)));
        assert_eq!((job.on_disconnect, job.policy), (Some(OnDisconnectFlag::Stop), Some(PolicyFlag::Spread)));
        assert_eq!((job.env["A"].as_str(), job.labels["sweep"].as_str()), ("1", "x"));
    }

    #[test]
    fn containers_and_language_models_are_described_with_the_words_of_the_flags() {
        let job = parse(
            "type = \"docker\"\nimage = \"python:3.13\"\nentrypoint = \"python\"\nworkdir = \"/srv\"\nargs = [\"-V\"]\n\
             pull-timeout = \"5m\"\npids = 64\ntmp-size = \"1GiB\"\nwritable-root = true\nnetwork = false\n\
             region = \"eu\"\nprice-per-hour = 1.50\n[resources]\ngpus = 2\ngpu-memory = \"40GiB\"\ngpu-model = \"H100\"\n",
        )
        .expect("parses");
        assert_eq!(
            job.container,
            ContainerFlags {
                image: Some("python:3.13".into()),
                entrypoint: Some(vec!["python".into()]),
                workdir: Some("/srv".into()),
                pull_timeout: Some(Span::from_secs(300)),
                pids: Some(64),
                tmp_size: Some(1 << 30),
                writable_root: true,
                network: false,
            }
        );
        assert_eq!(
            job.machine,
            MachineFlags {
                gpus: Some(2),
                gpu_memory: Some(40 << 30),
                gpu_model: Some("H100".into()),
                region: Some("eu".into()),
                price_per_hour: Some(Micro(1_500_000)),
            }
        );
        assert_eq!((job.places["image"].as_str(), job.places["gpus"].as_str()), ("job.toml:3", "job.toml:15"));
        let job = parse(
            "model = \"smollm2\"\nprompt = \"hi\"\nsystem = \"be short\"\ntemperature = 0.7\nmax-tokens = 9\nseed = 1\n\
             json = true\nhistory = \"chat.json\"\nembed = [\"a\", \"b\"]\n",
        )
        .expect("parses");
        assert_eq!(
            job.llm,
            LlmFlags {
                model: Some("smollm2:latest".into()),
                prompt: Some("hi".into()),
                system: Some("be short".into()),
                temperature: Some(700),
                max_tokens: Some(9),
                seed: Some(1),
                json: true,
                history: Some("/jobs/chat.json".into()),
                embed: vec!["a".into(), "b".into()],
            }
        );
    }

    #[test]
    fn every_complaint_names_the_line_and_what_was_probably_meant() {
        for (body, said, hint) in [
            ("wasm = \"x\"\nmax-csot = 1\n", "job.toml:3: unknown key `max-csot`", "did you mean `max-cost`?"),
            ("max_cost = 1\n", "job.toml:2: unknown key `max_cost`", "did you mean `max-cost`?"),
            ("label = 1\n", "job.toml:2: unknown key `label`", "did you mean `labels`?"),
            ("qqqq = 1\n", "job.toml:2: unknown key `qqqq`", "known keys: schema"),
            ("[resources]\ncpu = 1\n", "job.toml:3: unknown key `cpu` in [resources]", "did you mean `cpus`?"),
            ("cpus = 1\n[resources]\ncpus = 1\n", "job.toml:4: `cpus` stands at the top", ""),
            ("wasm = 5\n", "job.toml:2: expected a string, found integer", ""),
            ("\nmax-cost = -1\n", "job.toml:3: `-1` is negative", ""),
            ("max-cost = nan\n", "job.toml:2: `nan` is not an amount", ""),
            ("cpus = 0\n", "job.toml:2: `0` is not a number of cores", ""),
            ("memory = \"lots\"\n", "job.toml:2: `lots` is not a size", ""),
            ("time-limit = \"soon\"\n", "job.toml:2: `soon` is not a duration", ""),
            ("retries = 99\n", "job.toml:2: 99 is not within 0 to 19", ""),
            ("priority = 1.5\n", "job.toml:2: expected a whole number, found float", ""),
            ("stdin = \"yes\"\n", "job.toml:2: expected true or false, found string", ""),
            ("type = \"wsam\"\n", "job.toml:2: `wsam` is not one of: wasm, docker, llm", "did you mean `wasm`?"),
            ("imgae = \"x\"\n", "job.toml:2: unknown key `imgae`", "did you mean `image`?"),
            ("image = \"a b\"\n", "job.toml:2: `a b` is not an image", ""),
            ("workdir = \"tmp\"\n", "job.toml:2: `tmp` is not an absolute path", ""),
            ("pids = 0\n", "job.toml:2: 0 is not within 1 to 4096", ""),
            ("pull-timeout = \"2d\"\n", "job.toml:2: `2d` is", ""),
            ("entrypoint = 1\n", "job.toml:2: expected a list of strings, found integer", ""),
            ("model = \"a:\"\n", "job.toml:2: `a:` is not a model", ""),
            ("temperature = 11\n", "job.toml:2: `11` is not a temperature", ""),
            ("max-tokens = 0\n", "job.toml:2: 0 is not within 1 to 4294967295", ""),
            ("[resources]\ngpus = 65\n", "job.toml:3: 65 is not within 0 to 64", ""),
            ("[resources]\ngpu = 1\n", "job.toml:3: unknown key `gpu` in [resources]", "did you mean `gpus`?"),
            ("price-per-hour = 0\n", "job.toml:2: the amount must be more than zero", ""),
            ("[env]\nA = 1\n", "job.toml:3: expected a string, found integer", ""),
            ("args = \"one\"\n", "job.toml:2: expected a list of strings, found string", ""),
            ("node = \"No Node\"\n", "job.toml:2: `No Node` is not a name", ""),
            ("wasm = \"x\nname = 1\n", "job.toml:2: ", ""),
        ] {
            let failure = parse(body).expect_err(body);
            assert!(failure.message.starts_with(said), "{body:?} says: {}", failure.message);
            assert!(failure.hint.unwrap_or_default().starts_with(hint), "{body:?}");
            assert_eq!(failure.exit, 2);
        }
    }

    #[test]
    fn every_example_is_a_job() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let files = std::fs::read_dir(&folder).expect("examples").flatten().map(|entry| entry.path());
        let files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
        assert!(files.len() >= 5, "{files:?}");
        for path in files {
            let text = std::fs::read_to_string(&path).expect("reads");
            let job = JobFile::parse(&text, &path.display().to_string(), &folder).expect("an example is right");
            assert!(job.max_cost.is_some(), "{} can be run as it is", path.display());
        }
    }

    #[test]
    fn the_schema_is_asked_for_and_checked() {
        let without = JobFile::parse("wasm = \"x\"\n", "-", Path::new(".")).expect_err("no schema");
        assert!(without.hint.expect("hint").contains(SCHEMA));
        let other = JobFile::parse("schema = \"modchain.job/v9\"\n", "-", Path::new(".")).expect_err("v9");
        assert!(other.message.contains("modchain.job/v9"), "{other}");
    }

    #[test]
    fn any_text_is_a_job_within_its_bounds_or_a_complaint_with_its_line() {
        let words: Vec<&str> = KEYS
            .iter()
            .chain(&[" = ", "[", "]", "\"", "\"\"\"", "'", "{", "}", "\n", "1e9", "0x", "."])
            .copied()
            .collect();
        let fuzz = crate::fuzz::target("job_file").words(&words).longest(4096);
        // The parser keeps a token for every character in the worst case.
        fuzz.memory(|input| (256 << 10) + 256 * input.len()).run(|input| {
            let Ok(text) = std::str::from_utf8(input) else { return 0 };
            match JobFile::parse(text, "job.toml", Path::new("/jobs")) {
                Ok(job) => {
                    assert!(job.priority.is_none_or(|priority| (-100..=100).contains(&priority)));
                    assert!(job.retries.is_none_or(|retries| retries <= 19) && job.max_cost != Some(Micro::ZERO));
                    let paths = job.env_file.iter().chain(&job.wasm).chain(&job.llm.history);
                    assert!(paths.into_iter().all(|path| path.is_absolute()));
                    assert!(job.machine.gpus.is_none_or(|gpus| gpus <= GPUS_MAX) && job.llm.max_tokens != Some(0));
                    modchain_fuzz::signature(&(
                        (job.wasm.is_some(), job.container.image.is_some(), job.llm.model.is_some()),
                        (job.cpus, job.machine.gpus, job.env.len().min(3), job.kind.is_some()),
                    ))
                }
                Err(failure) => {
                    let line = failure.message.strip_prefix("job.toml:").and_then(|rest| rest.split(':').next());
                    let line: usize = line.and_then(|line| line.parse().ok()).expect("a line");
                    assert!(
                        (1..=text.split('\n').count()).contains(&line),
                        "{failure} in {} lines",
                        text.lines().count()
                    );
                    assert!(failure.message.len() < 2000, "a complaint is for people");
                    crate::fuzz::complaint(&failure.message)
                }
            }
        });
    }

    #[test]
    fn bombs_are_refused_for_the_right_reason_within_their_memory() {
        for bomb in crate::fuzz::bombs("job_file") {
            let text = std::str::from_utf8(&bomb.input).expect("job files are text");
            let (said, spent) = modchain_fuzz::spend(|| JobFile::parse(text, "job.toml", Path::new("/jobs")));
            // The parser keeps a token for every character in the worst case.
            let bound = (1 << 20) + 256 * text.len();
            assert!(spent.peak_bytes <= bound, "{}: {} bytes for {}", bomb.name, spent.peak_bytes, text.len());
            assert!(said.as_ref().err().is_none_or(|failure| failure.message.len() < 2000), "{}", bomb.name);
            bomb.check(said.map(drop).map_err(|failure| failure.to_string()));
        }
    }
}
