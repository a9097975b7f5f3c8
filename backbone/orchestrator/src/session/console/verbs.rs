//! Which role may do what. The one table; what it does not grant is refused.

use modchain_types::Role;
use modchain_wire::FromConsole;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Submit,
    Quote,
    Cancel,
    Jobs,
    Job,
    Explain,
    Nodes,
    Account,
    Ledger,
    Events,
    Status,
    Credit,
    Logs,
    State,
    BlobPut,
    Input,
    Whoami,
    Renew,
    Identities,
    Revoke,
    TokenCreate,
    Tokens,
    TokenRevoke,
    Link,
    Node,
    NodeSet,
    Spec,
    BlobFetch,
}

impl Verb {
    /// Every verb.
    #[cfg(test)]
    pub(super) const ALL: [Self; 28] = [
        Self::Submit,
        Self::Quote,
        Self::Cancel,
        Self::Jobs,
        Self::Job,
        Self::Explain,
        Self::Nodes,
        Self::Account,
        Self::Ledger,
        Self::Events,
        Self::Status,
        Self::Credit,
        Self::Logs,
        Self::State,
        Self::BlobPut,
        Self::Input,
        Self::Whoami,
        Self::Renew,
        Self::Identities,
        Self::Revoke,
        Self::TokenCreate,
        Self::Tokens,
        Self::TokenRevoke,
        Self::Link,
        Self::Node,
        Self::NodeSet,
        Self::Spec,
        Self::BlobFetch,
    ];

    /// The verb of a request; `None` for messages that belong into the middle of one.
    pub(super) fn of(request: &FromConsole) -> Option<Self> {
        match request {
            FromConsole::Submit(_) => Some(Self::Submit),
            FromConsole::Quote(_) => Some(Self::Quote),
            FromConsole::Cancel(_) => Some(Self::Cancel),
            FromConsole::Jobs(_) => Some(Self::Jobs),
            FromConsole::Job(_) => Some(Self::Job),
            FromConsole::Explain(_) => Some(Self::Explain),
            FromConsole::Nodes(_) => Some(Self::Nodes),
            FromConsole::Account(_) => Some(Self::Account),
            FromConsole::Ledger(_) => Some(Self::Ledger),
            FromConsole::Events(_) => Some(Self::Events),
            FromConsole::Status(_) => Some(Self::Status),
            FromConsole::Credit(_) => Some(Self::Credit),
            FromConsole::Logs(_) => Some(Self::Logs),
            FromConsole::State(_) => Some(Self::State),
            FromConsole::BlobPut(_) => Some(Self::BlobPut),
            FromConsole::InputOpen(_) => Some(Self::Input),
            FromConsole::Whoami(_) => Some(Self::Whoami),
            FromConsole::Renew(_) => Some(Self::Renew),
            FromConsole::Identities(_) => Some(Self::Identities),
            FromConsole::Revoke(_) => Some(Self::Revoke),
            FromConsole::TokenCreate(_) => Some(Self::TokenCreate),
            FromConsole::Tokens(_) => Some(Self::Tokens),
            FromConsole::TokenRevoke(_) => Some(Self::TokenRevoke),
            FromConsole::Link(_) => Some(Self::Link),
            FromConsole::Node(_) => Some(Self::Node),
            FromConsole::NodeSet(_) => Some(Self::NodeSet),
            FromConsole::Spec(_) => Some(Self::Spec),
            FromConsole::BlobFetch(_) => Some(Self::BlobFetch),
            FromConsole::Hello(_)
            | FromConsole::BlobPiece(_)
            | FromConsole::InputPiece(_)
            | FromConsole::InputDone(_) => None,
        }
    }

    /// The word used in refusals.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Submit => "submitting jobs",
            Self::Quote => "asking for a quote",
            Self::Cancel => "cancelling jobs",
            Self::Jobs | Self::Job => "reading jobs",
            Self::Explain => "explaining jobs",
            Self::Nodes | Self::Node => "reading nodes",
            Self::NodeSet => "cordoning and draining nodes",
            Self::Account => "reading accounts",
            Self::Ledger => "reading ledgers",
            Self::Events => "reading events",
            Self::Status => "reading the status",
            Self::Credit => "giving credit",
            Self::Logs => "reading output",
            Self::State => "watching",
            Self::Spec => "reading specifications",
            Self::BlobPut => "uploading",
            Self::BlobFetch => "downloading",
            Self::Input => "sending input",
            Self::Whoami => "asking about oneself",
            Self::Renew => "renewing a certificate",
            Self::Identities => "reading identities",
            Self::Revoke => "revoking identities",
            Self::TokenCreate => "making tokens",
            Self::Tokens => "reading tokens",
            Self::TokenRevoke => "revoking tokens",
            Self::Link => "reading the state of the sockets",
        }
    }

    /// Whether the role may do it at all. Ownership is checked besides, by each verb.
    pub(super) fn allowed(self, role: Role) -> bool {
        match role {
            Role::Client => match self {
                Self::Submit
                | Self::Quote
                | Self::Cancel
                | Self::Jobs
                | Self::Job
                | Self::Spec
                | Self::Explain
                | Self::Nodes
                | Self::Node
                | Self::NodeSet
                | Self::Account
                | Self::Ledger
                | Self::Events
                | Self::Status
                | Self::Logs
                | Self::State
                | Self::BlobPut
                | Self::BlobFetch
                | Self::Input
                | Self::Whoami
                | Self::Renew
                | Self::Identities
                | Self::TokenCreate
                | Self::Tokens
                | Self::TokenRevoke => true,
                Self::Credit | Self::Revoke | Self::Link => false,
            },
            Role::Operator => match self {
                Self::Quote
                | Self::Cancel
                | Self::Jobs
                | Self::Job
                | Self::Spec
                | Self::Explain
                | Self::Nodes
                | Self::Node
                | Self::NodeSet
                | Self::Account
                | Self::Ledger
                | Self::Events
                | Self::Status
                | Self::Credit
                | Self::Logs
                | Self::State
                | Self::BlobFetch
                | Self::Whoami
                | Self::Renew
                | Self::Identities
                | Self::Revoke
                | Self::TokenCreate
                | Self::Tokens
                | Self::TokenRevoke
                | Self::Link => true,
                // Jobs belong to those who pay for them.
                Self::Submit | Self::BlobPut | Self::Input => false,
            },
            Role::Node | Role::Orchestrator => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_may_do_nothing_here_and_some_things_are_the_operators_alone() {
        for verb in Verb::ALL {
            assert!(!verb.allowed(Role::Node) && !verb.allowed(Role::Orchestrator), "{verb:?}");
            let denied_to_clients = matches!(verb, Verb::Credit | Verb::Revoke | Verb::Link);
            assert_eq!(verb.allowed(Role::Client), !denied_to_clients, "{verb:?}");
            let denied_to_operators = matches!(verb, Verb::Submit | Verb::BlobPut | Verb::Input);
            assert_eq!(verb.allowed(Role::Operator), !denied_to_operators, "{verb:?}");
        }
    }
}
