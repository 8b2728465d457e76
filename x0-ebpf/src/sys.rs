//! The `bpf` system call, and the only `unsafe` of the crate.
//!
//! aya loads, relocates and attaches. This module has the calls that aya lacks or that it makes slowly: batch
//! look-ups, `BPF_PROG_TEST_RUN`, pinned objects, and maps read as plain bytes. Each command's attributes are
//! written into a zeroed buffer at the offsets of the kernel's ABI (`union bpf_attr`,
//! include/uapi/linux/bpf.h). Sizes come from the kernel's description of the map, never from a caller, so
//! that a buffer that the kernel fills has the length that the kernel assumes.
#![allow(unsafe_code, reason = "system calls; every block says why it is sound")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[cfg(feature = "testing")]
const MAP_CREATE: u32 = 0;
const MAP_LOOKUP: u32 = 1;
const MAP_UPDATE: u32 = 2;
const MAP_DELETE: u32 = 3;
const MAP_NEXT_KEY: u32 = 4;
const OBJ_GET: u32 = 7;
#[cfg(feature = "testing")]
const PROG_TEST_RUN: u32 = 10;
const OBJ_INFO: u32 = 15;
const MAP_LOOKUP_BATCH: u32 = 24;
const MAP_UPDATE_BATCH: u32 = 26;

/// `BPF_MAP_TYPE_PERCPU_HASH`.
#[cfg(feature = "testing")]
pub(crate) const PER_CPU_HASH: u32 = 5;
/// Per-CPU map types of the kernel's ABI: their values are one per possible CPU, each padded to eight bytes.
const PER_CPU_TYPES: [u32; 3] = [5, 6, 10];
const ARRAY_TYPES: [u32; 2] = [2, 6];

/// The attributes of one `bpf` call.
struct Attributes([u64; 16]);

impl Attributes {
    fn new() -> Self {
        Self([0; 16])
    }

    fn word(mut self, offset: usize, value: u64) -> Self {
        self.0[offset / 8] = value;
        self
    }

    fn half(mut self, offset: usize, value: u32) -> Self {
        let [first, second] = Self::halves(self.0[offset / 8]);
        let pair = if offset.is_multiple_of(8) { [value, second] } else { [first, value] };
        self.0[offset / 8] = Self::whole(pair);
        self
    }

    fn read_half(&self, offset: usize) -> u32 {
        Self::halves(self.0[offset / 8])[offset % 8 / 4]
    }

    /// The two 32-bit fields that lie in a word, in memory order.
    fn halves(word: u64) -> [u32; 2] {
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
    }

    fn whole(halves: [u32; 2]) -> u64 {
        let ([a, b, c, d], [e, f, g, h]) = (halves[0].to_ne_bytes(), halves[1].to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    fn call(&mut self, command: u32) -> io::Result<i64> {
        // SAFETY: the buffer is live, writable and as long as stated. The pointers inside it were made by the
        // methods below from slices that outlive this call, with lengths that those methods checked against
        // the kernel's sizes.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), size_of_val(&self.0)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }
}

fn descriptor(fd: BorrowedFd<'_>) -> u32 {
    // A valid descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}

/// The number of possible CPUs, which is the number of values of a per-CPU entry.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    // "0-3", "0", "0,2-5": the highest number counts, for the kernel sizes by it.
    text.trim()
        .rsplit([',', '-'])
        .next()
        .and_then(|last| last.parse::<usize>().ok())
        .map(|last| last + 1)
        .ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "cannot read /sys/devices/system/cpu/possible")
        })
}

/// A map, with the sizes that the kernel states for it.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    kind: u32,
    key_len: usize,
    /// The length of one entry as user space sees it: all CPUs of a per-CPU map.
    value_len: usize,
    /// The length of the value of one CPU, padded to eight bytes where the map is per-CPU.
    stride: usize,
    entries_max: u32,
}

