//! Tables of launch plans.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::task::{Host, IsolationPolicy, parse};
use crate::wire::Compression;

fn task(spec: &Value) -> Task {
    let id = "t".parse().expect("an id");
    parse(spec.to_string().as_bytes(), Some(&id)).expect("a valid spec")
}

fn command(more: &Value) -> Value {
    let mut spec = json!({"kind": {"subprocess": {"mode": {"command": {"command": "x"}}}}});
    for (name, value) in more.as_object().expect("fields").clone() {
        spec[name] = value;
    }
    spec
}

fn runner() -> RunnerPolicy {
    RunnerPolicy {
        inherited: BTreeMap::new(),
        env: BTreeMap::new(),
        cwd: None,
        max_timeout: None,
        grace: Duration::from_secs(5),
        stop_signal: 15,
        max_output_bytes: 100,
        output_compression: Compression::None,
        interpreters: Interpreters { python: "/opt/py".to_owned(), ..Interpreters::default() },
        isolation: RunnerIsolation::default(),
    }
}

fn identity() -> RunIdentity {
    RunIdentity {
        task: "t".parse().expect("an id"),
        attempt: Attempt(2),
        run_id: "r-none-7".to_owned(),
        lane: LaneId::default_lane(),
        worker: "w".parse().expect("an id"),
    }
}

fn made(spec: &Value, runner: &RunnerPolicy) -> LaunchPlan {
    plan(&task(spec), runner, &identity()).expect("a process")
}

fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn without_wishes_a_task_gets_the_runners_settings() {
    let plan = made(&command(&json!({})), &runner());
    assert_eq!(plan.cwd, None);
    assert_eq!((plan.timeout, plan.grace), (None, Duration::from_secs(5)));
    assert_eq!((plan.stop_signal, plan.output.max_bytes), (15, 100));
    let env = vars(&[
        ("PATH", DEFAULT_PATH),
        ("RUNLANE_ATTEMPT", "2"),
        ("RUNLANE_LANE", "default"),
        ("RUNLANE_RUN_ID", "r-none-7"),
        ("RUNLANE_TASK_ID", "t"),
        ("RUNLANE_WORKER", "w"),
    ]);
    assert_eq!(plan.env, env.into_iter().collect::<Vec<_>>());
}

#[test]
fn of_two_limits_the_smaller_one_counts() {
    for (task, max, wanted) in [
        (None, None, None),
        (Some(5), None, Some(5)),
        (None, Some(9), Some(9)),
        (Some(5), Some(9), Some(5)),
        (Some(9), Some(5), Some(5)),
    ] {
        let spec = task.map_or(json!({}), |millis: u64| json!({ "timeout": millis }));
        let runner = RunnerPolicy { max_timeout: max.map(Duration::from_millis), ..runner() };
        let timeout = made(&command(&spec), &runner).timeout;
        assert_eq!(timeout, wanted.map(Duration::from_millis), "{task:?} {max:?}");
    }
    for (task, wanted) in [(50, 50), (500, 100)] {
        let spec = command(&json!({"output": {"maxBytes": task}}));
        assert_eq!(made(&spec, &runner()).output.max_bytes, wanted);
    }
}

#[test]
fn the_tasks_compression_beats_the_runners() {
    let compressions = [Compression::None, Compression::Lz4];
    for runners in compressions {
        let runner = RunnerPolicy { output_compression: runners, ..runner() };
        assert_eq!(made(&command(&json!({})), &runner).compression, runners);
        for tasks in compressions {
            let spec = command(&json!({"output": {"compression": tasks.to_string()}}));
            assert_eq!(made(&spec, &runner).compression, tasks);
        }
    }
}

