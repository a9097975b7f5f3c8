//! The guest: its engine, its limits, its WASI, and how it ends.
//!
//! What a guest has: arguments, environment, three pipes, clocks and random numbers. What it has not: files, directories,
//! sockets, other processes. What it may use is bounded by [`Limits`]; how long it may run is not decided here, it can be
//! stopped at every tick of the epoch and at every wait.

use std::hash::{Hash, Hasher};

use modchain_types::Text;
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use wasmtime::{
    Config, Engine, ExternType, InstancePre, Linker, Module, ResourceLimiter, Store, Strategy, Trap, UpdateDeadline,
    WasmBacktrace,
};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::{AsyncStdinStream, AsyncStdoutStream};
use wasmtime_wasi::p1::{self, WasiP1Ctx};

use super::protocol::{Orders, Outcome};
use super::throttle::Throttle;

/// The one module of imports that exists.
const WASI_MODULE: &str = "wasi_snapshot_preview1";
/// The function that a program starts with.
const START: &str = "_start";

/// Tables of one guest. Compilers make one.
const TABLES_MAX: usize = 10;
/// Elements of one table, 16 bytes each at most: ten full tables are 16 MB.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Instances of one guest: its own, and room for none that we know of.
const INSTANCES_MAX: usize = 10;
/// Memories of one guest.
const MEMORIES_MAX: usize = 1;
/// Native stack of the guest's own frames: 1 MiB, what a C program has on other small systems. Beyond it the guest traps.
const WASM_STACK_BYTES: usize = 1 << 20;
/// Native stack in all: the guest's and that of the functions it calls in us.
const STACK_BYTES: usize = 3 << 20;
/// Bytes of output of the guest that may wait for its pipe.
const OUTPUT_WAITING_BYTES: usize = 16 * 1024;
/// Fuel between two moments at which what was burnt is written down, so that the figure is right to this even for a guest that
/// is stopped in the middle of a loop.
const FUEL_INTERVAL: u64 = 1_000_000;
/// Bytes of a WebAssembly page.
const PAGE_BYTES: u64 = 64 << 10;

/// The guest's pipes. `stdin` is `None` when it is at its end from the start.
pub(super) struct Stdio {
    pub stdin: Option<pipe::Receiver>,
    pub stdout: pipe::Sender,
    pub stderr: pipe::Sender,
}

/// The engine, for one guest.
pub(super) fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        // The other compiler has had escapes from its sandbox (RUSTSEC-2026-0095).
        .strategy(Strategy::Cranelift)
        .consume_fuel(true)
        .epoch_interruption(true)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(STACK_BYTES)
        // It would need a file in memory, which the lock forbids, and saves nothing for one instance.
        .memory_init_cow(false);
    Engine::new(&config)
}

/// A guest that is ready to run.
pub(super) struct Guest {
    store: Store<State>,
    instance: InstancePre<State>,
    cpu_milli: u32,
}

/// Names what this engine compiles: version, settings and processor.
pub(super) fn compiler(engine: &Engine) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// What the guest's imports are found in.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |state: &mut State| &mut state.wasi)?;
    // The engine's own refuses codes of 126 and more, which a program may well mean.
    linker.allow_shadowing(true);
    linker.func_wrap(WASI_MODULE, "proc_exit", |code: i32| -> wasmtime::Result<()> { Err(GuestExit(code).into()) })?;
    Ok(linker)
}

/// Takes up what [`Module::serialize`] gave before.
pub(super) fn load(engine: &Engine, compiled: &[u8]) -> wasmtime::Result<Module> {
    // SAFETY: these bytes are what a child of this very program compiled a module to, under this compiler's name. They came
    // from there over its own socket before its guest began, and the agent, who alone can write to where they were kept,
    // checked that they are the same. What a stranger's module could make of the compiler is code that runs for that module
    // alone, behind the same locks.
    unsafe { Module::deserialize(engine, compiled) }
}

