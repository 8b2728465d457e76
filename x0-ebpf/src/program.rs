//! Loading an object: constants, sizes, pinned maps, and the errors of a refused load.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::os::fd::AsFd;
#[cfg(feature = "testing")]
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use aya::programs::{SchedClassifier, SockOps, TracePoint, Xdp};

use crate::object::Object;
use crate::sys;

/// The failure to load an object. Nothing is attached; no new map remains, and pinned maps are unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The kernel refuses because a capability is missing, or because locked memory is limited (kernels
    /// before 5.11).
    #[error(
        "the kernel refuses to load eBPF (EPERM): grant CAP_BPF and CAP_NET_ADMIN (CAP_PERFMON too for exact XDP lengths before \
         Linux 5.18), for example with `setcap cap_bpf,cap_net_admin+ep`; before Linux 5.11 also raise RLIMIT_MEMLOCK; \
         `Capabilities::probe()` names what is missing"
    )]
    Denied,
    /// The verifier of this kernel does not accept the program.
    #[error(
        "the verifier of this kernel refuses program `{program}`: {log}; the programs need Linux 5.10 or newer: on such a kernel, report this message"
    )]
    Refused {
        /// The program's name.
        program: String,
        /// The end of the verifier's log.
        log: String,
    },
    /// An option needs a further capability.
    #[error(
        "option `{option}` also needs CAP_PERFMON: leave it out, or grant it with `setcap cap_bpf,cap_net_admin,cap_perfmon+ep`"
    )]
    Perfmon {
        /// The option's name.
        option: &'static str,
    },
    /// An option is outside its bounds.
    #[error("option `{option}` is {value}; it must be from {least} to {most}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// The value in the options.
        value: u64,
        /// The smallest value allowed.
        least: u64,
        /// The largest value allowed.
        most: u64,
    },
    /// The maps pinned in this folder were made with other sizes or by another version.
    #[error(
        "the map `{map}` pinned in {folder} does not fit ({cause}): use the options it was made with, or unpin the folder (its counts are lost)"
    )]
    PinMismatch {
        /// The folder on bpffs.
        folder: PathBuf,
        /// The map's name.
        map: String,
        /// The difference.
        cause: String,
    },
    /// The pin folder cannot be used.
    #[error("cannot use {folder} for pins; it must lie on a mounted bpffs (`mount -t bpf bpf /sys/fs/bpf`)")]
    PinFolder {
        /// The folder.
        folder: PathBuf,
        /// The error of the file operation.
        source: io::Error,
    },
    /// The object has no such program or map: the crate was built with a damaged prebuilt object.
    #[error("the prebuilt object `{object}` has no `{missing}`; rebuild it with bpf/build")]
    Damaged {
        /// The object's name.
        object: &'static str,
        /// The missing part.
        missing: String,
    },
    /// Another system call failed.
    #[error("cannot {what}")]
    System {
        /// The step, as an imperative: "load the object `link`".
        what: String,
        /// The kernel's error.
        source: io::Error,
    },
}

/// The first system error number in a chain of causes.
pub(crate) fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(number) = current.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        cause = current.source();
    }
    None
}

