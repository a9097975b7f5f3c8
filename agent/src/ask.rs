//! `status`, `pause`, `resume`, `drain`, `reload`: the owner's commands to a running agent, over its control socket.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use modchain_agent::config::Config;
use modchain_agent::control_socket::{Answer, AskError, Question, ask, find};
use modchain_types::Span;
use serde_json::{Value, json};

use crate::failure::{FAILED, Failure, UNREACHABLE, USAGE, clean};
use crate::info::gib;
use crate::{Common, Output};

/// Between two looks while `--wait` waits.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What every one of these commands takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Ask {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Drain {
    /// How long what runs may go on, such as 10m; then it is ended and goes on elsewhere [default: to its own end]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    deadline: Option<Span>,
    /// Wait until nothing runs any more
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

fn span(text: &str) -> Result<Span, String> {
    modchain_types::time::parse_span(text).map_err(|error| error.to_string())
}

pub(crate) fn status(arguments: &Ask) -> Result<(), Failure> {
    let status = runtime()?.block_on(Running::find(arguments)?.status())?;
    crate::restore_sigpipe();
    match arguments.output {
        Output::Json => println!("{status}"),
        Output::Text => print!("{}", status_text(&status)),
    }
    Ok(())
}

pub(crate) fn pause(arguments: &Ask) -> Result<(), Failure> {
    wish(arguments, Question::Pause, "paused: no new jobs until `modchain-agent resume`; what runs goes on")
}

pub(crate) fn resume(arguments: &Ask) -> Result<(), Failure> {
    wish(arguments, Question::Resume, "resumed: this node takes new jobs")
}

pub(crate) fn drain(arguments: &Drain) -> Result<(), Failure> {
    let Drain { deadline, wait, ask } = arguments;
    let within_ms = deadline.map(|span| span.0 / 1000);
    let running = Running::find(ask)?;
    let status = runtime()?.block_on(async {
        let mut status = running.done(Question::Drain { within_ms }).await?;
        while *wait && live(&status) > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
            status = running.status().await?;
        }
        Ok::<_, Failure>(status)
    })?;
    print(
        ask.output,
        &status,
        match live(&status) {
            0 => {
                "drained: nothing runs, and no new jobs come until `modchain-agent resume` or the next start".to_owned()
            }
            live => format!("draining: no new jobs; {live} still run"),
        },
    );
    Ok(())
}

pub(crate) fn reload(arguments: &Ask) -> Result<(), Failure> {
    let running = Running::find(arguments)?;
    match runtime()?.block_on(running.ask(Question::Reload))? {
        Answer::Reloaded { needs_restart, offer_changed } => {
            let document = json!({
                "schema": "modchain.agent_reload/v1",
                "offer_changed": offer_changed,
                "needs_restart": needs_restart,
            });
            let mut text = match offer_changed {
                true => "reloaded: the new settings count for the jobs that come from now on".to_owned(),
                false => "reloaded: nothing about the offer has changed".to_owned(),
            };
            if !needs_restart.is_empty() {
                let _ = write!(text, "\nthese settings need a restart: {}", needs_restart.join(", "));
            }
            print(arguments.output, &document, text);
            Ok(())
        }
        Answer::Refused(why) => Err(Failure::new("refused", FAILED, why).hint("the settings from before hold on")),
        Answer::Status(_) => Err(not_understood()),
    }
}

fn wish(arguments: &Ask, question: Question, text: &str) -> Result<(), Failure> {
    let status = runtime()?.block_on(Running::find(arguments)?.done(question))?;
    print(arguments.output, &status, text.to_owned());
    Ok(())
}

fn print(output: Output, document: &Value, text: String) {
    crate::restore_sigpipe();
    match output {
        Output::Json => println!("{document}"),
        Output::Text => println!("{text}"),
    }
}

fn live(status: &Value) -> u64 {
    status["live_attempts"].as_u64().unwrap_or(0)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start")
}

fn not_understood() -> Failure {
    Failure::new("protocol", FAILED, "the agent answers something else than what was asked; is it of another version?")
}

/// The agent that runs on this machine.
struct Running {
    /// Where agents may be: most often one.
    places: Vec<PathBuf>,
    data: PathBuf,
}

impl Running {
    fn find(arguments: &Ask) -> Result<Self, Failure> {
        let common = &arguments.common;
        let data = Config::running_data(&common.settings, common.config.as_deref())?;
        match find(&data) {
            Ok(places) => Ok(Self { places, data }),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(denied(&data)),
            Err(error) => {
                let error = anyhow::Error::new(error).context(format!("failed to look into {}", data.display()));
                Err(error.into())
            }
        }
    }

