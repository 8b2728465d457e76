//! TCP's state per peer at each received segment, from the tracepoint `tcp:tcp_probe`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use aya::programs::trace_point::TracePointLink;

use crate::counters::{address_of, sum_words};
use crate::object;
use crate::program::{Constant, LoadError, Loaded, Recipe, bounded, os_error};
use crate::sys::Map;

/// The usual mount points of tracefs.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// The `format` of an event is a page of text.
const FORMAT_LEN_MAX: usize = 16 << 10;

/// The TCP connections of a peer at the time of the last received segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeCounters {
    /// Segments received on established connections.
    pub segments: u64,
    /// The smoothed round-trip time of the connection that received the last segment.
    pub rtt: Option<Duration>,
    /// Its congestion window, in segments.
    pub congestion_window: u32,
}

/// The failure to attach to the tracepoint. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The program did not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The tracepoint does not exist, or its description cannot be read.
    #[error(
        "cannot find the tracepoint tcp:tcp_probe: it needs Linux 4.16 or newer, a mounted tracefs \
         (`mount -t tracefs none /sys/kernel/tracing`) and the right to read it (root)"
    )]
    Absent,
    /// The kernel describes the event in a form that this crate does not read.
    #[error(
        "the tracepoint tcp:tcp_probe has no field `{field}`: use `SocketProgram`, and report the kernel's version"
    )]
    Format {
        /// The missing part.
        field: &'static str,
    },
    /// A capability is missing.
    #[error(
        "the kernel refuses to attach to a tracepoint (EPERM): grant CAP_BPF and CAP_PERFMON, for example with \
         `setcap cap_bpf,cap_perfmon+ep`"
    )]
    Denied,
    /// The kernel refused for another reason.
    #[error(
        "the kernel refuses to attach to the tracepoint tcp:tcp_probe; `SocketProgram` needs no tracepoint"
    )]
    System(#[source] io::Error),
}

/// The program on the tracepoint. Dropping it detaches it.
///
/// Unlike [`SocketProgram`](crate::SocketProgram) it sees connections that were open before, in every cgroup
/// and network namespace; it runs for each received segment and needs `CAP_PERFMON`.
#[derive(Debug)]
pub struct ProbeProgram {
    // Declared before the program, so that the attachment is dropped first.
    _link: TracePointLink,
    _loaded: Loaded,
    probes: Map,
}

impl ProbeProgram {
    /// Attaches to the tracepoint, which covers every TCP connection of this machine.
    ///
    /// `peers_max`, 64..=1_048_576: a new peer replaces the least recently seen one; 96 bytes each.
    ///
    /// # Errors
    /// [`ProbeError`].
    pub fn attach(peers_max: u32) -> Result<Self, ProbeError> {
        let entries = bounded("peers_max", peers_max, 64, 1 << 20)?;
        let text = TRACEFS
            .iter()
            .find_map(|root| std::fs::read(Path::new(root).join("events/tcp/tcp_probe/format")).ok());
        let text = text.ok_or(ProbeError::Absent)?;
        let text = String::from_utf8_lossy(&text[..text.len().min(FORMAT_LEN_MAX)]);
        let at = |field| offset_of(&text, field).map(Constant::U32).ok_or(ProbeError::Format { field });
        let recipe = Recipe {
            constants: vec![
                ("at_target", at("daddr")?),
                ("at_srtt", at("srtt")?),
                ("at_window", at("snd_cwnd")?),
            ],
            entries_max: vec![("probes", entries)],
            ..Recipe::default()
        };
        let mut loaded = Loaded::new(object::PROBE, &recipe)?;
        let probes = loaded.map("probes")?;
        let program = loaded.trace_point("x0_probe")?;
        let link =
            program.attach("tcp", "tcp_probe").and_then(|id| program.take_link(id)).map_err(|error| {
                match os_error(&error) {
                    Some(libc::EPERM | libc::EACCES) => ProbeError::Denied,
                    Some(errno) => ProbeError::System(io::Error::from_raw_os_error(errno)),
                    None => ProbeError::System(io::Error::other(error.to_string())),
                }
            })?;
        Ok(Self { _link: link, _loaded: loaded, probes })
    }

    /// Every peer in the table.
    ///
    /// # Errors
    /// The kernel refused the read.
    pub fn peers(&self) -> io::Result<BTreeMap<IpAddr, ProbeCounters>> {
        let mut peers = BTreeMap::new();
        self.probes.for_each(4096, |key, value| {
            let Some(bits) = address_of(key) else { return };
            let v6 = Ipv6Addr::from_bits(bits);
            let address = v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4);
            let [segments] = sum_words(value, value.len(), 0);
            let word = |at: usize| {
                value.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
            };
            let rtt = (word(8) > 0).then(|| Duration::from_micros(word(8).into()));
            peers.insert(address, ProbeCounters { segments, rtt, congestion_window: word(12) });
        })?;
        Ok(peers)
    }
}

/// The offset of a field of an event, by its `format` (Documentation/trace/events.rst, "Event formats"). At
/// most a page in.
fn offset_of(format: &str, name: &str) -> Option<u32> {
    let line = format.lines().find(|line| {
        let declared = line.trim().strip_prefix("field:").and_then(|rest| rest.split(';').next());
        // An array's length may hold blanks.
        let declared = declared.and_then(|declared| declared.split('[').next());
        declared.and_then(|declared| declared.split([' ', '\t']).next_back()) == Some(name)
    })?;
    let offset = line.split("offset:").nth(1)?.split(';').next()?.trim().parse::<u32>().ok()?;
    (offset < 4096).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::offset_of;

    const LINUX_5_10: &str = "name: tcp_probe\nID: 1412\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:__u8 saddr[sizeof(struct sockaddr_in6)];\toffset:8;\tsize:28;\tsigned:0;\n\
        \tfield:__u8 daddr[sizeof(struct sockaddr_in6)];\toffset:36;\tsize:28;\tsigned:0;\n\
        \tfield:__u32 snd_cwnd;\toffset:84;\tsize:4;\tsigned:0;\n\tfield:__u32 srtt;\toffset:96;\tsize:4;\tsigned:0;\n\n\
        print fmt: \"srtt=%u\", REC->srtt\n";

    #[test]
    fn fields_are_where_the_kernel_says() {
        let found = ["daddr", "snd_cwnd", "srtt", "saddr"].map(|name| offset_of(LINUX_5_10, name));
        assert_eq!(found, [Some(36), Some(84), Some(96), Some(8)]);
        assert_eq!(offset_of(LINUX_5_10, "family"), None);
    }

    #[test]
    fn unknown_formats_have_no_fields() {
        for text in [
            "",
            "field:",
            "field:u8 x;",
            "field:u8 x;\toffset:",
            "field:u8 x;\toffset:9999;",
            "field:u8 x;\toffset:-1;",
        ] {
            assert_eq!(offset_of(text, "x"), None, "{text}");
        }
        for end in 0..LINUX_5_10.len() {
            offset_of(LINUX_5_10.get(..end).unwrap_or_default(), "srtt");
        }
    }
}
