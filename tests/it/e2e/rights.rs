//! Users of the server that may do what `deploy/nats/users.conf` lets them, or less.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::process::Command;

use super::{Site, WorkerProcess, code, ended, err, out};
use crate::support::proc::Mark;

const USERS: &str = include_str!("../../../deploy/nats/users.conf");

/// Every denied request cost five seconds once.
const AT_ONCE: Duration = Duration::from_secs(3);

impl Site {
    /// A server with these users; each one's password is its name.
    async fn with_users(users: &str) -> Self {
        let mut users = users.to_owned();
        for user in ["admin", "worker", "submitter", "viewer"] {
            let variable = format!("$RUNLANE_{}_PASSWORD", user.to_uppercase());
            users = users.replace(&variable, user);
        }
        let site = Self::with_server_config(&users).await;
        std::fs::create_dir_all(site.path("nats/context")).expect("a directory");
        for user in ["admin", "submitter", "viewer"] {
            let (url, inbox) = (site.server.url(), format!("_INBOX_{user}"));
            let context = serde_json::json!({
                "url": url, "user": user, "password": user, "inbox_prefix": inbox,
            });
            site.write(&format!("nats/context/{user}.json"), context.to_string());
        }
        let made = site.by("admin", &["init"]).await;
        assert_eq!(code(&made), 0, "{}", err(&made));
        site
    }

    fn command_of(&self, user: &str, args: &[&str]) -> Command {
        let mut command = self.runlane();
        command.env_remove("NATS_URL").env("XDG_CONFIG_HOME", self.path(""));
        command.args(["--context", user]).args(args);
        command
    }

    async fn by(&self, user: &str, args: &[&str]) -> std::process::Output {
        ended(self.command_of(user, args).spawn().expect("the binary runs")).await
    }

    async fn ok_by(&self, user: &str, args: &[&str]) -> String {
        let output = self.by(user, args).await;
        assert_eq!(code(&output), 0, "{user} {args:?}: {}", err(&output));
        out(&output)
    }

    /// A verb that is denied: it must say what, and soon. Returns what it said.
    async fn denied(&self, user: &str, args: &[&str]) -> String {
        let begun = Instant::now();
        let output = self.by(user, args).await;
        assert!(begun.elapsed() < AT_ONCE, "{args:?} took {:?}", begun.elapsed());
        assert_eq!(code(&output), 69, "{user} {args:?}: {}", err(&output));
        assert!(err(&output).contains("doesn't allow"), "{args:?}: {}", err(&output));
        err(&output)
    }

    async fn plain_worker(&self) -> WorkerProcess {
        let config = "[nats]\nuser = \"worker\"\ninbox_prefix = \"_INBOX_worker\"\n\
             [worker]\nmanage_streams = false\n";
        let worker = self.worker_with("w", config, |command| {
            command.env("RUNLANE_PASSWORD", "worker");
        });
        worker.await
    }
}

#[tokio::test]
async fn each_user_of_the_example_can_do_its_part_and_nothing_of_it_is_denied() {
    let site = Site::with_users(USERS).await;
    let worker = site.plain_worker().await;
    let submitter = async |args: &[&str]| site.ok_by("submitter", args).await;
    let run = site.by("submitter", &["run", "--id", "a", "--", "sh", "-c", "echo x; exit 3"]).await;
    assert_eq!((code(&run), out(&run).as_str()), (3, "x\n"), "{}", err(&run));
    // A new lane, a slot, a later start, an end that comes too late, a retry.
    submitter(&["run", "-l", "os=linux", "--slot", "s", "--", "true"]).await;
    submitter(&["run", "--delay", "100ms", "--ttl", "1h", "--", "true"]).await;
    submitter(&["submit", "--id", "late", "--delay", "1h", "--start-by", "2h", "--", "true"]).await;
    submitter(&["cancel", "late"]).await;
    submitter(&["submit", "--id", "running", "--", "sleep", "600"]).await;
    submitter(&["cancel", "running"]).await;
    submitter(&["submit", "--id", "nowhere", "-l", "os=plan9", "--", "true"]).await;
    submitter(&["cancel", "nowhere"]).await;
    assert_eq!(submitter(&["logs", "a"]).await, "x\n");
    assert_eq!(code(&site.by("submitter", &["retry", "a"]).await), 0);
    assert_eq!(code(&site.by("submitter", &["wait", "a"]).await), 3);
    for user in ["submitter", "viewer"] {
        assert_eq!(site.ok_by(user, &["logs", "a"]).await, "x\n", "{user}");
        assert!(site.ok_by(user, &["status", "a"]).await.contains("exit"), "{user}");
        for verb in ["ls", "workers", "lanes"] {
            assert!(!site.ok_by(user, &[verb]).await.is_empty(), "{user} {verb}");
        }
    }
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ended().await.0, 0);
    let violations = || -> Vec<String> {
        let log = site.server.log();
        log.lines().filter(|line| line.contains("Violation")).map(str::to_owned).collect()
    };
    assert_eq!(violations(), [""; 0]);
    site.denied("viewer", &["submit", "--", "true"]).await;
    assert!(!violations().is_empty(), "the log would have shown it");
}

