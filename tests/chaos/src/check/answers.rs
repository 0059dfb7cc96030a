//! What each answer may be.
//!
//! | answer | at any time | while something is hurt | never |
//! |---|---|---|---|
//! | a result | × | | |
//! | 431, 536, 537: the request doesn't fit what is named in it | × (the models judge whether it's true) | | |
//! | no connection, no answer, 502, 503, 504 | | × | |
//! | 534, 533, 530/4300, and 530 with a text that says what couldn't be done | | × | |
//! | 401, 405, 429, 430, 432, 531, 532, 535 for requests that are signed and allowed | | | × |
//! | 500, and 530 that hides an internal error | | | × |
//! | something that isn't an answer of the API | | | × |
//! | "no such job" for a job that was accepted; a job's status that goes back; another result than before | | | × |
//! | another job for the same idempotency key | | | × |

use super::{Report, Run, is_internal, is_refusal, is_transient, label};
use crate::history::{Answer, Attempt, Failure, Operation, Outcome};

pub fn check(run: &Run, report: &mut Report) {
    for o in &run.operations {
        for attempt in &o.attempts {
            one(run, o, attempt, report);
        }
        accepted_once(o, report);
        job(o, report);
        end(run, o, report);
    }
}

fn one(run: &Run, o: &Operation, attempt: &Attempt, report: &mut Report) {
    let hurt = || run.excuses(attempt.sent, attempt.answered);
    let at = || format!("{} by {} at {:.3} s", o.command, attempt.endpoint, attempt.answered as f64 / 1e6);
    match &attempt.answer {
        Answer::Garbled { status, .. } if matches!(status, 502..=504) => {
            if hurt() {
                report.tolerate(format!("HTTP {status}"));
            } else {
                report.find("unavailable-while-well", Some(o.op), format!("{}: HTTP {status}", at()));
            }
        }
        Answer::Garbled { status, body } => {
            report.find("garbled", Some(o.op), format!("{}: HTTP {status}: {body}", at()));
        }
        Answer::NoConnection | Answer::Lost => {
            let what = if attempt.answer == Answer::Lost { "no answer" } else { "no connection" };
            if hurt() {
                report.tolerate(what);
            } else {
                report.find("unavailable-while-well", Some(o.op), format!("{}: {what}", at()));
            }
        }
        Answer::Reply { status, error: Some(error), .. } => {
            error_of(o, error, *status, hurt(), &at(), report);
        }
        Answer::Reply { status, error: None, .. } => {
            if *status != 200 {
                report.find("garbled", Some(o.op), format!("{}: a result with HTTP {status}", at()));
            }
        }
    }
}

fn error_of(o: &Operation, error: &Failure, status: u16, hurt: bool, at: &str, report: &mut Report) {
    let what = || format!("{at}: {}/{} {}", error.code, error.cs, error.text);
    if i64::from(status) != error.code {
        report.find("garbled", Some(o.op), format!("{}: HTTP {status}", what()));
    }
    if is_internal(error) {
        report.find("internal-error", Some(o.op), what());
    } else if is_transient(error) {
        if hurt {
            report.tolerate(label(error));
        } else if error.cs != 4300 {
            // That another change was faster is nobody's fault.
            report.find("unavailable-while-well", Some(o.op), what());
        }
    } else if !is_refusal(error) {
        report.find("wrong-error", Some(o.op), what());
    }
}

/// All answers that accept the operation name the same job.
fn accepted_once(o: &Operation, report: &mut Report) {
    let mut jobs: Vec<&String> = Vec::new();
    for attempt in o.attempts.iter().filter(|a| !a.poll) {
        if let Answer::Reply { job: Some(job), .. } = &attempt.answer
            && !jobs.contains(&job)
        {
            jobs.push(job);
        }
    }
    if jobs.len() > 1 {
        report.find("accepted-twice", Some(o.op), format!("{} was accepted as the jobs {jobs:?}", o.command));
    }
}

/// What is told of the job never goes back.
fn job(o: &Operation, report: &mut Report) {
    // Concurrent polls don't exist: a client asks again when it was answered.
    let mut ended: Option<(i64, Option<u64>)> = None;
    for attempt in o.attempts.iter().filter(|a| a.poll) {
        match &attempt.answer {
            Answer::Reply { error: Some(error), .. } if error.code == 431 => {
                report.find(
                    "job-forgotten",
                    Some(o.op),
                    format!("{}: {}: {}", o.command, attempt.endpoint, error.text),
                );
            }
            Answer::Reply { job_status: Some(status), result, .. } => {
                if let Some(before) = &ended
                    && *before != (*status, *result)
                {
                    let what =
                        format!("{}: its job was {}, then {status} by {}", o.command, before.0, attempt.endpoint);
                    report.find("job-went-back", Some(o.op), what);
                }
                if *status != 0 {
                    ended = Some((*status, *result));
                }
            }
            _ => {}
        }
    }
}

fn end(run: &Run, o: &Operation, report: &mut Report) {
    let hurt = o.done.map_or_else(|| run.hurt(o.invoked, u64::MAX), |done| run.excuses(o.invoked, done));
    match &o.outcome {
        Some(Outcome::Failed { error, .. }) => {
            let what = || format!("{}: its job failed: {}/{} {}", o.command, error.code, error.cs, error.text);
            if is_internal(error) {
                report.find("internal-error", Some(o.op), what());
            } else if is_transient(error) {
                if hurt {
                    report.tolerate(format!("job {}", label(error)));
                } else if error.cs != 4300 {
                    report.find("failed-while-well", Some(o.op), what());
                }
            } else if !is_refusal(error) {
                report.find("wrong-error", Some(o.op), what());
            }
        }
        Some(Outcome::Unknown { why, .. }) => {
            if hurt {
                report.tolerate("unknown");
            } else {
                report.find("unavailable-while-well", Some(o.op), format!("{}: {why}", o.command));
            }
        }
        // Its attempts were judged.
        Some(Outcome::Ok { .. } | Outcome::Refused { .. }) | None => {}
    }
}
