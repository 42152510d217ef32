//! Carries the faults out. One fault at a time on one worker, and one at a time on the servers: a
//! fault whose worker is busy with another one hits the next worker that isn't; if there is no target,
//! it is skipped, and counted as that.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use runlane::nats::Connected;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::fleet::{Fleet, Place, Running};
use crate::process;
use crate::proxy::Network;
use crate::sampler;
use crate::schedule::{Fault, Planned, StreamName};
use crate::servers::Servers;
use crate::timeline::Timeline;

/// What faults act on.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) servers: Servers,
    pub(crate) timeline: Timeline,
    /// Tells the leaders.
    pub(crate) connected: Connected,
    /// Held by the fault that the servers suffer; until then they are to be left in peace after it.
    pub(crate) servers_busy: Arc<Mutex<Option<Instant>>>,
}

/// Lets the storm blow; returns when the last fault is over.
pub(crate) async fn storm(world: &Arc<World>, schedule: Vec<Planned>) {
    let start = Instant::now();
    let mut going_on = JoinSet::new();
    for Planned { at, fault } in schedule {
        sleep_until(start + at).await;
        going_on.spawn(inflict(Arc::clone(world), fault));
        while going_on.try_join_next().is_some() {}
    }
    while let Some(ended) = going_on.join_next().await {
        ended.expect("a fault of the harness does not panic");
    }
}

async fn inflict(world: Arc<World>, fault: Fault) {
    match fault {
        Fault::KillWorker { worker, .. }
        | Fault::FreezeWorker { worker, .. }
        | Fault::DrainWorker { worker }
        | Fault::KillInit { worker }
        | Fault::KillSpawner { worker }
        | Fault::Cut { worker, .. }
        | Fault::Stall { worker, .. }
        | Fault::HalfOpen { worker, .. }
        | Fault::Slow { worker, .. } => {
            let places = &world.fleet.places;
            let others = places[worker..].iter().chain(&places[..worker]);
            let mut free = others.filter_map(|place| {
                Some((place, Arc::clone(&place.worker).try_lock_owned().ok()?))
            });
            match free.next() {
                Some((place, running)) => on_worker(&world, place, running, fault).await,
                None => world.timeline.add("skipped", ""),
            }
        }
        Fault::KillServer { .. } | Fault::KillLeader { .. } | Fault::FreezeServer { .. } => {
            match Arc::clone(&world.servers_busy).try_lock_owned() {
                Ok(mut peace) if peace.is_none_or(|until| until <= Instant::now()) => {
                    on_server(&world, fault).await;
                    // A cluster elects for five seconds and more: without peace it would do nothing else.
                    let calm = if world.servers.count() == 1 { 3 } else { 15 };
                    *peace = Some(Instant::now() + Duration::from_secs(calm));
                }
                Ok(_) | Err(_) => world.timeline.add("skipped", ""),
            }
        }
    }
}

async fn on_worker(
    world: &World,
    place: &Place,
    mut running: OwnedMutexGuard<Running>,
    fault: Fault,
) {
    let name = running.name.clone();
    let add = |what| world.timeline.add(what, name.clone());
    match fault {
        Fault::KillWorker { pause, renamed, .. } => {
            add("worker killed");
            running.kill().await;
            sleep(pause).await;
            restart(place, &mut running, renamed);
        }
        Fault::FreezeWorker { length, .. } => {
            add("worker frozen");
            running.signal(Signal::SIGSTOP);
            sleep(length).await;
            running.signal(Signal::SIGCONT);
            add("worker thawed");
        }
        Fault::DrainWorker { .. } => {
            add("worker drained");
            running.signal(Signal::SIGTERM);
            if !running.ended(Duration::from_secs(30)).await {
                add("drain took too long");
            }
            restart(place, &mut running, true);
        }
        Fault::KillInit { .. } => {
            let inits = running.pid().map(sampler::task_inits).unwrap_or_default();
            // A third of those there are, so that both cases are seen: its task is hit or spared.
            for init in inits.iter().step_by(3) {
                process::signal(*init, Signal::SIGKILL);
                add("task-init killed");
            }
        }
        Fault::KillSpawner { .. } => {
            for spawner in running.pid().map(sampler::spawners).unwrap_or_default() {
                process::signal(spawner, Signal::SIGKILL);
                add("spawner killed");
            }
        }
        Fault::Cut { length, .. } => {
            add("connection cut");
            for_a_while(place, Network::Cut, length).await;
        }
        Fault::Stall { up, down, length, .. } => {
            add("connection stalled");
            for_a_while(place, Network::Stalled { up, down }, length).await;
        }
        Fault::HalfOpen { up, down, length, .. } => {
            add("connection half open");
            for_a_while(place, Network::Stalled { up, down }, length).await;
            // In between, what was on its way is lost.
            for_a_while(place, Network::Cut, Duration::from_millis(50)).await;
        }
        Fault::Slow { delay, length, .. } => {
            add("connection slow");
            for_a_while(place, Network::Slow(delay), length).await;
        }
        Fault::KillServer { .. } | Fault::KillLeader { .. } | Fault::FreezeServer { .. } => {
            unreachable!("not a worker's")
        }
    }
}

fn restart(place: &Place, running: &mut Running, renamed: bool) {
    let started = place.start_worker(running, renamed);
    started.expect("a worker process can be started");
}

async fn for_a_while(place: &Place, network: Network, length: Duration) {
    place.network(network);
    sleep(length).await;
    place.network(Network::Fine);
}

async fn on_server(world: &World, fault: Fault) {
    let (server, pause, what) = match fault {
        Fault::KillServer { server, pause } => (server, pause, "server killed"),
        Fault::KillLeader { stream, pause } => match leader(world, stream).await {
            Some(server) => (server, pause, "leader killed"),
            None => return world.timeline.add("skipped", ""),
        },
        Fault::FreezeServer { server, length } => {
            let name = world.servers.name(server);
            world.timeline.add("server frozen", name.clone());
            world.servers.signal(server, Signal::SIGSTOP).await;
            sleep(length).await;
            world.servers.signal(server, Signal::SIGCONT).await;
            world.timeline.add("server thawed", name);
            return;
        }
        Fault::KillWorker { .. }
        | Fault::FreezeWorker { .. }
        | Fault::DrainWorker { .. }
        | Fault::KillInit { .. }
        | Fault::KillSpawner { .. }
        | Fault::Cut { .. }
        | Fault::Stall { .. }
        | Fault::HalfOpen { .. }
        | Fault::Slow { .. } => unreachable!("not a server's"),
    };
    let name = world.servers.name(server);
    world.timeline.add(what, name.clone());
    world.servers.kill(server).await;
    sleep(pause).await;
    world.servers.revive(server).await.expect("a server that was killed starts again");
    world.timeline.add("server revived", name);
}

/// The server that leads a stream: the only one there is, or who the cluster says it is.
async fn leader(world: &World, stream: StreamName) -> Option<usize> {
    if world.servers.count() == 1 {
        return Some(0);
    }
    let subjects = runlane::wire::Subjects::default();
    let name = match stream {
        StreamName::Tasks => subjects.tasks_stream(),
        StreamName::Queue => subjects.queue_stream(),
        StreamName::Output => subjects.output_stream(),
    };
    let stream = world.connected.jetstream.get_stream(name).await.ok()?;
    let leader = stream.cached_info().cluster.as_ref()?.leader.clone()?;
    world.servers.index_of(&leader)
}
