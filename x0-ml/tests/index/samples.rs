//! Recorded files: formats of version 1 must open for ever.

use std::path::PathBuf;

use x0_ml::index::{ExactIndex, HnswIndex, HnswOptions, Metric, Search, VectorId, VectorIndex};

use crate::support::{Vectors, exact, hnsw};

fn options() -> HnswOptions {
    HnswOptions::new(12, Metric::Cosine).m(4).ef_construction(16).seed(3)
}

fn data() -> Vec<Vec<f32>> {
    Vectors::new(12, 4, 13).take(90)
}

/// Compares with the recorded bytes; `X0_RECORD=1` records them.
fn recorded(name: &str, now: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    if std::env::var_os("X0_RECORD").is_some() {
        std::fs::write(&path, now).unwrap();
    }
    std::fs::read(&path).unwrap()
}

#[test]
fn the_recorded_graph_opens_and_is_what_is_built_today() {
    let mut built = hnsw(options(), &data());
    for id in (0..90).step_by(5) {
        built.remove(VectorId(id));
    }
    let file = recorded("hnsw-v1.idx", &built.save());
    let mut index = HnswIndex::new(options()).unwrap();
    index.restore(&file).unwrap();
    assert_eq!(index.len(), 72);
    assert_eq!(index.search(&Search::new(&data()[1], 1)).unwrap()[0].id, VectorId(1));
    assert!(built.save() == file, "the same changes give the same bytes on every machine");
}

#[test]
fn the_recorded_exact_index_opens() {
    let file = recorded("exact-v1.idx", &exact(12, Metric::Cosine, &data()).save());
    let mut index = ExactIndex::new(12, Metric::Cosine).unwrap();
    index.restore(&file).unwrap();
    assert_eq!(index.search(&Search::new(&data()[7], 1)).unwrap()[0].id, VectorId(7));
}
