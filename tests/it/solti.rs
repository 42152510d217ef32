//! A spec that the crate `solti-model` 0.0.2 serialises is accepted unchanged.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use runlane::task::{self, parse_submission};
use runlane::wire::{
    Admission, Jitter, Operator, Restart, Runtime, SubprocessMode, SubprocessSpec, TaskId,
    TaskKind, TaskSpec,
};
use solti_model as solti;

fn command() -> solti::TaskKind {
    process(solti::SubprocessMode::Command {
        command: "echo".into(),
        args: vec!["a b".into(), String::new()],
    })
}

fn process(mode: solti::SubprocessMode) -> solti::TaskKind {
    let mut env = solti::TaskEnv::new();
    env.push("A", "1");
    env.push("B", "x=y");
    let (cwd, fail_on_non_zero) = (Some("/srv".into()), solti::Flag::disabled());
    solti::TaskKind::Subprocess(solti::SubprocessSpec { mode, env, cwd, fail_on_non_zero })
}

fn builder(kind: solti::TaskKind) -> solti::TaskSpecBuilder {
    solti::TaskSpec::builder("build", kind, 5_000_u64)
}

/// Decodes on both ways in: from the queue, and as a submission.
fn accepted(builder: solti::TaskSpecBuilder) -> TaskSpec {
    let spec = builder.build().expect("solti accepts its own spec");
    let json = serde_json::to_vec(&spec).expect("solti serialises its own spec");
    let id: TaskId = "t".parse().expect("an id");
    let text = String::from_utf8_lossy(&json);
    task::parse(&json, Some(&id)).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    let decoded = task::decode(&json).expect("what is parsed was decoded");
    assert_eq!(parse_submission(&json), Ok(decoded.clone()), "{text}");
    // Not only accepted: nothing that solti said is lost.
    let ours = serde_json::to_value(&decoded).expect("a spec is JSON");
    for (name, value) in serde_json::to_value(&spec).expect("JSON").as_object().expect("an object")
    {
        assert_eq!(&ours[name], value, "{name}");
    }
    decoded
}

fn subprocess(spec: TaskSpec) -> SubprocessSpec {
    let TaskKind::Subprocess(spec) = spec.kind else { panic!("a subprocess") };
    spec
}

#[test]
fn a_command_keeps_every_field() {
    let mut labels = solti::Labels::new();
    labels.insert("team", "ci");
    let spec = accepted(builder(command()).labels(labels));
    assert_eq!((spec.slot.as_deref(), spec.timeout), (Some("build"), Some(5_000)));
    assert_eq!(spec.labels["team"], "ci");
    let process = subprocess(spec);
    let SubprocessMode::Command(mode) = process.mode else { panic!("a command") };
    assert_eq!((mode.command.as_str(), mode.args), ("echo", vec!["a b".to_owned(), String::new()]));
    let env: Vec<_> =
        process.env.iter().map(|var| (var.key.as_str(), var.value.as_str())).collect();
    assert_eq!(env, [("A", "1"), ("B", "x=y")]);
    assert_eq!((process.cwd.as_deref(), process.fail_on_non_zero), (Some("/srv"), false));
}

#[test]
fn every_runtime_is_accepted() {
    let custom = Runtime::Custom { command: "perl".into(), flag: "-e".into() };
    for (theirs, ours) in [
        (solti::Runtime::Bash, Runtime::Bash),
        (solti::Runtime::Python, Runtime::Python),
        (solti::Runtime::Node, Runtime::Node),
        (solti::Runtime::Custom { command: "perl".into(), flag: "-e".into() }, custom),
    ] {
        let body = STANDARD.encode("print('é')\n");
        let (runtime, args) = (theirs, vec!["x".to_owned()]);
        let mode =
            solti::SubprocessMode::Script { runtime, body: body.clone(), args: args.clone() };
        let SubprocessMode::Script(script) = subprocess(accepted(builder(process(mode)))).mode
        else {
            panic!("a script")
        };
        assert_eq!((script.runtime, script.body, script.args), (ours, body, args));
    }
}