#[tokio::test]
async fn what_is_denied_is_said_at_once_and_by_name() {
    let site = Site::with_users(USERS).await;
    let said = site.denied("viewer", &["submit", "--id", "mine", "--", "true"]).await;
    assert!(said.contains("publish to $JS.API.STREAM.MSG.GET.KV_RUNLANE_LANES"), "{said}");
    let said = site.denied("viewer", &["cancel", "--even-if-unknown", "mine"]).await;
    assert!(said.contains("publish to runlane.task.mine.cancel"), "{said}");
    // Without its inbox prefix nobody gets an answer.
    let context = serde_json::json!({
        "url": site.server.url(), "user": "submitter", "password": "submitter",
    });
    site.write("nats/context/submitter.json", context.to_string());
    let said = site.denied("submitter", &["ls"]).await;
    assert!(said.contains("subscribe to _INBOX.") && said.contains("inbox_prefix"), "{said}");
    let settings = "authorization { users: [ { user: admin, password: admin }, \
         { user: viewer, password: viewer, permissions: { publish: [\"x\"] } } ] }";
    let site = Site::with_users(settings).await;
    let said = site.denied("viewer", &["ls"]).await;
    assert!(said.contains("publish to $JS.API.INFO"), "{said}");
}

#[tokio::test]
async fn a_worker_that_may_not_take_tasks_leaves_the_queue_as_it_is() {
    let of_worker = "\"runlane.task.*.status\", \"runlane.task.*.outcome\", \"runlane.spec.*\"";
    let users = USERS.replace(of_worker, "\"runlane.spec.*\"");
    assert_ne!(users, USERS);
    let site = Site::with_users(&users).await;
    let worker = site.plain_worker().await;
    for id in ["a", "b", "c"] {
        site.ok_by("submitter", &["submit", "--id", id, "--", "true"]).await;
    }
    worker.logged("could not be taken").await;
    assert!(worker.log().contains("doesn't allow"), "{}", worker.log());
    // Each try has a place for itself while it waits, so there are no more of them.
    tokio::time::sleep(AT_ONCE).await;
    let tries = worker.log().matches("could not be taken").count();
    assert!(tries <= 4, "{tries} tries in some seconds:\n{}", worker.log());
    assert!(site.ok_by("submitter", &["status", "c"]).await.contains("pending"));
}

#[tokio::test]
async fn a_worker_that_may_not_ask_for_tasks_says_so_until_it_may() {
    let users = USERS.replace(
        "\"$JS.API.CONSUMER.MSG.NEXT.RUNLANE_QUEUE.*\"",
        "\"$JS.API.CONSUMER.MSG.NEXT.RUNLANE_QUEUE.elsewhere\"",
    );
    assert_ne!(users, USERS);
    let site = Site::with_users(&users).await;
    let worker = site.plain_worker().await;
    worker.logged("tasks can't be asked for").await;
    let log = worker.log();
    assert!(log.contains("publish to $JS.API.CONSUMER.MSG.NEXT.RUNLANE_QUEUE."), "{log}");
    // Not a forgotten pull, and not asked for without end.
    tokio::time::sleep(AT_ONCE).await;
    let log = worker.log();
    assert!(!log.contains("forgot"), "{log}");
    assert!(log.matches("can't be asked for").count() <= 2, "{log}");
}

#[tokio::test]
async fn who_may_not_end_tasks_can_still_cancel_them() {
    let users = USERS.replace(
        "\"runlane.task.*.status\", \"runlane.task.*.outcome\"\n        \"$JS.API.STREAM.PURGE",
        "\"$JS.API.STREAM.PURGE",
    );
    assert_ne!(users, USERS);
    let users = users.replace(
        "\"$JS.API.STREAM.PURGE.RUNLANE_QUEUE\", \"$JS.API.STREAM.PURGE.RUNLANE_SCHEDULE\"\n",
        "\n",
    );
    let site = Site::with_users(&users).await;
    let _worker = site.plain_worker().await;
    let mark = Mark::new();
    for (id, on) in [("running", "os=linux"), ("nowhere", "os=plan9")] {
        let script = super::marked(&mark, "sleep 600");
        let args = super::args_of(&["submit", "--id", id, "-l", on, "--"], &script);
        site.ok_by("submitter", &args).await;
        let canceled = site.by("submitter", &["cancel", id]).await;
        assert_eq!(code(&canceled), 0, "{id}: {}", err(&canceled));
        assert_eq!(code(&site.by("submitter", &["wait", id]).await), 130, "{id}");
    }
    mark.assert_none_alive();
}
