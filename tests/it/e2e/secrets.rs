//! The worker's way to NATS is its own: no task, log or record shows it.

use super::{Site, code, err, out};

const PASSWORD: &str = "pa55-of-the-worker";

#[tokio::test]
async fn the_workers_password_is_in_no_tasks_reach_no_log_and_no_record() {
    let auth = format!("authorization {{ user: me, password: \"{PASSWORD}\" }}");
    let site = Site::with_server_config(&auth).await;
    let url = site.server.url().replace("nats://", &format!("nats://me:{PASSWORD}@"));
    let config = "[log]\nfilter = \"trace\"\n[[runner]]\nname = \"open\"\ninherit_env = \"all\"\n";
    let worker = site.worker_with("w", config, |command| {
        command.env("NATS_URL", &url).env("NATS_PASSWORD", PASSWORD).env("HARMLESS", "handed on");
    });
    let worker = worker.await;
    // Its own environment, its supervisor's, and the command lines of both.
    let script = "env; for of in $$ $PPID; do tr '\\0' '\\n' < /proc/$of/environ;
        tr '\\0' '\\n' < /proc/$of/cmdline; done";
    let client = ["--server", &url];
    let output = site.cli(&[&client[..], &["run", "--", "sh", "-c", script]].concat()).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("HARMLESS=handed on"), "{}", out(&output));
    let records = site.cli(&[&client[..], &["workers", "--json"]].concat()).await;
    assert!(out(&records).contains("\"worker\":\"w\""), "{}", out(&records));
    for (what, text) in [
        ("the task", out(&output) + &err(&output)),
        ("the presence record", out(&records)),
        ("the log", worker.log()),
    ] {
        assert!(!text.contains(PASSWORD), "the password is in {what}");
        assert!(!text.contains("NATS_URL"), "the variable is in {what}");
    }
    assert!(worker.log().contains("DEBUG"), "the log was meant to say much");
}

#[tokio::test]
async fn the_path_of_the_credentials_is_not_handed_on() {
    let site = Site::new().await;
    let creds = site.write("worker.creds", CREDS);
    let worker = site.worker_with("w", "[log]\nfilter = \"debug\"\n", |command| {
        // With a preset the task couldn't even look.
        command.env("RUNLANE_CREDS", &creds).env("RUNLANE_ISOLATION", "none");
    });
    let worker = worker.await;
    let output =
        site.cli(&["run", "--", "sh", "-c", "env; tr '\\0' '\\n' < /proc/$PPID/environ"]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(!out(&output).contains("worker.creds"), "{}", out(&output));
    assert!(!site.ok(&["workers", "--json"]).await.contains("worker.creds"));
    assert!(!worker.log().contains("SUAMYSVYJQBHBB7U"), "the seed is in the log");
}

/// A user that no server knows; this one lets everybody in.
const CREDS: &str = "-----BEGIN NATS USER JWT-----
eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.e30.c2lnbmF0dXJl
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
SUAMYSVYJQBHBB7UAZJVGEMLA5QB5AENXNNWV6P5HK75TR3LHK3YOVQPHU
------END USER NKEY SEED------
";
