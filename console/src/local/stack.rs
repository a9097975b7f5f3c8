//! The local stack: one orchestrator and some agents, all of them the real programs, on loopback ports, with everything they
//! keep in one folder.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use modchain_types::{Adapter, Micro, NodeState, Text};
use modchain_wire::console::Credit;
use modchain_wire::view::NodeView;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::child::{self, Keeper, Recipe};
use super::siblings::Siblings;
use crate::cli::pool;
use crate::client::Client;
use crate::client::config::{Context, Contexts, create_private_dir, replace_file};
use crate::exit::Failure;

/// Longest time to prepare certificates.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for the orchestrator to be ready: it may have a long journal to read.
const SERVE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time for the nodes to be ready.
const NODES_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two looks at the nodes.
const NODES_INTERVAL: Duration = Duration::from_millis(40);
/// An agent that died this often will not become ready.
const AGENT_DEATHS_MAX: u32 = 3;
/// Longest wait for a connection within one machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest line that the orchestrator says when it is ready.
const READY_LINE_BYTES_MAX: u64 = 4096;

/// What each of the two clients has to spend.
const CREDIT: Micro = Micro(100_000_000);
/// The key of that credit: the same at each start, so that it is given once.
const CREDIT_KEY: &str = "up-initial";

/// Who may spend.
const CLIENTS: [&str; 2] = ["local", "local-second"];
/// Whose account the nodes' earnings go to.
const OWNER: &str = "local-owner";
/// Who runs it.
const OPERATOR: &str = "local-operator";

/// Prices of the nodes. The minimum is there so that even the shortest job costs something that can be seen.
const AGENT_CONFIG: &str = "[prices]\ncore_hour = \"0.03\"\ngib_hour = \"0.004\"\nminimum = \"0.0010\"\n\
                            million_prompt_tokens = \"0.10\"\nmillion_output_tokens = \"0.40\"\n";

/// The line that the orchestrator says when it is ready.
#[derive(Deserialize)]
struct Serving {
    listen: String,
    join: String,
}

/// What stands in the lock file.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    pid: u32,
    orchestrator: Option<String>,
}

/// A running stack.
pub(crate) struct Stack {
    /// Where the orchestrator listens.
    pub(crate) address: String,
    /// Where others join.
    join: String,
    /// Where everything is kept.
    pub(crate) data: PathBuf,
    orchestrator: Keeper,
    agents: Vec<(Keeper, Recipe)>,
    /// Held as long as the stack runs.
    lock: File,
}

impl Stack {
    /// Starts everything and waits until it can be used. `tell` hears of children that die.
    pub(crate) async fn start(
        data: &Path,
        agents: u16,
        tell: impl Fn(String) + Clone + Send + 'static,
    ) -> Result<Self, Failure> {
        create_private_dir(data)?;
        let data = data.canonicalize().map_err(|error| Failure::failed(format!("{}: {error}", data.display())))?;
        let lock = lock(&data)?;
        let siblings = Siblings::find().await?;
        init(&siblings, &data, agents).await?;
        let (serving, orchestrator) = serve(&siblings, &data, tell.clone()).await?;
        let Serving { listen: address, join } = serving;
        let mut stack = Self { address, join, data, orchestrator, agents: Vec::new(), lock };
        match stack.finish_start(&siblings, agents, tell).await {
            Ok(()) => Ok(stack),
            Err(failure) => {
                stack.stop().await;
                Err(failure)
            }
        }
    }

    async fn finish_start(
        &mut self,
        siblings: &Siblings,
        agents: u16,
        tell: impl Fn(String) + Clone + Send + 'static,
    ) -> Result<(), Failure> {
        write_owner(&mut self.lock, Some(&self.address))?;
        for number in 1..=agents {
            let recipe = agent_recipe(siblings, &self.data, number, &self.address)?;
            let log = recipe.open_log().map_err(|error| Failure::failed(format!("cannot write a log: {error}")))?;
            let child = recipe.spawn(log.into())?;
            self.agents.push((Keeper::keep(recipe.clone(), child, tell.clone()), recipe));
        }
        let operator = self.connect(OPERATOR).await?;
        self.give_credit(&operator).await?;
        self.wait_for_nodes(&operator).await?;
        Ok(())
    }

