//! The metrics of a base, as a recorder sees them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use x0_ml::embed::{HashedWords, Overflow};
use x0_ml::file::DiskFolder;
use x0_ml::index::{HnswOptions, Metric};
use x0_ml::knowledge::{KnowledgeBase, KnowledgeBaseOptions, KnowledgeStore, MemoryStore};
use x0_ml::retrieve::{Document, Mode};

#[test]
fn a_base_reports_what_it_did() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let path = std::env::temp_dir().join(format!("x0-ml-telemetry-{}", std::process::id()));
    metrics::with_local_recorder(&recorder, || {
        x0_ml::telemetry::describe();
        let mut store = MemoryStore::new();
        store.put(&"a".into(), Document::new("one two three")).unwrap();
        let folder = DiskFolder::new(&path).unwrap();
        let open = |store: &MemoryStore| {
            let options = KnowledgeBaseOptions::new();
            let embedder = HashedWords::new(8).with_tokens_max(4).with_overflow(Overflow::Truncate);
            KnowledgeBase::open(options, store.clone(), embedder, folder.clone()).unwrap()
        };
        let mut base = open(&store);
        base.run(Duration::ZERO).unwrap();
        base.query("two", 1, Mode::Lexical).unwrap();
        base.query("one two three four five", 1, Mode::Dense).unwrap();
        base.save(Duration::ZERO).unwrap();
        let other = KnowledgeBaseOptions::new().index(HnswOptions::new(8, Metric::L2));
        let embedder = HashedWords::new(8).with_tokens_max(4).with_overflow(Overflow::Truncate);
        KnowledgeBase::open(other, store.clone(), embedder, folder.clone()).unwrap();
        std::fs::write(path.join("knowledge.index"), b"damage").unwrap();
        let mut base = open(&store);
        base.run(Duration::ZERO).unwrap();
        for name in ["b", "c", "d"] {
            base.store_mut().put(&name.into(), Document::new("one two three")).unwrap();
        }
        // The last of the three changes is seen, and not worked on yet.
        while base.engine().seen() < 4 {
            base.step(Duration::ZERO).unwrap();
        }
    });
    std::fs::remove_dir_all(&path).unwrap();
    let found = snapshotter.snapshot().into_vec();
    let value = |name: &str, label: &str| {
        let of = |key: &metrics::Key| key.name() == name && key.labels().all(|own| own.value() == label);
        let found = found.iter().find(|(key, ..)| of(key.key()));
        match &found.unwrap_or_else(|| panic!("{name} {label}")).3 {
            DebugValue::Counter(count) => *count as f64,
            DebugValue::Gauge(gauge) => gauge.0,
            DebugValue::Histogram(values) => values.iter().map(|value| value.0).sum(),
        }
    };
    assert!((value("x0_ml_embeddings_total", "model") - 1.0).abs() < 1e-9);
    assert!((value("x0_ml_embeddings_total", "cache") - 1.0).abs() < 1e-9);
    assert!((value("x0_ml_embedding_tokens_total", "") - 3.0).abs() < 1e-9);
    assert!((value("x0_ml_embeddings_truncated_total", "") - 1.0).abs() < 1e-9);
    assert!((value("x0_ml_rebuilds_total", "damage") - 1.0).abs() < 1e-9);
    assert!((value("x0_ml_rebuilds_total", "settings") - 1.0).abs() < 1e-9, "another metric is no damage");
    assert!((value("x0_ml_applied_revision", "") - 3.0).abs() < 1e-9);
    assert!((value("x0_ml_lag_revisions", "") - 1.0).abs() < 1e-9);
    assert!((value("x0_ml_pending_documents", "") - 1.0).abs() < 1e-9);
    for stage in ["list", "read", "chunk", "embed", "insert", "publish", "save", "query"] {
        assert!(value("x0_ml_stage_seconds", stage) > 0.0, "{stage}");
    }
    assert!(value("x0_ml_saved_bytes", "") > 100.0);
    assert!((value("x0_ml_chunks", "") - 1.0).abs() < 1e-9);
}
