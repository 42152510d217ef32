//! nats-server processes: one, or a cluster of three.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use runlane::devserver::{FindOptions, find};
use runlane::nats::settings::{ConnectSettings, ServerUrl};
use runlane::nats::{Connected, connect};
use tokio::process::Child;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::process;

/// Time for a server, or a cluster, to get ready.
const START_TIME: Duration = Duration::from_secs(30);

/// The servers of a run.
pub(crate) struct Servers {
    nodes: Vec<Node>,
    pub(crate) version: String,
}

/// One server; it keeps its ports and its store when it is killed and started again.
struct Node {
    name: String,
    port: u16,
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Servers {
    /// Starts the servers.
    pub(crate) async fn start(count: usize, dir: &Path) -> io::Result<Self> {
        let options = FindOptions::from_variables(|name| std::env::var_os(name));
        let found = find(&options).await.map_err(io::Error::other)?;
        let ports = free_ports(2 * count)?;
        let mut nodes = Vec::new();
        for index in 0..count {
            let name = format!("n{}", index + 1);
            let home = dir.join(&name);
            std::fs::create_dir_all(&home)?;
            let config = home.join("nats-server.conf");
            std::fs::write(&config, node_config(&name, index, &ports, &home))?;
            let node = Node {
                name,
                port: ports[index],
                binary: found.path.clone(),
                config,
                log: home.join("nats-server.log"),
                child: Mutex::new(None),
            };
            node.start().await?;
            nodes.push(node);
        }
        let servers = Self { nodes, version: found.version.to_string() };
        Ok(servers)
    }

    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    pub(crate) fn name(&self, index: usize) -> String {
        self.nodes[index].name.clone()
    }

    /// Connects to the servers themselves, past the proxies; waits until JetStream is ready.
    pub(crate) async fn connect(&self, name: &str) -> io::Result<Connected> {
        let servers =
            self.nodes.iter().map(|node| node.port).map(|port| format!("nats://127.0.0.1:{port}"));
        let settings = ConnectSettings {
            servers: servers.map(ServerUrl::new).collect(),
            name: Some(name.to_owned()),
            ..ConnectSettings::default()
        };
        let deadline = Instant::now() + START_TIME;
        loop {
            match connect(&settings).await {
                Ok(connected) => return Ok(connected),
                Err(error) if Instant::now() > deadline => return Err(io::Error::other(error)),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Kills a server as a crash would.
    pub(crate) async fn kill(&self, index: usize) {
        if let Some(mut child) = self.nodes[index].child.lock().await.take() {
            // It may have ended by itself, which the restart repairs.
            child.kill().await.ok();
        }
    }

    /// Starts a server that was killed.
    pub(crate) async fn revive(&self, index: usize) -> io::Result<()> {
        self.nodes[index].start().await
    }

    /// Freezes or thaws a server.
    pub(crate) async fn signal(&self, index: usize, signal: Signal) -> bool {
        let child = self.nodes[index].child.lock().await;
        child.as_ref().and_then(process::pid).is_some_and(|pid| process::signal(pid, signal))
    }
}

impl Node {
    async fn start(&self) -> io::Result<()> {
        let mut child = self.child.lock().await;
        if child.is_none() {
            let config = self.config.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
            *child = Some(process::spawn_program(&self.binary, &["--config", config], &self.log)?);
        }
        Ok(())
    }
}

fn node_config(name: &str, index: usize, ports: &[u16], home: &Path) -> String {
    let count = ports.len() / 2;
    let store = home.join("store");
    // Clients must not learn of a way around the proxies.
    let cluster = if count == 1 {
        String::new()
    } else {
        let routes: Vec<_> =
            ports[count..].iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        format!(
            "cluster {{ name: chaos, listen: \"127.0.0.1:{}\", no_advertise: true, routes: [{}] }}\n",
            ports[count + index],
            routes.join(", ")
        )
    };
    format!(
        "server_name: {name}\nlisten: \"127.0.0.1:{}\"\nmax_payload: 8388608\n\
         jetstream {{ store_dir: \"{}\" }}\n{cluster}",
        ports[index],
        store.display()
    )
}

/// Ports that nobody uses now. They are given back before the servers take them.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let listeners: Result<Vec<_>, _> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect();
    listeners?.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
