//! A state whose data lies in a redb file: its settings and its checkpoints.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::space::Space;
use crate::state::session::Sessions;
use crate::state::storage::redb::{Checkpoint, File, Opened};
use crate::state::storage::{EngineError, Shared, Tables};
use crate::state::{Engine, Owned, State};
use crate::telemetry::{CheckpointTelemetry, StateTelemetry};

/// The settings of the redb engine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedbOptions {
    /// Bytes of the file that are kept in memory. 64 MiB unless set.
    pub cache_len: usize,
    /// Bytes of writes that gather in memory before a checkpoint is begun by itself. While one is being
    /// written as much again may gather; then applying waits for it, so that twice this is the most that is
    /// held. 64 MiB unless set.
    pub overlay_len_max: usize,
    /// Whether checkpoints are written by a thread of their own (the default) or by the caller of
    /// [`State::checkpoint`](crate::State::checkpoint), which makes every step repeatable.
    pub background: bool,
    /// Whether the checksum of every page is verified when the file is opened, which reads the whole file.
    /// The default. Without it, a damaged page can hide keys until it is verified by
    /// [`verify`](crate::verify::verify); a damaged value is found by every read.
    pub verify_on_open: bool,
}

impl RedbOptions {
    /// The default settings.
    #[must_use]
    pub fn new() -> RedbOptions {
        RedbOptions::default()
    }

    /// Sets [`cache_len`](RedbOptions::cache_len), in bytes.
    #[must_use]
    pub fn cache_len(mut self, cache_len: usize) -> RedbOptions {
        self.cache_len = cache_len;
        self
    }

    /// Sets [`overlay_len_max`](RedbOptions::overlay_len_max), in bytes.
    #[must_use]
    pub fn overlay_len_max(mut self, overlay_len_max: usize) -> RedbOptions {
        self.overlay_len_max = overlay_len_max;
        self
    }

    /// Sets [`verify_on_open`](RedbOptions::verify_on_open).
    #[must_use]
    pub fn verify_on_open(mut self, verify_on_open: bool) -> RedbOptions {
        self.verify_on_open = verify_on_open;
        self
    }
}

impl Default for RedbOptions {
    fn default() -> RedbOptions {
        RedbOptions { cache_len: 64 << 20, overlay_len_max: 64 << 20, background: true, verify_on_open: true }
    }
}

#[derive(Debug)]
pub(super) struct Durable {
    pub(super) file: Arc<File>,
    pub(super) options: RedbOptions,
    /// The index of the last checkpoint that is durable.
    pub(super) checkpointed: u64,
    /// The index of the last checkpoint that was begun.
    pub(super) begun: u64,
    pub(super) running: Option<JoinHandle<Result<(), EngineError>>>,
    /// The index of the one that is running.
    pub(super) running_applied: u64,
    /// Checkpoints wait for space, unless there is none.
    pub(super) space: Option<Space>,
}

impl Durable {
    pub(super) fn begin(
        &mut self,
        shared: &Shared,
        sessions: &mut Sessions,
        applied: u64,
    ) -> Result<(), EngineError> {
        let checkpoint = Checkpoint {
            file: Arc::clone(&self.file),
            view: shared.write().view(),
            sessions: sessions.used_after(self.begun),
            forgotten: sessions.take_forgotten(),
            applied,
        };
        self.begun = applied;
        self.running_applied = applied;
        let shared = shared.clone();
        let run = move || {
            let telemetry = CheckpointTelemetry::begin();
            checkpoint.run()?;
            let base = checkpoint.file.base(checkpoint.spaces())?;
            shared.write().rebase(checkpoint.layers(), base);
            telemetry.end();
            Ok(())
        };
        if self.options.background {
            let thread = std::thread::Builder::new().name("x0-kv checkpoint".into());
            let running = thread.spawn(run).map_err(|cause| self.file.no_checkpoint(cause))?;
            self.running = Some(running);
            Ok(())
        } else {
            run()?;
            self.checkpointed = applied;
            Ok(())
        }
    }

    /// Takes note of a checkpoint that has ended.
    pub(super) fn reap(&mut self) -> Result<(), EngineError> {
        if self.running.as_ref().is_some_and(JoinHandle::is_finished) { self.join() } else { Ok(()) }
    }

    pub(super) fn join(&mut self) -> Result<(), EngineError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        match running.join() {
            Ok(ended) => ended?,
            Err(_) => return Err(self.file.no_checkpoint("the checkpoint's thread panicked")),
        }
        self.checkpointed = self.running_applied;
        Ok(())
    }
}

/// A checkpoint that was begun is brought to its end, so that the file is free when the state is gone. One
/// that waits for space ends without a change.
impl Drop for Durable {
    fn drop(&mut self) {
        if let Some(space) = &self.space {
            space.stop();
        }
        if let Some(running) = self.running.take() {
            drop(running.join());
        }
    }
}

impl State {
    /// A state in the redb file at `path`, which is created if there is none. It is at the last checkpoint
    /// that became durable; the log is to be replayed from [`State::durable`].
    ///
    /// # Errors
    /// When the file cannot be opened, is in use by another process, or is not one of this crate. It was not
    /// changed.
    pub fn redb(path: &Path, options: RedbOptions) -> Result<State, EngineError> {
        State::redb_in(path, options, None)
    }

    /// As [`State::redb`]. With `space`, checkpoints and restored snapshots wait for it when the disk is
    /// full.
    pub(crate) fn redb_in(
        path: &Path,
        options: RedbOptions,
        space: Option<&Space>,
    ) -> Result<State, EngineError> {
        let opened = File::open(path, options.cache_len, options.verify_on_open, space)?;
        State::on_file(opened, options, space)
    }

    /// A state on what was found in `file`.
    pub(crate) fn on_file(
        Opened { file, sessions, spaces, members, applied }: Opened,
        options: RedbOptions,
        space: Option<&Space>,
    ) -> Result<State, EngineError> {
        let tables = Tables::new(file.base(&spaces)?, spaces, members, applied);
        CheckpointTelemetry::register();
        Ok(State {
            shared: Shared::new(tables),
            sessions,
            applied,
            engine: Engine::Redb(Durable {
                file,
                options,
                checkpointed: applied,
                begun: applied,
                running: None,
                running_applied: applied,
                space: space.cloned(),
            }),
            telemetry: StateTelemetry::new(),
            watchers: Owned::default(),
        })
    }
}
