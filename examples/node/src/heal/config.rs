//! The section `[heal]` of the configuration.

use serde::Deserialize;
use x0_mapek::kv;

/// The least limit: a disk under load takes some tens of milliseconds.
const SLOW_DISK_MS_MIN: u64 = 100;

/// The least silence of a dead member: a restart takes a few seconds.
const REPLACE_AFTER_S_MIN: u64 = 10;

/// The least memory of a node that serves.
const MEMORY_MAX_MIB_MIN: u64 = 64;

/// The least time without a member: the others may be starting.
const RESTART_ISOLATED_S_MIN: u64 = 60;

/// The section `[heal]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HealConfig {
    /// What the healer does.
    pub(crate) mode: HealMode,
    /// A disk is slow when a write of the log waits this long for it, in milliseconds.
    pub(crate) slow_disk_ms: u64,
    /// A voter that is silent for this long, in seconds, is replaced by a learner that has caught up. Without
    /// it no voter is replaced.
    pub(crate) replace_after_s: Option<u64>,
    /// How many voters there should be: a spare becomes a voter when there are fewer, and a voter a learner
    /// when there are more. Without it their number stays as it is.
    pub(crate) voters: Option<usize>,
    /// Actions that wait for `x0-node heal approve`.
    pub(crate) approve: Vec<ActionKind>,
    /// A program with its arguments that writes a new SVID to the file of the node, for a renewal that is
    /// late. Without it an issuer of the node is asked again, if there is one.
    pub(crate) renew_command: Vec<String>,
    /// The memory that the process may use, in MiB. A process whose memory rises towards it asks its
    /// supervisor for a restart. Without it none does.
    pub(crate) memory_max_mib: Option<u64>,
    /// A process that has not been connected to any other member for this long, in seconds, asks its
    /// supervisor for a restart. Without it none does.
    pub(crate) restart_isolated_s: Option<u64>,
}

/// A kind of action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ActionKind {
    TransferLeadership,
    TakeOver,
    ReplaceVoter,
    PromoteSpare,
    DemoteVoter,
}

impl ActionKind {
    /// The kind as the healer knows it.
    pub(crate) fn kind(self) -> kv::ActionKind {
        match self {
            ActionKind::TransferLeadership => kv::ActionKind::TransferLeadership,
            ActionKind::TakeOver => kv::ActionKind::TakeOver,
            ActionKind::ReplaceVoter => kv::ActionKind::ReplaceVoter,
            ActionKind::PromoteSpare => kv::ActionKind::PromoteSpare,
            ActionKind::DemoteVoter => kv::ActionKind::DemoteVoter,
        }
    }
}

/// What the healer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HealMode {
    /// Nothing.
    Off,
    /// Readings are taken, and nothing is planned.
    Observe,
    /// What the healer would do is recorded.
    DryRun,
    /// Actions are executed.
    Active,
}

impl Default for HealConfig {
    fn default() -> HealConfig {
        HealConfig {
            mode: HealMode::DryRun,
            slow_disk_ms: 300,
            replace_after_s: None,
            voters: None,
            approve: Vec::new(),
            renew_command: Vec::new(),
            memory_max_mib: None,
            restart_isolated_s: None,
        }
    }
}

impl HealConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.renew_command.first().is_some_and(String::is_empty) {
            return Err("`heal.renew_command` begins with an empty text; write the program and its arguments, such as \
                        [\"/usr/local/bin/renew\", \"node-1\"], or remove the line"
                .into());
        }
        if let Some(seconds) = self.replace_after_s.filter(|seconds| *seconds < REPLACE_AFTER_S_MIN) {
            return Err(format!(
                "`heal.replace_after_s` is {seconds}, and a member that restarts would be replaced; write at least \
                 {REPLACE_AFTER_S_MIN}, better the time of a reboot, or remove the line: no member is replaced then"
            ));
        }
        if let Some(voters) = self.voters.filter(|voters| *voters == 0 || voters % 2 == 0) {
            return Err(format!(
                "`heal.voters` is {voters}, and an even number tolerates no more failures than the odd one below it; write 1, 3, 5 \
                 or 7, or remove the line: the number of voters stays as it is then"
            ));
        }
        if let Some(mib) = self.memory_max_mib.filter(|mib| *mib < MEMORY_MAX_MIB_MIN) {
            return Err(format!(
                "`heal.memory_max_mib` is {mib}, and a node without data uses that much; write at least {MEMORY_MAX_MIB_MIN}, better \
                 the limit of the container, or remove the line: the memory is not watched then"
            ));
        }
        if let Some(seconds) = self.restart_isolated_s.filter(|seconds| *seconds < RESTART_ISOLATED_S_MIN) {
            return Err(format!(
                "`heal.restart_isolated_s` is {seconds}, and a node whose members start would be restarted; write at least \
                 {RESTART_ISOLATED_S_MIN}, or remove the line: an isolated node is not restarted then"
            ));
        }
        if self.slow_disk_ms >= SLOW_DISK_MS_MIN {
            return Ok(());
        }
        Err(format!(
            "`heal.slow_disk_ms` is {}, and a usual disk takes that long under load; write at least {SLOW_DISK_MS_MIN}, or \
             `mode = \"off\"` for no healer",
            self.slow_disk_ms
        ))
    }
}