    async fn connect(&self, name: &str) -> Result<Client, Failure> {
        // Certificates are issued anew at each start: there is nothing to tell of them.
        let tell = std::sync::Arc::new(|_: &str| {});
        Client::connect(&self.address, &identity(&self.data, name), CONNECT_TIMEOUT, tell).await
    }

    async fn give_credit(&self, operator: &Client) -> Result<(), Failure> {
        for name in CLIENTS {
            let request = Credit {
                account: name.parse().expect("our own names are names"),
                amount: CREDIT,
                key: format!("{CREDIT_KEY}-{name}").parse().expect("our own keys are keys"),
                why: Text::cut("local stack"),
            };
            operator.credit(request).await?;
        }
        Ok(())
    }

    async fn wait_for_nodes(&self, operator: &Client) -> Result<(), Failure> {
        let names = self.nodes();
        let all_ready = async {
            loop {
                let nodes = pool::all(operator).await?;
                let ready = |name: &String| {
                    nodes.iter().any(|node| node.name.as_str() == name && node.state == NodeState::Ready)
                };
                if names.iter().all(ready) {
                    return Ok(());
                }
                if let Some((_, recipe)) = self.agents.iter().find(|(agent, _)| agent.deaths() >= AGENT_DEATHS_MAX) {
                    return Err(failed_with_log(&format!("{} does not stay alive", recipe.name), recipe));
                }
                tokio::time::sleep(NODES_INTERVAL).await;
            }
        };
        tokio::time::timeout(NODES_TIMEOUT, all_ready).await.unwrap_or_else(|_| {
            let what = format!("the nodes are not ready after {} s", NODES_TIMEOUT.as_secs());
            Err(self
                .agents
                .first()
                .map_or_else(|| Failure::failed(&what), |(_, recipe)| failed_with_log(&what, recipe)))
        })
    }

    /// Names of its nodes.
    pub(crate) fn nodes(&self) -> Vec<String> {
        (1..=self.agents.len()).map(|number| format!("local-{number}")).collect()
    }

    /// What each of its nodes runs by now, a line each, for people.
    pub(crate) async fn offers(&self) -> Result<Vec<String>, Failure> {
        let nodes = pool::all(&self.connect(OPERATOR).await?).await?;
        let names = self.nodes();
        let ours = nodes.iter().filter(|node| names.iter().any(|name| node.name.as_str() == name));
        Ok(ours.map(offer_line).collect())
    }

    /// Its contexts, `local` first.
    pub(crate) fn contexts(&self) -> Vec<(String, Context)> {
        let names = [CLIENTS[0], CLIENTS[1], OWNER, OPERATOR];
        let context = |name| Context {
            orchestrator: self.address.clone(),
            join: Some(self.join.clone()),
            identity: identity(&self.data, name),
            max_cost: None,
        };
        names.into_iter().map(|name| (name.to_owned(), context(name))).collect()
    }

    /// The contexts for a command that runs inside.
    pub(crate) fn private_contexts(&self) -> Contexts {
        Contexts { current: Some(CLIENTS[0].to_owned()), contexts: self.contexts().into_iter().collect() }
    }

    /// Stops everything: the agents first, so that they can still hand over what they have.
    pub(crate) async fn stop(self) {
        let mut stops = tokio::task::JoinSet::new();
        for (agent, _) in self.agents {
            stops.spawn(agent.stop());
        }
        stops.join_all().await;
        self.orchestrator.stop().await;
        // Only now may another one begin.
        drop(self.lock);
    }
}

/// What a node runs: `local-1 runs wasm, docker, llm (smollm2:135m)`.
fn offer_line(node: &NodeView) -> String {
    let Some(offer) = &node.offer else { return format!("{} runs nothing yet", node.name) };
    let capabilities = &offer.capabilities;
    let kinds: Vec<String> = capabilities
        .adapters
        .iter()
        .map(|adapter| match adapter {
            Adapter::Llm => {
                let models: Vec<&str> = capabilities.models.iter().map(|model| model.name.as_str()).collect();
                let models = if models.is_empty() { "no model yet".to_owned() } else { models.join(", ") };
                format!("{adapter} ({models})")
            }
            Adapter::Wasm | Adapter::Docker | Adapter::Mcp => adapter.to_string(),
        })
        .collect();
    let gpus = match capabilities.gpus.len() {
        0 => String::new(),
        1 => "; it has 1 GPU".into(),
        count => format!("; it has {count} GPUs"),
    };
    format!("{} runs {}{gpus}", node.name, kinds.join(", "))
}

