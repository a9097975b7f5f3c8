//! The forms of a token and of a credit: the flags of `modchain token create` and `modchain credit`.

use super::field::{Control, Spec};

/// What one can join as.
const ROLES: &[(&str, &str)] = &[("node", "node"), ("client", "client"), ("operator", "operator")];

const fn field(word: &'static str, label: &'static str, control: Control, help: &'static str) -> Spec {
    Spec { word, label, help, control, width: 24, kinds: "", rare: false, joined: false }
}

/// The fields of a new token.
pub(super) const TOKEN: &[Spec] = &[
    field("role", "Role", Control::Choice(ROLES), "what its user becomes: Left and Right choose"),
    field("name", "Name", Control::Text, "the name that its user gets; its own wish, or a made-up one, by default"),
    field(
        "account",
        "Account",
        Control::Text,
        "the account that a node earns for, or that a client pays from (operators)",
    ),
    field(
        "rejoin",
        "known by that name, and its certificate has ended",
        Control::Switch,
        "Space turns it on; it needs a name",
    ),
    field("ttl", "Good for", Control::Text, "how long it can be used, at most 24h; 15m by default"),
];

/// The fields of a credit.
pub(super) const CREDIT: &[Spec] = &[
    field("account", "Account", Control::Positional, "to whom"),
    field("amount", "Amount", Control::Positional, "how much, such as 50.00"),
    field("reason", "Reason", Control::Text, "for the record"),
];
