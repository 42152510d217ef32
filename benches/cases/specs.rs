//! Decoding, checking and writing of task specs.

use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runlane::task;
use runlane::wire::TaskId;
use serde_json::json;

use super::{Case, Run};

pub(super) const CASES: &[Case] = &[
    Case { name: "spec/parse small", prepare: || parse(small()) },
    Case { name: "spec/parse typical", prepare: || parse(typical()) },
    Case { name: "spec/parse large", prepare: || parse(large()) },
    Case { name: "spec/refuse", prepare: refuse },
    Case { name: "spec/write typical", prepare: write },
];

fn parse(spec: Vec<u8>) -> Run {
    let id = id();
    Box::new(move || {
        let task = task::parse(black_box(&spec), Some(black_box(&id)));
        drop(black_box(task.expect("the spec is valid")));
    })
}

/// A spec with a problem of each kind, as far as they can stand in one.
fn refuse() -> Run {
    let spec = json!({
        "kind": {"subprocess": {"mode": {"command": {"command": ""}}, "env": [{"key": "1A", "value": "x"}]}},
        "timeOut": 5, "maxRetries": -1, "restart": {"type": "sometimes"}, "labels": {"": "x"},
    });
    let (spec, id) = (bytes(&spec), id());
    Box::new(move || {
        let task = task::parse(black_box(&spec), Some(black_box(&id)));
        drop(black_box(task.expect_err("the spec has problems")));
    })
}

fn write() -> Run {
    let spec = task::decode(&typical()).expect("the spec is valid");
    Box::new(move || drop(black_box(task::canonical(black_box(&spec)))))
}

fn small() -> Vec<u8> {
    br#"{"kind":{"subprocess":{"mode":{"command":{"command":"/bin/true"}}}}}"#.to_vec()
}

/// What `runlane submit` with some options sends.
fn typical() -> Vec<u8> {
    bytes(&json!({
        "id": id(),
        "kind": {"subprocess": {
            "mode": {"command": {"command": "/usr/bin/make", "args": ["-C", "/srv/build", "-j", "8", "all"]}},
            "env": [{"key": "CI", "value": "true"}, {"key": "REVISION", "value": "5ba8dd3c1f"}],
            "cwd": "/srv/build", "failOnNonZero": true,
        }},
        "timeout": 600_000, "graceMs": 10_000, "restart": {"type": "onFailure"}, "maxRetries": 3,
        "backoff": {"jitter": "full", "firstMs": 1000, "maxMs": 30_000, "factor": 2.0},
        "maxWorkerLosses": 3, "onWorkerLost": "rerun", "admission": "dropIfRunning",
        "notBefore": "2030-01-31T12:00:00Z",
        "runnerSelector": {
            "matchLabels": {"os": "linux"},
            "matchExpressions": [{"key": "gpu", "operator": "In", "values": ["a100", "h200"]}],
        },
        "labels": {"team": "ci", "repository": "example/service"},
        "isolation": {"preset": "standard", "memoryMaxBytes": 1_073_741_824_u64, "pidsMax": 100},
    }))
}

/// A script of 48 KiB with 100 arguments, 100 variables, 50 labels and 20 conditions.
fn large() -> Vec<u8> {
    let body = STANDARD.encode("echo \"a line of a script\"; sleep 1 # 1234567890\n".repeat(1024));
    let args: Vec<_> = (0..100).map(|n| format!("--option-{n}=value {n}")).collect();
    let env: Vec<_> = (0..100)
        .map(|n| json!({"key": format!("VARIABLE_{n}"), "value": format!("/some/path/to/thing {n}")}))
        .collect();
    let labels: serde_json::Map<_, _> =
        (0..50).map(|n| (format!("label-{n}"), format!("value-{n}").into())).collect();
    let conditions: Vec<_> = (0..20)
        .map(|n| json!({"key": format!("zone-{n}"), "operator": "In", "values": ["b", "a", "c"]}))
        .collect();
    bytes(&json!({
        "id": id(),
        "kind": {"subprocess": {
            "mode": {"script": {"runtime": "bash", "body": body, "args": args}}, "env": env,
        }},
        "runnerSelector": {"matchExpressions": conditions}, "labels": labels,
    }))
}

fn bytes(value: &serde_json::Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a value can be written")
}

fn id() -> TaskId {
    super::records::TASK.parse().expect("an id")
}
