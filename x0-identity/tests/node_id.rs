//! One node, one name.

use x0_identity::{NodeId, ParseNodeIdError};

fn check(text: &str, expect: Result<u64, ParseNodeIdError>) {
    assert_eq!(text.parse::<NodeId>().map(NodeId::get), expect, "{text:?}");
}

#[test]
fn only_what_is_written_is_read() {
    check("0000000000000001", Ok(1));
    check("00000000deadbeef", Ok(0xdead_beef));
    check("ffffffffffffffff", Ok(u64::MAX));
    check("0000000000000000", Err(ParseNodeIdError::Zero));
    check("", Err(ParseNodeIdError::Length { len: 0 }));
    check("1", Err(ParseNodeIdError::Length { len: 1 }));
    check("00000000000000001", Err(ParseNodeIdError::Length { len: 17 }));
    check("00000000DEADBEEF", Err(ParseNodeIdError::Digit { position: 8 }));
    check("+000000000000001", Err(ParseNodeIdError::Digit { position: 0 }));
    check("0x00000000000001", Err(ParseNodeIdError::Digit { position: 1 }));
    check("00000000000000 1", Err(ParseNodeIdError::Digit { position: 14 }));
    // Sixteen bytes, fewer characters.
    check("00000000000000\u{e4}", Err(ParseNodeIdError::Digit { position: 14 }));
}

#[test]
fn zero_names_no_node() {
    assert_eq!(NodeId::new(0), None);
    assert_eq!(size_of::<Option<NodeId>>(), size_of::<u64>());
}

#[test]
fn order_is_that_of_the_numbers_and_of_the_text() {
    let mut nodes: Vec<NodeId> = [u64::MAX, 9, 10, 1, 0xa0].into_iter().filter_map(NodeId::new).collect();
    nodes.sort_unstable();
    assert_eq!(nodes.iter().map(|node| node.get()).collect::<Vec<_>>(), [1, 9, 10, 0xa0, u64::MAX]);
    assert!(nodes.iter().map(NodeId::to_string).is_sorted());
}
