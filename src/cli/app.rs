//! The whole command: verbs, the runtime, and the exit code.

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime, RuntimeFlavor};

use super::exit::{self, FAILED, Failure};
use super::global::GlobalArgs;
use super::{
    bench, cancel, check, completions, control, dev, exec, init, lanes, logs, ls, purge, retry,
    run, say, schema, status, submit, wait, worker, workers,
};

/// A durable, labelled task queue over NATS JetStream.
///
/// Tasks go in through NATS, wait in the queue of their labels, run as isolated subprocesses on a
/// worker that has these labels, stream their output, and end with exactly one outcome.
///
/// Two terminals to begin with: `runlane dev` in one, `runlane run -- echo hello` in the other.
#[derive(Debug, Parser)]
#[command(name = "runlane", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = exit::epilog(), subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Dev(dev::DevArgs),
    Worker(worker::WorkerArgs),
    Init(init::InitArgs),
    Run(run::RunArgs),
    Submit(submit::SubmitArgs),
    Exec(exec::ExecArgs),
    Logs(logs::LogsArgs),
    Wait(wait::WaitArgs),
    Cancel(cancel::CancelArgs),
    Status(status::StatusArgs),
    Ls(ls::LsArgs),
    Retry(retry::RetryArgs),
    Purge(purge::PurgeArgs),
    Workers(workers::WorkersArgs),
    Lanes(lanes::LanesArgs),
    Drain(control::DrainArgs),
    Pause(control::PauseArgs),
    Resume(control::ResumeArgs),
    Bench(bench::BenchArgs),
    Check(check::CheckArgs),
    Schema(schema::SchemaArgs),
    Completions(completions::CompletionsArgs),
}

/// Runs the command and returns its exit code; the codes are listed in `runlane --help`.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match start(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if let Some(message) = &failure.message {
                say::note(message);
            }
            failure.into()
        }
    }
}

/// Help and version are no errors; everything else has the code for a wrong command line.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is there to read it if printing fails.
    drop(error.print());
    ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 })
}

fn start(cli: Cli) -> Result<u8, Failure> {
    let runtime = runtime()
        .map_err(|error| Failure::new(FAILED, format!("cannot start the runtime: {error}")))?;
    let done = match runtime.handle().runtime_flavor() {
        RuntimeFlavor::CurrentThread => runtime.block_on(perform(cli)),
        // As one of its tasks: each message would have to wake this thread as well.
        _ => match runtime.block_on(runtime.spawn(perform(cli))) {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(Failure::of(FAILED, &error)),
            },
        },
    };
    // A read of stdin that nobody waits for must not keep the program.
    runtime.shutdown_background();
    done
}

/// Half as many threads as cores, at most 8: a message goes through several tasks of the runtime, and
/// waking another thread for each takes longer than the work does. What a worker runs has the other half.
///
/// One thread is this one. It takes tasks in the order in which they were woken, so what several of them
/// send at a time leaves in one write.
fn runtime() -> io::Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
    if threads <= 1 {
        return Builder::new_current_thread().enable_all().build();
    }
    Builder::new_multi_thread().worker_threads(threads.min(8)).enable_all().build()
}

async fn perform(Cli { global, verb }: Cli) -> Result<u8, Failure> {
    // These two log always, by their own configuration.
    let is_daemon = matches!(verb, Verb::Worker(_) | Verb::Dev(_));
    if global.log.is_some() && !is_daemon {
        worker::start_log(&global.config()?)?;
    }
    match verb {
        Verb::Dev(args) => dev::run(&global, args).await,
        Verb::Worker(args) => worker::run(&global, args).await,
        Verb::Init(args) => init::run(&global, &args).await,
        Verb::Run(args) => run::run(&global, &args).await,
        Verb::Submit(args) => submit::run(&global, &args).await,
        Verb::Exec(args) => exec::run(&global, &args).await,
        Verb::Logs(args) => logs::run(&global, &args).await,
        Verb::Wait(args) => wait::run(&global, &args).await,
        Verb::Cancel(args) => cancel::run(&global, &args).await,
        Verb::Status(args) => status::run(&global, &args).await,
        Verb::Ls(args) => ls::run(&global, &args).await,
        Verb::Retry(args) => retry::run(&global, &args).await,
        Verb::Purge(args) => purge::run(&global, &args).await,
        Verb::Workers(args) => workers::run(&global, &args).await,
        Verb::Lanes(args) => lanes::run(&global, &args).await,
        Verb::Drain(args) => control::drain(&global, &args).await,
        Verb::Pause(args) => control::pause(&global, &args).await,
        Verb::Resume(args) => control::resume(&global, &args).await,
        Verb::Bench(args) => bench::run(&global, &args).await,
        Verb::Check(args) => check::run(&global, &args).await,
        Verb::Schema(args) => schema::run(&args),
        Verb::Completions(args) => completions::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_and_verb_is_documented() {
        let mut command = Cli::command();
        command.build();
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
            for arg in verb.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", verb.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn every_global_flag_has_a_variable() {
        for arg in Cli::command().get_arguments().filter(|arg| arg.is_global_set()) {
            assert!(arg.get_env().is_some(), "{}", arg.get_id());
        }
    }
}
