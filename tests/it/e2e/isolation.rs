//! What a host lacks for isolation is told: by the worker, in outcomes, and to those who ask for it.

use super::{Site, code, err};

/// A host without cgroups, whatever it has.
const NO_CGROUPS: &str = "[worker]\ncgroup = \"none\"\n[[runner]]\nname = \"plain\"\nisolation = \"none\"\n\
                          sandbox = { best_effort = [\"cgroup\"], cgroup = { leaf = true } }\n";

#[tokio::test]
async fn what_a_task_does_without_is_in_its_outcome_and_a_wish_for_it_is_refused() {
    let site = Site::new().await;
    let worker = site.worker("w", NO_CGROUPS).await;
    worker.logged("tasks do without a feature").await;

    let id = site.ok(&["submit", "--wait", "--quiet", "--", "true"]).await;
    let id = id.lines().next().expect("it prints the id");
    let why = "worker.cgroup is \"none\"";
    let status = site.status(id).await;
    assert_eq!(status["outcome"]["isolationMissing"], serde_json::json!({ "cgroup": why }));
    let text = site.ok(&["status", id]).await;
    assert!(text.contains(&format!("isolation without cgroup: {why}")), "{text}");

    for (wish, feature) in [
        (["--memory", "64MiB"], "cgroup.memory"),
        (["--pids", "10"], "cgroup.pids"),
        (["--cpu", "50%"], "cgroup.cpu"),
    ] {
        let output = site.cli(&[&["run"], &wish[..], &["--", "true"]].concat()).await;
        assert_eq!(code(&output), 65, "{wish:?}: {}", err(&output));
        let text = err(&output);
        assert!(text.contains("rejected") && text.contains(feature), "{wish:?}: {text}");
        assert!(text.contains(why), "{wish:?}: {text}");
    }
    // Limits of processes need nothing of the host.
    let spec = site.write("a.json", r#"{"command":["true"],"isolation":{"rlimits":{"core":0}}}"#);
    site.ok(&["submit", "--wait", &spec]).await;
}

#[tokio::test]
async fn workers_and_check_tell_what_a_host_has() {
    let site = Site::new().await;
    let _worker = site.worker("w", NO_CGROUPS).await;
    let workers = site.ok(&["workers"]).await;
    assert!(workers.contains("plain (none)"), "{workers}");
    assert!(workers.contains("without cgroup,cgroup.cpu"), "{workers}");
    let json: serde_json::Value =
        serde_json::from_str(&site.ok(&["workers", "--json"]).await).expect("JSON");
    assert_eq!(json["features"]["cgroup"], "no: worker.cgroup is \"none\"", "{json}");
    assert_eq!(json["runners"][0]["isolation"], "none", "{json}");

    let check = site.ok(&["check"]).await;
    let line = |start: &str| check.lines().any(|line| line.trim_start().starts_with(start));
    for feature in ["kernel ", "cgroup.memory ", "landlock ", "namespaces.pid ", "seccomp "] {
        assert!(line(feature), "{feature}: {check}");
    }
    let verdict = |preset: &str| {
        let found = check.lines().find_map(|line| line.trim_start().strip_prefix(preset));
        found.unwrap_or_else(|| panic!("{preset}: {check}")).trim().to_owned()
    };
    assert_eq!(verdict("none "), "ok");
    for preset in ["standard ", "strict "] {
        let verdict = verdict(preset);
        assert!(verdict.starts_with("ok") || verdict.starts_with("refused: "), "{verdict}");
    }
}
