//! Short forms: what people write → the canonical JSON that the queue carries.
//!
//! ```json
//! {"command": ["echo", "hi"], "env": {"A": "1"}, "timeout": "10m", "selector": "os=linux,!spot"}
//! {"script": "echo hi", "runtime": "bash", "args": ["x"], "cwd": "/srv", "failOnNonZero": false}
//! ```
//!
//! * `command` (an array) or `script` (plain text) with `runtime` and `args` instead of `kind`; beside
//!   them `cwd`, `env` and `failOnNonZero`.
//! * `env` as an object, here and in a kind.
//! * Durations as `"500ms"`, `"10m"`, `"1h30m"`, in the fields with or without `Ms`: `timeout`, `grace`,
//!   `restart.interval`, `backoff.first`, `backoff.max`.
//! * `restart` as its type's name; `runnerSelector`, or `selector`, as text.
//! * `isolation` as its preset's name, or with `memory` (`"1GiB"`), `pids` and `cpu` (`"50%"`); sizes and
//!   times in `isolation.rlimits`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::decode::{FIELDS, draft, read};
use super::duration::parse_duration;
use super::fields::{unknown, wrong};
use super::path::Path;
use super::problems::Problems;
use super::short_isolation;
use super::validate::check_spec;
use crate::wire::task_spec::MAX_SCRIPT_BYTES;
use crate::wire::{Problem, Selector, TaskSpec};

type Fields = Map<String, Value>;

/// The fields of a process's short form.
const PROCESS: [&str; 7] = ["command", "script", "runtime", "args", "cwd", "env", "failOnNonZero"];

/// Expands short forms; a canonical spec comes back as it is.
///
/// # Errors
/// Every problem of the short forms. The result is not yet checked.
pub fn expand(value: Value) -> Result<Value, Vec<Problem>> {
    let mut problems = Problems::default();
    let submitted = Submitted::of(&value);
    let value = expand_value(value, &mut problems);
    problems.moved(|path| submitted.place(path)).or(Some(value))
}

/// Reads a submitted spec: expands short forms, decodes, checks. An id may be missing.
///
/// # Errors
/// Every problem of all steps, each at its place in the document as it was submitted.
pub fn parse_submission(bytes: &[u8]) -> Result<TaskSpec, Vec<Problem>> {
    let mut problems = Problems::default();
    let Some(value) = read(bytes, &mut problems) else {
        return problems.or(None);
    };
    let submitted = Submitted::of(&value);
    let value = expand_value(value, &mut problems);
    let mut later = Problems::default();
    let spec = draft(&value, &mut later);
    if let Some(spec) = spec.clone() {
        let mut checks = Problems::default();
        check_spec(spec, &mut checks);
        later.follow(checks);
    }
    problems.follow(later);
    problems.moved(|path| submitted.place(path)).or(spec)
}

fn expand_value(value: Value, problems: &mut Problems) -> Value {
    let Value::Object(mut fields) = value else {
        return value;
    };
    expand_kind(&mut fields, problems);
    rename(&mut fields, "selector", "runnerSelector", &Path::Root, problems);
    rename(&mut fields, "grace", "graceMs", &Path::Root, problems);
    let root = Path::Root;
    for name in ["timeout", "graceMs", "delay", "ttl"] {
        duration(&mut fields, name, &root, problems);
    }
    selector(&mut fields, problems);
    short_isolation::expand(&mut fields, problems);
    if let Some(Value::String(name)) = fields.get("restart") {
        let restart = json!({ "type": name });
        fields.insert("restart".to_owned(), restart);
    }
    for (name, long, short) in [
        ("restart", "intervalMs", "interval"),
        ("backoff", "firstMs", "first"),
        ("backoff", "maxMs", "max"),
    ] {
        if let Some(Value::Object(inner)) = fields.get_mut(name) {
            rename(inner, short, long, &root.field(name), problems);
            duration(inner, long, &root.field(name), problems);
        }
    }
    Value::Object(fields)
}

