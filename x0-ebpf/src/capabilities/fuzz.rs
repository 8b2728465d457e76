//! The parsers of files of the kernel, for `fuzz/` and the tests. Not part of the public API.

/// Every parser of this module, on the same bytes.
pub fn all(bytes: &[u8]) {
    if let Some(names) = super::btf::bpf_types(bytes) {
        assert!(names.iter().map(String::len).sum::<usize>() <= bytes.len() * 64);
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = super::mounts::parse(&text);
    let _ = super::KernelVersion::parse(&text);
    let _ = super::status::effective(&text);
    let _ = super::status::seccomp(&text);
    let _ = super::status::lockdown(&text);
    let _ = super::MemlockLimit::parse(&text);
    let _ = super::Jit::parse(&text);
    let _ = super::UnprivilegedBpf::parse(&text);
}