fn denied(error: &(dyn Error + 'static)) -> bool {
    matches!(os_error(error), Some(libc::EPERM))
}

fn system(what: impl Into<String>, error: &(dyn Error + 'static)) -> LoadError {
    if denied(error) {
        return LoadError::Denied;
    }
    let source =
        os_error(error).map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error);
    LoadError::System { what: what.into(), source }
}

/// The parameters of a load.
#[derive(Debug, Default)]
pub(crate) struct Recipe {
    /// Values of the constants the verifier will see.
    pub(crate) constants: Vec<(&'static str, Constant)>,
    /// Sizes of maps, in entries.
    pub(crate) entries_max: Vec<(&'static str, u32)>,
    /// Maps that live at this folder on bpffs.
    pub(crate) pinned: Option<(PathBuf, &'static [&'static str])>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Constant {
    U32(u32),
    U64(u64),
}

/// A loaded object: its maps exist in the kernel, its programs are loaded on demand.
#[derive(Debug)]
pub(crate) struct Loaded {
    object: Object,
    ebpf: aya::Ebpf,
}

impl Loaded {
    pub(crate) fn new(object: Object, recipe: &Recipe) -> Result<Self, LoadError> {
        match Self::load(object, recipe) {
            // Before 5.11 maps count as locked memory, and the usual limit is 64 KiB. If this process may
            // lift it, that was the reason.
            Err(LoadError::Denied) if sys::memory_lock_unlimited().is_ok() => Self::load(object, recipe),
            other => other,
        }
    }

    fn load(object: Object, recipe: &Recipe) -> Result<Self, LoadError> {
        let mut loader = aya::EbpfLoader::new();
        for (name, value) in &recipe.constants {
            match value {
                Constant::U32(value) => loader.override_global(name, value, true),
                Constant::U64(value) => loader.override_global(name, value, true),
            };
        }
        for (name, entries) in &recipe.entries_max {
            loader.map_max_entries(name, *entries);
        }
        if let Some((folder, names)) = &recipe.pinned {
            for name in *names {
                loader.map_pin_path(name, folder.join(name));
            }
        }
        let ebpf = loader
            .load(object.bytes)
            .map_err(|error| system(format!("load the object `{}`", object.name), &error))?;
        let loaded = Self { object, ebpf };
        if let Some((folder, names)) = &recipe.pinned {
            loaded.check_pins(folder, names, &recipe.entries_max)?;
        }
        Ok(loaded)
    }

    /// The loader accepts a pinned map of any size; this check refuses one of another size than the options
    /// ask for.
    fn check_pins(
        &self,
        folder: &std::path::Path,
        names: &[&str],
        entries_max: &[(&'static str, u32)],
    ) -> Result<(), LoadError> {
        let wanted: BTreeMap<_, _> = entries_max.iter().copied().collect();
        for name in names {
            let map = self.map(name)?;
            if let Some(&wanted) = wanted.get(name)
                && map.entries_max() != wanted
            {
                return Err(LoadError::PinMismatch {
                    folder: folder.to_path_buf(),
                    map: (*name).to_owned(),
                    cause: format!("it holds {} entries and the options ask for {wanted}", map.entries_max()),
                });
            }
        }
        Ok(())
    }

    fn missing(&self, name: &str) -> LoadError {
        LoadError::Damaged { object: self.object.name, missing: name.to_owned() }
    }

    /// A handle of its own on the map `name`.
    pub(crate) fn map(&self, name: &str) -> Result<sys::Map, LoadError> {
        use aya::maps::Map;
        let map = self.ebpf.map(name).ok_or_else(|| self.missing(name))?;
        let data = match map {
            Map::Array(data)
            | Map::PerCpuArray(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::PerCpuHashMap(data)
            | Map::PerCpuLruHashMap(data)
            | Map::LpmTrie(data) => data,
            _ => return Err(self.missing(name)),
        };
        let open = || -> io::Result<sys::Map> { sys::Map::new(data.fd().as_fd().try_clone_to_owned()?) };
        open().map_err(|error| system(format!("open the map `{name}`"), &error))
    }

    fn refused(program: &str, error: &aya::programs::ProgramError) -> LoadError {
        if let aya::programs::ProgramError::LoadError { io_error, verifier_log } = error {
            if io_error.raw_os_error() == Some(libc::EPERM) {
                return LoadError::Denied;
            }
            // The end of the log holds the reason.
            let log = verifier_log.to_string();
            let tail: Vec<_> = log.lines().rev().filter(|line| !line.is_empty()).take(6).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            return LoadError::Refused {
                program: program.to_owned(),
                log: format!("{io_error}: {}", tail.join(" | ")),
            };
        }
        system(format!("load the program `{program}`"), error)
    }

    /// The XDP program `name`, loaded.
    pub(crate) fn xdp(&mut self, name: &str) -> Result<&mut Xdp, LoadError> {
        let missing = self.missing(name);
        let program: &mut Xdp =
            self.ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(missing)?;
        if program.fd().is_err() {
            program.load().map_err(|error| Self::refused(name, &error))?;
        }
        Ok(program)
    }

    /// The TC program `name`, loaded.
    pub(crate) fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier, LoadError> {
        let missing = self.missing(name);
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(missing)?;
        if program.fd().is_err() {
            program.load().map_err(|error| Self::refused(name, &error))?;
        }
        Ok(program)
    }

    /// The socket program `name`, loaded.
    pub(crate) fn sock_ops(&mut self, name: &str) -> Result<&mut SockOps, LoadError> {
        let missing = self.missing(name);
        let program: &mut SockOps =
            self.ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(missing)?;
        if program.fd().is_err() {
            program.load().map_err(|error| Self::refused(name, &error))?;
        }
        Ok(program)
    }

    /// The tracepoint program `name`, loaded.
    pub(crate) fn trace_point(&mut self, name: &str) -> Result<&mut TracePoint, LoadError> {
        let missing = self.missing(name);
        let program: &mut TracePoint =
            self.ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(missing)?;
        if program.fd().is_err() {
            program.load().map_err(|error| Self::refused(name, &error))?;
        }
        Ok(program)
    }

    /// A descriptor of the loaded program `name`, for test runs.
    #[cfg(feature = "testing")]
    pub(crate) fn descriptor(&mut self, name: &str) -> Result<OwnedFd, LoadError> {
        let fd = if name == "x0_link" || name == "x0_pass" || name.starts_with("x0_bench") {
            self.xdp(name)?.fd().map(|fd| fd.as_fd().try_clone_to_owned())
        } else {
            self.classifier(name)?.fd().map(|fd| fd.as_fd().try_clone_to_owned())
        };
        fd.map_err(|error| system(format!("duplicate the descriptor of program `{name}`"), &error))?
            .map_err(|error| system(format!("duplicate the descriptor of program `{name}`"), &error))
    }
}

/// Whether the verifier grants this process `data_end - data`: CAP_PERFMON (38) or CAP_SYS_ADMIN (21) is
/// effective.
pub(crate) fn may_subtract_pointers() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .is_some_and(|effective| effective & (1 << 38 | 1 << 21) != 0)
}

/// Checks that an option lies within its bounds.
pub(crate) fn bounded(option: &'static str, value: u32, least: u32, most: u32) -> Result<u32, LoadError> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(LoadError::Option { option, value: value.into(), least: least.into(), most: most.into() })
}
