//! Documents of this program and its settings.

use modchain_wire::console::ConsoleWelcome;
use serde::Serialize;

/// `modchain.whoami/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct WhoamiDoc {
    schema: &'static str,
    name: String,
    role: &'static str,
    account: String,
    id: String,
    context: String,
    orchestrator: String,
    journal: String,
    currency: &'static str,
}

/// The document of who the orchestrator takes this program for.
pub(crate) fn whoami(welcome: &ConsoleWelcome, context: &str, addr: &str) -> WhoamiDoc {
    WhoamiDoc {
        schema: "modchain.whoami/v1",
        name: welcome.identity.name.to_string(),
        role: welcome.identity.role.word(),
        account: welcome.identity.account.to_string(),
        id: welcome.identity.id.to_string(),
        context: context.to_owned(),
        orchestrator: addr.to_owned(),
        journal: welcome.journal.to_string(),
        currency: welcome.asset.code(),
    }
}

/// `modchain.version/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct VersionDoc {
    schema: &'static str,
    program: &'static str,
    version: &'static str,
    wire: u8,
    server: Option<ServerVersionDoc>,
}

/// The orchestrator's part of a version document.
#[derive(Debug, Serialize)]
pub(crate) struct ServerVersionDoc {
    /// Where it was asked.
    pub(crate) addr: String,
    /// What it says.
    pub(crate) version: String,
}

/// The document of this program's version.
pub(crate) fn version(server: Option<ServerVersionDoc>) -> VersionDoc {
    VersionDoc {
        schema: "modchain.version/v1",
        program: "modchain",
        version: env!("CARGO_PKG_VERSION"),
        wire: modchain_wire::WIRE_VERSION,
        server,
    }
}

/// `modchain.context/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct ContextDoc {
    /// `modchain.context/v1`.
    pub(crate) schema: &'static str,
    /// What it is called.
    pub(crate) name: String,
    /// `HOST:PORT`.
    pub(crate) orchestrator: String,
    /// The folder of its identity.
    pub(crate) identity: String,
    /// Whether it is used where none is named.
    pub(crate) current: bool,
}

/// `modchain.up/v1`: what `up --headless -o json` prints when the stack is ready.
#[derive(Debug, Serialize)]
pub(crate) struct UpDoc {
    /// `modchain.up/v1`.
    pub(crate) schema: &'static str,
    /// Where the orchestrator listens.
    pub(crate) orchestrator: String,
    /// Where everything is kept.
    pub(crate) data: String,
    /// Names of the contexts.
    pub(crate) contexts: Vec<String>,
    /// Names of the nodes.
    pub(crate) nodes: Vec<String>,
    /// This process.
    pub(crate) pid: u32,
}
