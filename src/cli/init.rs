//! `runlane init`: make the streams and buckets of a namespace.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::exit::Failure;
use super::global::{GlobalArgs, open};
use super::{say, settings};
use crate::config::{Config, RawConfig};
use crate::nats::topology::ensure;

/// Make the streams and buckets of the namespace; what is there already is checked, never changed
///
/// A worker does the same when it starts, unless its configuration forbids it.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Configuration file whose [streams] and lease are used
    #[arg(long, short = 'c', env = "RUNLANE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Copies of each stream: 1, 3 or 5 [default: the file's, else 1]
    #[arg(long, value_name = "N")]
    replicas: Option<u8>,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    created: bool,
    notes: &'a [String],
}

pub(super) async fn run(global: &GlobalArgs, args: &InitArgs) -> Result<u8, Failure> {
    let mut raw = global.overrides();
    raw.streams.replicas = args.replicas;
    let config = Config::load(None, merge(args.config.as_deref(), raw)?)?;
    let (_, bus) = open(&config, "runlane init").await?;
    for made in ensure(&bus, &settings::topology(&config)).await? {
        if global.json {
            say::json(&Line { name: &made.name, created: made.created, notes: &made.notes })?;
        } else if !global.quiet {
            let what = if made.created { "created" } else { "is there" };
            say::line(format!("{:<20} {what}", made.name))?;
        }
        for note in made.notes.iter().filter(|_| !global.json) {
            global.note(format!("{}: {note}; left as it is", made.name));
        }
    }
    Ok(0)
}

/// Reads a file, under flags and variables. `NATS_URL` counts if neither names a server.
pub(super) fn merge(file: Option<&Path>, overrides: RawConfig) -> Result<RawConfig, Failure> {
    let raw = match file {
        Some(path) => overrides.over(RawConfig::read(path)?),
        None => overrides,
    };
    Ok(settings::with_nats_url(raw))
}