fn expand_kind(fields: &mut Fields, problems: &mut Problems) {
    let root = Path::Root;
    let short: Vec<&str> = PROCESS.into_iter().filter(|name| fields.contains_key(*name)).collect();
    if fields.contains_key("kind") {
        for name in short {
            let why = "stands beside `kind`; put it into `kind`, or leave `kind` out";
            problems.add(root.field(name), why);
            fields.remove(name);
        }
        return fields.get_mut("kind").map_or((), expand_env);
    }
    let mode = match (fields.remove("command"), fields.remove("script")) {
        (Some(command), None) => command_mode(&command, fields, problems),
        (None, Some(script)) => script_mode(script, fields, problems),
        (Some(_), Some(_)) => {
            problems.add("$.script", "stands beside `command`; keep one of them");
            None
        }
        (None, None) => {
            let near = fields.keys().find(|name| !FIELDS.contains(&name.as_str()));
            let hint =
                near.filter(|_| short.is_empty()).map(|name| unknown("field", name, &PROCESS));
            let what = "is missing; use `command` (an array), `script` with `runtime`, or `kind`";
            problems.add(
                "$.kind",
                hint.map_or_else(|| what.to_owned(), |hint| format!("{what}; {hint}")),
            );
            None
        }
    };
    let mut process = Map::new();
    process.insert("mode".to_owned(), mode.unwrap_or_else(|| json!({"command": {"command": "-"}})));
    for name in ["cwd", "env", "failOnNonZero"] {
        if let Some(value) = fields.remove(name) {
            process.insert(name.to_owned(), value);
        }
    }
    for name in ["runtime", "args"] {
        fields.remove(name);
    }
    let mut kind = json!({ "subprocess": process });
    expand_env(&mut kind);
    fields.insert("kind".to_owned(), kind);
}

fn command_mode(command: &Value, fields: &Fields, problems: &mut Problems) -> Option<Value> {
    let root = Path::Root;
    for name in ["runtime", "args"].into_iter().filter(|name| fields.contains_key(*name)) {
        let why = "goes with `script`; put all arguments into `command`";
        problems.add(root.field(name), why);
    }
    match command {
        Value::Array(words) if !words.is_empty() => {
            Some(json!({"command": {"command": words[0], "args": words[1..]}}))
        }
        Value::Array(_) => {
            problems.add("$.command", "is empty; the first element is the program");
            None
        }
        Value::String(line) => {
            let words: Vec<&str> = line.split_whitespace().take(20).collect();
            let (array, shell) = (json!(words), json!(["sh", "-c", line]));
            let remedy = format!("is a string; write {array}, or {shell} for a shell's line");
            problems.add(
                "$.command",
                if line.len() > 200 { "is a string; write an array" } else { &remedy },
            );
            None
        }
        other => wrong(other, &root.field("command"), "an array of strings", problems),
    }
}

fn script_mode(script: Value, fields: &mut Fields, problems: &mut Problems) -> Option<Value> {
    let root = Path::Root;
    let Value::String(text) = script else {
        return wrong(&script, &root.field("script"), "a string, the script's text", problems);
    };
    if text.len() > MAX_SCRIPT_BYTES {
        let found = text.len();
        let why = format!("has {found} bytes; a script has at most {MAX_SCRIPT_BYTES}");
        problems.add("$.script", why);
        return None;
    }
    let mut script = Map::new();
    script.insert("body".to_owned(), STANDARD.encode(text).into());
    for name in ["runtime", "args"] {
        if let Some(value) = fields.remove(name) {
            script.insert(name.to_owned(), value);
        }
    }
    Some(json!({ "script": script }))
}

/// Turns `{"A": "1"}` into `[{"key": "A", "value": "1"}]`.
fn expand_env(kind: &mut Value) {
    for name in ["subprocess", "container", "wasm"] {
        let Some(env) = kind.get_mut(name).and_then(|spec| spec.get_mut("env")) else {
            continue;
        };
        if let Value::Object(vars) = env {
            let list = vars.iter().map(|(key, value)| json!({ "key": key, "value": value }));
            *env = Value::Array(list.collect());
        }
    }
}

fn selector(fields: &mut Fields, problems: &mut Problems) {
    let Some(Value::String(text)) = fields.get("runnerSelector") else {
        return;
    };
    let selector = match text.parse::<Selector>() {
        Ok(selector) => json!(selector),
        Err(error) => {
            problems.add("$.runnerSelector", error.to_string());
            json!({})
        }
    };
    fields.insert("runnerSelector".to_owned(), selector);
}