fn identity(data: &Path, name: &str) -> PathBuf {
    data.join("orchestrator/identities").join(name)
}

/// Takes the folder for this process, or tells who has it.
fn lock(data: &Path) -> Result<File, Failure> {
    let path = data.join("lock");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| Failure::failed(format!("cannot open {}: {error}", path.display())))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            write_owner(&mut file, None)?;
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // Whoever just took it may not have written yet.
            let _ = file.read_to_string(&mut text);
            let mut failure = format!("a local stack is running in {} already", data.display());
            if let Ok(owner) = serde_json::from_str::<Owner>(&text) {
                failure.push_str(&format!(" (process {}", owner.pid));
                if let Some(orchestrator) = owner.orchestrator {
                    failure.push_str(&format!(", orchestrator {orchestrator}"));
                }
                failure.push(')');
            }
            Err(Failure::conflict(failure)
                .hint("use it from here: modchain -c local status; or start another one with --data DIR"))
        }
        Err(error) => Err(Failure::failed(format!("cannot lock {}: {error}", path.display()))),
    }
}

fn write_owner(file: &mut File, orchestrator: Option<&str>) -> Result<(), Failure> {
    let owner = Owner { pid: std::process::id(), orchestrator: orchestrator.map(str::to_owned) };
    let text = serde_json::to_string(&owner).map_err(anyhow::Error::from)? + "\n";
    file.rewind()
        .and_then(|()| file.set_len(0))
        .and_then(|()| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::failed(format!("cannot write the lock file: {error}")))
}

/// Makes the orchestrator's folder and issues certificates anew. Repeating it is harmless.
async fn init(siblings: &Siblings, data: &Path, agents: u16) -> Result<(), Failure> {
    let mut command = Command::new(&siblings.orchestrator);
    command.arg("init").arg("--data").arg(data.join("orchestrator")).args(["--asset", "test"]);
    for name in CLIENTS.into_iter().chain([OWNER]) {
        command.args(["--client", name]);
    }
    for number in 1..=agents {
        command.arg("--node").arg(format!("local-{number}={OWNER}"));
    }
    command.args(["--operator", OPERATOR]).stdin(Stdio::null()).kill_on_drop(true);
    child::forget_own_settings(&mut command);
    let output = tokio::time::timeout(INIT_TIMEOUT, command.output())
        .await
        .map_err(|_| Failure::failed("the orchestrator's folder could not be made in time"))?
        .map_err(|error| Failure::failed(format!("cannot start {}: {error}", siblings.orchestrator.display())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::failed(format!(
            "the orchestrator's folder could not be made ({}):\n{}",
            output.status,
            said.trim_end()
        )));
    }
    Ok(())
}

