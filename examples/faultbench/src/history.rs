//! The history of a client process: one line of JSON for each invocation and each answer.
//!
//! A line is written before the operation is sent, and one when its answer is there, so that the history of a
//! killed process has the operations that were never answered.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// An operation. Keys and values are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Asked {
    Get {
        key: u64,
    },
    Put {
        key: u64,
        value: u64,
    },
    Delete {
        key: u64,
    },
    Swap {
        key: u64,
        expect: Option<u64>,
        value: u64,
    },
    /// Moves an amount from one account to another, if neither has changed since it was read.
    Transfer {
        from: u64,
        to: u64,
        amount: u64,
    },
    /// Reads all accounts at once.
    Sum,
    /// Adds a key to the CRDT keyspace.
    Add {
        key: u64,
        value: u64,
    },
}

/// The answer to an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Value(Option<u64>),
    Done,
    Existed(bool),
    Swapped,
    Kept(Option<u64>),
    /// Whether the conditions held.
    Transferred(bool),
    Balances(Vec<u64>),
    /// The operation was refused, and had no effect.
    Refused(String),
    /// The operation may have been done.
    Unknown(String),
    /// The answer is none to the question, such as a value that nobody wrote.
    Wrong(String),
}

/// A line of a history.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    id: u64,
    /// Nanoseconds of the monotonic clock, which all processes of a machine share.
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<Asked>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
}

/// An operation with its answer, if there was one.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) invoked: u64,
    pub(crate) asked: Asked,
    pub(crate) returned: Option<(u64, Answer)>,
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn now() -> Result<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?);
    u64::try_from(now.as_nanos()).context("the clock is out of range")
}

/// Writes a history.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: Mutex<(File, u64)>,
}

impl Recorder {
    pub(crate) fn create(path: &Path) -> Result<Recorder> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Recorder { file: Mutex::new((file, 0)) })
    }

    fn line(&self, line: impl FnOnce(u64) -> Result<Line>) -> Result<u64> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.1 += 1;
        let line = line(file.1)?;
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        // One write for each line, so that a killed process leaves whole lines.
        file.0.write_all(text.as_bytes()).context("cannot write the history")?;
        Ok(line.id)
    }

    /// Records that an operation is about to be sent. Returns its id.
    pub(crate) fn asked(&self, asked: Asked) -> Result<u64> {
        self.line(|id| Ok(Line { id, at: now()?, asked: Some(asked), answer: None }))
    }

    /// Records the answer to operation `id`.
    pub(crate) fn answered(&self, id: u64, answer: Answer) -> Result<()> {
        self.line(|_| Ok(Line { id, at: now()?, asked: None, answer: Some(answer) })).map(drop)
    }
}

/// Reads a history. The last line of a killed process may be incomplete.
pub(crate) fn read(path: &Path) -> Result<Vec<Operation>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut operations: BTreeMap<u64, Operation> = BTreeMap::new();
    let lines = BufReader::new(file).lines().collect::<Result<Vec<_>, _>>()?;
    for (number, text) in lines.iter().enumerate() {
        let line: Line = match serde_json::from_str(text) {
            Ok(line) => line,
            Err(_) if number + 1 == lines.len() => break,
            Err(error) => return Err(error).with_context(|| format!("{}:{}", path.display(), number + 1)),
        };
        if let Some(asked) = line.asked {
            operations.insert(line.id, Operation { invoked: line.at, asked, returned: None });
        }
        if let Some(answer) = line.answer
            && let Some(operation) = operations.get_mut(&line.id)
        {
            operation.returned = Some((line.at, answer));
        }
    }
    Ok(operations.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_as_it_was_written_also_without_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let recorder = Recorder::create(&path).unwrap();
        let put = Asked::Put { key: 1, value: 2 };
        let first = recorder.asked(put).unwrap();
        recorder.asked(Asked::Get { key: 1 }).unwrap();
        recorder.answered(first, Answer::Done).unwrap();
        let operations = read(&path).unwrap();
        assert_eq!(operations.len(), 2);
        let (returned, answer) = operations[0].returned.clone().unwrap();
        assert!(operations[0].invoked <= returned && operations[0].asked == put && answer == Answer::Done);
        assert!(operations[1].returned.is_none());

        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 9]).unwrap();
        assert!(read(&path).unwrap().iter().all(|operation| operation.returned.is_none()));
        std::fs::write(&path, format!("x\n{text}")).unwrap();
        assert!(read(&path).is_err(), "only the last line may be incomplete");
    }
}
