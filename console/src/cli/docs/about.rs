//! Documents of this program and its settings.

use modchain_certs::{PeerIdentity, TrustDomain};
use modchain_wire::console::ConsoleWelcome;
use serde::Serialize;

use super::time;

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
    pool: String,
    journal: String,
    currency: &'static str,
    #[serde(flatten)]
    certificate: CertificateDoc,
}

/// The certificate in use.
#[derive(Debug, Serialize)]
pub(crate) struct CertificateDoc {
    /// Its end.
    pub(crate) expires_at: String,
    /// When it is renewed.
    pub(crate) renews_at: String,
    /// How often it was renewed.
    pub(crate) renewals: Option<u64>,
    /// Its number.
    pub(crate) serial: String,
    /// Of the root that issued it.
    pub(crate) trust_domain: String,
}

/// What documents say of a certificate.
pub(crate) fn certificate(certificate: &PeerIdentity, domain: &TrustDomain, renewals: Option<u64>) -> CertificateDoc {
    CertificateDoc {
        expires_at: time(certificate.not_after),
        renews_at: time(certificate.renews_at()),
        renewals,
        serial: certificate.serial.to_string(),
        trust_domain: domain.to_string(),
    }
}

/// The document of who the orchestrator takes this program for.
pub(crate) fn whoami(welcome: &ConsoleWelcome, context: &str, addr: &str, certificate: CertificateDoc) -> WhoamiDoc {
    WhoamiDoc {
        schema: "modchain.whoami/v1",
        name: welcome.identity.name.to_string(),
        role: welcome.identity.role.word(),
        account: welcome.identity.account.to_string(),
        id: welcome.identity.id.to_string(),
        context: context.to_owned(),
        orchestrator: addr.to_owned(),
        pool: welcome.pool.to_string(),
        journal: welcome.journal.to_string(),
        currency: welcome.asset.code(),
        certificate,
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
    /// What its operator calls the pool.
    pub(crate) pool: String,
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
    /// What the operator calls the pool; unknown where nobody joined with a token.
    pub(crate) pool: Option<String>,
    /// The folder of its identity.
    pub(crate) identity: String,
    /// Whether it is used where none is named.
    pub(crate) current: bool,
    /// `HOST:PORT` of the port where others join.
    pub(crate) join: Option<String>,
    /// What its certificate says; unknown where it cannot be read.
    pub(crate) role: Option<&'static str>,
    /// Of the root that issued it.
    pub(crate) trust_domain: Option<String>,
    /// Its end.
    pub(crate) expires_at: Option<String>,
    /// When it is renewed.
    pub(crate) renews_at: Option<String>,
}

/// `modchain.doctor/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct DoctorDoc {
    /// `modchain.doctor/v1`.
    pub(crate) schema: &'static str,
    /// In the order in which they were looked at.
    pub(crate) checks: Vec<CheckDoc>,
    /// Whether no check found a problem.
    pub(crate) ok: bool,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct CheckDoc {
    /// What.
    pub(crate) name: &'static str,
    /// `ok`, `warn` or `problem`.
    pub(crate) status: &'static str,
    /// What was found.
    pub(crate) detail: String,
    /// What to do.
    pub(crate) hint: Option<String>,
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

/// What a `modchain.config/v1` says.
#[derive(Debug, Serialize)]
pub(crate) struct ConfigDoc {
    /// `modchain.config/v1`.
    pub(crate) schema: &'static str,
    /// The file.
    pub(crate) path: String,
    /// Every setting that there is, or the one that was asked for or set; none for `config path`.
    pub(crate) settings: Vec<SettingDoc>,
}

/// One setting.
#[derive(Debug, Serialize)]
pub(crate) struct SettingDoc {
    /// Its name in the file.
    pub(crate) key: &'static str,
    /// As it is written in the file; `None` where it is not.
    pub(crate) value: Option<String>,
}
