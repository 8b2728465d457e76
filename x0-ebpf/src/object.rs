//! The prebuilt objects and the manifest that says what they were built from.

/// One prebuilt eBPF object: its name, its bytes, and the line of the manifest that belongs to it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Object {
    /// The source is `bpf/<name>.bpf.c`.
    pub name: &'static str,
    /// The ELF file, aligned for the loader.
    pub bytes: &'static [u8],
}

/// The record that `bpf/build` wrote about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provenance {
    /// The compiler's first line of `--version`.
    pub compiler: &'static str,
    /// SHA-256 of the source followed by every header, in hexadecimal.
    pub source_sha256: &'static str,
    /// SHA-256 of the object, in hexadecimal.
    pub object_sha256: &'static str,
}

const MANIFEST: &str = include_str!("../bpf/prebuilt/MANIFEST");

/// Counters and the filter, for XDP and TC.
pub(crate) const LINK: Object =
    Object { name: "link", bytes: aya::include_bytes_aligned!("../bpf/prebuilt/link.bpf.o") };

/// Fault injection.
pub(crate) const FAULT: Object =
    Object { name: "fault", bytes: aya::include_bytes_aligned!("../bpf/prebuilt/fault.bpf.o") };

/// TCP's own measurements.
pub(crate) const SOCKET: Object =
    Object { name: "socket", bytes: aya::include_bytes_aligned!("../bpf/prebuilt/socket.bpf.o") };

/// TCP's state when a segment arrives.
pub(crate) const PROBE: Object =
    Object { name: "probe", bytes: aya::include_bytes_aligned!("../bpf/prebuilt/probe.bpf.o") };

/// One interface's frames through another.
pub(crate) const STEER: Object =
    Object { name: "steer", bytes: aya::include_bytes_aligned!("../bpf/prebuilt/steer.bpf.o") };

/// Look-ups in a loop, for the test kit.
#[cfg(feature = "testing")]
pub(crate) const BENCH: Object =
    Object { name: "bench", bytes: aya::include_bytes_aligned!("../bpf/prebuilt/bench.bpf.o") };

impl Object {
    /// Every object of the crate.
    pub const ALL: &'static [Self] = &[
        LINK,
        FAULT,
        PROBE,
        SOCKET,
        STEER,
        #[cfg(feature = "testing")]
        BENCH,
    ];

    /// From what and by what the object was built, or `None` when the manifest has no line for it.
    #[must_use]
    pub fn provenance(&self) -> Option<Provenance> {
        let compiler = MANIFEST.lines().find_map(|line| line.strip_prefix("compiler "))?;
        MANIFEST.lines().find_map(|line| {
            let mut words = line.split(' ');
            (words.next() == Some(self.name)).then_some(())?;
            Some(Provenance { compiler, source_sha256: words.next()?, object_sha256: words.next()? })
        })
    }
}