/// Checks and links a module. The error is one line for the job's author.
pub(super) fn prepare(
    engine: &Engine,
    linker: &Linker<State>,
    module: &Module,
    orders: &Orders,
    stdio: Stdio,
) -> Result<Guest, String> {
    check_exports(module)?;
    check_size(module, orders.memory_bytes)?;
    let state = State {
        wasi: wasi(orders, stdio),
        limits: Limits { memory_bytes_max: orders.memory_bytes, memory_denied: false },
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limits);
    check_imports(module, linker, &mut store)?;
    let instance =
        linker.instantiate_pre(module).map_err(|error| format!("the module does not fit its imports: {error:#}"))?;
    Ok(Guest { store, instance, cpu_milli: orders.cpu_milli })
}

impl Guest {
    /// Runs it until it ends or `stop` is notified. Returns the fuel burnt and how it went.
    pub(super) async fn run(mut self, stop: &Notify) -> (u64, Outcome) {
        let outcome = match self.burn() {
            Ok(()) => tokio::select! {
                // A guest that never waits yields at every tick; looking for the stop first makes that count.
                biased;
                () = stop.notified() => Outcome::Stopped,
                result = self.call() => self.outcome(result),
            },
            Err(error) => Outcome::Broken { message: Text::cut(format!("the engine does not count: {error:#}")) },
        };
        let fuel = u64::MAX - self.store.get_fuel().unwrap_or(u64::MAX);
        (fuel, outcome)
    }

    /// Sets the meters: fuel is counted and never runs out, the epoch makes the guest yield, and rest if its share is less
    /// than a core.
    fn burn(&mut self) -> wasmtime::Result<()> {
        self.store.set_fuel(u64::MAX)?;
        self.store.fuel_async_yield_interval(Some(FUEL_INTERVAL))?;
        match Throttle::new(self.cpu_milli) {
            None => self.store.epoch_deadline_async_yield_and_update(1),
            Some(mut throttle) => self.store.epoch_deadline_callback(move |_| {
                let rest = tokio::time::sleep(throttle.rest());
                Ok(UpdateDeadline::YieldCustom(1, Box::pin(rest)))
            }),
        }
        self.store.set_epoch_deadline(1);
        Ok(())
    }

    /// The guest's code, all of it: a module's own start function runs while it is instantiated.
    async fn call(&mut self) -> wasmtime::Result<()> {
        let instance = self.instance.instantiate_async(&mut self.store).await?;
        let start = instance.get_typed_func::<(), ()>(&mut self.store, START)?;
        start.call_async(&mut self.store, ()).await
    }

    fn outcome(&self, result: wasmtime::Result<()>) -> Outcome {
        let Err(error) = result else { return Outcome::Exited { code: 0 } };
        if let Some(GuestExit(code)) = error.downcast_ref::<GuestExit>() {
            // As everywhere under Unix, the low eight bits.
            return Outcome::Exited { code: code.to_le_bytes()[0] };
        }
        if self.store.data().limits.memory_denied {
            return Outcome::MemoryLimit;
        }
        Outcome::Trapped { message: Text::cut(describe_trap(&error)) }
    }
}

/// The trap and where it happened, in one line.
fn describe_trap(error: &wasmtime::Error) -> String {
    let what = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => one_line(&error.root_cause().to_string()),
    };
    let place = error.downcast_ref::<WasmBacktrace>().and_then(|trace| trace.frames().first()?.func_name());
    match place {
        Some(function) => format!("{what} in function {function}"),
        None => what,
    }
}

/// The guest called `proc_exit` with this code.
#[derive(Debug, thiserror::Error)]
#[error("exit with code {0}")]
struct GuestExit(i32);

/// What belongs to the guest's store.
pub(super) struct State {
    wasi: WasiP1Ctx,
    limits: Limits,
}

fn wasi(orders: &Orders, stdio: Stdio) -> WasiP1Ctx {
    let mut builder = WasiCtxBuilder::new();
    builder
        .args(&orders.args)
        .envs(&orders.env.iter().collect::<Vec<_>>())
        .stdout(AsyncStdoutStream::new(OUTPUT_WAITING_BYTES, stdio.stdout))
        .stderr(AsyncStdoutStream::new(OUTPUT_WAITING_BYTES, stdio.stderr));
    if let Some(stdin) = stdio.stdin {
        builder.stdin(AsyncStdinStream::new(stdin));
    }
    builder.build_p1()
}

