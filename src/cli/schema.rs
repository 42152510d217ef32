//! `runlane schema`: the JSON Schemas of everything that crosses the wire.

use std::path::PathBuf;

use clap::Args;

use super::exit::{FAILED, Failure, USAGE};
use super::say;
use crate::wire::schema;

/// Print a JSON Schema (draft 2020-12), list their names, or write all of them to files
#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// Which one, such as task-spec; without it the names are listed
    #[arg(value_name = "NAME", conflicts_with = "write")]
    name: Option<String>,

    /// Write every schema to this directory
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

pub(super) fn run(args: &SchemaArgs) -> Result<u8, Failure> {
    let schemas = schema::render();
    if let Some(dir) = &args.write {
        let fail = |error: std::io::Error| {
            Failure::new(FAILED, format!("cannot write to {}: {error}", dir.display()))
        };
        std::fs::create_dir_all(dir).map_err(fail)?;
        for (name, text) in &schemas {
            std::fs::write(dir.join(name), text).map_err(fail)?;
        }
        return Ok(0);
    }
    let short = |file: &str| file.trim_end_matches(".json").trim_end_matches(".schema").to_owned();
    let Some(name) = &args.name else {
        schemas.iter().try_for_each(|(file, _)| say::line(short(file)))?;
        return Ok(0);
    };
    match schemas.iter().find(|(file, _)| short(file) == short(name)) {
        Some((_, text)) => say::out(text.as_bytes()).map(|()| 0),
        None => {
            let names: Vec<String> = schemas.iter().map(|(file, _)| short(file)).collect();
            let message = format!("there is no schema {name:?}; there are {}", names.join(", "));
            Err(Failure::new(USAGE, message))
        }
    }
}
