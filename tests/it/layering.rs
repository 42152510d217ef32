//! The allowed directions between modules, read off the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// By module, the modules of ours that it may use. Others may use everything.
const ALLOWED: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("task", &["wire"]),
    ("exec", &["task", "wire"]),
    ("output", &["task", "wire"]),
    ("config", &["task", "wire"]),
    ("telemetry", &["config", "wire"]),
    ("nats", &["config", "output", "task", "telemetry", "wire"]),
    ("devserver", &["nats"]),
    ("bench", &["client", "devserver", "exec", "nats", "wire"]),
    ("client", &["nats", "task", "wire"]),
    // The submit service and the stored cancels do what a client does.
    ("worker", &["client", "exec", "nats", "output", "task", "telemetry", "wire"]),
];
/// What `exec` may take from `task`: the launch plan and its parts.
const PLAN: &[&str] = &[
    "CAPABILITIES",
    "CgroupLimits",
    "CpuMax",
    "Enclosure",
    "Feature",
    "FileRules",
    "Host",
    "Identity",
    "Landlock",
    "LaunchPlan",
    "Mounts",
    "Namespaces",
    "OutputLimits",
    "Program",
    "Rlimit",
    "Sandbox",
    "Seccomp",
    "UserIds",
    "plan",
    "sandbox",
    "self",
];
/// What a pure module doesn't mention.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::io",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::sync::mpsc",
    "Instant",
    "SystemTime",
    "tokio",
    "async fn",
    "async move",
    ".await",
    "::now()",
    "Uuid",
    "generate()",
    "println!",
    "tracing::",
];

struct Source {
    module: String,
    path: PathBuf,
    code: String,
}

/// The sources without comments.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = fs::read_to_string(&path).expect("a source can be read");
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let first = path.strip_prefix(&root).expect("it is below src").iter().next();
                let first = first.expect("it has a name").to_string_lossy();
                let module = first.trim_end_matches(".rs").to_owned();
                found.push(Source { module, code: code.collect::<Vec<_>>().join("\n"), path });
            }
        }
    }
    assert!(found.iter().any(|source| source.module == "task"), "the sources were found");
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The names that stand right after `prefix`, also those of a list in braces.
fn names_after<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(prefix).flat_map(move |(at, _)| {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => words(list.split('}').next().unwrap_or(list)).collect::<Vec<_>>(),
            None => words(rest).take(1).collect(),
        }
    })
}

#[test]
fn modules_use_only_those_below_them() {
    for source in sources() {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == source.module) else {
            continue;
        };
        let known = |name: &str| allowed.contains(&name) || name == source.module;
        let strangers: Vec<&str> =
            names_after(&source.code, "crate::").filter(|name| !known(name)).collect();
        assert!(strangers.is_empty(), "{}: uses {strangers:?}", source.path.display());
    }
}

#[test]
fn exec_takes_only_the_launch_plan_from_task() {
    for source in sources().iter().filter(|source| source.module == "exec") {
        for name in names_after(&source.code, "crate::task::") {
            assert!(PLAN.contains(&name), "{}: uses task::{name}", source.path.display());
        }
    }
}

#[test]
fn task_has_no_io_no_clock_and_no_async() {
    for source in sources().iter().filter(|source| source.module == "task") {
        for word in IMPURE {
            assert!(!source.code.contains(word), "{}: has {word:?}", source.path.display());
        }
    }
}

#[test]
fn only_nats_imports_the_client_library() {
    for source in sources().iter().filter(|source| source.module != "nats") {
        assert!(!source.code.contains("async_nats::"), "{}", source.path.display());
    }
}

#[test]
fn only_exec_has_unsafe_code() {
    for source in sources().iter().filter(|source| source.module != "exec") {
        assert!(!words(&source.code).any(|word| word == "unsafe"), "{}", source.path.display());
    }
}
