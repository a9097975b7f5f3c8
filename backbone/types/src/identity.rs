//! Who somebody is: what the certificate says (role, id) joined with what the journal knows (name, account).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{AccountId, BadId, IdentityId, Name};

/// What an identity may do at all. Comes from the path of the certificate's URI and from nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Runs the pool: sees everything, gives credit, issues tokens.
    Operator,
    /// Submits jobs and pays for them.
    Client,
    /// Runs jobs.
    Node,
    /// The orchestrator itself.
    Orchestrator,
}

impl Role {
    /// The word used in URIs, commands and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Client => "client",
            Self::Node => "node",
            Self::Orchestrator => "orchestrator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Role {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        [Self::Operator, Self::Client, Self::Node, Self::Orchestrator]
            .into_iter()
            .find(|role| role.word() == text)
            .ok_or(BadId { text: text.into(), kind: "role", rule: "write operator, client, node or orchestrator" })
    }
}

/// One identity as the journal records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// As in the certificate.
    pub id: IdentityId,
    /// As in the certificate.
    pub role: Role,
    /// Unique per orchestrator.
    pub name: Name,
    /// A client's own account; for a node the account its earnings go to.
    pub account: AccountId,
}
