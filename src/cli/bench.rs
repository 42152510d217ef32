//! `runlane bench`: how fast runlane is here, beside what the machine can do without it.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};

use super::exit::{CANCELED, Failure, USAGE};
use super::global::GlobalArgs;
use super::isolation_args::PresetArg;
use super::run::Stops;
use crate::bench::{self, Growing, Report, Site};
use crate::task::InvalidSelector;
use crate::wire::Selector;

mod options;
mod place;
mod show;
mod text;

use options::Sizes;

/// Measure how fast runlane is here, beside what the machine can do without it
///
/// Without a scenario, all of the table are measured. Nothing is left out for speed: tasks go through a
/// nats-server with file storage and a worker with the default isolation, and each ends with a stored
/// outcome. Figures are medians over the rounds. docs/performance.md says what each of them is.
#[derive(Debug, Args)]
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
    /// With --json: the file that the report is written to, beside the table on stdout; - writes the
    /// report to stdout [default: -]
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
    /// A task's output to one live reader, plain and compressed, each byte compared
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
    /// How costs grow: curves instead of the table. Takes many minutes without --quick
    Growth {
        /// What grows; several, separated by commas [default: all]
        #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
        of: Vec<Growing>,
        /// Draw each curve into a file NAME.svg in this directory
        #[arg(long, value_name = "DIR")]
        plots: Option<PathBuf>,
        /// Two small sizes of each, to see that it works
        #[arg(long, conflicts_with = "quick")]
        tiny: bool,
        #[command(flatten)]
        file: FileArg,
    },
}

impl ValueEnum for Growing {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Lanes => ("lanes", "Lanes of one worker"),
            Self::Queued => ("queued", "Tasks that wait"),
            Self::Finished => ("finished", "Finished tasks whose records are kept"),
            Self::Workers => ("workers", "Workers on this machine"),
            Self::Running => ("running", "Tasks that run at once in one worker"),
            Self::Followers => ("followers", "Live readers of one task"),
            Self::Chunks => ("chunks", "Bytes that a program writes at once"),
        };
        Some(PossibleValue::new(name).help(help))
    }
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
            | Self::Idle { file, .. }
            | Self::Growth { file, .. } => file,
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
            Self::Cancel { .. } | Self::Submit { .. } | Self::Idle { .. } | Self::Growth { .. } => {
                false
            }
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
    let options = place::options(global, &args.common).await?;
    let mut stops = Stops::listen()?;
    let mut site = Site::new(options)?;
    let interrupted = || Failure::new(CANCELED, "interrupted; ending what was started");
    // Cancel safe: what a broken off start or scenario has started is ended with the site.
    let opened = tokio::select! {
        opened = site.open() => opened.map(|()| site.watch_server()).map_err(Failure::from),
        () = stops.next() => Err(interrupted()),
    };
    let measured = match opened {
        Ok(server) => tokio::select! {
            measured = measure(global, args, &sizes, &mut site) => measured.map_err(|failure| {
                // The reason of all that fails after it.
                server.has_ended().map_or(failure, Failure::from)
            }),
            ended = server.ended() => Err(ended.into()),
            () = stops.next() => Err(interrupted()),
        },
        Err(failure) => Err(failure),
    };
    let tidied = tidy(global, &mut site, measured.is_ok()).await;
    let closed = site.close().await;
    let report = measured?;
    tidied?;
    closed?;
    if let Some(Scenario::Growth { plots: Some(dir), .. }) = &args.scenario {
        show::draw(dir, &report)?;
    }
    show::show(global, &args.common, file.as_deref(), &report)?;
    Ok(0)
}

async fn measure(
    global: &GlobalArgs,
    args: &BenchArgs,
    sizes: &Sizes,
    site: &mut Site,
) -> Result<Report, Failure> {
    let say = |text: &str| global.note(text);
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
            Scenario::Growth { of, tiny, .. } => {
                let options = sizes.growth(&of, tiny);
                report.growth = bench::growth(site, &options, &say).await?;
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

/// Removes what is left among tasks of others, or says what is.
async fn tidy(global: &GlobalArgs, site: &mut Site, measured: bool) -> Result<(), Failure> {
    let left = site.guests();
    if left > 0 && measured {
        global.note(format!("removing the records of {left} tasks"));
        site.remove_guests().await?;
    } else if left > 0 {
        global.note(format!(
            "the records of {left} tasks stay in the listing until they are as old as the streams allow"
        ));
    }
    Ok(())
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
