//! `runlane check`: is this configuration, this spec, or this installation in order?

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::exit::{CONFIG, Failure, INVALID};
use super::global::{GlobalArgs, open};
use super::isolation::{self, ThisHost, Verdict};
use super::task_args::list;
use super::{say, specs};
use crate::client::Client;
use crate::config::{Config, RawConfig, RunnerConfig};
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
    let host = Arc::clone(&ThisHost::probe(&config.worker.cgroup)?.host);
    let verdict = |runner: &RunnerConfig| Verdict::of(&runner.isolation, &host);
    let runners = config.worker.runners.iter();
    let runners: Vec<_> = runners
        .map(|runner| CheckedRunner { name: &runner.name, on_this_host: verdict(runner) })
        .collect();
    let all_ok = runners.iter().all(|runner| runner.on_this_host.ok);
    if global.json {
        say::json(&Checked { file, ok: all_ok, runners: &runners })?;
        return if all_ok { Ok(0) } else { Err(Failure::silent(CONFIG)) };
    }
    // A worker would refuse to start; the same words.
    drop(isolation::fit(&config, Some(Path::new(file)))?);
    ok(global, file, &format!("a configuration with {} runner(s)", runners.len()))?;
    for CheckedRunner { name, on_this_host } in runners.iter().filter(|_| !global.quiet) {
        let (preset, text) = (on_this_host.preset, on_this_host.text());
        say::line(format!("  runner {name}, isolation {preset} on this host: {text}"))?;
    }
    Ok(0)
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
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    runners: &'a [CheckedRunner<'a>],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckedRunner<'a> {
    name: &'a str,
    on_this_host: Verdict,
}

fn ok(global: &GlobalArgs, file: &str, what: &str) -> Result<u8, Failure> {
    if global.json {
        say::json(&Checked { file, ok: true, runners: &[] })?;
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
    presets: Vec<Verdict>,
}

async fn check_installation(global: &GlobalArgs) -> Result<u8, Failure> {
    let config = global.config()?;
    let (connected, bus) = open(&config, "runlane check").await?;
    let client = Client::new(bus.clone());
    // The default lane is there if and only if the namespace is set up.
    crate::nats::topology::lane_lease(&bus, &LaneId::default_lane()).await?;
    let host = Arc::clone(&ThisHost::probe(&config.worker.cgroup)?.host);
    let found = Installation {
        server: connected.server.server_name.clone(),
        server_version: connected.version.to_string(),
        max_payload: bus.max_payload(),
        namespace: config.namespace.to_string(),
        lanes: client.lanes().await?.len(),
        workers: client.workers().await?.workers.len(),
        host: crate::worker::features(&host),
        presets: isolation::presets(&host, &config.worker.work_root),
    };
    if global.json {
        say::json(&found)?;
        return Ok(0);
    }
    say::out(found.text().as_bytes())?;
    Ok(0)
}

impl Installation {
    fn text(&self) -> String {
        let Self { server, server_version, max_payload, namespace, lanes, workers, .. } = self;
        let mut lines = vec![
            format!("server     {server}, nats-server {server_version}, max_payload {max_payload}"),
            format!("namespace  {namespace}: set up, {lanes} lane(s), {workers} live worker(s)"),
            "this host".to_owned(),
        ];
        lines.extend(self.host.iter().map(|(feature, what)| format!("  {feature:<18}  {what}")));
        lines.push("isolation".to_owned());
        let verdicts = self.presets.iter();
        lines.extend(verdicts.map(|it| format!("  {:<18}  {}", it.preset, it.text())));
        lines.join("\n") + "\n"
    }
}
