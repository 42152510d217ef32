//! Tables of specs: what is accepted, and where each problem is reported.

use serde_json::{Value, json};

use super::*;
use crate::task::{MAX_SPEC_BYTES, ProcessMode, canonical, decode};
use crate::wire::task_spec::MAX_SCRIPT_BYTES;

fn id(text: &str) -> TaskId {
    text.parse().expect("an id")
}

fn parse_value(value: &Value) -> Result<Task, Vec<Problem>> {
    parse(value.to_string().as_bytes(), Some(&id("t")))
}

fn paths(value: &Value) -> Vec<String> {
    let problems = parse_value(value).err().unwrap_or_default();
    problems.into_iter().map(|problem| problem.path).collect()
}

fn echo() -> Value {
    json!({"subprocess": {"mode": {"command": {"command": "echo"}}}})
}

fn script(body: &str) -> Value {
    let mode = json!({"script": {"runtime": "bash", "body": body}});
    json!({"kind": {"subprocess": {"mode": mode}}})
}

/// A spec with one more field.
fn with(name: &str, value: Value) -> Value {
    let mut spec = json!({ "kind": echo() });
    spec[name] = value;
    spec
}

/// A spec whose process has one more field.
fn process_with(name: &str, value: Value) -> Value {
    let mut spec = json!({ "kind": echo() });
    spec["kind"]["subprocess"][name] = value;
    spec
}

#[test]
fn a_spec_needs_nothing_but_its_kind() {
    let task = parse_value(&json!({ "kind": echo() })).expect("a valid spec");
    assert_eq!((task.slot, task.timeout, task.grace), (None, None, None));
    assert_eq!((task.retry.max_retries, task.loss.max_worker_losses), (3, 3));
    assert_eq!(task.retry.delays.first, Duration::from_secs(1));
}

#[test]
fn the_id_is_that_of_the_subject() {
    let mut spec = json!({ "kind": echo() });
    let bytes = |spec: &Value| spec.to_string().into_bytes();
    assert_eq!(parse(&bytes(&spec), Some(&id("a"))).map(|task| task.id), Ok(id("a")));
    assert!(parse(&bytes(&spec), None).is_err(), "somebody has to say an id");
    spec["id"] = "a".into();
    assert_eq!(parse(&bytes(&spec), None).map(|task| task.id), Ok(id("a")));
    let other = parse(&bytes(&spec), Some(&id("b"))).expect_err("the ids differ");
    assert_eq!(other[0].path, "$.id");
    assert!(other[0].message.contains("subject"), "{other:?}");
}

#[test]
fn a_value_of_the_wrong_type_is_reported_at_its_place() {
    for (name, value) in [
        ("slot", json!(1)),
        ("slotLimit", json!("1")),
        ("timeout", json!("10m")),
        ("timeout", json!(-1)),
        ("timeout", json!(1.5)),
        ("graceMs", json!([])),
        ("restart", json!("never")),
        ("maxRetries", json!(null)),
        ("maxRetries", json!(4_294_967_296_u64)),
        ("backoff", json!([])),
        ("noRetryExitCodes", json!(1)),
        ("onWorkerLost", json!("explode")),
        ("admission", json!(true)),
        ("runnerSelector", json!("os=linux")),
        ("labels", json!([])),
        ("output", json!(1)),
        ("id", json!("a.b")),
        ("kind", json!("subprocess")),
        ("kind", json!({})),
        ("kind", json!({"subprocess": {}, "wasm": {}})),
        ("kind", json!({"process": {}})),
    ] {
        assert_eq!(paths(&with(name, value.clone())), [format!("$.{name}")], "{value}");
    }
}

