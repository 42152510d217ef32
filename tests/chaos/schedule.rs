//! Which fault comes when: a list that follows from the seed alone.

use std::time::Duration;

use crate::args::{Aim, Options};
use crate::rng::Rng;

/// A fault and its moment.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
}

/// What goes wrong. Workers and servers are named by their index.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// SIGKILL; a new worker comes after the pause, under a new name or the old one.
    KillWorker { worker: usize, pause: Duration, renamed: bool },
    /// SIGSTOP, and SIGCONT after a while.
    FreezeWorker { worker: usize, length: Duration },
    /// SIGTERM; a new worker comes when it has ended.
    DrainWorker { worker: usize },
    /// SIGKILL to the task-init of one of the worker's tasks.
    KillInit { worker: usize },
    /// SIGKILL to the worker's spawner.
    KillSpawner { worker: usize },
    /// Its connections are closed, and new ones refused.
    Cut { worker: usize, length: Duration },
    /// Its connections stay, and nothing arrives; then all of it does, late.
    Stall { worker: usize, up: bool, down: bool, length: Duration },
    /// The same, but what was on its way is lost and the connections break.
    HalfOpen { worker: usize, up: bool, down: bool, length: Duration },
    /// Every message is late.
    Slow { worker: usize, delay: Duration, length: Duration },
    /// SIGKILL to a server.
    KillServer { server: usize, pause: Duration },
    /// SIGKILL to the leader of a stream.
    KillLeader { stream: StreamName, pause: Duration },
    /// SIGSTOP, and SIGCONT after a while.
    FreezeServer { server: usize, length: Duration },
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum StreamName {
    Tasks,
    Queue,
    Output,
}

#[derive(Clone, Copy)]
enum Kind {
    KillWorker,
    FreezeWorker,
    DrainWorker,
    KillInit,
    KillSpawner,
    Cut,
    Stall,
    HalfOpen,
    Slow,
    KillServer,
    KillLeader,
    FreezeServer,
}

const EVERYTHING: &[(u64, Kind)] = &[
    (16, Kind::KillWorker),
    (14, Kind::FreezeWorker),
    (5, Kind::DrainWorker),
    (8, Kind::KillInit),
    (4, Kind::KillSpawner),
    (8, Kind::Cut),
    (12, Kind::Stall),
    (8, Kind::HalfOpen),
    (6, Kind::Slow),
    (5, Kind::KillServer),
    (5, Kind::KillLeader),
    (3, Kind::FreezeServer),
];

/// Plans the faults of a run.
pub(crate) fn plan(options: &Options) -> Vec<Planned> {
    let mut rng = Rng::new(options.seed, 2);
    let kinds: &[(u64, Kind)] = match options.aim {
        Aim::Everything => EVERYTHING,
        Aim::Fence => &[(1, Kind::FreezeWorker)],
        Aim::StartCheck => &[],
        Aim::Lease => &[(1, Kind::Stall), (1, Kind::HalfOpen)],
    };
    let mut planned = Vec::new();
    let mut at = rng.millis(1000, 2500);
    while at < options.storm && !kinds.is_empty() {
        let kind = rng.pick(kinds);
        planned.push(Planned { at, fault: fault(&mut rng, kind, options) });
        // A lease that is not lost shows only while another worker is there to take the task.
        at +=
            if options.aim == Aim::Lease { rng.millis(4000, 6000) } else { rng.millis(300, 1700) };
    }
    planned
}

fn fault(rng: &mut Rng, kind: Kind, options: &Options) -> Fault {
    let worker = usize::try_from(rng.within(0, options.workers as u64)).expect("small");
    let server = usize::try_from(rng.within(0, options.servers as u64)).expect("small");
    let lease = u64::try_from(options.lease.as_millis()).expect("short");
    // Mostly longer than a lease, sometimes about as long, sometimes much shorter.
    let length = match (options.aim, rng.within(0, 10)) {
        (Aim::Everything, 0..3) => rng.millis(100, lease),
        (Aim::Everything, 3..5) => rng.millis(lease * 8 / 10, lease * 12 / 10),
        _ => rng.millis(lease * 13 / 10, lease * 3),
    };
    let pause = rng.millis(100, 4000);
    let (up, down) = rng.pick(&[(2, (true, true)), (1, (true, false)), (1, (false, true))]);
    match kind {
        Kind::KillWorker => Fault::KillWorker { worker, pause, renamed: rng.percent(50) },
        Kind::FreezeWorker => Fault::FreezeWorker { worker, length },
        Kind::DrainWorker => Fault::DrainWorker { worker },
        Kind::KillInit => Fault::KillInit { worker },
        Kind::KillSpawner => Fault::KillSpawner { worker },
        Kind::Cut => Fault::Cut { worker, length },
        Kind::Stall => Fault::Stall { worker, up, down, length },
        Kind::HalfOpen => Fault::HalfOpen { worker, up, down, length },
        Kind::Slow => Fault::Slow { worker, delay: rng.millis(20, 900), length },
        Kind::KillServer => Fault::KillServer { server, pause },
        Kind::KillLeader => {
            let streams = [(3, StreamName::Tasks), (2, StreamName::Queue), (1, StreamName::Output)];
            Fault::KillLeader { stream: rng.pick(&streams), pause }
        }
        Kind::FreezeServer => Fault::FreezeServer { server, length: rng.millis(300, 4000) },
    }
}
