//! Faults that are planted in the jobs of an executor, without a change of its code: the invariants find
//! them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use x0_consensus::SnapshotWriteError;
use x0_consensus::driver::SnapshotJob;

use crate::cluster::{Cluster, Planted};
use crate::machine::Machine;

/// All nodes lose their power right after they acknowledged something.
fn all_power_fails(planted: Planted, seed: u64) {
    let mut cluster = Cluster::new(seed, 3);
    cluster.planted = planted;
    let leader = cluster.elect();
    cluster.disk_latency = Duration::from_millis(5);
    for _ in 0..20 {
        let tokens = cluster.propose_many(leader, 1, 64);
        cluster.run_until_done(&tokens);
    }
    for node in 1..=3 {
        cluster.crash(node);
    }
    for node in 1..=3 {
        cluster.start(node);
    }
    cluster.settle();
}

/// How many of twenty seeds find a violation.
fn found(planted: Planted) -> usize {
    let violates = |seed: &u64| catch_unwind(AssertUnwindSafe(|| all_power_fails(planted, *seed))).is_err();
    (0..20).filter(violates).count()
}

#[test]
fn an_executor_without_a_fault_loses_nothing() {
    assert_eq!(found(Planted::Nothing), 0);
}

#[test]
fn an_acknowledgement_before_the_write_is_found() {
    assert!(found(Planted::AcknowledgeBeforePersist) >= 3);
}

#[test]
fn a_write_without_its_synchronisation_is_found() {
    assert!(found(Planted::SkipSync) >= 3);
}

/// A disk that is full at the wrong moment: the follower reports it, and the leader sends the snapshot again.
#[test]
fn a_snapshot_that_cannot_be_staged_is_sent_again() {
    for step in 0..3 {
        let machine = Machine { snapshot_len: 100_000, ..Machine::default() };
        let mut cluster = Cluster::with(70 + step, 3, machine, |options| {
            options.checkpoint_log_len = 20_000;
            options.retained_entries = 20;
            options.chunk_len = 1000;
        });
        let leader = cluster.elect();
        let away = (1..=3).find(|node| *node != leader).unwrap();
        cluster.isolate(&[away]);
        for _ in 0..20 {
            let tokens = cluster.propose_many(leader, 10, 500);
            cluster.run_until_done(&tokens);
        }
        cluster.nodes.get_mut(&away).unwrap().change_snapshot_job = Some(match step {
            0 => |job| match job {
                SnapshotJob::Begin { transfer, .. } => {
                    let to = Err(SnapshotWriteError::Full { file: "snapshot".into() });
                    (SnapshotJob::Begin { transfer, to }, true)
                }
                job => (job, false),
            },
            1 => |job| match job {
                SnapshotJob::Finish { transfer } => {
                    let to = Err(SnapshotWriteError::Full { file: "snapshot".into() });
                    (SnapshotJob::Begin { transfer, to }, true)
                }
                job => (job, false),
            },
            _ => |job| (job, true),
        });
        cluster.heal();
        cluster.settle();
        let failures = if step == 2 { 0 } else { 1 };
        assert_eq!(cluster.node(away).transfers_failed, failures, "step {step}");
        assert_eq!(cluster.node(away).machine().restores, 1);
        cluster.assert_unharmed();
    }
}