#[test]
fn a_bad_value_is_reported_at_its_place() {
    let label = |value: &str| json!({ "team": value });
    let restart = |kind: &str| json!({"type": kind, "intervalMs": 5});
    for (name, value, path) in [
        ("slot", json!(""), "$.slot"),
        ("slotLimit", json!(0), "$.slotLimit"),
        ("slotLimit", json!(1001), "$.slotLimit"),
        ("slot", json!("a\nb"), "$.slot"),
        ("slot", json!("x".repeat(257)), "$.slot"),
        ("timeout", json!(0), "$.timeout"),
        ("maxRetries", json!(1001), "$.maxRetries"),
        ("maxWorkerLosses", json!(1001), "$.maxWorkerLosses"),
        ("noRetryExitCodes", json!([1, 256]), "$.noRetryExitCodes[1]"),
        ("labels", label(&"x".repeat(257)), "$.labels.team"),
        ("labels", label("\u{7}"), "$.labels.team"),
        ("labels", json!({"": "x"}), r#"$.labels[""]"#),
        ("labels", json!({"a": 1}), "$.labels.a"),
        ("restart", restart("never"), "$.restart.intervalMs"),
        ("restart", json!({"type": "sometimes"}), "$.restart.type"),
        ("restart", json!({}), "$.restart.type"),
        ("backoff", json!({"firstMs": 0}), "$.backoff.firstMs"),
        ("backoff", json!({"firstMs": 5, "maxMs": 4}), "$.backoff.maxMs"),
        ("backoff", json!({"factor": 0.99}), "$.backoff.factor"),
        ("backoff", json!({"jitter": "some"}), "$.backoff.jitter"),
        ("output", json!({"maxbytes": 1}), "$.output.maxbytes"),
        ("priority", json!(1), "$.priority"),
    ] {
        assert_eq!(paths(&with(name, value.clone())), [path], "{name} {value}");
    }
}

#[test]
fn a_bad_process_is_reported_at_its_place() {
    let var =
        |key: &str, value: &str| json!([{"key": "A", "value": ""}, {"key": key, "value": value}]);
    let command = |command: &str| json!({"command": {"command": command, "args": ["a", "b\u{0}"]}});
    for (name, value, path) in [
        ("cwd", json!("srv"), "cwd"),
        ("cwd", json!("/a\u{0}"), "cwd"),
        ("env", var("1A", ""), "env[1].key"),
        ("env", var("", ""), "env[1].key"),
        ("env", var("A=B", ""), "env[1].key"),
        ("env", var("RUNLANE_TASK_ID", "x"), "env[1].key"),
        ("env", var("B", "\u{0}"), "env[1].value"),
        ("env", json!([{"key": "A"}]), "env[0].value"),
        ("env", json!(["A=1"]), "env[0]"),
        ("env", json!({"A": "1"}), "env"),
        ("failOnNonZero", json!("yes"), "failOnNonZero"),
        ("mode", json!({"shell": {}}), "mode"),
        ("mode", command("x"), "mode.command.args[1]"),
        ("mode", json!({"command": {"command": " "}}), "mode.command.command"),
        ("mode", json!({"command": {}}), "mode.command.command"),
        ("mode", json!({"command": "echo"}), "mode.command"),
        ("mode", json!({"script": "echo"}), "mode.script"),
    ] {
        let path = format!("$.kind.subprocess.{path}");
        assert_eq!(paths(&process_with(name, value.clone())), [path], "{value}");
    }
}

#[test]
fn a_bad_selector_is_reported_at_its_place() {
    let one = |condition: Value| json!({"matchExpressions": [condition]});
    for (condition, path) in [
        (json!({"key": "", "operator": "Exists"}), "key"),
        (json!({"operator": "Exists"}), "key"),
        (json!({"key": "a", "operator": "In"}), "values"),
        (json!({"key": "a", "operator": "NotIn", "values": []}), "values"),
        (json!({"key": "a", "operator": "Exists", "values": ["x"]}), "values"),
        (json!({"key": "a", "operator": "DoesNotExist", "values": ["x"]}), "values"),
        (json!({"key": "a", "operator": "in", "values": ["x"]}), "operator"),
        (json!({"key": "a"}), "operator"),
        (json!({"key": "a", "operator": "In", "values": ["x", 1]}), "values[1]"),
        (json!({"key": "a", "operator": "In", "values": ["\n"]}), "values[0]"),
    ] {
        let path = format!("$.runnerSelector.matchExpressions[0].{path}");
        assert_eq!(paths(&with("runnerSelector", one(condition.clone()))), [path], "{condition}");
    }
}

#[test]
fn a_bad_script_is_reported_at_its_body() {
    for (body, why) in
        [("", "empty"), ("%%%", "not base64"), ("ZWNobw", "not base64"), ("/w==", "not UTF-8")]
    {
        let problems = parse_value(&script(body)).expect_err(body);
        assert_eq!(problems[0].path, "$.kind.subprocess.mode.script.body");
        assert!(problems[0].message.contains(why), "{problems:?}");
    }
}

#[test]
fn a_script_may_have_two_mebibytes_and_no_byte_more() {
    use base64::Engine;
    let encode = |len: usize| base64::engine::general_purpose::STANDARD.encode("x".repeat(len));
    let task = parse_value(&script(&encode(MAX_SCRIPT_BYTES))).expect("the largest script");
    let Work::Process(process) = task.work else { panic!("a process") };
    let ProcessMode::Script { body, .. } = process.mode else { panic!("a script") };
    assert_eq!(body.len(), MAX_SCRIPT_BYTES);
    for len in [MAX_SCRIPT_BYTES + 1, MAX_SCRIPT_BYTES + 3] {
        let problems = parse_value(&script(&encode(len))).expect_err("too large");
        assert!(problems[0].message.contains("2097152"), "{problems:?}");
    }
}

#[test]
fn a_scripts_length_is_checked_before_it_is_decoded() {
    let longest = MAX_SCRIPT_BYTES.div_ceil(3) * 4;
    for (len, why) in [(longest, "not base64"), (longest + 1, "2097152 bytes")] {
        let problems = parse_value(&script(&"%".repeat(len))).expect_err("junk");
        assert!(problems[0].message.contains(why), "{problems:?}");
    }
}

#[test]
fn size_is_checked_before_decoding() {
    let junk = vec![b'x'; MAX_SPEC_BYTES + 1];
    let problems = parse(&junk, None).expect_err("too large");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("4194305 bytes"), "{problems:?}");
}

