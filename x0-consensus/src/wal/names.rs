//! The names of the files of a log.

pub(crate) const LOCK: &str = "lock";
pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const ORIGIN: &str = "origin";
/// A file that is being written. Opening the log removes it, because it was never finished.
const PARTIAL: &str = ".partial";
const SEGMENT: &str = ".wal";
/// A spare file for a segment: of full length, with bytes without a meaning.
const SPARE: &str = ".spare";
const SNAPSHOT: &str = ".snapshot";

/// A parsed name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(u64),
    Snapshot {
        index: u64,
        term: u64,
    },
    Spare(u64),
    Partial,
    /// The lock, the manifest, the origin, or a foreign file: not touched by name.
    Other,
}

pub(crate) fn segment(sequence: u64) -> String {
    format!("{sequence:016x}{SEGMENT}")
}

pub(crate) fn snapshot(index: u64, term: u64) -> String {
    format!("{index:016x}-{term:016x}{SNAPSHOT}")
}

pub(crate) fn spare(number: u64) -> String {
    format!("{number:016x}{SPARE}")
}

pub(crate) fn partial(name: &str, number: u64) -> String {
    format!("{name}-{number}{PARTIAL}")
}

fn number(digits: &str) -> Option<u64> {
    // Exactly the form that is written: "1.wal" or capitals are files of another program.
    let is_ours = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_ours { u64::from_str_radix(digits, 16).ok() } else { None }
}

impl Name {
    pub(crate) fn parse(name: &str) -> Name {
        // First: a partial name contains the complete name of the file that it becomes.
        if name.ends_with(PARTIAL) {
            return Name::Partial;
        }
        if let Some(sequence) = name.strip_suffix(SEGMENT).and_then(number) {
            return Name::Segment(sequence);
        }
        if let Some(number) = name.strip_suffix(SPARE).and_then(number) {
            return Name::Spare(number);
        }
        let position = name.strip_suffix(SNAPSHOT).and_then(|stem| stem.split_once('-'));
        match position.and_then(|(index, term)| Some((number(index)?, number(term)?))) {
            Some((index, term)) => Name::Snapshot { index, term },
            None => Name::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        assert_eq!(Name::parse(&segment(0x2a)), Name::Segment(0x2a));
        assert_eq!(Name::parse(&snapshot(7, 3)), Name::Snapshot { index: 7, term: 3 });
        assert_eq!(Name::parse(&partial(&snapshot(7, 3), 9)), Name::Partial);
        assert_eq!(Name::parse(&spare(3)), Name::Spare(3));
        for other in
            [LOCK, "", "2a.wal", "000000000000002A.wal", "+00000000000002a.wal", "notes.txt", "a-b.snapshot"]
        {
            assert_eq!(Name::parse(other), Name::Other, "{other}");
        }
    }
}
