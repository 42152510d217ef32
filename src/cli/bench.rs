//! `runlane bench`: how fast runlane is here, beside what the machine can do without it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::exit::{CANCELED, FAILED, Failure, UNAVAILABLE, USAGE};
use super::global::GlobalArgs;
use super::isolation_args::PresetArg;
use super::run::Stops;
use super::{say, settings};
use crate::bench::{self, BenchError, Place, Report, Site, SiteOptions, WorkerCommand};
use crate::devserver::{FindOptions, find};
use crate::exec::THIS_PROGRAM;
use crate::task::InvalidSelector;
use crate::wire::Selector;

mod options;
mod text;

use options::Sizes;

/// Measure how fast runlane is here, beside what the machine can do without it
///
/// Without a scenario, all of the table are measured. Nothing is left out for speed: tasks go through a
/// nats-server with file storage and a worker with the default isolation, and each ends with a stored
/// outcome. Figures are medians over the rounds. docs/performance.md says what each of them is.
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    scenario: Option<Scenario>,

    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    file: FileArg,
}

/// Where the JSON goes.
#[derive(Debug, Clone, Default, Args)]
struct FileArg {
    /// With --json: the file that the report is written to; - is stdout [default: -]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Flags of all scenarios.
#[derive(Debug, Args)]
struct CommonArgs {
    /// What is measured
    #[arg(long, global = true, value_enum, value_name = "WHAT", default_value = "private")]
    against: Against,

    /// With --against workers: labels that the tasks ask for, such as gpu=a100
    #[arg(long, global = true, value_name = "SELECTOR")]
    runner: Option<String>,

    /// Preset of isolation of the worker that is started [default: the file's, else standard]
    #[arg(long, global = true, value_enum, env = "RUNLANE_ISOLATION", value_name = "PRESET")]
    isolation: Option<PresetArg>,

    /// Configuration file of the worker that is started
    #[arg(long, short = 'c', global = true, env = "RUNLANE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// With --against private: the nats-server to start
    #[arg(long, global = true, value_name = "FILE")]
    nats_server: Option<PathBuf>,

    /// Rounds of each scenario
    #[arg(long, global = true, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// Smaller numbers everywhere: a first impression in seconds
    #[arg(long, global = true)]
    quick: bool,

    /// Print tables in Markdown
    #[arg(long, global = true)]
    markdown: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Against {
    /// A nats-server and a worker of its own, removed at the end
    Private,
    /// The configured server, with a namespace and a worker of its own, removed at the end
    Server,
    /// The configured server and namespace, and the workers that are there
    Workers,
}

#[derive(Debug, Clone, Subcommand)]
enum Scenario {
    /// What the machine can do without runlane: spawns, a pipe, a request to the server
    Limits {
        #[command(flatten)]
        file: FileArg,
    },
    /// Tasks per second of a backlog of /bin/true, and the CPU time of each
    Throughput {
        /// Tasks in each round
        #[arg(long, value_name = "N")]
        tasks: Option<usize>,
        /// Places of the worker; several, separated by commas, are measured one after the other
        #[arg(long, value_name = "N", value_delimiter = ',')]
        concurrency: Vec<usize>,
        #[command(flatten)]
        file: FileArg,
    },
    /// From the submission of one task to its outcome, and to its first byte of output
    Latency {
        /// Tasks of each kind in each round
        #[arg(long, value_name = "N")]
        tasks: Option<usize>,
        #[command(flatten)]
        file: FileArg,
    },
    /// A task's output to one live reader, each byte compared
    Output {
        /// Bytes that each task writes, in units of 10^6
        #[arg(long, value_name = "N")]
        megabytes: Option<u64>,
        #[command(flatten)]
        file: FileArg,
    },
    /// From a cancel call to the death of the last process, also of such as left their session
    Cancel {
        /// Tasks of each kind in each round
        #[arg(long, value_name = "N")]
        tasks: Option<usize>,
        #[command(flatten)]
        file: FileArg,
    },
    /// Specs per second, many in flight, and the memory that it takes
    Submit {
        /// Specs in each round
        #[arg(long, value_name = "N")]
        count: Option<usize>,
        #[command(flatten)]
        file: FileArg,
    },
    /// Memory and CPU time of a worker that has nothing to do, and memory for each running task
    Idle {
        /// Tasks that run at once and do nothing
        #[arg(long, value_name = "N")]
        tasks: Option<usize>,
        /// Lanes of the worker with many
        #[arg(long, value_name = "N")]
        lanes: Option<usize>,
        #[command(flatten)]
        file: FileArg,
    },
}

impl Scenario {
    fn file(&self) -> &FileArg {
        match self {
            Self::Limits { file }
            | Self::Throughput { file, .. }
            | Self::Latency { file, .. }
            | Self::Output { file, .. }
            | Self::Cancel { file, .. }
            | Self::Submit { file, .. }
            | Self::Idle { file, .. } => file,
        }
    }

