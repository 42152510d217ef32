//! Bytes → [`TaskSpec`], with every problem in one answer, each at its place.
//!
//! The value is walked by hand because serde stops at the first problem. Where something can't be
//! read a stand-in takes its place, so that the walk and the checks of [`super::validate`] go on.

use jiff::Timestamp;
use serde_json::Value;

use super::fields::{
    Object, boolean, choice, float, list, signed, small, string, string_map, strings, unknown,
    variant, whole,
};
use super::json;
use super::path::Path;
use super::problems::Problems;
use super::wishes;
use crate::wire::{
    Admission, Backoff, CommandMode, Compression, ContainerSpec, EnvVar, Jitter, OnWorkerLost,
    Operator, OutputSpec, Problem, Requirement, Restart, Runtime, ScriptMode, Selector,
    SubprocessMode, SubprocessSpec, TaskId, TaskKind, TaskSpec, WasmSpec,
};

/// The largest spec, in bytes of JSON. A script of 2 MiB has 2.7 MiB of base64.
pub const MAX_SPEC_BYTES: usize = 4 * 1024 * 1024;

const JITTERS: &[(&str, Jitter)] = &[
    ("full", Jitter::Full),
    ("none", Jitter::None),
    ("equal", Jitter::Equal),
    ("decorrelated", Jitter::Decorrelated),
];
const LOSSES: &[(&str, OnWorkerLost)] =
    &[("rerun", OnWorkerLost::Rerun), ("fail", OnWorkerLost::Fail)];
const ADMISSIONS: &[(&str, Admission)] = &[
    ("dropIfRunning", Admission::DropIfRunning),
    ("replace", Admission::Replace),
    ("queue", Admission::Queue),
];
const OPERATORS: &[(&str, Operator)] = &[
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
];
/// The fields of a spec.
pub(super) const FIELDS: &[&str] = &[
    "id",
    "slot",
    "slotLimit",
    "kind",
    "timeout",
    "delay",
    "notBefore",
    "startBy",
    "ttl",
    "retryOf",
    "graceMs",
    "restart",
    "maxRetries",
    "backoff",
    "noRetryExitCodes",
    "maxWorkerLosses",
    "onWorkerLost",
    "admission",
    "runnerSelector",
    "labels",
    "output",
    "isolation",
];

/// Decodes a canonical spec.
///
/// # Errors
/// Every problem, each with its JSON path. What the values mean is checked by [`super::parse`].
pub fn decode(bytes: &[u8]) -> Result<TaskSpec, Vec<Problem>> {
    let mut problems = Problems::default();
    let spec = read(bytes, &mut problems).and_then(|value| draft(&value, &mut problems));
    problems.or(spec)
}

/// Writes the canonical JSON of a spec, as the queue carries it.
pub fn canonical(spec: &TaskSpec) -> Vec<u8> {
    serde_json::to_vec(spec).expect("a spec has only string keys, so it can be written as JSON")
}

/// Reads JSON of an allowed size.
pub(super) fn read(bytes: &[u8], problems: &mut Problems) -> Option<Value> {
    if bytes.len() <= MAX_SPEC_BYTES {
        return json::read(bytes, problems);
    }
    let found = bytes.len();
    problems.add("$", format!("has {found} bytes; the limit of a spec is {MAX_SPEC_BYTES}"));
    None
}

/// Decodes as much as possible; it is a spec only if no problem was found.
pub(super) fn draft(value: &Value, problems: &mut Problems) -> Option<TaskSpec> {
    let spec = Object::read(value, &Path::Root, FIELDS, problems)?;
    let kind = spec.required("kind", problems, task_kind).unwrap_or_else(stand_in);
    let default = TaskSpec::new(stand_in());
    Some(TaskSpec {
        id: spec.optional("id", problems, task_id),
        slot: spec.optional("slot", problems, string),
        slot_limit: spec.or("slotLimit", default.slot_limit, problems, small),
        kind,
        timeout: spec.optional("timeout", problems, whole),
        delay: spec.optional("delay", problems, whole),
        not_before: spec.optional("notBefore", problems, timestamp),
        start_by: spec.optional("startBy", problems, timestamp),
        ttl: spec.optional("ttl", problems, whole),
        retry_of: spec.optional("retryOf", problems, task_id),
        grace_ms: spec.optional("graceMs", problems, whole),
        restart: spec.or("restart", default.restart, problems, restart),
        max_retries: spec.or("maxRetries", default.max_retries, problems, small),
        backoff: spec.or("backoff", default.backoff, problems, backoff),
        no_retry_exit_codes: spec.or("noRetryExitCodes", Vec::new(), problems, list(signed)),
        max_worker_losses: spec.or("maxWorkerLosses", default.max_worker_losses, problems, small),
        on_worker_lost: spec.or("onWorkerLost", OnWorkerLost::default(), problems, choice(LOSSES)),
        admission: spec.or("admission", Admission::default(), problems, choice(ADMISSIONS)),
        runner_selector: spec.optional("runnerSelector", problems, selector),
        labels: spec.or("labels", default.labels, problems, string_map),
        output: spec.optional("output", problems, output),
        isolation: spec.optional("isolation", problems, wishes::read),
    })
}

