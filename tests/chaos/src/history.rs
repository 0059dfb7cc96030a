//! What was asked and what was answered, as lines of JSON.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What an operation means for the things that it names. Things are known by the unique names that clients give them:
/// whoever doesn't get an answer doesn't know an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do")]
pub enum Intent {
    /// A VM in a network.
    Deploy {
        /// Its name.
        vm: String,
        /// Its network.
        network: String,
    },
    /// Stops a VM.
    Stop {
        /// It.
        vm: String,
    },
    /// Starts a VM.
    Start {
        /// It.
        vm: String,
    },
    /// Reboots a VM.
    Reboot {
        /// It.
        vm: String,
    },
    /// Destroys a VM.
    Destroy {
        /// It.
        vm: String,
        /// Wholly.
        expunge: bool,
    },
    /// A volume.
    CreateVolume {
        /// Its name.
        volume: String,
        /// In GiB.
        size: i64,
    },
    /// Attaches a volume.
    Attach {
        /// It.
        volume: String,
        /// To this VM.
        vm: String,
    },
    /// Detaches a volume.
    Detach {
        /// It.
        volume: String,
    },
    /// Gives a volume another size.
    Resize {
        /// It.
        volume: String,
        /// In GiB.
        size: i64,
    },
    /// Deletes a volume.
    DeleteVolume {
        /// It.
        volume: String,
    },
    /// A network.
    CreateNetwork {
        /// Its name.
        network: String,
    },
    /// Deletes a network.
    DeleteNetwork {
        /// It.
        network: String,
    },
    /// Puts a tag on a VM.
    Tag {
        /// The VM.
        vm: String,
        /// Key.
        key: String,
        /// Value.
        value: String,
    },
    /// Takes a tag off a VM.
    Untag {
        /// The VM.
        vm: String,
        /// Key.
        key: String,
    },
    /// Asks for one VM.
    SeeVm {
        /// It.
        vm: String,
    },
    /// Asks for one volume.
    SeeVolume {
        /// It.
        volume: String,
    },
    /// Asks for one network.
    SeeNetwork {
        /// It.
        network: String,
    },
    /// Asks for a VM's tags.
    SeeTags {
        /// The VM.
        vm: String,
    },
    /// Asks for all VMs of the caller's account.
    ListVms,
    /// Asks for all volumes of the caller's account.
    ListVolumes,
    /// Something that changes nothing and means nothing to the models.
    Other,
}

impl Intent {
    /// Whether it changes something.
    pub fn mutates(&self) -> bool {
        !matches!(
            self,
            Intent::SeeVm { .. }
                | Intent::SeeVolume { .. }
                | Intent::SeeNetwork { .. }
                | Intent::SeeTags { .. }
                | Intent::ListVms
                | Intent::ListVolumes
                | Intent::Other
        )
    }
}

/// An error of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `errorcode`.
    pub code: i64,
    /// `cserrorcode`.
    pub cs: i64,
    /// `errortext`.
    pub text: String,
}

/// What came back for one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer")]
pub enum Answer {
    /// A well-formed answer.
    Reply {
        /// HTTP status.
        status: u16,
        /// The error in it.
        error: Option<Failure>,
        /// The job in it.
        job: Option<String>,
        /// That job's status, when it was asked for.
        job_status: Option<i64>,
        /// Digest of an ended job's result.
        result: Option<u64>,
    },
    /// Something else: a page of a balancer, half a body, another command's answer.
    Garbled {
        /// HTTP status.
        status: u16,
        /// Its beginning.
        body: String,
    },
    /// Nothing was sent.
    NoConnection,
    /// It was sent and nothing came back.
    Lost,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome")]
pub enum Outcome {
    /// Done.
    Ok {
        /// The answer, or the job's result.
        value: serde_json::Value,
        /// The job.
        job: Option<String>,
    },
    /// Refused before anything was begun.
    Refused {
        /// Why.
        error: Failure,
    },
    /// Its job failed.
    Failed {
        /// The job.
        job: String,
        /// Why.
        error: Failure,
    },
    /// The client gave up.
    Unknown {
        /// Its job, when it was accepted.
        job: Option<String>,
        /// Why.
        why: String,
    },
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub enum Event {
    /// A client begins.
    Invoke {
        /// Number of the operation.
        op: u64,
        /// The client.
        client: usize,
        /// Its account.
        account: String,
        /// The command.
        command: String,
        /// Its parameters.
        params: BTreeMap<String, String>,
        /// Its idempotency key.
        key: Option<String>,
        /// What it means.
        intent: Intent,
    },
    /// One request and its answer.
    Attempt {
        /// The operation.
        op: u64,
        /// Whom it was sent to.
        endpoint: String,
        /// When it was sent.
        sent: u64,
        /// Whether it asked for the operation's job.
        poll: bool,
        /// What came.
        #[serde(flatten)]
        answer: Answer,
    },
    /// A client is done.
    Done {
        /// The operation.
        op: u64,
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// Something is hurt.
    Fault {
        /// Number of the fault.
        fault: u64,
        /// What is hurt.
        part: String,
        /// How: kill, pause, partition, restart.
        how: String,
    },
    /// It is well again.
    Mended {
        /// Number of the fault.
        fault: u64,
    },
}

/// A line with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Microseconds since the run began.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// The history of a run, growing.
pub struct History {
    begun: Instant,
    inner: Mutex<(Vec<Entry>, Option<BufWriter<File>>)>,
}

impl History {
    /// An empty one; lines go to `file` too.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn new(file: Option<&Path>) -> std::io::Result<History> {
        let file = file.map(File::create).transpose()?.map(BufWriter::new);
        Ok(History { begun: Instant::now(), inner: Mutex::new((Vec::new(), file)) })
    }

    /// Microseconds since it began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Adds a line.
    pub fn write(&self, event: Event) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that lines stand in the order of their times.
        let entry = Entry { at: self.now(), event };
        if let Some(file) = inner.1.as_mut()
            && let Ok(line) = serde_json::to_string(&entry)
        {
            // A full disk mustn't end the run: the history in memory is what is checked.
            let _ = writeln!(file, "{line}");
        }
        inner.0.push(entry);
    }

