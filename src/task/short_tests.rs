//! Tables of short forms.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::wire::TaskKind;

fn expanded(value: Value) -> Value {
    let text = value.to_string();
    expand(value).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

fn paths(value: &Value) -> Vec<String> {
    let problems = parse_submission(value.to_string().as_bytes()).err().unwrap_or_default();
    problems.into_iter().map(|problem| problem.path).collect()
}

#[test]
fn a_command_is_expanded() {
    let spec = json!({
        "command": ["echo", "hi"], "env": {"A": "1"}, "cwd": "/srv", "failOnNonZero": false,
        "slot": "s",
    });
    let process = json!({
        "mode": {"command": {"command": "echo", "args": ["hi"]}},
        "env": [{"key": "A", "value": "1"}], "cwd": "/srv", "failOnNonZero": false,
    });
    assert_eq!(expanded(spec), json!({"kind": {"subprocess": process}, "slot": "s"}));
}

#[test]
fn a_script_is_plain_text() {
    let spec = json!({"script": "echo hi", "runtime": "bash", "args": ["a"]});
    let mode = json!({"script": {"runtime": "bash", "body": "ZWNobyBoaQ==", "args": ["a"]}});
    assert_eq!(expanded(spec), json!({"kind": {"subprocess": {"mode": mode}}}));
}

#[test]
fn durations_and_selectors_are_read_as_people_write_them() {
    let spec = json!({
        "command": ["x"], "timeout": "10m", "grace": "500ms", "selector": "os=linux,!spot",
        "restart": {"type": "always", "interval": "1h30m"}, "backoff": {"first": "2s", "maxMs": "1m"},
    });
    let spec = parse_submission(spec.to_string().as_bytes()).expect("a valid submission");
    assert_eq!((spec.timeout, spec.grace_ms), (Some(600_000), Some(500)));
    assert_eq!((spec.backoff.first_ms, spec.backoff.max_ms), (2_000, 60_000));
    assert_eq!(spec.restart, crate::wire::Restart::Always { interval_ms: Some(5_400_000) });
    let selector = spec.runner_selector.expect("it has one");
    assert_eq!(selector.to_string(), "os=linux,!spot");
    assert_eq!(
        expanded(json!({"kind": {}, "restart": "onFailure"}))["restart"]["type"],
        "onFailure"
    );
}

#[test]
fn a_canonical_spec_is_not_changed() {
    for spec in [
        json!({"kind": {"subprocess": {"mode": {"command": {"command": "x"}}, "env": []}}, "timeout": 5}),
        json!({"kind": {"container": {"image": "x"}}, "runnerSelector": {"matchLabels": {"a": "b"}}}),
        serde_json::to_value(TaskSpec::command("x", [])).expect("a spec is JSON"),
    ] {
        assert_eq!(expanded(spec.clone()), spec);
    }
}

#[test]
fn problems_are_at_the_place_where_they_were_written() {
    for (spec, path) in [
        (json!({"command": "echo hi"}), "$.command"),
        (json!({"command": []}), "$.command"),
        (json!({"command": [""]}), "$.command[0]"),
        (json!({"command": ["x", "a", 3]}), "$.command[2]"),
        (json!({"command": ["x", "\u{0}"]}), "$.command[1]"),
        (json!({"command": ["x"], "args": ["y"]}), "$.args"),
        (json!({"command": ["x"], "runtime": "bash"}), "$.runtime"),
        (json!({"command": ["x"], "script": "x"}), "$.script"),
        (json!({"script": "", "runtime": "bash"}), "$.script"),
        (json!({"script": 1, "runtime": "bash"}), "$.script"),
        (json!({"script": "x".repeat(MAX_SCRIPT_BYTES + 1), "runtime": "bash"}), "$.script"),
        (json!({"script": "echo"}), "$.runtime"),
        (json!({"script": "echo", "runtime": "ruby"}), "$.runtime"),
        (json!({"command": ["x"], "env": {"A": 1}}), "$.env.A"),
        (json!({"command": ["x"], "env": {"1": "a"}}), "$.env.1"),
        (json!({"command": ["x"], "cwd": "srv"}), "$.cwd"),
        (json!({"command": ["x"], "timeout": "soon"}), "$.timeout"),
        (json!({"command": ["x"], "timeout": "0s"}), "$.timeout"),
        (json!({"command": ["x"], "grace": "soon"}), "$.grace"),
        (json!({"command": ["x"], "grace": "1s", "graceMs": 1}), "$.grace"),
        (json!({"command": ["x"], "selector": "a b"}), "$.selector"),
        (json!({"command": ["x"], "backoff": {"first": "0s"}}), "$.backoff.first"),
        (json!({"command": ["x"], "backoff": {"max": "x"}}), "$.backoff.max"),
        (json!({"command": ["x"], "tiemout": 1}), "$.tiemout"),
        (json!({"slot": "x"}), "$.kind"),
        (json!([]), "$"),
    ] {
        assert_eq!(
            paths(&spec),
            [path],
            "{}",
            &spec.to_string()[..spec.to_string().len().min(200)]
        );
    }
}

#[test]
fn short_fields_beside_a_kind_are_refused() {
    let kind = json!({"subprocess": {"mode": {"command": {"command": "x"}}}});
    let mixed = json!({"kind": kind, "command": ["y"], "env": {"A": "1"}});
    assert_eq!(paths(&mixed), ["$.command", "$.env"]);
}

#[test]
fn a_line_instead_of_an_array_gets_both_remedies() {
    let problems = expand(json!({"command": "echo hi"})).expect_err("a string");
    let message = &problems[0].message;
    assert!(message.contains(r#"["echo","hi"]"#), "{message}");
    assert!(message.contains(r#"["sh","-c","echo hi"]"#), "{message}");
}

#[test]
fn a_misspelt_command_is_found() {
    let problems = parse_submission(br#"{"comand":["x"]}"#).expect_err("a typo");
    assert!(problems.iter().any(|p| p.message.contains("did you mean `command`")), "{problems:?}");
}

#[test]
fn a_submission_needs_no_id_and_keeps_one() {
    let spec = parse_submission(br#"{"command":["x"]}"#).expect("a valid submission");
    assert_eq!(spec.id, None);
    assert!(matches!(spec.kind, TaskKind::Subprocess(_)));
    let spec = parse_submission(br#"{"command":["x"],"id":"a"}"#).expect("a valid submission");
    assert_eq!(spec.id.map(String::from).as_deref(), Some("a"));
}

/// A tree whose names are often those of a spec.
fn any_value() -> impl Strategy<Value = Value> {
    let words = || {
        let mut words = FIELDS.to_vec();
        words.extend(PROCESS);
        words.extend([
            "subprocess",
            "container",
            "mode",
            "type",
            "always",
            "In",
            "key",
            "operator",
            "values",
            "custom",
            "firstMs",
            "max",
            "5s",
            "a=b",
            "selector",
            "matchExpressions",
        ]);
        prop::sample::select(words).prop_map(str::to_owned)
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0.0..9.0).prop_map(|number: f64| Value::from(number)),
        words().prop_map(Value::from),
        "\\PC{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(words(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_document_is_answered(value in any_value()) {
        let bytes = value.to_string().into_bytes();
        for problems in [
            parse_submission(&bytes).err(),
            super::super::parse(&bytes, None).err(),
        ].into_iter().flatten() {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|problem| problem.path.starts_with('$')));
        }
    }

    #[test]
    fn what_a_submission_becomes_is_accepted_from_the_queue(
        command in prop::collection::vec("[a-z]{1,3}", 1..4),
        timeout in prop::option::of(1..100_u64),
        env in prop::collection::btree_map("[A-Q_][A-Z0-9_]{0,3}", "[^\\x00]{0,4}", 0..3),
    ) {
        let mut spec = json!({"command": command, "env": env});
        if let Some(timeout) = timeout {
            spec["timeout"] = format!("{timeout}m").into();
        }
        let spec = parse_submission(spec.to_string().as_bytes());
        let spec = spec.map_err(|problems| TestCaseError::fail(format!("{problems:?}")))?;
        let id = "t".parse().expect("an id");
        let bytes = super::super::canonical(&spec);
        let task = super::super::parse(&bytes, Some(&id));
        prop_assert!(task.is_ok(), "{:?}", task);
        prop_assert_eq!(task.expect("it is ok").timeout.map(|limit| limit.as_secs()),
            timeout.map(|minutes| minutes * 60));
    }
}

#[test]
fn isolation_is_written_as_people_do() {
    let expanded =
        |wishes: Value| expanded(json!({"kind": {}, "isolation": wishes}))["isolation"].clone();
    assert_eq!(expanded(json!("strict")), json!({"preset": "strict"}));
    let short = json!({
        "memory": "1GiB", "pids": 100, "cpu": "50%", "rlimits": {"fsize": "1KiB", "cpu": "1h", "core": 0},
    });
    let long = json!({
        "memoryMaxBytes": 1 << 30, "pidsMax": 100, "cpuMaxPercent": 50,
        "rlimits": {"fsize": 1024, "cpu": 3600, "core": 0},
    });
    assert_eq!(expanded(short), long);
    assert_eq!(expanded(long.clone()), long);
}

#[test]
fn problems_of_short_isolation_stand_where_it_was_written() {
    for (wishes, places) in [
        (json!("strikt"), vec!["$.isolation"]),
        (
            json!({"memory": "1GB", "cpu": "much", "pids": 0}),
            vec!["$.isolation.memory", "$.isolation.cpu", "$.isolation.pids"],
        ),
        (json!({"memory": "1KiB"}), vec!["$.isolation.memory"]),
        (json!({"memoryMaxBytes": "1KiB"}), vec!["$.isolation.memoryMaxBytes"]),
        (json!({"memory": 1, "memoryMaxBytes": 2_000_000}), vec!["$.isolation.memory"]),
        (
            json!({"rlimits": {"cpu": "long", "nofile": "1KiB"}}),
            vec!["$.isolation.rlimits.cpu", "$.isolation.rlimits.nofile"],
        ),
        (json!(7), vec!["$.isolation"]),
    ] {
        assert_eq!(paths(&json!({"command": ["x"], "isolation": wishes})), places, "{wishes}");
    }
}
