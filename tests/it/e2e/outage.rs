//! The server is killed and comes back while tasks run and people watch.

use std::fs;

use async_nats::jetstream::stream::DiscardPolicy;

use super::{Site, code, ended, err, until_exists};

#[tokio::test]
async fn a_killed_server_costs_no_output_no_outcome_and_no_exit_code() {
    let mut site = Site::new().await;
    let worker = site.worker("w", "").await;
    let (up, go) = (site.path("up"), site.path("go"));
    let script = format!(
        "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.005; \
         [ $i = 100 ] && touch {}; done; \
         while ! [ -e {} ]; do sleep 0.05; done; echo end; exit 9",
        up.display(),
        go.display()
    );
    let early = site.spawn(&["run", "--id", "watched", "--", "sh", "-c", &script]);
    until_exists(&up).await;
    let late = site.spawn(&["logs", "-f", "watched"]);
    site.server.kill().await;
    // What the task writes meanwhile has nowhere to go.
    let meanwhile = tokio::time::Instant::now() + std::time::Duration::from_millis(1500);
    tokio::time::sleep_until(meanwhile).await;
    site.server.restart().await;
    fs::write(&go, "").expect("the file is written");
    let (early, late) = tokio::join!(ended(early), ended(late));
    let wanted: String =
        (0..400).map(|n| format!("line {n}\n")).chain(["end\n".to_owned()]).collect();
    assert_eq!(code(&early), 9, "{}\n{}", err(&early), worker.log());
    assert_eq!(String::from_utf8_lossy(&early.stdout), wanted, "{}", err(&early));
    // It may have met the dead server before it had a connection.
    if code(&late) != 69 {
        assert_eq!(
            (code(&late), String::from_utf8_lossy(&late.stdout)),
            (0, wanted.clone().into())
        );
    }
    assert_eq!(site.ok(&["logs", "watched"]).await, wanted);
    // Records of presence expire during a long outage, and come back with the worker.
    let listed = async {
        let lists_it = |output| super::out(&output).contains("\"worker\":\"w\"");
        while !lists_it(site.cli(&["workers", "--json"]).await) {}
    };
    tokio::time::timeout(super::DEADLINE, listed).await.expect("the worker is listed again");
    assert_eq!(site.chain("watched").await, ["started", "finished"], "{}", worker.log());
}

#[tokio::test]
async fn the_log_has_a_short_tasks_start_though_its_end_can_not_be_stored() {
    let site = Site::new().await;
    let worker = site.worker("w", "[[runner]]\nname = \"plain\"\nisolation = \"none\"\n").await;
    let server = site.server.pid();
    // It ends before the server could answer.
    let stop = format!("kill -STOP {server}");
    let id = site.ok(&["submit", "--", "sh", "-c", &stop]).await;
    worker.logged("task started").await;
    assert!(!worker.log().contains("task finished"), "{}", worker.log());
    let server = nix::unistd::Pid::from_raw(server.try_into().expect("a process id"));
    nix::sys::signal::kill(server, nix::sys::signal::SIGCONT).expect("the server is there");
    assert_eq!(site.wait(id.trim()).await, 0, "{}", worker.log());
    let log = worker.log();
    assert_eq!(log.matches("task started").count(), 1, "{log}");
}

#[tokio::test]
async fn output_that_the_server_has_no_room_for_waits_and_the_log_says_so() {
    let site = Site::new().await;
    let worker = site.worker("w", "").await;
    let jetstream = site.server.jetstream().await;
    let room_for = async |bytes: i64| {
        let output = jetstream.get_stream("RUNLANE_OUTPUT").await.expect("the stream is there");
        let mut config = output.cached_info().config.clone();
        (config.max_bytes, config.discard) = (bytes, DiscardPolicy::New);
        jetstream.update_stream(config).await.expect("it may be changed");
    };
    room_for(1_000_000).await;
    let run = site.spawn(&["run", "--", "sh", "-c", "seq 1 500000; exit 7"]);
    worker.logged("output can't be stored").await;
    assert!(worker.log().contains("maximum bytes exceeded"), "{}", worker.log());
    // A cancel doesn't wait for room.
    let stuck = site.ok(&["submit", "--", "sh", "-c", "seq 1 100000; exit 8"]).await;
    let canceled = site.cli(&["cancel", "--wait", "30s", stuck.trim()]).await;
    assert_eq!(code(&canceled), 0, "{}", err(&canceled));
    let status = site.status(stuck.trim()).await;
    let outcome = &status["outcome"];
    assert_eq!(outcome["output"]["stdout"]["complete"], false, "{status}");
    room_for(-1).await;
    let run = ended(run).await;
    let wanted: String = (1..=500_000).map(|n| format!("{n}\n")).collect();
    assert!(code(&run) == 7 && run.stdout == wanted.as_bytes(), "{}", err(&run));
}
