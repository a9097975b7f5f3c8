//! One target: its corpus, its bounds, and the loop.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::memory::{Spent, spend};
use crate::mutate::Mutator;
use crate::{Random, corpus};

/// Executions of a target in a test run, the corpus among them: a second or two for a reader of messages.
const EXECUTIONS: u64 = 20_000;
/// Longest mutant, in bytes, unless the target says otherwise.
const LONGEST: usize = 8 * 1024;
/// Memory that any target may take.
const MEMORY_BYTES: usize = 256 * 1024;
/// Memory that a target may take for each byte of input.
const MEMORY_PER_BYTE: usize = 64;
/// Most inputs that mutants are made of; beyond them a new signature is counted and the input forgotten.
const POOL_MAX: usize = 4096;
/// An execution that takes this long has hung: the slowest honest one takes milliseconds, so that no busy machine comes near.
const HANG: Duration = Duration::from_secs(120);
/// The seed where `FUZZ_SEED` names none.
const SEED: u64 = 1;

/// A target with its bounds. Ends with [`Fuzz::run`].
#[derive(Debug)]
pub struct Fuzz {
    name: String,
    seeds: Vec<(String, Vec<u8>)>,
    words: Vec<Vec<u8>>,
    executions: u64,
    longest: usize,
    memory: fn(&[u8]) -> usize,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Inputs that were tried.
    pub executions: u64,
    /// Inputs of the corpus.
    pub corpus: usize,
    /// Different signatures.
    pub signatures: usize,
    /// The most memory that one input took.
    pub peak_bytes: usize,
}

