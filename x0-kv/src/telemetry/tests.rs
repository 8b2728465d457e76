//! The table of the names, their descriptions and the names in use agree.

use std::collections::BTreeSet;

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("x0_kv_").filter_map(|(at, _)| text[at..].split(['"', '`']).next())
}

#[test]
fn the_table_and_the_descriptions_name_the_metrics_in_use() {
    let table = include_str!("../telemetry.rs").lines().filter(|line| line.starts_with("//! | `"));
    let table: BTreeSet<_> = table.filter_map(|line| names(line).next()).collect();
    let described: BTreeSet<_> = names(include_str!("describe.rs")).collect();
    let used = [
        include_str!("store.rs"),
        include_str!("state.rs"),
        include_str!("checkpoint.rs"),
        include_str!("crdt.rs"),
        include_str!("blob.rs"),
        include_str!("mesh/redirects.rs"),
        include_str!("mesh/refused.rs"),
        include_str!("mesh/folder.rs"),
        include_str!("mesh/health.rs"),
        include_str!("operation.rs"),
    ];
    let used: BTreeSet<_> = used.into_iter().flat_map(names).collect();
    assert!(used.len() >= 17, "{used:?}");
    assert_eq!(table, used);
    assert_eq!(described, used);
}
