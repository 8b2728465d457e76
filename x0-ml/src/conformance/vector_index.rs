//! Rules of [`VectorIndex`].

use crate::index::{Metric, Search, VectorId, VectorIndex};

/// Holds an index against the contract of its seam. `make` gives an empty index of 8 dimensions.
///
/// # Panics
/// If a rule is broken.
pub fn vector_index(make: &dyn Fn(Metric) -> Box<dyn VectorIndex>) {
    for metric in [Metric::InnerProduct, Metric::Cosine, Metric::L2] {
        let mut index = make(metric);
        assert_eq!(
            (index.dimensions(), index.metric(), index.len()),
            (8, metric, 0),
            "an empty index is made"
        );
        nearest(index.as_mut());
        changes(index.as_mut());
        refusals(index.as_mut());
        files(index.as_mut(), make(metric).as_mut());
    }
}

/// A vector whose direction and length depend on the number.
fn vector(number: u64) -> [f32; 8] {
    let mut state = number;
    let mut component = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::array::from_fn(|_| component())
}

fn ids(index: &dyn VectorIndex, query: &[f32], k: usize) -> Vec<u64> {
    index.search(&Search::new(query, k)).unwrap().iter().map(|near| near.id.0).collect()
}

fn nearest(index: &mut dyn VectorIndex) {
    for number in 0..200 {
        index.insert(VectorId(number), &vector(number)).unwrap();
    }
    assert_eq!(index.len(), 200, "each number counts once");
    let found = index.search(&Search::new(&vector(7), 10)).unwrap();
    assert_eq!(found.len(), 10, "k vectors are returned");
    assert!(found.is_sorted_by(|a, b| a.score >= b.score), "the nearest stands first");
    assert!(ids(index, &vector(7), 400).len() <= 200, "no vector is returned twice");
    let odd = |id: VectorId| id.0 % 2 == 1;
    let found = index.search(&Search::new(&vector(8), 20).filter(&odd)).unwrap();
    assert!(found.len() == 20 && found.iter().all(|near| odd(near.id)), "a filter applies before the choice");
    let none = |_: VectorId| false;
    assert!(index.search(&Search::new(&vector(8), 20).filter(&none)).unwrap().is_empty(), "nothing passes");
}

fn changes(index: &mut dyn VectorIndex) {
    let reader = index.reader();
    index.publish();
    assert_eq!(reader.len(), index.len(), "a publication is visible");
    assert!(index.remove(VectorId(3)) && !index.remove(VectorId(3)), "a removal is reported once");
    assert!(!index.contains(VectorId(3)) && index.contains(VectorId(4)), "a removed vector is not held");
    assert!(!ids(index, &vector(3), 200).contains(&3), "a removed vector is not returned");
    assert_eq!(reader.len(), 200, "a removal is visible to readers after a publication");
    index.publish();
    assert_eq!(reader.len(), 199, "readers made earlier see later publications");
    index.insert(VectorId(4), &vector(1000)).unwrap();
    assert_eq!(index.len(), 199, "an update takes the place of the vector");
    index.insert(VectorId(3), &vector(3)).unwrap();
}

fn refusals(index: &mut dyn VectorIndex) {
    let before = index.save();
    assert!(index.insert(VectorId(1), &[1.0; 7]).is_err(), "a vector of other dimensions is refused");
    let mut wrong = [1.0; 8];
    wrong[5] = f32::NAN;
    assert!(index.insert(VectorId(1), &wrong).is_err(), "a vector that is not finite is refused");
    assert!(index.search(&Search::new(&wrong, 1)).is_err(), "a query that is not finite is refused");
    assert!(index.save() == before, "a refusal changes nothing");
}

fn files(index: &mut dyn VectorIndex, other: &mut dyn VectorIndex) {
    let file = index.save();
    other.restore(&file).unwrap();
    for number in [1, 50, 199] {
        let (here, there) = (ids(index, &vector(number), 10), ids(other, &vector(number), 10));
        assert_eq!(here, there, "a restored index answers as the saved one");
    }
    assert_eq!(other.reader().len(), other.len(), "a restored index is published");
    let len = other.len();
    for at in [0, file.len() / 3, file.len() - 1] {
        let mut damaged = file.clone();
        damaged[at] ^= 0x10;
        assert!(other.restore(&damaged).is_err(), "damage at {at} is an error");
        assert!(other.restore(&file[..at]).is_err(), "a file that ends at {at} is an error");
        assert_eq!(other.len(), len, "an error changes nothing");
    }
}
