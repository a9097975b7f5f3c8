//! Knowing an image's name again without telling it.

use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// A container image's name in eight bytes. A node tells by these which images it has, so that a job goes where its image is:
/// who knows a name can ask for it, and who does not cannot read what else its owner keeps.
///
/// Two names may share a mark, by an accident of one in 2⁶⁴ or by somebody's work: a mark decides between equal nodes and
/// nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageMark([u8; 8]);

/// Marks that a node tells at most: of the images that were made last, two names each as a rule. 2 KiB of an offer.
pub const IMAGE_MARKS_MAX: usize = 256;

impl ImageMark {
    /// The mark of a name as clients and engines write it, an id included. `alpine`, `alpine:latest` and
    /// `docker.io/library/alpine` are one image.
    pub fn of(name: &str) -> Self {
        let digest = Digest::of(ordinary(name).as_bytes());
        Self(*digest.0.first_chunk().expect("a digest is longer"))
    }

    /// The mark as it is kept.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// As it is to be kept.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

/// The shortest name with its tag or its digest; of a name with both, the digest says more.
fn ordinary(name: &str) -> String {
    if let Some(id) = name.strip_prefix("sha256:").or(Some(name)).filter(|id| is_id(id)) {
        return id.to_owned();
    }
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (name, None),
    };
    let name = ["docker.io/", "index.docker.io/"].iter().find_map(|host| name.strip_prefix(host)).unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    // A colon before the last slash is a port's.
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let tag = name[last..].find(':').map(|colon| last + colon);
    match (digest, tag) {
        (Some(digest), tag) => format!("{}@{digest}", &name[..tag.unwrap_or(name.len())]),
        (None, Some(_)) => name.to_owned(),
        (None, None) => format!("{name}:latest"),
    }
}

/// An image's own id, whole.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_image_have_one_mark_and_others_have_others() {
        let id = "a".repeat(64);
        let of_id = format!("sha256:{id}");
        let pinned = format!("alpine:3@sha256:{id}");
        let same: [&[&str]; 6] = [
            &["alpine", "alpine:latest", "library/alpine", "docker.io/library/alpine:latest", "docker.io/alpine"],
            &["alpine:3", "index.docker.io/library/alpine:3"],
            &["pool.example:5000/alpine", "pool.example:5000/alpine:latest"],
            &["me/alpine:3", "docker.io/me/alpine:3"],
            &[&id, &of_id],
            &[&pinned, &format!("alpine@sha256:{id}")],
        ];
        let marks: Vec<Vec<ImageMark>> =
            same.iter().map(|names| names.iter().map(|name| ImageMark::of(name)).collect()).collect();
        for (names, marks) in same.iter().zip(&marks) {
            assert!(marks.iter().all(|mark| *mark == marks[0]), "{names:?}: {marks:?}");
        }
        let different: std::collections::BTreeSet<_> = marks.iter().map(|marks| marks[0]).collect();
        assert_eq!(different.len(), same.len());
    }
}
