//! Real nats-servers for tests: each on a free port with a store of its own, killed on drop.

use std::path::PathBuf;

use async_nats::jetstream;
use runlane::devserver::{DevServer, DevServerOptions, FindOptions, find};
use runlane::nats::connect::{Connected, connect};
use runlane::nats::settings::{ConnectSettings, ServerUrl};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// A running server with a temporary store. Dropping it kills the process and removes the store.
pub(crate) struct TestServer {
    server: DevServer,
    /// After the server in drop order, which is the order of the fields.
    _dir: TempDir,
}

impl TestServer {
    /// Starts a server with JetStream and 8 MiB payloads.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a server with more lines of configuration.
    pub(crate) async fn start_with(extra_config: &str) -> Self {
        Self::start_changed(|options| options.extra_config = extra_config.to_owned()).await
    }

    /// Starts a server with changed options.
    pub(crate) async fn start_changed(change: impl FnOnce(&mut DevServerOptions)) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut options = DevServerOptions::new(binary().await, dir.path());
        change(&mut options);
        let server = DevServer::start(options).await.expect("nats-server starts");
        Self { server, _dir: dir }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.server.log_file()).expect("the server has a log")
    }

    /// Settings that reach this server without credentials.
    pub(crate) fn settings(&self) -> ConnectSettings {
        ConnectSettings { servers: vec![ServerUrl::new(self.url())], ..ConnectSettings::default() }
    }

    /// Connects as the library does.
    pub(crate) async fn connect(&self) -> Connected {
        connect(&self.settings()).await.expect("the test server lets us in")
    }

    /// JetStream on a connection of its own.
    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        self.connect().await.jetstream
    }

    /// Stops the server cleanly and starts it again: same port, same store.
    pub(crate) async fn restart(&mut self) {
        self.server.restart().await.expect("nats-server starts again");
    }

    /// Kills the server as a crash would; `restart` revives it.
    pub(crate) async fn kill(&mut self) {
        self.server.kill().await.expect("nats-server dies");
    }
}

/// The nats-server for all tests; found or fetched once a run.
pub(crate) async fn binary() -> PathBuf {
    static BINARY: OnceCell<PathBuf> = OnceCell::const_new();
    let found = BINARY.get_or_init(|| async {
        let options = FindOptions::from_variables(|name| std::env::var_os(name));
        find(&options).await.expect("tests need a nats-server").path
    });
    found.await.clone()
}

/// Whether a process is there and not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}
