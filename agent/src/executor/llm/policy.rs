//! What a node's owner allows jobs that ask language models.

use modchain_types::{Span, Text};

/// Tokens of context that a model gets unless the owner says otherwise.
pub const CONTEXT_TOKENS_DEFAULT: u32 = 4_096;

/// What the owner allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LlmPolicy {
    /// Models that may be pulled for a job: names, or beginnings of names that end with `*`. None unless the owner says so.
    pub pullable: Vec<Text<256>>,
    /// How long a model stays in memory after a job, [`Span::MAX`] for ever; `None` leaves it to the server.
    pub keep_alive: Option<Span>,
    /// Tokens that prompt and answer may have together; `None` leaves it to the model and the server. The same for all jobs,
    /// because a server loads a model again when it changes; what jobs ask for has no say in it.
    pub context_tokens: Option<u32>,
}

impl Default for LlmPolicy {
    fn default() -> Self {
        Self { pullable: Vec::new(), keep_alive: None, context_tokens: Some(CONTEXT_TOKENS_DEFAULT) }
    }
}

impl LlmPolicy {
    /// Whether the model of this name may be pulled: the rule of [`modchain_types::Capabilities::may_pull`], and more careful
    /// where a name says from which host. `HOST/NAMESPACE/NAME` has the server connect there, so a pattern must name that
    /// host: `*` is every model of the server's own registry and no other.
    pub(super) fn may_pull(&self, model: &str) -> bool {
        let host = match model.splitn(3, '/').collect::<Vec<_>>()[..] {
            [host, _, _] => Some(host),
            _ => None,
        };
        self.pullable.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => {
                let names_host = |host: &str| beginning.strip_prefix(host).is_some_and(|rest| rest.starts_with('/'));
                model.starts_with(beginning) && host.is_none_or(names_host)
            }
            None => **pattern == *model,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modchain_types::{Capabilities, Exceptions, List, Map};

    fn allows(patterns: &[&str], model: &str) -> bool {
        let pullable: Vec<_> = patterns.iter().map(|pattern| Text::cut(*pattern)).collect();
        let policy = LlmPolicy { pullable: pullable.clone(), ..LlmPolicy::default() };
        let offered = Capabilities {
            adapters: List::default(),
            cpu_milli: 0,
            memory_bytes: 0,
            disk_bytes: 0,
            slots: 0,
            gpus: List::default(),
            models: List::default(),
            pullable: List::cut(pullable),
            exceptions: Exceptions::default(),
            labels: Map::default(),
            region: Text::default(),
        };
        let allows = policy.may_pull(model);
        assert!(!allows || offered.may_pull(model), "{patterns:?} allow {model} and do not offer it");
        allows
    }

    #[test]
    fn a_pattern_is_a_name_or_a_beginning() {
        for (patterns, model, allowed) in [
            (&[][..], "smollm2:135m", false),
            (&["smollm2:135m"], "smollm2:135m", true),
            (&["smollm2:135m"], "smollm2:135m-fp16", false),
            (&["qwen3:*", "smollm2:*"], "smollm2:1.7b", true),
            (&["smollm2:*"], "smollm3:1.7b", false),
            (&["*"], "library/smollm2", true),
        ] {
            assert_eq!(allows(patterns, model), allowed, "{patterns:?} {model}");
        }
    }

    #[test]
    fn a_host_is_connected_to_only_if_the_owner_named_it() {
        for (patterns, model, allowed) in [
            (&["*"][..], "10.0.0.1:80/a/b:c", false),
            (&["hf*"], "hf.co.evil.example/a/b", false),
            (&["hf.co*"], "hf.co/a/b", false),
            (&["hf.co/*"], "hf.co/a/b:Q4_0", true),
            (&["hf.co/bartowski/*"], "hf.co/bartowski/b", true),
            (&["hf.co/bartowski/*"], "hf.co/else/b", false),
            (&["hf.co/a/b"], "hf.co/a/b", true),
        ] {
            assert_eq!(allows(patterns, model), allowed, "{patterns:?} {model}");
        }
    }
}
