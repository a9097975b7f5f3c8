//! What a node's owner asks for.

use serde::{Deserialize, Serialize};

use crate::bounded::{Map, Text};
use crate::money::Micro;

/// Prices of one node. The tariff in force at the assignment is frozen in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tariff {
    /// Micro-units per core and hour.
    pub core_hour: Micro,
    /// Micro-units per GiB of reserved memory and hour.
    pub gib_hour: Micro,
    /// Micro-units per GPU and hour, by model; `*` stands for every model not named.
    pub gpu_hour: Map<Text<64>, Micro, 64>,
    /// Micro-units per million prompt tokens.
    pub million_prompt_tokens: Micro,
    /// Micro-units per million generated tokens.
    pub million_output_tokens: Micro,
    /// The least that a job that ran pays.
    pub minimum: Micro,
}