// Stands for a kind that could not be read: valid, so that nothing else is reported about it. The
// problem that was found keeps it from being used.
fn stand_in() -> TaskKind {
    TaskKind::Subprocess(SubprocessSpec::new(stand_in_mode()))
}

fn stand_in_mode() -> SubprocessMode {
    SubprocessMode::Command(CommandMode { command: "-".to_owned(), args: Vec::new() })
}

fn task_id(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<TaskId> {
    let id = string(value, path, problems)?.parse();
    id.map_err(|error: crate::wire::InvalidId| problems.add(path, error.to_string())).ok()
}

fn timestamp(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<Timestamp> {
    let text = string(value, path, problems)?;
    let parsed = text.parse();
    parsed
        .map_err(|_| {
            problems.add(path, "is not a time as in RFC 3339 before 9999-12-30T22:00:00Z, such as 2030-01-31T12:00:00Z")
        })
        .ok()
}

fn task_kind(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<TaskKind> {
    let embedded = "embedded";
    if value.as_str() == Some(embedded) || value.get(embedded).is_some() {
        let why = "`embedded` is code inside the submitting program; a worker runs only what it \
                   can start: use `subprocess`, `container` or `wasm`";
        problems.add(path, why);
        return None;
    }
    let known = ["subprocess", "container", "wasm"];
    let (name, inner) = variant(value, path, &known, problems)?;
    let place = path.field(name);
    match name {
        "subprocess" => subprocess(inner, &place, problems).map(TaskKind::Subprocess),
        "container" => container(inner, &place, problems).map(TaskKind::Container),
        _ => wasm(inner, &place, problems).map(TaskKind::Wasm),
    }
}

fn subprocess(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<SubprocessSpec> {
    let known = ["mode", "env", "cwd", "failOnNonZero"];
    let spec = Object::read(value, path, &known, problems)?;
    Some(SubprocessSpec {
        mode: spec.required("mode", problems, mode).unwrap_or_else(stand_in_mode),
        env: spec.or("env", Vec::new(), problems, env),
        cwd: spec.optional("cwd", problems, string),
        fail_on_non_zero: spec.or("failOnNonZero", true, problems, boolean),
    })
}

fn mode(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<SubprocessMode> {
    let (name, inner) = variant(value, path, &["command", "script"], problems)?;
    let place = path.field(name);
    match name {
        "command" => command(inner, &place, problems).map(SubprocessMode::Command),
        _ => script(inner, &place, problems).map(SubprocessMode::Script),
    }
}

fn command(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<CommandMode> {
    let mode = Object::read(value, path, &["command", "args"], problems)?;
    Some(CommandMode {
        command: mode.required("command", problems, string).unwrap_or_default(),
        args: mode.or("args", Vec::new(), problems, strings),
    })
}

fn script(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<ScriptMode> {
    let mode = Object::read(value, path, &["runtime", "body", "args"], problems)?;
    Some(ScriptMode {
        runtime: mode.required("runtime", problems, runtime).unwrap_or(Runtime::Bash),
        body: mode.required("body", problems, string).unwrap_or_default(),
        args: mode.or("args", Vec::new(), problems, strings),
    })
}

fn runtime(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<Runtime> {
    match value.as_str() {
        Some("bash") => return Some(Runtime::Bash),
        Some("python") => return Some(Runtime::Python),
        Some("node") => return Some(Runtime::Node),
        Some(name) => {
            let message = unknown("runtime", name, &["bash", "python", "node"]);
            let custom = "any other one is {\"custom\":{\"command\":…,\"flag\":…}}";
            problems.add(path, format!("{message}; {custom}"));
            return None;
        }
        None => {}
    }
    let (name, inner) = variant(value, path, &["custom"], problems)?;
    let place = path.field(name);
    let custom = Object::read(inner, &place, &["command", "flag"], problems)?;
    Some(Runtime::Custom {
        command: custom.required("command", problems, string).unwrap_or_default(),
        flag: custom.required("flag", problems, string).unwrap_or_default(),
    })
}

fn env(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<Vec<EnvVar>> {
    let Some(items) = value.as_array() else {
        let wanted = "an array of {\"key\":…,\"value\":…}";
        return super::fields::wrong(value, path, wanted, problems);
    };
    let item = |(at, value)| {
        let place = path.index(at);
        let var = Object::read(value, &place, &["key", "value"], problems);
        let mut field = |name| var.as_ref()?.required(name, problems, string);
        EnvVar { key: field("key").unwrap_or_default(), value: field("value").unwrap_or_default() }
    };
    Some(items.iter().enumerate().map(item).collect())
}

fn container(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<ContainerSpec> {
    let known = ["image", "command", "args", "env"];
    let spec = Object::read(value, path, &known, problems)?;
    Some(ContainerSpec {
        image: spec.required("image", problems, string).unwrap_or_default(),
        command: spec.optional("command", problems, strings),
        args: spec.or("args", Vec::new(), problems, strings),
        env: spec.or("env", Vec::new(), problems, env),
    })
}

fn wasm(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<WasmSpec> {
    let spec = Object::read(value, path, &["module", "args", "env"], problems)?;
    Some(WasmSpec {
        module: spec.required("module", problems, string).unwrap_or_default(),
        args: spec.or("args", Vec::new(), problems, strings),
        env: spec.or("env", Vec::new(), problems, env),
    })
}

fn restart(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<Restart> {
    #[derive(Clone, Copy)]
    enum Type {
        Never,
        OnFailure,
        Always,
    }
    const TYPES: &[(&str, Type)] =
        &[("never", Type::Never), ("onFailure", Type::OnFailure), ("always", Type::Always)];
    let policy = Object::read(value, path, &["type", "intervalMs"], problems)?;
    let interval_ms = policy.optional("intervalMs", problems, whole);
    let kind = policy.required("type", problems, choice(TYPES))?;
    if interval_ms.is_some() && !matches!(kind, Type::Always) {
        problems.add(path.field("intervalMs"), "only goes with the type `always`");
    }
    Some(match kind {
        Type::Never => Restart::Never,
        Type::OnFailure => Restart::OnFailure,
        Type::Always => Restart::Always { interval_ms },
    })
}

fn backoff(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<Backoff> {
    let known = ["jitter", "firstMs", "maxMs", "factor"];
    let spec = Object::read(value, path, &known, problems)?;
    let default = Backoff::default();
    Some(Backoff {
        jitter: spec.or("jitter", default.jitter, problems, choice(JITTERS)),
        first_ms: spec.or("firstMs", default.first_ms, problems, whole),
        max_ms: spec.or("maxMs", default.max_ms, problems, whole),
        factor: spec.or("factor", default.factor, problems, float),
    })
}

fn selector(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<Selector> {
    let spec = Object::read(value, path, &["matchLabels", "matchExpressions"], problems)?;
    let expressions = |value: &Value, path: &Path<'_>, problems: &mut Problems| {
        let Some(items) = value.as_array() else {
            return super::fields::wrong(value, path, "an array", problems);
        };
        let item = |(at, value)| requirement(value, &path.index(at), problems);
        Some(items.iter().enumerate().map(item).collect())
    };
    Some(Selector {
        match_labels: spec.or("matchLabels", Default::default(), problems, string_map),
        match_expressions: spec.or("matchExpressions", Vec::new(), problems, expressions),
    })
}

fn requirement(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Requirement {
    let spec = Object::read(value, path, &["key", "operator", "values"], problems);
    let key = spec.as_ref().and_then(|spec| spec.required("key", problems, string));
    let operator =
        spec.as_ref().and_then(|spec| spec.required("operator", problems, choice(OPERATORS)));
    let values = spec.as_ref().map(|spec| spec.or("values", Vec::new(), problems, strings));
    // Without an operator nobody can say how many values there should be.
    let values = values.filter(|_| operator.is_some());
    Requirement {
        key: key.unwrap_or_default(),
        operator: operator.unwrap_or(Operator::Exists),
        values: values.unwrap_or_default(),
    }
}

fn output(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<OutputSpec> {
    let spec = Object::read(value, path, &["maxBytes", "compression"], problems)?;
    Some(OutputSpec {
        max_bytes: spec.optional("maxBytes", problems, whole),
        compression: spec.optional("compression", problems, choice(Compression::NAMES)),
    })
}