#[test]
fn the_runners_value_beats_the_tasks_which_beats_an_inherited_one() {
    let mut spec = command(&json!({ "graceMs": 0 }));
    spec["kind"]["subprocess"]["cwd"] = "/task".into();
    spec["kind"]["subprocess"]["env"] = json!([
        {"key": "A", "value": "old"}, {"key": "A", "value": "task"}, {"key": "B", "value": "task"},
        {"key": "PATH", "value": "/task"},
    ]);
    let runner = RunnerPolicy {
        inherited: vars(&[("A", "worker"), ("B", "worker"), ("C", "worker"), ("PATH", "/w")]),
        env: vars(&[("B", "runner"), ("RUNLANE_LANE", "forged")]),
        cwd: Some("/runner".into()),
        ..runner()
    };
    let plan = made(&spec, &runner);
    let env: BTreeMap<_, _> = plan.env.into_iter().collect();
    for (name, value) in [
        ("A", "task"),
        ("B", "runner"),
        ("C", "worker"),
        ("PATH", "/task"),
        ("RUNLANE_LANE", "default"),
    ] {
        assert_eq!(env[name], value, "{name}");
    }
    assert_eq!((plan.cwd, plan.grace), (Some(PathBuf::from("/task")), Duration::ZERO));
    assert_eq!(made(&command(&json!({})), &runner).cwd, Some(PathBuf::from("/runner")));
}

#[test]
fn each_runtime_has_its_interpreter() {
    let script = |runtime: Value| {
        let mode = json!({"script": {"runtime": runtime, "body": "aGk=", "args": ["a"]}});
        made(&json!({"kind": {"subprocess": {"mode": mode}}}), &runner()).program
    };
    for (runtime, interpreter) in [("bash", "bash"), ("python", "/opt/py"), ("node", "node")] {
        let file = Program::ScriptFile {
            interpreter: vec![interpreter.to_owned()],
            body: "hi".to_owned(),
            args: vec!["a".to_owned()],
        };
        assert_eq!(script(json!(runtime)), file);
    }
    let argument = Program::ScriptArgument {
        command: "perl".to_owned(),
        flag: "-e".to_owned(),
        body: "hi".to_owned(),
        args: vec!["a".to_owned()],
    };
    assert_eq!(script(json!({"custom": {"command": "perl", "flag": "-e"}})), argument);
}

#[test]
fn wishes_are_in_the_sandbox_or_refused_by_the_features_name() {
    let host = Host { cgroup: Some("/c".into()), ..Host::default() };
    let wish = command(&json!({"isolation": {"memoryMaxBytes": 1 << 20, "network": "none"}}));
    let on = |host: Host| RunnerPolicy {
        isolation: RunnerIsolation::new(IsolationPolicy::default(), Arc::new(host))
            .expect("the runner needs nothing"),
        ..runner()
    };
    let sandbox = made(&wish, &on(host.clone())).sandbox;
    assert_eq!(sandbox.cgroup.memory_max, Some(1 << 20));
    assert_eq!(sandbox.enclosure.cgroup, Some("/c".into()));
    assert!(sandbox.enclosure.namespaces.network);
    assert_eq!(made(&command(&json!({})), &on(host.clone())).sandbox, Sandbox::default());

    let missing = [(Feature::CgroupMemory, "cgroup v1".to_owned())].into();
    let runner = on(Host { missing, ..host });
    let error = plan(&task(&wish), &runner, &identity()).expect_err("no memory controller");
    assert_eq!(error.step(), "cgroup.memory");
    assert_eq!(
        error.to_string(),
        "isolation: cgroup.memory is required and this host lacks it: cgroup v1"
    );
}

#[test]
fn what_the_sandbox_lacks_is_in_the_plan() {
    let policy = IsolationPolicy::preset(crate::wire::Preset::Standard, None);
    let missing = [(Feature::Landlock, "Linux 5.10".to_owned())].into();
    let host = Host { missing, cgroup: Some("/c".into()), needs_user_namespace: false };
    let isolation = RunnerIsolation::new(policy, Arc::new(host)).expect("best effort");
    let plan = made(&command(&json!({})), &RunnerPolicy { isolation, ..runner() });
    assert_eq!(plan.sandbox.landlock, None);
    assert_eq!(plan.missing[&Feature::Landlock], "Linux 5.10");
}

#[test]
fn only_a_process_has_a_launch_plan() {
    let container = task(&json!({"kind": {"container": {"image": "x"}}}));
    let error = plan(&container, &runner(), &identity()).expect_err("no process");
    assert_eq!(error.to_string(), "a container task can't be launched as a process");
}