    /// Whether it makes sense with workers that are there: whoever is on another machine can't be looked
    /// at, and theirs are not to be ended.
    fn is_for_workers_there(&self) -> bool {
        match self {
            Self::Limits { .. }
            | Self::Throughput { .. }
            | Self::Latency { .. }
            | Self::Output { .. } => true,
            Self::Cancel { .. } | Self::Submit { .. } | Self::Idle { .. } => false,
        }
    }
}

pub(super) async fn run(global: &GlobalArgs, args: &BenchArgs) -> Result<u8, Failure> {
    let file = args.scenario.as_ref().map_or(&args.file, Scenario::file).file.clone();
    if let (Some(file), false) = (&file, global.json) {
        let message = format!(
            "{:?} is no scenario, and a file is only for --json; `runlane bench --help` lists all",
            file.display()
        );
        return Err(Failure::new(USAGE, message));
    }
    if args.common.against == Against::Workers
        && args.scenario.as_ref().is_some_and(|scenario| !scenario.is_for_workers_there())
    {
        let message = "this scenario needs a worker of its own; it is not for --against workers";
        return Err(Failure::new(USAGE, message));
    }
    let sizes = Sizes::of(args)?;
    let options = site_options(global, args).await?;
    let mut stops = Stops::listen()?;
    let mut site = Site::new(options)?;
    // Cancel safe: what a broken off scenario has started is ended with the site.
    let measured = tokio::select! {
        measured = measure(global, args, &sizes, &mut site) => measured,
        () = stops.next() => Err(Failure::new(CANCELED, "interrupted; ending what was started")),
    };
    let closed = site.close().await;
    let report = measured?;
    closed?;
    show(global, args, file.as_deref(), &report)
}

async fn measure(
    global: &GlobalArgs,
    args: &BenchArgs,
    sizes: &Sizes,
    site: &mut Site,
) -> Result<Report, Failure> {
    let say = |text: &str| global.note(text);
    site.open().await?;
    warn(global, site).await;
    let mut report = Report::new(site.facts().await, sizes.rounds);
    for scenario in scenarios(args) {
        match scenario {
            Scenario::Limits { .. } => {
                let bus = Some(site.client().bus());
                report.limits = Some(bench::limits(&sizes.limits(), bus, &say).await?);
            }
            Scenario::Throughput { .. } => {
                report.throughput = bench::throughput(site, &sizes.throughput(), &say).await?;
            }
            Scenario::Latency { .. } => {
                report.latency = Some(bench::latency(site, &sizes.latency(), &say).await?);
            }
            Scenario::Output { .. } => {
                report.output = Some(bench::output(site, &sizes.output(), &say).await?);
            }
            Scenario::Cancel { .. } => {
                report.cancel = Some(bench::cancel(site, &sizes.cancel(), &say).await?);
            }
            Scenario::Submit { .. } => {
                report.submit = Some(bench::submit(site, &sizes.submit(), &say).await?);
            }
            Scenario::Idle { .. } => {
                report.idle = Some(bench::idle(site, &sizes.idle(), &say).await?);
            }
        }
    }
    // Again: the streams may be there only now.
    report.facts = site.facts().await;
    Ok(report)
}

/// The one that was named, or all that are for this place.
fn scenarios(args: &BenchArgs) -> Vec<Scenario> {
    let file = FileArg::default;
    let all = vec![
        Scenario::Limits { file: file() },
        Scenario::Throughput { tasks: None, concurrency: Vec::new(), file: file() },
        Scenario::Latency { tasks: None, file: file() },
        Scenario::Output { megabytes: None, file: file() },
        Scenario::Cancel { tasks: None, file: file() },
        Scenario::Submit { count: None, file: file() },
        Scenario::Idle { tasks: None, lanes: None, file: file() },
    ];
    let there = args.common.against == Against::Workers;
    let fit = |scenario: &Scenario| !there || scenario.is_for_workers_there();
    match &args.scenario {
        Some(scenario) => vec![scenario.clone()],
        None => all.into_iter().filter(fit).collect(),
    }
}

async fn warn(global: &GlobalArgs, site: &Site) {
    let machine = site.facts().await.machine;
    if machine.busy {
        global.note(format!(
            "something else runs on this machine (load average {:.2}); look at ratios, not at times",
            machine.load_average[0]
        ));
    }
}

fn show(
    global: &GlobalArgs,
    args: &BenchArgs,
    file: Option<&std::path::Path>,
    report: &Report,
) -> Result<u8, Failure> {
    if global.json {
        match file {
            Some(file) if file.as_os_str() != "-" => {
                let text = serde_json::to_vec_pretty(report).expect("a report is plain JSON");
                std::fs::write(file, text).map_err(|error| {
                    let message = format!("cannot write {}: {error}", file.display());
                    Failure::new(FAILED, message)
                })?;
            }
            Some(_) | None => say::json(report)?,
        }
    } else if args.common.markdown {
        say::out(text::markdown(report).as_bytes())?;
    } else {
        say::out(text::plain(report).as_bytes())?;
    }
    Ok(0)
}

async fn site_options(global: &GlobalArgs, args: &BenchArgs) -> Result<SiteOptions, Failure> {
    let common = &args.common;
    let place = match common.against {
        Against::Private => {
            let mut look = FindOptions::from_variables(|name| std::env::var_os(name));
            look.explicit.clone_from(&common.nats_server);
            let found = find(&look).await.map_err(|error| Failure::of(UNAVAILABLE, &error))?;
            Place::Private { nats_server: found.path }
        }
        Against::Server | Against::Workers => {
            let config = global.config()?;
            let connect = settings::connect_settings(&config.nats, "runlane bench")?;
            match common.against {
                Against::Workers => Place::Workers(connect, config.namespace),
                Against::Private | Against::Server => Place::Server(connect),
            }
        }
    };
    Ok(SiteOptions { place, worker: worker_command(global, common) })
}

/// The worker takes the connection as variables, which other users of the machine can't see.
fn worker_command(global: &GlobalArgs, common: &CommonArgs) -> WorkerCommand {
    let mut args: Vec<OsString> = Vec::new();
    let mut add = |flag: &str, value: OsString| args.extend([flag.into(), value]);
    if let Some(config) = &common.config {
        add("--config", config.into());
    }
    if let Some(preset) = common.isolation {
        add("--isolation", preset.preset().to_string().into());
    }
    // What is for other workers of this user is not for this one.
    let others = ["RUNLANE_CONFIG", "RUNLANE_ISOLATION", "RUNLANE_LABELS", "RUNLANE_METRICS"];
    let others = others.into_iter().map(|name| (name, None));
    let private = common.against == Against::Private;
    let connection = global.connection_variables().into_iter();
    let connection = connection.map(|(name, value)| (name, value.filter(|_| !private)));
    let env = connection.chain(others).map(|(name, value)| (name.into(), value)).collect();
    WorkerCommand { program: THIS_PROGRAM.into(), args, env }
}

/// The labels that tasks ask for, as everywhere else.
fn selector(text: Option<&str>, against: Against) -> Result<Option<Selector>, Failure> {
    let Some(text) = text else { return Ok(None) };
    if against != Against::Workers {
        let message = "--runner is for --against workers; the bench's own worker takes all tasks";
        return Err(Failure::new(USAGE, message));
    }
    text.parse().map(Some).map_err(|problem: InvalidSelector| {
        Failure::new(USAGE, format!("--runner {text:?}: {problem}"))
    })
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Connect(error) => error.into(),
            BenchError::Bus(error) => error.into(),
            BenchError::Submit(error) => error.into(),
            BenchError::Topology(error) => error.into(),
            BenchError::Control(error) => error.into(),
            BenchError::Cancel(error) => error.into(),
            BenchError::Server(error) => Self::of(UNAVAILABLE, &error),
            error @ (BenchError::Helper { .. }
            | BenchError::Directory(_)
            | BenchError::Spawn(_)
            | BenchError::Worker { .. }
            | BenchError::Missing { .. }
            | BenchError::Task { .. }
            | BenchError::Output { .. }
            | BenchError::Proc { .. }) => Self::of(FAILED, &error),
        }
    }
}
