//! Versions below which a dependency has a known hole, and dependencies that must not come back.

use std::path::Path;

/// Crate, lowest sound version, and what was wrong before.
const FLOORS: &[(&str, [u64; 3], &str)] = &[
    ("quinn-proto", [0, 11, 15], "RUSTSEC-2026-0185, unbounded memory for reassembly"),
    ("rustls-webpki", [0, 103, 13], "RUSTSEC-2026-0104, a panic that a peer can reach"),
    ("h2", [0, 4, 16], "RUSTSEC-2026-0258"),
    ("crossbeam-epoch", [0, 9, 20], "RUSTSEC-2026-0204"),
    ("lru", [0, 18, 2], "advisories before it"),
    ("bytes", [1, 11, 1], "advisories before it"),
    ("time", [0, 3, 47], "advisories before it"),
    ("tracing-subscriber", [0, 3, 20], "RUSTSEC-2025-0055, terminal escapes in logs"),
    ("wasmtime", [47, 0, 3], "advisories before it, a sandbox escape among them"),
];

/// With one of these beside ring no default provider of cryptography can be told, or the system's OpenSSL is needed.
const ABSENT: &[&str] = &["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"];

/// These are always in the tree: if one is not found, the reading of the lock file is broken.
const PRESENT: &[&str] = &["quinn-proto", "rustls-webpki", "bytes", "time", "ring"];

fn packages() -> Vec<(String, [u64; 3])> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    let lock: toml::Table = std::fs::read_to_string(path).expect("a lock file").parse().expect("TOML");
    let packages = lock["package"].as_array().expect("packages");
    let text = |package: &toml::Value, key: &str| package[key].as_str().expect("a text").to_owned();
    packages.iter().map(|package| (text(package, "name"), version(&text(package, "version")))).collect()
}

fn version(text: &str) -> [u64; 3] {
    let release = text.split(['-', '+']).next().expect("a first part");
    let mut parts = release.split('.').map(|part| part.parse().expect("a number"));
    [(); 3].map(|()| parts.next().expect("three parts"))
}

#[test]
fn no_dependency_is_below_its_floor() {
    let packages = packages();
    for name in PRESENT {
        assert!(packages.iter().any(|(package, _)| package == name), "{name} is not in the lock file");
    }
    for (name, floor, why) in FLOORS {
        for (package, version) in packages.iter().filter(|(package, _)| package == name) {
            assert!(version >= floor, "{package} {version:?} is below {floor:?}: {why}");
        }
    }
}

#[test]
fn only_one_provider_of_cryptography_is_in_the_tree() {
    for (package, _) in packages() {
        assert!(!ABSENT.contains(&package.as_str()), "{package} is in the lock file");
    }
}
