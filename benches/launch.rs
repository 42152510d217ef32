//! What isolation costs: launch and end of /bin/true under each preset, against bare posix_spawn.
//!
//! `cargo bench --bench launch` prints medians in µs; `-- --rounds 500` sets how many. All of them are
//! measured in one run, in turns, so that a busy machine slows all of them alike. Where no cgroup is
//! delegated, `RUNLANE_BENCH_CGROUP` names a directory for one, as `worker.cgroup` does.

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use runlane::exec::cgroup::{Base, CgroupSetting};
use runlane::exec::{Launched, Process, Spawner, WorkRoot, probe};
use runlane::task::{IsolationPolicy, LaunchPlan, Program, Sandbox};
use runlane::wire::Preset;

const PROGRAM: &str = "/bin/true";
/// Pause before each measurement: a worker that starts tasks one by one is idle between them.
const PAUSE: Duration = Duration::from_millis(5);

fn main() {
    // As on a worker's thread: whoever sees the event runs the task.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(measure(rounds()));
}

fn rounds() -> usize {
    let mut args = std::env::args().skip_while(|arg| arg != "--rounds").skip(1);
    args.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(300)
}

async fn measure(rounds: usize) {
    let spawner = Spawner::of_program(Path::new(env!("CARGO_BIN_EXE_runlane")));
    let root = tempfile::tempdir().expect("a temporary directory");
    let work = WorkRoot::open(root.path()).expect("it is ours");
    let plans = plans(&work);
    for (_, plan) in &plans {
        spawner.prepare(&plan.sandbox).await.expect("the spawner starts");
    }
    let mut bare = (Vec::new(), Vec::new());
    let mut times = vec![(Vec::new(), Vec::new()); plans.len()];
    for round in 0..rounds + 10 {
        tokio::time::sleep(PAUSE).await;
        let bare_time = posix_spawn();
        let mut launched = Vec::new();
        for (_, plan) in &plans {
            tokio::time::sleep(PAUSE).await;
            launched.push(launch(&spawner, plan).await);
        }
        // The first ones load files and start the spawner.
        if round >= 10 {
            bare.0.push(bare_time.0);
            bare.1.push(bare_time.1);
            for (times, (started, ended)) in times.iter_mut().zip(launched) {
                times.0.push(started);
                times.1.push(ended);
            }
        }
    }
    let (bare_started, bare) = (median(&mut bare.0), median(&mut bare.1));
    println!("{rounds} rounds, p50 in µs; added = ended - bare");
    println!("{:24} {:>8} {:>8} {:>8}", "", "started", "ended", "added");
    let (started, ended) = (bare_started.as_micros(), bare.as_micros());
    println!("{:24} {started:>8} {ended:>8}", "posix_spawn");
    for ((name, _), (mut started, mut ended)) in plans.into_iter().zip(times) {
        let (started, ended) = (median(&mut started), median(&mut ended));
        let added = ended.as_micros().cast_signed() - bare.as_micros().cast_signed();
        println!("{name:24} {:>8} {:>8} {added:>8}", started.as_micros(), ended.as_micros());
    }
}

/// Times until the program is executed, and until its end is known.
fn posix_spawn() -> (Duration, Duration) {
    let start = Instant::now();
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Returns when the child has executed the program, as vfork does.
    let mut child = command.spawn().expect("it can be run");
    let started = start.elapsed();
    child.wait().expect("it ends");
    (started, start.elapsed())
}

/// The same through the spawner.
async fn launch(spawner: &Spawner, plan: &LaunchPlan) -> (Duration, Duration) {
    let start = Instant::now();
    let Launched { mut process, .. } = spawner.launch(plan).await.expect("it can be launched");
    let started = start.elapsed();
    process.wait().await.expect("it ends");
    let ended = start.elapsed();
    spawner.keep(process, &plan.sandbox);
    spawner.prepare(&plan.sandbox).await.expect("the spawner lives");
    (started, ended)
}

/// The presets as this host can have them, and what a single feature costs.
fn plans(work: &WorkRoot) -> Vec<(&'static str, LaunchPlan)> {
    let program = Path::new(env!("CARGO_BIN_EXE_runlane"));
    let base = Base::open(&CgroupSetting::Auto).or_else(|_| {
        let directory = std::env::var_os("RUNLANE_BENCH_CGROUP").unwrap_or_default();
        Base::open(&CgroupSetting::Directory(directory.into()))
    });
    let (leaves, missing) = match base {
        Ok(base) => (Some(base.leaves().to_owned()), base.missing().clone()),
        Err(error) => (None, error.missing()),
    };
    println!(
        "cgroup: {}",
        leaves.as_ref().map_or("none".into(), |path| path.display().to_string())
    );
    let host = probe(program, leaves, missing).expect("the host can be probed").host;
    let resolve = |policy: &IsolationPolicy| policy.resolve(&host).map(|fit| fit.sandbox);
    let mut plans = Vec::new();
    for preset in [Preset::None, Preset::Standard, Preset::Strict] {
        let name = ["none", "standard", "strict"][preset as usize];
        let policy = IsolationPolicy::preset(preset, Some(work.path().to_owned()));
        match resolve(&policy) {
            Ok(sandbox) => plans.push((name, plan(sandbox))),
            Err(refused) => println!("{name}: refused: {refused:?}"),
        }
    }
    let mut strict = IsolationPolicy::preset(Preset::Strict, Some(work.path().to_owned()));
    strict.sandbox.enclosure.namespaces.network = true;
    plans.extend(resolve(&strict).ok().map(|sandbox| ("strict, network = none", plan(sandbox))));
    plans
}

fn plan(sandbox: Sandbox) -> LaunchPlan {
    let program = Program::Command { command: PROGRAM.to_owned(), args: Vec::new() };
    let env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    LaunchPlan { env, ..LaunchPlan::of(program, sandbox) }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