/// The number of a signature.
pub fn signature(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Fuzz {
    /// A target of this name.
    pub fn target(name: &str) -> Self {
        Self {
            name: name.into(),
            seeds: Vec::new(),
            words: Vec::new(),
            executions: EXECUTIONS,
            longest: LONGEST,
            memory: |input| MEMORY_BYTES + MEMORY_PER_BYTE * input.len(),
        }
    }

    /// Adds the files of a folder to the corpus, see [`corpus`].
    pub fn corpus(mut self, folder: impl AsRef<Path>) -> Self {
        self.seeds.extend(corpus::read_folder(folder.as_ref()));
        self
    }

    /// Adds an input to the corpus.
    pub fn seed_input(mut self, input: impl AsRef<[u8]>) -> Self {
        self.seeds.push((format!("seed {}", self.seeds.len()), input.as_ref().to_vec()));
        self
    }

    /// Adds inputs to the corpus.
    pub fn seed_inputs<I: AsRef<[u8]>>(self, inputs: impl IntoIterator<Item = I>) -> Self {
        inputs.into_iter().fold(self, Self::seed_input)
    }

    /// Words that mean something in the format.
    pub fn words<W: AsRef<[u8]> + ?Sized>(mut self, words: &[&W]) -> Self {
        self.words.extend(words.iter().map(|word| word.as_ref().to_vec()));
        self
    }

    /// Executions in a test run, for targets that are slower than most.
    pub fn executions(mut self, executions: u64) -> Self {
        self.executions = executions;
        self
    }

    /// Longest mutant, in bytes.
    pub fn longest(mut self, bytes: usize) -> Self {
        self.longest = bytes;
        self
    }

    /// The most memory that one execution may hold at once, in bytes, all that the target itself does included.
    pub fn memory(mut self, bound: fn(&[u8]) -> usize) -> Self {
        self.memory = bound;
        self
    }

    /// Runs the target over the corpus and its mutants. The target returns the input's [`signature`], and panics when a
    /// rule is broken.
    ///
    /// # Panics
    /// When the target panicked or went over its bound of memory. The message has the seed, the input, and the file that it
    /// was written to.
    pub fn run(self, target: impl Fn(&[u8]) -> u64) -> Report {
        let plan = Plan::from_environment(self.executions);
        if let Some(folder) = std::env::var_os("FUZZ_EXPORT") {
            self.export(&Path::new(&folder).join(&self.name));
        }
        let mut random = Random::new(plan.seed ^ signature(&self.name));
        let watch = Watch::over(&self.name);
        let started = Instant::now();
        let mut report = Report { executions: 0, corpus: self.seeds.len(), signatures: 0, peak_bytes: 0 };
        let mut pool = Pool::default();
        let mut try_one = |input: &[u8], what: &str, pool: &mut Pool| {
            watch.begin(input);
            report.executions += 1;
            let (signature, spent) = self.execute(&target, input, &plan, report.executions, what);
            report.peak_bytes = report.peak_bytes.max(spent.peak_bytes);
            pool.meet(signature, input);
            report.executions
        };
        let mut executions = 0;
        for (name, input) in &self.seeds {
            executions = try_one(input, name, &mut pool);
            pool.inputs.push(input.clone());
        }
        if pool.inputs.is_empty() {
            pool.inputs.push(Vec::new());
        }
        let mutator = Mutator { words: &self.words, longest: self.longest };
        while plan.goes_on(executions, started) {
            let mut input = pool.pick(&mut random).to_vec();
            let other = pool.pick(&mut random);
            mutator.mutate(&mut random, &mut input, other);
            executions = try_one(&input, "a mutant", &mut pool);
        }
        report.signatures = pool.seen.len();
        let Report { executions, corpus, signatures, peak_bytes } = &report;
        println!(
            "fuzz {}: {executions} executions from {corpus} inputs, {signatures} signatures, peak {peak_bytes} bytes, seed \
             {}, {:.1} s",
            self.name,
            plan.seed,
            started.elapsed().as_secs_f32()
        );
        report
    }

    /// Writes the corpus as plain files, for other fuzzers.
    fn export(&self, folder: &Path) {
        let write =
            |(number, (_, input)): (usize, &(String, Vec<u8>))| std::fs::write(folder.join(number.to_string()), input);
        let written = std::fs::create_dir_all(folder).and_then(|()| self.seeds.iter().enumerate().try_for_each(write));
        written.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }

    fn execute(
        &self,
        target: impl Fn(&[u8]) -> u64,
        input: &[u8],
        plan: &Plan,
        number: u64,
        what: &str,
    ) -> (u64, Spent) {
        let fail = |why: &str| -> ! {
            let path = keep(&self.name, input);
            let shown: String = input.iter().take(200).map(|byte| format!("{byte:02x}")).collect();
            panic!(
                "fuzz {}: execution {number} ({what}), seed {}: {why}\ninput of {} bytes kept in {}\n{shown}",
                self.name,
                plan.seed,
                input.len(),
                path.display(),
            )
        };
        let (result, spent) = spend(|| catch_unwind(AssertUnwindSafe(|| target(input))));
        let bound = (self.memory)(input);
        match result {
            Ok(_) if spent.peak_bytes > bound => {
                fail(&format!("took {} bytes of memory where {bound} are allowed", spent.peak_bytes))
            }
            Ok(signature) => (signature, spent),
            Err(panic) => match panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref().copied()) {
                Some(message) => fail(message),
                None => resume_unwind(panic),
            },
        }
    }
}

/// What mutants are made of: the corpus, and the shortest input of each signature.
#[derive(Default)]
struct Pool {
    inputs: Vec<Vec<u8>>,
    /// Where in `inputs` the one of this signature is; `None` where there was no room.
    seen: HashMap<u64, Option<usize>>,
}

impl Pool {
    fn meet(&mut self, signature: u64, input: &[u8]) {
        match self.seen.get(&signature) {
            // Long inputs are slow, and most of a long one's bytes decide nothing.
            Some(&Some(place)) if input.len() < self.inputs[place].len() => self.inputs[place] = input.to_vec(),
            Some(_) => {}
            None if self.inputs.len() < POOL_MAX => {
                self.seen.insert(signature, Some(self.inputs.len()));
                self.inputs.push(input.to_vec());
            }
            None => drop(self.seen.insert(signature, None)),
        }
    }

    /// Any of them, half of the time one of the newest: they are the frontier.
    fn pick(&self, random: &mut Random) -> &[u8] {
        let newest = if random.below(2) == 0 { self.inputs.len() - self.inputs.len().div_ceil(8) } else { 0 };
        random.pick::<Vec<u8>>(&self.inputs[newest..])
    }
}

/// How much is to be done.
struct Plan {
    seed: u64,
    executions: u64,
    time: Option<Duration>,
}