impl Map {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        // struct bpf_map_info: type, id, key_size, value_size, max_entries, ...
        let mut info = [0u32; 32];
        let mut attributes = Attributes::new()
            .half(0, descriptor(fd.as_fd()))
            .half(4, u32::try_from(size_of_val(&info)).unwrap_or(u32::MAX))
            .word(8, info.as_mut_ptr() as u64);
        attributes.call(OBJ_INFO)?;
        let [kind, _, key_len, value_len, entries_max, ..] = info;
        let (stride, count) = if PER_CPU_TYPES.contains(&kind) {
            ((value_len as usize).next_multiple_of(8), possible_cpus()?)
        } else {
            (value_len as usize, 1)
        };
        Ok(Self { fd, kind, key_len: key_len as usize, value_len: stride * count, stride, entries_max })
    }

    pub(crate) fn entries_max(&self) -> u32 {
        self.entries_max
    }

    pub(crate) fn value_len(&self) -> usize {
        self.value_len
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    fn wrong_size() -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, "a key or value of another size than the map's")
    }

    fn element(&self, key: &[u8], value: u64, flags: u64) -> io::Result<Attributes> {
        if key.len() != self.key_len {
            return Err(Self::wrong_size());
        }
        Ok(Attributes::new()
            .half(0, descriptor(self.fd.as_fd()))
            .word(8, key.as_ptr() as u64)
            .word(16, value)
            .word(24, flags))
    }

    /// The value of `key`, or `None`.
    pub(crate) fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value_len];
        match self.element(key, value.as_mut_ptr() as u64, 0)?.call(MAP_LOOKUP) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the value of `key`. One kernel-side copy: a value of up to eight aligned bytes changes at once
    /// for readers.
    pub(crate) fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if value.len() != self.value_len {
            return Err(Self::wrong_size());
        }
        self.element(key, value.as_ptr() as u64, 0)?.call(MAP_UPDATE).map(drop)
    }

    /// Removes `key`. Returns whether it was present.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        match self.element(key, 0, 0)?.call(MAP_DELETE) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn next_key(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let mut next = vec![0; self.key_len];
        let key = key.map_or(0, |key| key.as_ptr() as u64);
        let mut attributes = Attributes::new()
            .half(0, descriptor(self.fd.as_fd()))
            .word(8, key)
            .word(16, next.as_mut_ptr() as u64);
        match attributes.call(MAP_NEXT_KEY) {
            Ok(_) => Ok(Some(next)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes many entries; `keys` and `values` are laid end to end. Falls back to one by one where the
    /// kernel has no batch.
    pub(crate) fn update_batch(&self, keys: &[u8], values: &[u8]) -> io::Result<()> {
        let count = keys.len() / self.key_len.max(1);
        if keys.len() != count * self.key_len || values.len() != count * self.value_len {
            return Err(Self::wrong_size());
        }
        let count = u32::try_from(count).map_err(|_| Self::wrong_size())?;
        let mut attributes = Attributes::new()
            .word(16, keys.as_ptr() as u64)
            .word(24, values.as_ptr() as u64)
            .half(32, count)
            .half(36, descriptor(self.fd.as_fd()));
        match attributes.call(MAP_UPDATE_BATCH) {
            Ok(_) => Ok(()),
            Err(error) if no_batch(&error) => keys
                .chunks_exact(self.key_len)
                .zip(values.chunks_exact(self.value_len))
                .try_for_each(|(key, value)| self.update(key, value)),
            Err(error) => Err(error),
        }
    }

    /// Passes every entry to `each`, in the order of the map, in batches of `chunk` entries.
    ///
    /// Entries that come or go meanwhile may or may not be seen. Memory: `chunk` keys and values.
    pub(crate) fn for_each(&self, chunk: usize, mut each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut chunk = chunk.clamp(1, self.entries_max.max(1) as usize);
        // The kernel's cursor is a bucket number or a key.
        let cursor_len = self.key_len.max(4);
        let mut cursor = vec![0; cursor_len];
        let mut started = false;
        let mut keys = vec![0; chunk * self.key_len];
        let mut values = vec![0; chunk * self.value_len];
        loop {
            let mut next = vec![0; cursor_len];
            let mut attributes = Attributes::new()
                .word(0, if started { cursor.as_ptr() as u64 } else { 0 })
                .word(8, next.as_mut_ptr() as u64)
                .word(16, keys.as_mut_ptr() as u64)
                .word(24, values.as_mut_ptr() as u64)
                .half(32, u32::try_from(chunk).unwrap_or(u32::MAX))
                .half(36, descriptor(self.fd.as_fd()));
            let done = match attributes.call(MAP_LOOKUP_BATCH) {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // One bucket holds more than the chunk: the buffers grow, up to the whole map.
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOSPC) && chunk < self.entries_max as usize =>
                {
                    chunk = (chunk * 2).min(self.entries_max as usize);
                    keys.resize(chunk * self.key_len, 0);
                    values.resize(chunk * self.value_len, 0);
                    continue;
                }
                Err(error) if !started && no_batch(&error) => return self.for_each_slowly(each),
                Err(error) => return Err(error),
            };
            let count = (attributes.read_half(32) as usize).min(chunk);
            for (key, value) in
                keys.chunks_exact(self.key_len).zip(values.chunks_exact(self.value_len)).take(count)
            {
                each(key, value);
            }
            if done {
                return Ok(());
            }
            cursor = next;
            started = true;
        }
    }

    /// Key by key, for kernels without batches (before 5.6; per-CPU arrays before 5.13).
    pub(crate) fn for_each_slowly(&self, mut each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        if ARRAY_TYPES.contains(&self.kind) {
            for index in 0..self.entries_max {
                if let Some(value) = self.lookup(&index.to_ne_bytes())? {
                    each(&index.to_ne_bytes(), &value);
                }
            }
            return Ok(());
        }
        let mut key = self.next_key(None)?;
        // Bounds the loop if other processes fill the map faster than it is read.
        for _ in 0..u64::from(self.entries_max) * 2 {
            let Some(current) = key else { break };
            if let Some(value) = self.lookup(&current)? {
                each(&current, &value);
            }
            key = self.next_key(Some(&current))?;
        }
        Ok(())
    }
}

