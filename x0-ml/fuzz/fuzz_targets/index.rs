//! Index files: an error, or an index that saves the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_ml::index::{ExactIndex, HnswIndex, HnswOptions, Metric, Search, VectorIndex};
use x0_ml::lexical::{LexicalIndex, LexicalOptions};

fuzz_target!(|file: &[u8]| {
    let options = HnswOptions::new(4, Metric::L2).m(4).ef_construction(8).scan_len_max(0);
    let mut indexes: [Box<dyn VectorIndex>; 2] =
        [Box::new(HnswIndex::new(options).unwrap()), Box::new(ExactIndex::new(4, Metric::L2).unwrap())];
    for index in &mut indexes {
        if index.restore(file).is_ok() {
            assert!(index.save() == file);
            index.search(&Search::new(&[1.0; 4], 3)).unwrap();
        }
    }
    if let Ok(index) = LexicalIndex::restore(file, LexicalOptions::new()) {
        assert!(index.save() == file);
    }
});
