//! Descriptions of the metrics.

/// Describes each name to the installed recorder.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("x0_consensus_term", Unit::Count, "The term");
    describe_gauge!("x0_consensus_is_leader", Unit::Count, "1 while this replica leads");
    describe_gauge!("x0_consensus_voters", Unit::Count, "Members that vote");
    describe_gauge!("x0_consensus_is_voter", Unit::Count, "1 while this replica votes");
    describe_gauge!("x0_consensus_last_index", Unit::Count, "The last index of the log");
    describe_gauge!("x0_consensus_commit_index", Unit::Count, "The last index known to be committed");
    describe_gauge!("x0_consensus_applied_index", Unit::Count, "The last index applied");
    describe_counter!("x0_consensus_leader_changes_total", Unit::Count, "Changes of the leader or the term");
    describe_counter!(
        "x0_consensus_dropped_total",
        Unit::Count,
        "Proposals, reads and changes that were dropped"
    );
    describe_counter!("x0_consensus_log_writes_total", Unit::Count, "Writes made durable");
    describe_counter!("x0_consensus_log_entries_total", Unit::Count, "Entries made durable");
    describe_histogram!("x0_consensus_log_write_seconds", Unit::Seconds, "The time of one group of writes");
    describe_counter!("x0_consensus_sent_bytes_total", Unit::Bytes, "Bytes of messages handed to the outbox");
    describe_counter!("x0_consensus_congested_total", Unit::Count, "Messages that the outbox dropped");
    describe_counter!("x0_consensus_snapshots_total", Unit::Count, "Snapshots started, by way");
    describe_histogram!("x0_consensus_commit_seconds", Unit::Seconds, "From a proposal to its commit");
    describe_histogram!("x0_consensus_apply_seconds", Unit::Seconds, "The time to apply a batch of entries");
    describe_histogram!(
        "x0_consensus_election_seconds",
        Unit::Seconds,
        "From the loss of a leader to the next known leader"
    );
    describe_gauge!(
        "x0_consensus_follower_lag_entries",
        Unit::Count,
        "Entries that a member has not made durable, on the leader"
    );
    describe_gauge!("x0_consensus_log_bytes", Unit::Bytes, "Bytes of the segments of the log");
    describe_histogram!("x0_consensus_snapshot_seconds", Unit::Seconds, "The time of a snapshot, by way");
    describe_counter!("x0_consensus_snapshot_bytes_total", Unit::Bytes, "Bytes of snapshots, by way");
}