#[test]
fn every_policy_is_accepted() {
    for (theirs, ours) in [
        (solti::RestartPolicy::Never, Restart::Never),
        (solti::RestartPolicy::OnFailure, Restart::OnFailure),
        (solti::RestartPolicy::always(), Restart::Always { interval_ms: None }),
        (
            solti::RestartPolicy::Always { interval_ms: Some(60_000) },
            Restart::Always { interval_ms: Some(60_000) },
        ),
    ] {
        assert_eq!(accepted(builder(command()).restart(theirs)).restart, ours);
    }
    for (theirs, ours) in [
        (solti::JitterPolicy::Full, Jitter::Full),
        (solti::JitterPolicy::None, Jitter::None),
        (solti::JitterPolicy::Equal, Jitter::Equal),
        (solti::JitterPolicy::Decorrelated, Jitter::Decorrelated),
    ] {
        let backoff = solti::BackoffPolicy { jitter: theirs, first_ms: 7, max_ms: 8, factor: 1.5 };
        let backoff = accepted(builder(command()).backoff(backoff)).backoff;
        assert_eq!((backoff.jitter, backoff.first_ms, backoff.max_ms), (ours, 7, 8));
        assert_eq!(backoff.factor.to_bits(), 1.5_f64.to_bits());
    }
    for (theirs, ours) in [
        (solti::AdmissionPolicy::DropIfRunning, Admission::DropIfRunning),
        (solti::AdmissionPolicy::Replace, Admission::Replace),
        (solti::AdmissionPolicy::Queue, Admission::Queue),
    ] {
        assert_eq!(accepted(builder(command()).admission(theirs)).admission, ours);
    }
}

#[test]
fn a_selector_with_every_operator_is_accepted_and_matches_the_same() {
    let mut labels = solti::Labels::new();
    labels.insert("os", "linux");
    let mut theirs = solti::RunnerSelector::from_labels(labels);
    theirs.match_expressions = vec![
        solti::SelectorRequirement::r#in("gpu", vec!["a".into(), "b".into()]),
        solti::SelectorRequirement::not_in("zone", vec!["eu".into()]),
        solti::SelectorRequirement::exists("disk"),
        solti::SelectorRequirement::does_not_exist("spot"),
    ];
    let spec = accepted(builder(command()).runner_selector(theirs.clone()));
    let ours = spec.runner_selector.expect("it has a selector");
    let operators: Vec<_> = ours.match_expressions.iter().map(|one| one.operator).collect();
    let all = [Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist];
    assert_eq!(operators, all);
    for text in [
        "os=linux,gpu=a,disk=1",
        "os=linux,gpu=c,disk=1",
        "os=mac,gpu=a,disk=1",
        "os=linux,gpu=b",
        "os=linux,gpu=b,disk=1,zone=eu",
        "os=linux,gpu=b,disk=1,zone=us",
        "os=linux,gpu=a,disk=,spot=",
    ] {
        let runner: runlane::wire::Selector = text.parse().expect("labels written as a selector");
        let mut same = solti::Labels::new();
        for (key, value) in &runner.match_labels {
            same.insert(key.clone(), value.clone());
        }
        assert_eq!(ours.matches(&runner.match_labels), theirs.matches(&same), "{text}");
    }
}

#[test]
fn containers_and_wasm_modules_are_accepted() {
    let container = solti::ContainerSpec {
        image: "nginx:latest".into(),
        command: Some(vec!["sh".into()]),
        args: vec!["-c".into()],
        env: solti::TaskEnv::single("A", "1"),
    };
    let TaskKind::Container(ours) = accepted(builder(solti::TaskKind::Container(container))).kind
    else {
        panic!("a container")
    };
    assert_eq!((ours.image.as_str(), ours.env[0].key.as_str()), ("nginx:latest", "A"));
    assert_eq!((ours.command, ours.args), (Some(vec!["sh".into()]), vec!["-c".into()]));
    // solti writes an absent entry point as absent or null; both are the image's own.
    let plain = solti::ContainerSpec {
        image: "x".into(),
        command: None,
        args: vec![],
        env: solti::TaskEnv::new(),
    };
    accepted(builder(solti::TaskKind::Container(plain)));
    let wasm = solti::WasmSpec {
        module: "/m.wasm".into(),
        args: vec!["a".into()],
        env: solti::TaskEnv::new(),
    };
    let TaskKind::Wasm(ours) = accepted(builder(solti::TaskKind::Wasm(wasm))).kind else {
        panic!("a module")
    };
    assert_eq!((ours.module.as_str(), ours.args), ("/m.wasm", vec!["a".to_owned()]));
}

#[test]
fn embedded_is_refused_with_a_reason() {
    let spec = builder(solti::TaskKind::Embedded).build().expect("solti can build it");
    let json = serde_json::to_vec(&spec).expect("solti serialises its own spec");
    let problems = task::decode(&json).expect_err("it is not code that a worker has");
    assert_eq!((problems.len(), problems[0].path.as_str()), (1, "$.kind"));
    assert!(problems[0].message.contains("embedded"), "{problems:?}");
}
