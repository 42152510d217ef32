//! Where it is measured, as the flags say; and what went wrong there, as an exit code.

use std::ffi::OsString;

use super::super::exit::{FAILED, Failure, UNAVAILABLE};
use super::super::global::GlobalArgs;
use super::super::settings;
use super::{Against, CommonArgs};
use crate::bench::{BenchError, Place, SiteOptions, WorkerCommand};
use crate::devserver::{FindOptions, find};
use crate::exec::THIS_PROGRAM;

/// Finds the server, or the program to start one.
pub(super) async fn options(
    global: &GlobalArgs,
    common: &CommonArgs,
) -> Result<SiteOptions, Failure> {
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

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Connect(error) => error.into(),
            BenchError::Bus(error) => error.into(),
            BenchError::Submit(error) => error.into(),
            BenchError::Topology(error) => error.into(),
            BenchError::Control(error) => error.into(),
            BenchError::Cancel(error) => error.into(),
            BenchError::Remove(error) => error.into(),
            BenchError::Server(error) => Self::of(UNAVAILABLE, &error),
            error @ BenchError::ServerEnded { .. } => Self::of(UNAVAILABLE, &error),
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
