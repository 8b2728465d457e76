//! Layers, views and dropped keyspaces.

use super::*;

/// Layers that a view kept above the base end in it as if there had been no view: nothing more, nothing less.
#[test]
fn layers_run_empty_when_no_view_holds_them() {
    let mut viewed = Tables::new(Arc::new(Layer::default()), Spaces::default(), Members::default(), 0);
    let mut plain = Tables::new(Arc::new(Layer::default()), Spaces::default(), Members::default(), 0);
    let mut views = std::collections::VecDeque::new();
    for index in 0..3000_u64 {
        // Towards the end one key alone, so that what the views left behind stays as they left it.
        let key = if index < 2000 { index * 7919 % 101 } else { 0 }.to_be_bytes();
        let value = vec![b'v'; (index % 13) as usize];
        let value = (index % 3 != 0).then_some(&*value);
        viewed.write(&Space::DEFAULT, &key, index, value);
        plain.write(&Space::DEFAULT, &key, index, value);
        if index % 50 == 0 && index < 2000 {
            views.push_back(viewed.view());
            if views.len() > 3 {
                views.pop_front();
            }
        }
        if index == 2000 {
            views.clear();
        }
    }
    assert!(viewed.active.is_empty() && viewed.frozen.is_empty());
    let len = |tables: &Tables| tables.base.in_memory().map(Layer::len_bytes);
    assert_eq!(len(&viewed), len(&plain));
    // And the count of bytes is right: without an entry it is zero.
    for key in 0..101_u64 {
        viewed.write(&Space::DEFAULT, &key.to_be_bytes(), 3000, None);
    }
    assert_eq!(len(&viewed), Some(0));
}
