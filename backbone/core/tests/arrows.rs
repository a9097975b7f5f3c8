//! The arrows between crates point one way, the core stays pure, and each risky dependency is named only where it may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace's root")
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("an array").iter()
}

/// Every package's normal dependencies, by name and version.
fn normal_dependencies(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let name = |id: &str| {
        let package = items(&metadata["packages"]).find(|package| package["id"] == id).expect("a listed package");
        format!("{} {}", package["name"].as_str().expect("a name"), package["version"].as_str().expect("a version"))
    };
    items(&metadata["resolve"]["nodes"])
        .map(|node| {
            let normal = items(&node["deps"])
                .filter(|dep| items(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null()))
                .map(|dep| name(dep["pkg"].as_str().expect("an id")));
            (name(node["id"].as_str().expect("an id")), normal.collect())
        })
        .collect()
}

fn ours(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let bare = |full: &str| full.split(' ').next().expect("a name").to_owned();
    normal_dependencies(metadata)
        .into_iter()
        .filter(|(package, _)| package.starts_with("modchain"))
        .map(|(package, deps)| {
            (bare(&package), deps.iter().map(|dep| bare(dep)).filter(|dep| dep.starts_with("modchain")).collect())
        })
        .collect()
}

#[test]
fn crates_use_only_what_stands_below_them() {
    let allowed = BTreeMap::from([
        ("modchain-types", vec![]),
        ("modchain-wire", vec!["types"]),
        ("modchain-certs", vec!["types"]),
        ("modchain-core", vec!["types"]),
        ("modchain-link", vec!["types", "wire", "certs"]),
        ("modchain-orchestrator", vec!["types", "wire", "certs", "core", "link", "service"]),
        ("modchain-agent", vec!["types", "wire", "certs", "core", "link", "service"]),
        ("modchain", vec!["types", "wire", "certs", "link"]),
        ("modchain-sim", vec!["types", "core"]),
        ("modchain-fuzz", vec![]),
        ("modchain-service", vec![]),
    ]);
    let found = ours(&metadata());
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), {
        let mut names: Vec<_> = allowed.keys().copied().collect();
        names.sort_unstable();
        names
    });
    for (package, deps) in found {
        for dep in deps {
            let short = dep.trim_start_matches("modchain-");
            assert!(allowed[package.as_str()].contains(&short), "{package} may not use {dep}");
        }
    }
}

#[test]
fn bugs_on_purpose_are_compiled_in_for_the_simulator_alone_and_by_nobody_who_does_not_ask() {
    let metadata = metadata();
    let asks = |package: &Value| {
        let by_feature = package["features"].as_object().expect("features").iter();
        let features = by_feature.filter(|(_, asked)| items(asked).any(|asked| asked == "modchain-core/planted"));
        let features: Vec<String> = features.map(|(name, _)| name.clone()).collect();
        let of_dependency = |dep: &Value| items(&dep["features"]).any(|feature| feature == "planted");
        (features, items(&package["dependencies"]).any(of_dependency))
    };
    for package in items(&metadata["packages"]) {
        let name = package["name"].as_str().expect("a name");
        let expected: &[&str] = if name == "modchain-sim" { &["planted"] } else { &[] };
        let (features, always) = asks(package);
        assert!(features == expected && !always, "{name} asks for the core's planted bugs");
        let default = package["features"]["default"].as_array();
        assert!(
            !default.is_some_and(|all| all.iter().any(|feature| feature == "planted")),
            "{name} has bugs by default"
        );
    }
}

#[test]
fn the_core_reaches_neither_a_runtime_nor_a_clock_nor_randomness() {
    let deps = normal_dependencies(&metadata());
    let start = deps.keys().find(|package| package.starts_with("modchain-core ")).expect("the core").clone();
    let (mut open, mut closure) = (vec![start], BTreeSet::new());
    while let Some(package) = open.pop() {
        if closure.insert(package.clone()) {
            open.extend(deps.get(&package).into_iter().flatten().cloned());
        }
    }
    for banned in ["tokio", "quinn", "mio", "rand", "getrandom", "time", "jiff", "chrono", "rustix", "socket2"] {
        let found = closure.iter().find(|package| package.split(' ').next() == Some(banned));
        assert_eq!(found, None, "the core reaches {banned}");
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            // Tests and benches may stand a bare library beside ours.
            let is_ours =
                |name: &std::ffi::OsStr| ["target", "tests", "benches", ".git"].iter().all(|other| name != *other);
            if path.file_name().is_none_or(is_ours) {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn each_risky_dependency_is_named_only_in_its_own_files() {
    let homes = [
        ("bincode", &["backbone/wire/src/frame.rs", "backbone/orchestrator/src/store/record"][..]),
        ("wasmtime", &["agent/src/executor/wasm"][..]),
        ("sysinfo", &["agent/src/probe/system.rs"][..]),
        ("quinn", &["backbone/link/src"][..]),
        ("rcgen", &["certs/src"][..]),
        ("sled", &["backbone/orchestrator/src/store/view"][..]),
        ("bollard", &["agent/src/executor/docker", "agent/src/probe/docker.rs"][..]),
        ("ollama_rs", &["agent/src/executor/llm", "agent/src/probe/ollama.rs"][..]),
        ("nvml_wrapper", &["agent/src/probe/nvml.rs"][..]),
    ];
    let mut files = Vec::new();
    for folder in ["backbone", "agent", "console", "certs"] {
        sources(&root().join(folder), &mut files);
    }
    assert!(files.len() > 30, "the sources were found");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let path = file.strip_prefix(root()).expect("inside").to_string_lossy().into_owned();
        for (name, homes) in homes {
            let used = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains(&format!("{name}::")) || code.contains(&format!("use {name}"))
            });
            assert!(!used || homes.iter().any(|home| path.starts_with(home)), "{path} names {name}");
        }
    }
}