/// Compiles a module. The error is one line for the job's author.
pub(super) fn compile(engine: &Engine, module: &[u8]) -> Result<Module, String> {
    const MAGIC: &[u8] = b"\0asm";
    const CORE_VERSION: &[u8] = &[1, 0, 0, 0];
    if let Some(rest) = module.strip_prefix(MAGIC) {
        if rest.len() >= 4 && &rest[..4] != CORE_VERSION {
            return Err("this is a WebAssembly component; only modules with WASI preview 1 run here".into());
        }
    } else if module.is_empty() {
        return Err("the module is an empty file".into());
    } else if std::str::from_utf8(module).is_err() {
        return Err(
            "this is not a WebAssembly module: neither the binary format (it does not begin with \\0asm) nor text"
                .into(),
        );
    }
    Module::new(engine, module)
        .map_err(|error| format!("not a valid WebAssembly module: {}", one_line(&format!("{error:#}"))))
}

fn check_exports(module: &Module) -> Result<(), String> {
    match module.get_export(START) {
        Some(ExternType::Func(function)) if function.params().len() == 0 && function.results().len() == 0 => Ok(()),
        Some(ExternType::Func(_)) => Err(format!(
            "the module's function {START} takes parameters or returns something; a program's does neither"
        )),
        _ => Err(format!("the module exports no function {START}: it is a library, not a program")),
    }
}

/// What would fail at the very start, said before anything is billed.
fn check_size(module: &Module, memory_bytes: u64) -> Result<(), String> {
    let required = module.resources_required();
    let memory = required.max_initial_memory_size.unwrap_or(0).saturating_mul(PAGE_BYTES);
    if memory > memory_bytes {
        return Err(format!(
            "the module needs {} MiB of memory to begin with; the job has {} MiB",
            memory.div_ceil(1 << 20),
            memory_bytes >> 20
        ));
    }
    let tables = required.num_tables as usize;
    if tables > TABLES_MAX {
        return Err(format!("the module has {tables} tables; {TABLES_MAX} are allowed"));
    }
    let elements = required.max_initial_table_size.unwrap_or(0);
    if elements > TABLE_ELEMENTS_MAX as u64 {
        return Err(format!("the module has a table of {elements} elements; {TABLE_ELEMENTS_MAX} are allowed"));
    }
    Ok(())
}

fn check_imports(module: &Module, linker: &Linker<State>, store: &mut Store<State>) -> Result<(), String> {
    for import in module.imports() {
        if linker.get_by_import(&mut *store, &import).is_none() {
            return Err(format!(
                "the module imports {}.{}, which does not exist here: only WASI preview 1 ({WASI_MODULE}) is offered",
                import.module(),
                import.name()
            ));
        }
    }
    Ok(())
}

/// A message of several lines, such as the text parser's with its picture of the place, on one.
fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        // The picture: `|`, `12 | (module`, `| ^^^`.
        .filter(|line| !line.is_empty() && !line.contains('|'))
        .map(|line| line.strip_prefix("--> ").map_or_else(|| line.to_owned(), |place| format!("at {place}")))
        .collect::<Vec<_>>()
        .join(" ")
}

/// What a guest may grow to. The engine's own defaults are no limit on memory and 10,000 instances.
struct Limits {
    memory_bytes_max: u64,
    /// The guest asked for more and was refused. It traps there, so this is why it ended.
    memory_denied: bool,
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, _current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired as u64 > self.memory_bytes_max {
            // The program would be told that there is no memory, and most do nothing sensible with that.
            self.memory_denied = true;
            return Err(wasmtime::Error::msg("over the job's memory limit"));
        }
        // Beyond what the module itself declares, the language says that the program is told.
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "a guest's memory did not grow");
        Ok(())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            return Err(wasmtime::Error::msg(format!(
                "a table would grow to {desired} elements; {TABLE_ELEMENTS_MAX} are allowed"
            )));
        }
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}
