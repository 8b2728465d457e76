//! Descriptions of the metrics.

/// Registers the meaning and unit of each name with the installed recorder.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!("x0_kv_operations_total", Unit::Count, "Operations submitted to a store");
    describe_counter!("x0_kv_commands_total", Unit::Count, "Commands that reached the state machine");
    describe_gauge!("x0_kv_applied_index", Unit::Count, "Log index of the last entry applied");
    describe_gauge!("x0_kv_sessions", Unit::Count, "Client sessions remembered");
    describe_gauge!("x0_kv_overlay_bytes", Unit::Bytes, "Writes in memory that are not in a checkpoint yet");
    describe_counter!("x0_kv_checkpoints_total", Unit::Count, "Checkpoints made durable");
    describe_histogram!("x0_kv_checkpoint_seconds", Unit::Seconds, "Time to write a checkpoint");
    describe_counter!(
        "x0_kv_refused_messages_total",
        Unit::Count,
        "Messages refused because of the role of their sender"
    );
    describe_counter!("x0_kv_crdt_joins_total", Unit::Count, "Deltas of other members that were joined");
    describe_counter!(
        "x0_kv_crdt_divergences_total",
        Unit::Count,
        "Times that a member with the same events had other contents"
    );
    describe_counter!("x0_kv_crdt_conflicts_total", Unit::Count, "Conflicts of concurrent writers, by type");
    describe_counter!(
        "x0_kv_crdt_reconciliations_total",
        Unit::Count,
        "States reconciled because the history was too short"
    );
    describe_counter!("x0_kv_crdt_sent_bytes_total", Unit::Bytes, "Bytes sent to other members");
    describe_counter!("x0_kv_crdt_received_bytes_total", Unit::Bytes, "Bytes received from other members");
    describe_counter!(
        "x0_kv_crdt_redundant_bytes_total",
        Unit::Bytes,
        "Received bytes that were already known"
    );
    describe_counter!(
        "x0_kv_crdt_refused_total",
        Unit::Count,
        "Datagrams that were malformed or did not fit"
    );
    describe_counter!(
        "x0_kv_crdt_renewals_total",
        Unit::Count,
        "Times that the node went on as a fresh incarnation, because its folder lacks events of its own"
    );
    describe_gauge!("x0_kv_crdt_key_mismatches", Unit::Count, "Members with another hash key");
    describe_gauge!("x0_kv_crdt_keys", Unit::Count, "Keys that hold something");
    describe_gauge!(
        "x0_kv_crdt_stability_lag_events",
        Unit::Count,
        "Events not known to be seen by all members"
    );
    describe_gauge!("x0_kv_crdt_pending_bytes", Unit::Bytes, "Bytes of incomplete transfers");
    describe_counter!("x0_kv_blob_chunks_total", Unit::Count, "Chunks of blobs received, served, refused");
    describe_counter!("x0_kv_blob_received_bytes_total", Unit::Bytes, "Bytes of blob messages received");
    describe_counter!("x0_kv_blob_sent_bytes_total", Unit::Bytes, "Bytes of blob messages sent");
    describe_counter!(
        "x0_kv_blob_redundant_bytes_total",
        Unit::Bytes,
        "Bytes of chunks that were not needed any more"
    );
    describe_gauge!("x0_kv_blob_pending_bytes", Unit::Bytes, "Bytes of chunks in memory");
    describe_gauge!("x0_kv_blob_stored_bytes", Unit::Bytes, "Bytes of blob files");
    describe_gauge!("x0_kv_blobs", Unit::Count, "Blobs stored");
    describe_gauge!("x0_kv_disk_free_bytes", Unit::Bytes, "Free space on the disk of a node");
    describe_gauge!("x0_kv_disk_short", Unit::Count, "1 while writes are refused for lack of space");
    describe_counter!(
        "x0_kv_folders_set_aside_total",
        Unit::Count,
        "Times that damaged files of a data folder were set aside"
    );
    describe_counter!("x0_kv_scrub_passes_total", Unit::Count, "Passes of the scrub completed as the leader");
    describe_counter!("x0_kv_scrub_entries_total", Unit::Count, "Entries verified by the scrub");
    describe_counter!("x0_kv_scrub_damaged_total", Unit::Count, "Damaged entries found");
    describe_counter!("x0_kv_scrub_repaired_total", Unit::Count, "Damaged entries replaced");
    describe_counter!("x0_kv_scrub_diverged_total", Unit::Count, "Ranges that differ from the majority");
    describe_histogram!(
        "x0_kv_operation_seconds",
        Unit::Seconds,
        "From the submission of an operation to its answer"
    );
    describe_counter!("x0_kv_operation_errors_total", Unit::Count, "Operations that ended in an error");
    describe_gauge!(
        "x0_kv_operations_waiting",
        Unit::Count,
        "Operations and requests that are not answered yet"
    );
    describe_counter!("x0_kv_redirects_total", Unit::Count, "Operations sent again to a named leader");
    describe_gauge!("x0_kv_watches", Unit::Count, "Watches that are held");
    describe_counter!(
        "x0_kv_sessions_expired_total",
        Unit::Count,
        "Sessions forgotten to make room for others"
    );
}