pub(super) fn rename(
    fields: &mut Fields,
    short: &str,
    long: &str,
    path: &Path<'_>,
    problems: &mut Problems,
) {
    let Some(value) = fields.remove(short) else {
        return;
    };
    if fields.contains_key(long) {
        problems.add(path.field(short), format!("stands beside `{long}`; keep one of them"));
        return;
    }
    fields.insert(long.to_owned(), value);
}

fn duration(fields: &mut Fields, name: &str, path: &Path<'_>, problems: &mut Problems) {
    let Some(Value::String(text)) = fields.get(name) else {
        return;
    };
    let millis = match parse_duration(text) {
        Ok(duration) => u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        Err(error) => {
            problems.add(path.field(name), error.to_string());
            1
        }
    };
    fields.insert(name.to_owned(), millis.into());
}

/// Where things stood before they were expanded.
struct Submitted {
    short: bool,
    env: Vec<String>,
    renamed: Vec<(String, String)>,
}

impl Submitted {
    fn of(value: &Value) -> Self {
        let has = |place: &str| value.pointer(place).is_some();
        let short = !has("/kind");
        let kinds = ["/env", "/kind/subprocess/env", "/kind/container/env", "/kind/wasm/env"];
        let env = kinds.iter().filter_map(|place| value.pointer(place)?.as_object()).next();
        let names = [
            ("/selector", "$.runnerSelector", "$.selector"),
            ("/grace", "$.graceMs", "$.grace"),
            ("/restart/interval", "$.restart.intervalMs", "$.restart.interval"),
            ("/backoff/first", "$.backoff.firstMs", "$.backoff.first"),
            ("/backoff/max", "$.backoff.maxMs", "$.backoff.max"),
        ];
        let renamed = names.iter().filter(|(pointer, ..)| has(pointer));
        let mut renamed: Vec<(String, String)> =
            renamed.map(|(_, long, short)| ((*long).into(), (*short).into())).collect();
        if value["isolation"].is_string() {
            renamed.push(("$.isolation.preset".into(), "$.isolation".into()));
        }
        for (short, long) in short_isolation::NAMES {
            if has(&format!("/isolation/{short}")) {
                renamed.push((format!("$.isolation.{long}"), format!("$.isolation.{short}")));
            }
        }
        Self {
            short,
            env: env.map(|vars| vars.keys().cloned().collect()).unwrap_or_default(),
            renamed,
        }
    }

    fn place(&self, path: &str) -> String {
        let path = self.env_name(path);
        for (long, short) in &self.renamed {
            if let Some(rest) = path.strip_prefix(long.as_str()) {
                return format!("{short}{rest}");
            }
        }
        match path.strip_prefix("$.kind.subprocess") {
            Some(rest) if self.short => short_place(rest),
            _ => path,
        }
    }

    /// `….env[0].key` → `….env.NAME`.
    fn env_name(&self, path: &str) -> String {
        let Some((before, rest)) = path.split_once(".env[") else {
            return path.to_owned();
        };
        let index = rest.split_once(']').and_then(|(index, _)| index.parse::<usize>().ok());
        match index.and_then(|index| self.env.get(index)) {
            Some(name) => {
                let env = format!("{before}.env");
                format!("{env}{}", &Path::Root.field(name).to_string()[1..])
            }
            None => path.to_owned(),
        }
    }
}

/// The place in a process's short form of a place below `$.kind.subprocess`.
fn short_place(rest: &str) -> String {
    if let Some(rest) = rest.strip_prefix(".mode.command") {
        let arg = rest.strip_prefix(".args[").and_then(|rest| rest.strip_suffix(']'));
        let index = arg.and_then(|index| index.parse::<usize>().ok()).map_or(0, |index| index + 1);
        return format!("$.command[{index}]");
    }
    let script = rest.strip_prefix(".mode.script");
    match script.and_then(|rest| rest.strip_prefix(".body")) {
        Some(rest) => format!("$.script{rest}"),
        None => format!("${}", script.unwrap_or(rest)),
    }
}

#[cfg(test)]
#[path = "short_tests.rs"]
mod tests;