    /// All lines so far.
    pub fn entries(&self) -> Vec<Entry> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = inner.1.as_mut() {
            let _ = file.flush();
        }
        inner.0.clone()
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads a history file.
///
/// # Errors
/// When it isn't one.
pub fn read(file: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(file)?;
    text.lines().filter(|line| !line.is_empty()).map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// An operation, put together from its lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Number.
    pub op: u64,
    /// The client.
    pub client: usize,
    /// Its account.
    pub account: String,
    /// The command.
    pub command: String,
    /// What it means.
    pub intent: Intent,
    /// When it began.
    pub invoked: u64,
    /// When it was done.
    pub done: Option<u64>,
    /// How it ended; none: the run ended first.
    pub outcome: Option<Outcome>,
    /// Its requests and answers: when sent, when answered, to whom, whether it asked for the job.
    pub attempts: Vec<Attempt>,
}

/// One request of an operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// When it was sent.
    pub sent: u64,
    /// When its answer was there.
    pub answered: u64,
    /// Whom it was sent to.
    pub endpoint: String,
    /// Whether it asked for the operation's job.
    pub poll: bool,
    /// What came.
    pub answer: Answer,
}

/// The operations of a history, in the order in which they began.
pub fn operations(entries: &[Entry]) -> Vec<Operation> {
    let mut found: BTreeMap<u64, Operation> = BTreeMap::new();
    for entry in entries {
        match &entry.event {
            Event::Invoke { op, client, account, command, intent, .. } => {
                found.insert(
                    *op,
                    Operation {
                        op: *op,
                        client: *client,
                        account: account.clone(),
                        command: command.clone(),
                        intent: intent.clone(),
                        invoked: entry.at,
                        done: None,
                        outcome: None,
                        attempts: Vec::new(),
                    },
                );
            }
            Event::Attempt { op, endpoint, sent, poll, answer } => {
                if let Some(of) = found.get_mut(op) {
                    let attempt = Attempt {
                        sent: *sent,
                        answered: entry.at,
                        endpoint: endpoint.clone(),
                        poll: *poll,
                        answer: answer.clone(),
                    };
                    of.attempts.push(attempt);
                }
            }
            Event::Done { op, outcome } => {
                if let Some(of) = found.get_mut(op) {
                    of.done = Some(entry.at);
                    of.outcome = Some(outcome.clone());
                }
            }
            Event::Fault { .. } | Event::Mended { .. } => {}
        }
    }
    let mut all: Vec<Operation> = found.into_values().collect();
    all.sort_by_key(|o| o.invoked);
    all
}

/// A fault: what was hurt, when, until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultSpan {
    /// What was hurt.
    pub part: String,
    /// How.
    pub how: String,
    /// From.
    pub from: u64,
    /// Until; the end of time when it wasn't mended.
    pub until: u64,
}

/// The faults of a history.
pub fn faults(entries: &[Entry]) -> Vec<FaultSpan> {
    let mut spans = Vec::new();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for entry in entries {
        match &entry.event {
            Event::Fault { fault, part, how } => {
                open.insert(*fault, spans.len());
                spans.push(FaultSpan { part: part.clone(), how: how.clone(), from: entry.at, until: u64::MAX });
            }
            Event::Mended { fault } => {
                if let Some(at) = open.remove(fault) {
                    spans[at].until = entry.at;
                }
            }
            _ => {}
        }
    }
    spans
}