fn no_batch(error: &io::Error) -> bool {
    // ENOTSUPP (524) is the kernel's own number; libc has no name for it.
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | 524))
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path with a zero byte"))
}

/// Opens a pinned object.
pub(crate) fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let fd = Attributes::new().word(0, path.as_ptr() as u64).call(OBJ_GET)?;
    // SAFETY: the call succeeded, so this is a new descriptor that this process owns alone.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?) })
}

/// Makes a map: a type of the kernel's ABI, sizes in bytes, a bound in entries.
#[cfg(feature = "testing")]
pub(crate) fn map_create(kind: u32, key_len: u32, value_len: u32, entries_max: u32) -> io::Result<OwnedFd> {
    let fd = Attributes::new()
        .half(0, kind)
        .half(4, key_len)
        .half(8, value_len)
        .half(12, entries_max)
        .call(MAP_CREATE)?;
    // SAFETY: the call succeeded, so this is a new descriptor that this process owns alone.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?) })
}

/// The result of `BPF_PROG_TEST_RUN`.
#[cfg(feature = "testing")]
#[derive(Clone, Debug)]
pub(crate) struct TestRun {
    pub(crate) returned: u32,
    pub(crate) duration_ns: u32,
    pub(crate) output: Vec<u8>,
}

/// Runs a loaded program on `packet`, `repeat` times. `context` is a `struct xdp_md` or `__sk_buff`, or
/// empty. `flags`: `BPF_F_TEST_XDP_LIVE_FRAMES` is 2.
#[cfg(feature = "testing")]
pub(crate) fn program_test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    context: &[u8],
    repeat: u32,
    flags: u32,
) -> io::Result<TestRun> {
    let live = flags & 2 != 0;
    // Programs may grow a packet by their headroom; live frames give nothing back.
    let mut output = vec![0; if live { 0 } else { packet.len() + 4096 }];
    let input_len = u32::try_from(packet.len()).map_err(io::Error::other)?;
    let context_len = u32::try_from(context.len()).map_err(io::Error::other)?;
    let mut attributes = Attributes::new()
        .half(0, descriptor(program))
        .half(8, input_len)
        .half(12, u32::try_from(output.len()).map_err(io::Error::other)?)
        .word(16, packet.as_ptr() as u64)
        .word(24, if live { 0 } else { output.as_mut_ptr() as u64 })
        .half(32, repeat)
        .half(40, context_len)
        .word(48, if context.is_empty() { 0 } else { context.as_ptr() as u64 })
        .half(64, flags);
    attributes.call(PROG_TEST_RUN)?;
    output.truncate((attributes.read_half(12) as usize).min(output.len()));
    Ok(TestRun { returned: attributes.read_half(4), duration_ns: attributes.read_half(36), output })
}

/// Lifts the limit on locked memory, which kernels before 5.11 charge maps to.
pub(crate) fn memory_lock_unlimited() -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure is live and initialised; the kernel only reads it.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The index of the interface of this name in this network namespace.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an interface name with a zero byte"))?;
    // SAFETY: a live, zero-terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// The name of the interface of this index in this network namespace.
pub(crate) fn interface_name(index: u32) -> io::Result<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the IF_NAMESIZE bytes that the function asks for.
    if unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    let len = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..len]).into_owned())
}