#[test]
fn all_problems_come_in_one_answer_and_each_place_is_blamed_once() {
    let spec = json!({
        "id": "a.b", "slot": "", "timeut": 5, "timeout": "x",
        "kind": {"subprocess": {
            "mode": {"command": {"args": ["\u{0}"]}}, "cwd": "x",
            "env": [{"key": "A", "value": "1"}, 3, {"key": 7, "value": "\u{0}"}],
        }},
    });
    let mut found = paths(&spec);
    found.sort();
    let process = "$.kind.subprocess";
    let mut wanted =
        vec!["$.id".to_owned(), "$.slot".into(), "$.timeout".into(), "$.timeut".into()];
    for place in [
        "cwd",
        "env[1]",
        "env[2].key",
        "env[2].value",
        "mode.command.args[0]",
        "mode.command.command",
    ] {
        wanted.push(format!("{process}.{place}"));
    }
    wanted.sort();
    assert_eq!(found, wanted);
}

#[test]
fn a_typo_gets_a_suggestion_and_a_wrong_type_says_what_was_found() {
    let text = |spec: Value| parse_value(&spec).expect_err("a problem")[0].message.clone();
    let typo = text(with("max_retries", json!(1)));
    assert!(typo.contains("did you mean `maxRetries`?"), "{typo}");
    let found = text(with("timeout", json!("10m")));
    assert_eq!(found, "must be a whole number from 0; found the string \"10m\"");
}

#[test]
fn junk_makes_a_small_answer() {
    let many =
        json!({ "kind": echo(), "labels": vec![1; 10], "noRetryExitCodes": vec!["x"; 100_000] });
    let long =
        json!({ "kind": echo(), "x".repeat(1_000_000): 1, "slot": {"y".repeat(1_000_000): 1} });
    for spec in [many, long, json!(["x".repeat(1_000_000)])] {
        let problems = parse_value(&spec).expect_err("junk");
        let size = serde_json::to_vec(&problems).expect("problems are JSON").len();
        assert!(size < 20_000, "{size}");
    }
}

#[test]
fn embedded_is_refused_with_a_reason() {
    for kind in [json!("embedded"), json!({"embedded": null})] {
        let problems = parse_value(&json!({ "kind": kind })).expect_err("embedded");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].message.contains("submitting program"), "{problems:?}");
    }
}

#[test]
fn an_endless_duration_is_bounded() {
    let task = parse_value(&with("timeout", json!(u64::MAX))).expect("a valid spec");
    assert_eq!(task.timeout, Some(Duration::from_secs(100 * 365 * 86_400)));
}

#[test]
fn what_is_written_is_read_back() {
    let mut spec = TaskSpec::command("echo", ["hi".to_owned()]);
    spec.restart = crate::wire::Restart::Always { interval_ms: None };
    spec.backoff.factor = 1.5;
    assert_eq!(decode(&canonical(&spec)), Ok(spec));
}
