//! What joining leaves for every later start, beside the identity: where the orchestrator is, and what it called this node.
//!
//! It is written before the identity is in place, so whoever finds an identity below a data folder finds this too.

use std::io;
use std::path::{Path, PathBuf};

use modchain_link::enrol;
use modchain_types::TokenId;
use serde::{Deserialize, Serialize};

use crate::files;

/// Version of the file. One of another version is refused, not guessed at.
const FORMAT: u32 = 1;

/// The file, below the data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    format: u32,
    /// The main port, as `HOST:PORT`.
    pub orchestrator: String,
    /// The join port, as `HOST:PORT`.
    pub join: String,
    /// What the node is called.
    pub name: String,
    /// What the operator calls the pool.
    pub pool: String,
    /// The account that its earnings go to.
    pub account: String,
    /// The name of everything that the orchestrator's root has issued.
    pub trust_domain: String,
    /// The public part of the token that it joined with.
    pub token: String,
}

impl Joined {
    /// Of what the orchestrator said.
    pub fn new(joined: &enrol::Joined, join: &str, token: TokenId) -> Self {
        Self {
            format: FORMAT,
            orchestrator: joined.main_address.clone(),
            join: join.to_owned(),
            name: joined.identity.name.to_string(),
            pool: joined.pool.to_string(),
            account: joined.identity.account.to_string(),
            trust_domain: joined.trust_domain.to_string(),
            token: token.to_string(),
        }
    }

    /// Writes the file below `data`; durable when it returns.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        files::write_json_durably(&file(data), self)
    }

    /// Reads the file below `data`; `None` where nobody has joined. The error names the file.
    pub fn read(data: &Path) -> io::Result<Option<Self>> {
        let path = file(data);
        let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        match files::read_json::<serde_json::Value>(&path).map_err(|error| bad(error.to_string()))? {
            None => Ok(None),
            Some(value) if value["format"] == FORMAT => {
                serde_json::from_value(value).map(Some).map_err(|error| bad(error.to_string()))
            }
            Some(value) => Err(bad(format!("it has format {}, this agent reads {FORMAT}", value["format"]))),
        }
    }
}

/// Where joining puts the key and the certificates.
pub fn identity_dir(data: &Path) -> PathBuf {
    data.join("identity")
}

fn file(data: &Path) -> PathBuf {
    data.join("joined.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_another_format_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("directory");
        assert_eq!(Joined::read(dir.path()).expect("reads"), None);
        let joined = Joined {
            format: FORMAT,
            orchestrator: "pool:7443".into(),
            join: "pool:7444".into(),
            name: "oslo-03".into(),
            pool: "lab".into(),
            account: "alice".into(),
            trust_domain: "abc.modchain".into(),
            token: "aaaaaaaa".into(),
        };
        joined.write(dir.path()).expect("writes");
        assert_eq!(Joined::read(dir.path()).expect("reads"), Some(joined));
        for (text, why) in [("{\"format\":2}", "has format 2, this agent reads 1"), ("{\"format\":1}", "missing field")]
        {
            std::fs::write(file(dir.path()), text).expect("writes");
            let error = Joined::read(dir.path()).expect_err(text).to_string();
            assert!(error.contains(why) && error.contains("joined.json"), "{error}");
        }
    }
}
