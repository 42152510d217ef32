//! Many tasks at once.

use std::collections::HashSet;

use serde_json::Value;

use super::{Site, code, err, out};

#[tokio::test]
async fn five_hundred_specs_are_queued_named_and_run_once_each_by_two_workers() {
    const TASKS: usize = 500;
    let site = Site::new().await;
    let ran = site.path("ran");
    let spec = |n| {
        let script = format!("echo {n} >> {}", ran.display());
        serde_json::json!({"id": format!("t{n}"), "command": ["sh", "-c", script]}).to_string()
    };
    let specs: Vec<String> = (0..TASKS).map(spec).collect();
    let file = site.write("specs.ndjson", specs.join("\n"));
    let _workers = (site.worker("w1", "").await, site.worker("w2", "").await);
    let output = site.cli(&["submit", "--wait", &file]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    let ids: Vec<String> = out(&output).lines().map(str::to_owned).collect();
    let wanted: Vec<String> = (0..TASKS).map(|n| format!("t{n}")).collect();
    assert_eq!(ids, wanted, "ids in the order of the specs");
    let ran = std::fs::read_to_string(&ran).expect("tasks ran");
    let each: HashSet<&str> = ran.lines().collect();
    assert_eq!((ran.lines().count(), each.len()), (TASKS, TASKS), "each ran once");
    let listed = site.ok(&["ls", "--json", "--limit", "1000"]).await;
    let listed: Vec<Value> =
        listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(listed.len(), TASKS);
    assert!(listed.iter().all(|task| task["phase"] == "succeeded"));
    let workers: HashSet<&str> =
        listed.iter().map(|task| task["worker"].as_str().unwrap_or_default()).collect();
    assert_eq!(workers.len(), 2, "{workers:?}");
    // Again: all are known, nothing runs twice.
    let output = site.cli(&["submit", &file]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(err(&output).contains("500 of 500 tasks were known already"), "{}", err(&output));
}