impl Plan {
    fn from_environment(executions: u64) -> Self {
        let number = |name: &str| -> Option<u64> {
            let text = std::env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
        };
        let time = number("FUZZ_SECONDS").map(Duration::from_secs);
        let executions = match (number("FUZZ_RUNS"), time) {
            (Some(runs), _) => runs,
            (None, Some(_)) => u64::MAX,
            (None, None) => executions,
        };
        Self { seed: number("FUZZ_SEED").unwrap_or(SEED), executions, time }
    }

    fn goes_on(&self, done: u64, started: Instant) -> bool {
        // The clock is asked only by those who asked for time, and not at every execution.
        let in_time = self.time.is_none_or(|time| !done.is_multiple_of(64) || started.elapsed() < time);
        done < self.executions && in_time
    }
}

/// Keeps an input that broke a rule where it can be found.
fn keep(target: &str, input: &[u8]) -> PathBuf {
    let folder = std::env::var_os("FUZZ_OUT").map_or_else(|| std::env::temp_dir().join("modchain-fuzz"), PathBuf::from);
    let path = folder.join(format!("{target}-{:016x}.bin", signature(&input)));
    if let Err(error) = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input)) {
        eprintln!("cannot keep the input in {}: {error}", path.display());
    }
    path
}

/// Ends the program when one execution does not come back: nothing else can end a loop without an end.
struct Watch {
    current: Arc<Mutex<(u64, Vec<u8>)>>,
    _done: Sender<()>,
}

impl Watch {
    fn over(target: &str) -> Self {
        let current = Arc::new(Mutex::new((0, Vec::new())));
        let (done, ended) = channel();
        let (seen, target) = (Arc::clone(&current), target.to_owned());
        std::thread::spawn(move || wait(&ended, &seen, &target));
        Self { current, _done: done }
    }

    fn begin(&self, input: &[u8]) {
        let mut current = self.current.lock().expect("no holder of this lock panics");
        current.0 += 1;
        current.1.clear();
        current.1.extend_from_slice(input);
    }
}

fn wait(ended: &Receiver<()>, current: &Mutex<(u64, Vec<u8>)>, target: &str) {
    let mut before = u64::MAX;
    while ended.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout) {
        let current = current.lock().expect("no holder of this lock panics");
        if current.0 == before {
            eprintln!("fuzz {target}: one execution hangs, its input is in {}", keep(target, &current.1).display());
            std::process::abort();
        }
        before = current.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fuzz: Fuzz, target: impl Fn(&[u8]) -> u64) -> String {
        let panic = catch_unwind(AssertUnwindSafe(|| fuzz.run(target))).expect_err("it was meant to fail");
        panic.downcast_ref::<String>().expect("a message").clone()
    }

    #[test]
    fn the_same_seed_does_the_same_and_finds_its_way_by_signatures() {
        let run = || {
            Fuzz::target("steps").seed_input("aaaa").executions(20_000).run(|input| {
                // Each further byte is found only by keeping the inputs that got the one before.
                signature(&input.iter().zip(b"wxyz").take_while(|(one, other)| one == other).count())
            })
        };
        let report = run();
        assert_eq!((report.executions, report.signatures), (20_000, 5));
        assert_eq!(run(), report);
    }

    #[test]
    fn a_panic_is_told_with_its_input_kept() {
        let said = message(Fuzz::target("panics").seed_input("ab").executions(50_000), |input| {
            assert!(input.first() != Some(&0xee), "a rule");
            0
        });
        assert!(said.contains("a rule") && said.contains("seed "), "{said}");
        let path = said.split("kept in ").nth(1).and_then(|rest| rest.lines().next()).expect("a path");
        assert_eq!(std::fs::read(path).expect("the input").first(), Some(&0xee));
    }

    #[test]
    fn memory_over_the_bound_is_told_and_the_corpus_is_named() {
        let said = message(Fuzz::target("hungry").seed_input([200]).memory(|_| 4096), |input| {
            u64::from(vec![1u8; 5000 * usize::from(input == [200])].iter().map(|one| u32::from(*one)).sum::<u32>())
        });
        assert!(said.contains("(seed 0)") && said.contains("5000 bytes of memory where 4096"), "{said}");
    }
}
