//! The orchestrator under test, within this process.

use std::path::PathBuf;

use modchain_certs::Credentials;
use modchain_orchestrator::config::{CERT_LIFE, Settings};
use modchain_orchestrator::init::{InitOptions, Initialised, init};
use modchain_orchestrator::retention::Keep;
use modchain_orchestrator::serve::Orchestrator;
use modchain_types::{InstanceId, InventoryItem, JournalId};

pub(crate) use crate::peers::*;

pub(crate) struct World {
    pub(crate) data: tempfile::TempDir,
    pub(crate) orchestrator: Option<Orchestrator>,
    pub(crate) address: String,
    pub(crate) join_address: String,
    pub(crate) made: Initialised,
    /// From the next start on.
    pub(crate) keep: Keep,
}

impl World {
    /// Clients alice and bob, the operator, and one node, whose earnings go to `owner`. Alice and bob have credit.
    pub(crate) async fn start() -> Self {
        let name = |name: &str| name.parse().expect("a name");
        let world = Self::found(InitOptions {
            clients: vec![name("alice"), name("bob"), name("owner")],
            operators: vec![name("boss")],
            nodes: vec![(name("rig-1"), Some("owner".parse().expect("an account")))],
            ..InitOptions::default()
        })
        .await;
        let boss = world.console("boss").await;
        for account in ["alice", "bob"] {
            let given = boss.credit(account, CREDIT, account).await.expect("credit");
            assert_eq!(given.available, CREDIT);
        }
        world
    }

    /// Whoever `init` is told to make, and nobody has credit.
    pub(crate) async fn found(options: InitOptions) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let options = InitOptions { data: data.path().join("orchestrator"), ..options };
        let made = init(&options).expect("a data directory");
        let (address, join_address) = (String::new(), String::new());
        let mut world = Self { data, orchestrator: None, address, join_address, made, keep: Keep::default() };
        world.serve().await;
        world
    }

    /// Where the orchestrator has its data.
    pub(crate) fn place(&self) -> PathBuf {
        self.data.path().join("orchestrator")
    }

    pub(crate) async fn serve(&mut self) {
        let settings = Settings {
            data: self.place(),
            listen: "127.0.0.1:0".parse().expect("an address"),
            join_listen: "127.0.0.1:0".parse().expect("an address"),
            advertise: None,
            cert_life: CERT_LIFE,
            storage_low: None,
            ballast: None,
            ceilings: Default::default(),
            keep: self.keep,
            log: None,
        };
        let orchestrator = Orchestrator::start(&settings).await.expect("it starts");
        self.address = orchestrator.local_address().expect("it listens").to_string();
        self.join_address = orchestrator.join_address().expect("it listens").to_string();
        self.orchestrator = Some(orchestrator);
    }

    pub(crate) async fn stop(&mut self) {
        let running = self.orchestrator.take().expect("it runs");
        soon("shutdown", running.shutdown()).await.expect("a clean end");
    }

    pub(crate) fn credentials(&self, name: &str) -> Credentials {
        let issued =
            self.made.identities.iter().find(|issued| issued.identity.name.as_str() == name).expect("it was made");
        Credentials::load(&issued.dir).expect("its certificate")
    }

    pub(crate) async fn console(&self, name: &str) -> Console {
        Console::connect(&self.credentials(name), &self.address, name).await
    }

    pub(crate) async fn agent(&self) -> Agent {
        self.agent_with(InstanceId([1; 16]), Vec::new(), None).await
    }

    pub(crate) async fn agent_with(
        &self,
        instance: InstanceId,
        inventory: Vec<InventoryItem>,
        journal: Option<JournalId>,
    ) -> Agent {
        let credentials = self.credentials("rig-1");
        Agent::join(&credentials, &self.address, instance, inventory, journal).await.expect("a welcome")
    }
}