    /// Asks the one that runs.
    async fn ask(&self, question: Question) -> Result<Answer, Failure> {
        let place = match self.places.as_slice() {
            [] => return Err(not_running(&self.data)),
            [place] => place.clone(),
            several => self.only_one_of(several).await?,
        };
        ask(&place, question).await.map_err(|error| match &error {
            AskError::NotRunning { .. } => not_running(&self.data),
            AskError::Denied { data } => denied(data),
            AskError::Broken { .. } => {
                Failure::new("unreachable", UNREACHABLE, format!("{:#}", anyhow::Error::new(error)))
                    .hint("its log says more; a service that hangs is started again by itself")
            }
        })
    }

    /// A socket outlives an agent that was killed, so they are asked.
    async fn only_one_of(&self, places: &[PathBuf]) -> Result<PathBuf, Failure> {
        let mut live = Vec::new();
        for place in places {
            if !matches!(ask(place, Question::Status).await, Err(AskError::NotRunning { .. })) {
                live.push(place.clone());
            }
        }
        match live.as_slice() {
            [] => Err(not_running(&self.data)),
            [place] => Ok(place.clone()),
            several => {
                let several: Vec<String> = several.iter().map(|place| place.display().to_string()).collect();
                let what = format!("several agents run below {}", self.data.display());
                Err(Failure::new("ambiguous", USAGE, what).hint(format!("choose with --data: {}", several.join(", "))))
            }
        }
    }

    /// Asks for something that is answered with the status after it.
    async fn done(&self, question: Question) -> Result<Value, Failure> {
        match self.ask(question).await? {
            Answer::Status(status) => Ok(status),
            Answer::Refused(why) => Err(Failure::new("refused", FAILED, why)),
            Answer::Reloaded { .. } => Err(not_understood()),
        }
    }

    async fn status(&self) -> Result<Value, Failure> {
        self.done(Question::Status).await
    }
}

fn not_running(data: &Path) -> Failure {
    Failure::new("not_running", UNREACHABLE, format!("no agent runs on {}", data.display())).hint(
        "start it with `modchain-agent start`; if it runs as a service, ask as root, and if it was given a folder, say the \
         same --data DIR",
    )
}

fn denied(data: &Path) -> Failure {
    Failure::new("denied", FAILED, format!("{} belongs to another user", data.display()))
        .hint("ask as root, or as the user whom the agent runs as")
}

fn status_text(status: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        // A `String` takes everything.
        let _ = writeln!(text, "{name:<13} {}", clean(&value));
    };
    let connection = &status["connection"];
    let orchestrator = word(&status["orchestrator"]);
    row(
        "agent",
        format!(
            "process {}, version {}, since {}",
            status["pid"],
            word(&status["version"]),
            word(&status["started_at"])
        ),
    );
    row(
        "node",
        status["name"]
            .as_str()
            .map_or_else(|| word(&status["node"]), |name| format!("{name} ({})", word(&status["node"]))),
    );
    row(
        "orchestrator",
        match connection["state"].as_str() {
            Some("connected") => format!("{orchestrator}, connected since {}", word(&connection["since"])),
            Some("refused") => format!("{orchestrator} does not take this agent: {}", word(&connection["why"])),
            _ => format!("{orchestrator}, not connected; trying"),
        },
    );
    row(
        "new jobs",
        match (status["door"].as_str(), status["drains_at"].as_str()) {
            (Some("paused"), _) => "no: paused by its owner, until `modchain-agent resume`".into(),
            (Some("draining"), Some(until)) => format!("no: draining; what still runs at {until} is ended"),
            (Some("draining"), None) => "no: draining; what runs may go on to its end".into(),
            _ => "yes".into(),
        },
    );
    let offer = &status["offer"];
    let adapters: Vec<String> = offer["adapters"].as_array().into_iter().flatten().map(word).collect();
    row("adapters", adapters.join(", "));
    for (adapter, why) in status["missing"].as_object().into_iter().flatten() {
        row("not offered", format!("{adapter}: {}", word(why)));
    }
    let count = |what: &str| offer[what].as_array().map_or(0, Vec::len);
    let cpu_milli = offer["cpu_milli"].as_u64().unwrap_or(0);
    row(
        "offer",
        format!(
            "{} slots, {}.{:03} cores, {} of memory, {} GPUs, {} models",
            offer["slots"],
            cpu_milli / 1000,
            cpu_milli % 1000,
            gib(offer["memory_bytes"].as_u64().unwrap_or(0)),
            count("gpus"),
            count("models"),
        ),
    );
    let attempts: Vec<&Value> = status["attempts"].as_array().into_iter().flatten().collect();
    row("attempts", format!("{} live, {} bytes of output kept", live(status), status["spool_bytes"]));
    for attempt in attempts {
        let job = attempt["name"].as_str().unwrap_or("(of an earlier run)");
        let adapter = attempt["adapter"].as_str().unwrap_or("-");
        row("", format!("{} {:<8} {adapter:<6} {job}", word(&attempt["attempt"]), word(&attempt["state"])));
    }
    row("data", word(&status["data"]));
    row("settings", status["config"].as_str().unwrap_or("-").to_owned());
    if let Some(why) = status["config_refused"].as_str() {
        row("", format!("not in order, so those from before hold on: {why}"));
    }
    text
}
