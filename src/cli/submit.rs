//! `runlane submit`: queue one task or many, and print their ids.

use std::io::IsTerminal as _;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::exit::{Failure, INVALID, USAGE};
use super::global::GlobalArgs;
use super::specs::{self, Entry};
use super::task_args::{TaskArgs, list};
use super::wait::Ends;
use super::{run, say, wait};
use crate::client::{Client, Submission};
use crate::wire::{TaskId, TaskSpec};

/// Queue tasks and print their ids, one a line
///
/// Specs come from files (JSON, NDJSON or YAML; one or many in each), from stdin (-), or are made of the
/// flags and the command after --. Flags beside files change each spec of them. Every bad spec is
/// reported with its place and all its problems; then nothing is queued, unless --skip-invalid.
#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// Files with specs; - is stdin
    #[arg(value_name = "FILE")]
    files: Vec<String>,

    #[command(flatten)]
    task: TaskArgs,

    /// Show the task's output until its end, and exit with its code, as `runlane run` does
    #[arg(long, conflicts_with = "wait", help_heading = None)]
    follow: bool,

    /// Wait until every task has ended, and exit with the code of the first that did not succeed
    #[arg(long, help_heading = None)]
    wait: bool,

    /// Queue the valid specs even if others are invalid
    #[arg(long, help_heading = None)]
    skip_invalid: bool,

    /// The program and its arguments; no shell is involved
    #[arg(last = true, value_name = "CMD", help_heading = None)]
    command: Vec<String>,
}

/// A valid spec and where it is from.
struct Sourced {
    place: String,
    spec: TaskSpec,
}

pub(super) async fn run(global: &GlobalArgs, args: &SubmitArgs) -> Result<u8, Failure> {
    let (specs, invalid) = args.specs()?;
    if args.task.id.is_some() && specs.len() > 1 {
        let message = format!("--id names one task, and there are {}", specs.len());
        return Err(Failure::new(USAGE, message));
    }
    if args.follow && specs.len() != 1 {
        let message = format!("--follow takes one task, and there are {}", specs.len());
        return Err(Failure::new(USAGE, message));
    }
    let client = global.client().await?;
    let (queued, failure) = queue(global, &client, specs).await?;
    let code = match &queued[..] {
        [one] if args.follow => {
            let id = &one.task.id;
            run::attend(global, &client, id, client.follow(id).await?).await?
        }
        _ if args.wait => {
            let ids: Vec<TaskId> = queued.iter().map(|one| one.task.id.clone()).collect();
            wait::all(global, &client, &ids, None, Ends::AsNotes).await?
        }
        _ => 0,
    };
    match failure {
        Some(failure) => Err(failure),
        None if invalid > 0 => Ok(INVALID),
        None => Ok(code),
    }
}

impl SubmitArgs {
    /// The specs that are to be queued, and how many invalid ones were left out.
    fn specs(&self) -> Result<(Vec<Sourced>, usize), Failure> {
        if self.files.is_empty() {
            let spec = self.task.spec(&self.command)?;
            return Ok((vec![Sourced { place: "the task".to_owned(), spec }], 0));
        }
        if !self.command.is_empty() || self.task.script.is_some() {
            let message = "give either files or a command (or --script), not both";
            return Err(Failure::new(USAGE, message));
        }
        let mut specs = Vec::new();
        let mut invalid = 0;
        for file in &self.files {
            for Entry { place, spec } in specs::read(file)? {
                match spec {
                    Ok(mut spec) => {
                        self.task.apply(&mut spec)?;
                        specs.push(Sourced { place, spec });
                    }
                    Err(problems) => {
                        invalid += 1;
                        say::note(format!("{place}: the spec is invalid{}", list(&problems)));
                    }
                }
            }
        }
        if invalid > 0 && !self.skip_invalid {
            let of = specs.len() + invalid;
            let message = format!(
                "{invalid} of {of} specs are invalid, and nothing was queued; correct them, or use --skip-invalid"
            );
            return Err(Failure::new(INVALID, message));
        }
        Ok((specs, invalid))
    }
}

/// Queues the specs, prints the ids, and returns what is queued and the first failure.
async fn queue(
    global: &GlobalArgs,
    client: &Client,
    specs: Vec<Sourced>,
) -> Result<(Vec<Submission>, Option<Failure>), Failure> {
    let bar = progress(global, specs.len());
    let (places, specs): (Vec<String>, Vec<TaskSpec>) =
        specs.into_iter().map(|sourced| (sourced.place, sourced.spec)).unzip();
    let mut places = places.into_iter();
    let mut bulk = client.submitter().submit_all(specs);
    let (mut queued, mut failure) = (Vec::new(), None);
    let mut known = 0;
    while let Some(answer) = bulk.next().await {
        let place = places.next().unwrap_or_default();
        bar.inc(1);
        match answer {
            Ok(submission) => {
                known += usize::from(submission.task.duplicate);
                bar.suspend(|| print(global, &submission))?;
                queued.push(submission);
            }
            Err(error) => {
                let failed = Failure::from(error);
                let why = failed.message.as_deref().unwrap_or_default();
                bar.suspend(|| say::note(format!("{place}: {why}")));
                failure.get_or_insert(Failure::silent(failed.code));
            }
        }
    }
    bar.finish_and_clear();
    if known > 0 {
        global.note(format!("{known} of {} tasks were known already", queued.len()));
    }
    Ok((queued, failure))
}

fn print(global: &GlobalArgs, submission: &Submission) -> Result<(), Failure> {
    if global.json { say::json(&submission.task) } else { say::line(submission.task.id.as_str()) }
}

/// A bar on stderr, if a person may see it and there is something to wait for.
fn progress(global: &GlobalArgs, len: usize) -> ProgressBar {
    if global.quiet || len < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} queued, {per_sec}");
    ProgressBar::new(len as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
