//! The text of `/proc/net/dev`.

use std::fs::File;
use std::io::{self, Read, Seek};

use super::LinkStats;
use super::backend::{Backend, BackendKind, PassedOver, Refusal};
use super::counters::{DirectionCounters, LinkCounters, PeerCounters};
use super::error::ReadError;
use super::open::StatsSource;

/// The longest text that is read: some 130,000 links.
const TEXT_LEN_MAX: u64 = 16 << 20;
/// The kernel's IFNAMSIZ, less the zero that ends a name.
const NAME_LEN_MAX: usize = 15;
const WHAT: &str = "/proc/net/dev";

/// Opens `/proc/net/dev` of the calling thread's namespace.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcNetDevSource;

impl StatsSource for ProcNetDevSource {
    fn kind(&self) -> BackendKind {
        BackendKind::ProcNetDev
    }

    fn open(&self, passed_over: &[PassedOver]) -> Result<Box<dyn LinkStats>, Refusal> {
        Ok(Box::new(ProcNetDev::open(passed_over)?))
    }
}

/// The backend that needs no dependency, feature or capability.
#[derive(Debug)]
pub struct ProcNetDev {
    backend: Backend,
    /// Kept open: the namespace is fixed when the file is opened.
    file: File,
    text: Vec<u8>,
}

impl ProcNetDev {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// `/proc` is not mounted, or the text cannot be parsed.
    pub fn open(passed_over: &[PassedOver]) -> Result<Self, Refusal> {
        // `/proc/net` is `/proc/self/net`, which is the namespace of the process's first thread, not of the
        // calling one.
        let file = File::open("/proc/thread-self/net/dev")
            .or_else(|_| File::open("/proc/net/dev"))
            .map_err(|error| Refusal::kernel("open /proc/net/dev", &error))?;
        let backend = Backend::new(BackendKind::ProcNetDev, passed_over);
        let mut stats = Self { backend, file, text: Vec::new() };
        // A first read, so that a source that cannot be read is skipped.
        match stats.links(&mut Vec::new()) {
            Ok(()) => Ok(stats),
            Err(ReadError::Kernel { source, .. }) => Err(Refusal::kernel("read /proc/net/dev", &source)),
            Err(_) => Err(Refusal::Malformed { what: WHAT }),
        }
    }

    fn read(&mut self) -> io::Result<()> {
        self.text.clear();
        self.file.rewind()?;
        (&mut self.file).take(TEXT_LEN_MAX).read_to_end(&mut self.text)?;
        Ok(())
    }
}

impl LinkStats for ProcNetDev {
    fn backend(&self) -> &Backend {
        &self.backend
    }

    fn links(&mut self, into: &mut Vec<LinkCounters>) -> Result<(), ReadError> {
        into.clear();
        self.read().map_err(|source| ReadError::Kernel { what: "read /proc/net/dev", source })?;
        if !parse(&self.text, into) {
            into.clear();
            return Err(ReadError::Malformed { what: WHAT });
        }
        Ok(())
    }

    fn peers(&mut self, into: &mut Vec<PeerCounters>) -> Result<(), ReadError> {
        into.clear();
        Err(ReadError::NotCounted { kind: BackendKind::ProcNetDev, what: "peers" })
    }
}

/// Reads the table. Says false where the text is not one.
pub(super) fn parse(text: &[u8], into: &mut Vec<LinkCounters>) -> bool {
    // The kernel does not hold names to UTF-8.
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines();
    // Two lines of headings; their words are the only thing that says which column is which.
    let (Some(sides), Some(columns)) = (lines.next(), lines.next()) else { return false };
    if !sides.starts_with("Inter-|") || !columns.contains("face |bytes    packets errs drop") {
        return false;
    }
    lines.all(|line| parse_line(line).map(|link| into.push(link)).is_some())
}

fn parse_line(line: &str) -> Option<LinkCounters> {
    // A name may hold a colon (an old-style alias): the numbers never do.
    let (name, numbers) = line.rsplit_once(':')?;
    let name = name.trim_start();
    if name.is_empty() || name.chars().count() > NAME_LEN_MAX {
        return None;
    }
    let mut fields = [0u64; 16];
    let mut words = numbers.split_ascii_whitespace();
    for field in &mut fields {
        *field = words.next()?.parse().ok()?;
    }
    if words.next().is_some() {
        return None;
    }
    let side = |at: usize| DirectionCounters {
        bytes: fields[at],
        packets: fields[at + 1],
        errors: fields[at + 2],
        drops: fields[at + 3],
    };
    Some(LinkCounters { index: None, name: name.into(), rx: side(0), tx: side(8) })
}
