//! `runlane check`: is this configuration, this spec, or this installation in order?

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::exit::{Failure, INVALID};
use super::global::{GlobalArgs, open};
use super::specs;
use super::task_args::list;
use super::{say, text};
use crate::client::Client;
use crate::config::{Config, RawConfig};
use crate::wire::LaneId;

/// Check a configuration, specs, or (without an argument) the connection, streams and this host
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// A .toml file is a configuration; JSON, NDJSON and YAML are specs, and - reads specs from stdin
    #[arg(value_name = "FILE")]
    file: Option<String>,
}

pub(super) async fn run(global: &GlobalArgs, args: &CheckArgs) -> Result<u8, Failure> {
    match args.file.as_deref() {
        Some(file) if file.ends_with(".toml") => check_config(global, file),
        Some(file) => check_specs(global, file),
        None => check_installation(global).await,
    }
}

fn check_config(global: &GlobalArgs, file: &str) -> Result<u8, Failure> {
    let config = Config::load(Some(Path::new(file)), RawConfig::default())?;
    let runners: Vec<&str> = config.worker.runners.iter().map(|runner| &*runner.name).collect();
    ok(global, file, &format!("a configuration with the runners {}", runners.join(", ")))
}

fn check_specs(global: &GlobalArgs, file: &str) -> Result<u8, Failure> {
    let entries = specs::read(file)?;
    let (mut invalid, all) = (0, entries.len());
    for entry in entries {
        if let Err(problems) = entry.spec {
            invalid += 1;
            say::note(format!("{}: the spec is invalid{}", entry.place, list(&problems)));
        }
    }
    if invalid > 0 {
        return Err(Failure::new(INVALID, format!("{invalid} of {all} specs are invalid")));
    }
    ok(global, file, &format!("{all} valid spec(s)"))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked<'a> {
    file: &'a str,
    ok: bool,
}

fn ok(global: &GlobalArgs, file: &str, what: &str) -> Result<u8, Failure> {
    if global.json {
        say::json(&Checked { file, ok: true })?;
    } else if !global.quiet {
        say::line(format!("{file}: ok, {what}"))?;
    }
    Ok(0)
}

/// What the check without an argument finds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Installation {
    server: String,
    server_version: String,
    max_payload: usize,
    namespace: String,
    lanes: usize,
    workers: usize,
    host: std::collections::BTreeMap<String, String>,
}

async fn check_installation(global: &GlobalArgs) -> Result<u8, Failure> {
    let config = global.config()?;
    let (connected, bus) = open(&config, "runlane check").await?;
    let client = Client::new(bus.clone());
    // The default lane is there if and only if the namespace is set up.
    crate::nats::topology::lane_lease(&bus, &LaneId::default_lane()).await?;
    let found = Installation {
        server: connected.server.server_name.clone(),
        server_version: connected.version.to_string(),
        max_payload: bus.max_payload(),
        namespace: config.namespace.to_string(),
        lanes: client.lanes().await?.len(),
        workers: client.workers().await?.workers.len(),
        host: crate::worker::features(),
    };
    if global.json {
        say::json(&found)?;
        return Ok(0);
    }
    let Installation { server, server_version, max_payload, namespace, lanes, workers, host } =
        found;
    say::line(format!(
        "server     {server}, nats-server {server_version}, max_payload {max_payload}"
    ))?;
    say::line(format!(
        "namespace  {namespace}: set up, {lanes} lane(s), {workers} live worker(s)"
    ))?;
    say::line(format!("this host  {}", text::labels(&host)))?;
    Ok(0)
}
