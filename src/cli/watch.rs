//! Shows a task's events as they come: stdout to stdout and stderr to stderr, byte for byte; or JSON.

use serde::Serialize;

use super::exit::Failure;
use super::{say, text};
use crate::client::{FollowEvent, Gap, GapReason, OutputChunk};
use crate::wire::{Attempt, Outcome, Phase, StatusEvent, Stream};

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The program's bytes.
    Raw,
    /// One JSON object a line, on stdout.
    Json,
}

/// What is shown, and how.
#[derive(Debug, Clone)]
pub(super) struct Show {
    /// How.
    pub(super) form: Form,
    /// Only this stream.
    pub(super) stream: Option<Stream>,
    /// Only this attempt.
    pub(super) attempt: Option<Attempt>,
    /// No notes on stderr.
    pub(super) quiet: bool,
}

/// An event as a line of JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Line<'a> {
    /// `text` if the bytes are UTF-8, else `base64`.
    Chunk {
        attempt: Attempt,
        stream: Stream,
        offset: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    },
    Gap {
        attempt: Attempt,
        stream: Stream,
        offset: u64,
        bytes: u64,
        reason: &'static str,
    },
    Status {
        event: &'a StatusEvent,
    },
    Outcome {
        outcome: &'a Outcome,
    },
}

impl Show {
    /// Shows one event.
    pub(super) async fn event(&self, event: &FollowEvent) -> Result<(), Failure> {
        match (event, self.form) {
            (FollowEvent::Chunk(chunk), _) if !self.takes(chunk.attempt, chunk.stream) => Ok(()),
            (FollowEvent::Gap(gap), _) if !self.takes(gap.attempt, gap.stream) => Ok(()),
            (FollowEvent::Chunk(chunk), Form::Raw) => {
                say::patiently(chunk.stream, chunk.data.clone()).await
            }
            (FollowEvent::Chunk(chunk), Form::Json) => line(chunk_line(chunk)).await,
            (FollowEvent::Gap(gap), Form::Raw) => {
                // Incomplete output is told even when asked to be quiet.
                say::note(gap_text(gap));
                Ok(())
            }
            (FollowEvent::Gap(gap), Form::Json) => {
                line(Line::Gap {
                    attempt: gap.attempt,
                    stream: gap.stream,
                    offset: gap.offset,
                    bytes: gap.bytes,
                    reason: reason(gap.reason),
                })
                .await
            }
            (FollowEvent::Status(event), Form::Raw) => {
                self.status(event);
                Ok(())
            }
            (FollowEvent::Status(event), Form::Json) => line(Line::Status { event }).await,
            (FollowEvent::Outcome(outcome), Form::Raw) => {
                self.outcome(outcome);
                Ok(())
            }
            (FollowEvent::Outcome(outcome), Form::Json) => line(Line::Outcome { outcome }).await,
            (FollowEvent::Unreachable(error), _) => {
                self.note(format!("NATS doesn't answer, trying on ({error})"));
                Ok(())
            }
            (FollowEvent::Reachable, _) => {
                self.note("NATS answers again");
                Ok(())
            }
        }
    }

    fn takes(&self, attempt: Attempt, stream: Stream) -> bool {
        self.stream.is_none_or(|only| only == stream)
            && self.attempt.is_none_or(|only| only == attempt)
    }

    fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            say::note(text);
        }
    }

    fn status(&self, event: &StatusEvent) {
        match event {
            StatusEvent::Started(started) if started.attempt > Attempt::FIRST => {
                self.note(format!("attempt {} starts on {}", started.attempt, started.worker));
            }
            StatusEvent::Retrying(retrying) => {
                let ended = text::ended(&retrying.ended);
                let delay = crate::task::Human(std::time::Duration::from_millis(retrying.delay_ms));
                self.note(format!("{ended}; the next attempt follows in {delay}"));
            }
            StatusEvent::Requeued(requeued) => {
                self.note(format!(
                    "worker {} handed the task back; it runs again",
                    requeued.worker
                ));
            }
            StatusEvent::Started(_) | StatusEvent::Finished(_) => {}
        }
    }

    /// What an exit code alone doesn't tell.
    fn outcome(&self, outcome: &Outcome) {
        let exited = outcome.exit_code.is_some() && outcome.error.is_none();
        let plain = matches!(outcome.phase, Phase::Succeeded | Phase::Failed) && exited;
        let told = format!("task {} {}", outcome.id, text::ended(outcome));
        if outcome.error.is_some() {
            // That is no note: what the program would have said, had it run.
            say::note(told);
        } else if !plain || outcome.oom_killed {
            self.note(told);
        }
    }
}

async fn line(line: Line<'_>) -> Result<(), Failure> {
    say::patiently(Stream::Stdout, say::json_line(&line)?.into()).await
}

fn chunk_line(chunk: &OutputChunk) -> Line<'_> {
    use base64::Engine as _;
    let text = std::str::from_utf8(&chunk.data).ok();
    let encode = || base64::engine::general_purpose::STANDARD.encode(&chunk.data);
    Line::Chunk {
        attempt: chunk.attempt,
        stream: chunk.stream,
        offset: chunk.offset,
        text,
        base64: text.is_none().then(encode),
    }
}

fn reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Omitted => "omitted",
        GapReason::Missing => "missing",
        GapReason::Unreadable => "unreadable",
    }
}

fn gap_text(gap: &Gap) -> String {
    let why = match gap.reason {
        GapReason::Omitted => "left out by the task's output cap",
        GapReason::Missing => "missing: not stored, or past the output's age or size limit",
        GapReason::Unreadable => {
            "stored in a form that this version can't read; a newer one may be able to"
        }
    };
    let Gap { attempt, stream, offset, bytes, .. } = gap;
    format!("{bytes} bytes of {stream} from offset {offset} (attempt {attempt}) are {why}")
}
