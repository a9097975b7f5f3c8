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
}

impl Verb {
    /// Every verb.
    #[cfg(test)]
    pub(super) const ALL: [Self; 16] = [
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
            Self::Nodes => "reading nodes",
            Self::Account => "reading accounts",
            Self::Ledger => "reading ledgers",
            Self::Events => "reading events",
            Self::Status => "reading the status",
            Self::Credit => "giving credit",
            Self::Logs => "reading output",
            Self::State => "watching",
            Self::BlobPut => "uploading",
            Self::Input => "sending input",
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
                | Self::Explain
                | Self::Nodes
                | Self::Account
                | Self::Ledger
                | Self::Events
                | Self::Status
                | Self::Logs
                | Self::State
                | Self::BlobPut
                | Self::Input => true,
                Self::Credit => false,
            },
            Role::Operator => match self {
                Self::Quote
                | Self::Cancel
                | Self::Jobs
                | Self::Job
                | Self::Explain
                | Self::Nodes
                | Self::Account
                | Self::Ledger
                | Self::Events
                | Self::Status
                | Self::Credit
                | Self::Logs
                | Self::State => true,
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
    fn nodes_may_do_nothing_here_and_credit_is_the_operators_alone() {
        for verb in Verb::ALL {
            assert!(!verb.allowed(Role::Node) && !verb.allowed(Role::Orchestrator), "{verb:?}");
            let denied_to_clients = verb == Verb::Credit;
            assert_eq!(verb.allowed(Role::Client), !denied_to_clients, "{verb:?}");
            let denied_to_operators = matches!(verb, Verb::Submit | Verb::BlobPut | Verb::Input);
            assert_eq!(verb.allowed(Role::Operator), !denied_to_operators, "{verb:?}");
        }
    }
}