/// Starts the orchestrator and waits until it listens. Later starts use the same port.
async fn serve(
    siblings: &Siblings,
    data: &Path,
    tell: impl Fn(String) + Send + 'static,
) -> Result<(Serving, Keeper), Failure> {
    let recipe = |listen: &str, join: Option<&str>| {
        let mut args: Vec<OsString> =
            vec!["serve".into(), "--data".into(), data.join("orchestrator").into(), "--listen".into(), listen.into()];
        if let Some(join) = join {
            args.extend(["--join-listen".into(), join.into()]);
        }
        let (name, log) = ("the orchestrator".into(), data.join("orchestrator.log"));
        Recipe { name, program: siblings.orchestrator.clone(), args, log }
    };
    let first = recipe("127.0.0.1:0", None);
    let mut child = first.spawn(Stdio::piped())?;
    let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    let ready = async {
        let mut limited = tokio::io::AsyncReadExt::take(&mut stdout, READY_LINE_BYTES_MAX);
        limited.read_line(&mut line).await
    };
    let ready = tokio::time::timeout(SERVE_TIMEOUT, ready).await;
    let serving = match ready {
        Ok(Ok(_)) => serde_json::from_str::<Serving>(&line).ok(),
        Ok(Err(_)) | Err(_) => None,
    };
    let Some(serving) = serving else {
        let what = if ready.is_err() {
            format!("the orchestrator is not ready after {} s", SERVE_TIMEOUT.as_secs())
        } else {
            match tokio::time::timeout(Duration::from_secs(1), child.wait()).await {
                Ok(status) => format!("the orchestrator ended at its start ({})", child::how(status)),
                Err(_) => "the orchestrator does not say where it listens".to_owned(),
            }
        };
        child::end(child).await;
        return Err(failed_with_log(&what, &first));
    };
    // Whatever else it may say goes to the log; ends with the child.
    if let Ok(log) = first.open_log() {
        let mut log = tokio::fs::File::from_std(log);
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut stdout, &mut log).await;
            let _ = log.flush().await;
        });
    }
    let keeper = Keeper::keep(recipe(&serving.listen, Some(&serving.join)), child, tell);
    Ok((serving, keeper))
}

fn agent_recipe(siblings: &Siblings, data: &Path, number: u16, address: &str) -> Result<Recipe, Failure> {
    let name = format!("local-{number}");
    let config = data.join(format!("agent-{number}.toml"));
    // Whoever changes the prices there finds them unchanged at the next start.
    if !config.exists() {
        replace_file(&config, AGENT_CONFIG.as_bytes())?;
    }
    Ok(Recipe {
        program: siblings.agent.clone(),
        args: vec![
            "start".into(),
            "--orchestrator".into(),
            address.into(),
            "--identity".into(),
            identity(data, &name).into(),
            "--data".into(),
            data.join(format!("agent-{number}")).into(),
            "--config".into(),
            config.into(),
        ],
        log: data.join(format!("agent-{number}.log")),
        name,
    })
}

fn failed_with_log(what: &str, recipe: &Recipe) -> Failure {
    let tail = recipe.log_tail();
    let lines: Vec<&str> = tail.lines().collect();
    let last = lines[lines.len().saturating_sub(10)..].join("\n");
    Failure::failed(format!("{what}\n{last}")).hint(format!("its whole log is {}", recipe.log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_what_a_node_runs() {
        use modchain_types::{List, ModelInfo};
        let mut node = crate::cli::docs::tests::node_view();
        assert_eq!(offer_line(&node), "zurich-01 runs wasm; it has 1 GPU");
        let capabilities = &mut node.offer.as_mut().expect("an offer").capabilities;
        capabilities.adapters = List::new(vec![Adapter::Docker, Adapter::Llm]).expect("fits");
        capabilities.models = List::default();
        capabilities.gpus = List::default();
        let mut asleep = node.clone();
        assert_eq!(offer_line(&node), "zurich-01 runs docker, llm (no model yet)");
        let model = ModelInfo { name: Text::cut("smollm2:135m"), digest: Text::cut("ab"), bytes: 1, warm: false };
        node.offer.as_mut().expect("an offer").capabilities.models = List::new(vec![model]).expect("fits");
        assert_eq!(offer_line(&node), "zurich-01 runs docker, llm (smollm2:135m)");
        asleep.offer = None;
        assert_eq!(offer_line(&asleep), "zurich-01 runs nothing yet");
    }

    #[test]
    fn a_second_stack_in_one_folder_is_told_of_the_first() {
        let folder = tempfile::tempdir().expect("folder");
        let mut first = lock(folder.path()).expect("takes it");
        write_owner(&mut first, Some("127.0.0.1:5")).expect("writes");
        let failure = lock(folder.path()).expect_err("is taken");
        assert_eq!(failure.exit, 7);
        assert!(failure.message.contains("orchestrator 127.0.0.1:5"), "{failure}");
        assert!(failure.message.contains(&format!("process {}", std::process::id())), "{failure}");
        drop(first);
        lock(folder.path()).expect("is free again");
    }
}
