//! Bytes from outside given to a document.

use x0_crdt::{Document, HashKey, ReplicaId};

/// The bytes, cut at some of them, as keys and values of a map, and as a JSON text.
pub(crate) fn check(data: &[u8]) {
    let mut document = Document::new(ReplicaId::new(1), HashKey::new([7; 16]));
    for entry in data.split(|byte| *byte == b'|') {
        let at = entry.iter().position(|byte| *byte == b'=').unwrap_or(entry.len());
        let (key, value) = entry.split_at(at);
        let _ = document.map_mut().put(key, 0, value.get(1..).unwrap_or_default());
        if let Some(path) = Document::path_of(key) {
            let _ = (document.get(&path), document.siblings(&path), document.count(&path));
            let _ = (document.elements(&path), document.names(&path), document.is_enabled(&path));
            assert!(document.exists(&path));
        }
    }
    let text = String::from_utf8_lossy(data);
    let _ = Document::prefix(&text);
    let before = document.frontier();
    if document.merge_json("", 1, &text).is_err() {
        assert_eq!(document.frontier(), before, "a refused text changes nothing");
    }
    if let Some(json) = document.to_json("") {
        let before = document.frontier();
        document.merge_json("", 2, &json).expect("it came out of a document");
        assert_eq!(document.frontier(), before, "{json}");
        assert_eq!(document.to_json(""), Some(json));
    }
}
