//! How far a pull is, in one line for people.

use std::collections::BTreeMap;

use ollama_rs::models::pull::PullModelStatus;

/// A MiB.
const MIB: u64 = 1 << 20;

/// Parts of one model that are added up. Models have some five; what a server says of more is not counted.
const PARTS_MAX: usize = 64;

/// What is known of a pull.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes there and bytes in all, by the parts' digests.
    parts: BTreeMap<String, (u64, u64)>,
    done: bool,
}

impl Progress {
    pub(super) fn note(&mut self, status: PullModelStatus) {
        self.done |= status.message == "success";
        if let (Some(digest), Some(total)) = (status.digest, status.total)
            && (self.parts.contains_key(&digest) || self.parts.len() < PARTS_MAX)
        {
            self.parts.insert(digest, (status.completed.unwrap_or(0).min(total), total));
        }
    }

    /// Whether the server has said that it has all of it.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn line(&self, model: &str) -> String {
        let sum = |part: fn(&(u64, u64)) -> u64| self.parts.values().map(part).fold(0, u64::saturating_add);
        let (there, total) = (sum(|(there, _)| *there), sum(|(_, total)| *total));
        if total == 0 {
            format!("pulling {model}")
        } else {
            format!("pulling {model}: {} of {} MiB", there / MIB, total.div_ceil(MIB))
        }
    }
}

/// Whether a failed pull means that there is no such model anywhere: the words of servers whose registry has no manifest of
/// that name.
pub(super) fn means_unknown(message: &str) -> bool {
    message.contains("pull model manifest: file does not exist")
        || message.contains("manifest unknown")
        || (message.contains("model") && message.ends_with("not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(message: &str, digest: Option<&str>, total: u64, completed: Option<u64>) -> PullModelStatus {
        PullModelStatus {
            message: message.into(),
            digest: digest.map(str::to_owned),
            total: digest.map(|_| total),
            completed,
        }
    }

    #[test]
    fn parts_are_added_up_and_none_counts_twice() {
        let mut progress = Progress::default();
        progress.note(status("pulling manifest", None, 0, None));
        assert_eq!(progress.line("m"), "pulling m");
        progress.note(status("pulling a", Some("a"), 90 * MIB, None));
        progress.note(status("pulling a", Some("a"), 90 * MIB, Some(45 * MIB)));
        progress.note(status("pulling b", Some("b"), 100, Some(u64::MAX)));
        assert_eq!(progress.line("m"), "pulling m: 45 of 91 MiB");
        assert!(!progress.is_done());
        progress.note(status("success", None, 0, None));
        assert!(progress.is_done());
    }

    #[test]
    fn a_server_cannot_make_the_sum_grow_without_end() {
        let mut progress = Progress::default();
        for part in 0..1_000 {
            progress.note(status("pulling", Some(&format!("{part}")), u64::MAX, Some(1)));
        }
        assert_eq!(progress.parts.len(), PARTS_MAX);
        assert!(progress.line("m").starts_with("pulling m: 0 of "));
    }

    #[test]
    fn a_registry_that_is_out_of_reach_is_not_a_model_that_does_not_exist() {
        for unknown in ["pull model manifest: file does not exist", "model \"x\" not found"] {
            assert!(means_unknown(unknown), "{unknown}");
        }
        for other in [
            r#"pull model manifest: Get "https://registry.example/v2/": dial tcp: lookup registry.example: no such host"#,
            "dial tcp 127.0.0.1:1: connect: connection refused",
            "no space left on device",
        ] {
            assert!(!means_unknown(other), "{other}");
        }
    }
}
