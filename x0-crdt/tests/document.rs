//! [`Document`]: random changes of twenty replicas over any network against a model of events, and JSON.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

#[cfg(feature = "json")]
#[path = "support/document_bytes.rs"]
mod document_bytes;
#[path = "support/peers_net.rs"]
mod net;
#[path = "map/random.rs"]
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use net::Net;
#[cfg(feature = "json")]
use random::Random;
use x0_crdt::{Document, DocumentError, Dot, HashKey, Peers, ReplicaId, Scalar, SessionOptions, Version};

const KEY: HashKey = HashKey::new([7; 16]);

/// Seeds to try: many more with `X0_CRDT_SEEDS`.
fn seeds(default: u64) -> u64 {
    std::env::var("X0_CRDT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn document(id: u64) -> Document {
    Document::new(ReplicaId::new(id), KEY)
}

fn exchange(documents: &mut [Document]) {
    for to in 0..documents.len() {
        for from in 0..documents.len() {
            let seen = documents[to].map().version();
            let delta = documents[from].map().delta(&seen).unwrap();
            documents[to].map_mut().join(&delta).unwrap();
        }
    }
}

#[test]
fn fields_of_each_kind_merge_as_documented() {
    let mut both = [1, 2].map(document);
    both[0].set("/title", 5, "mine").unwrap();
    both[1].set("/title", 6, "theirs").unwrap();
    both[0].add("/count", 0, 3).unwrap();
    both[1].add("/count", 0, -1).unwrap();
    both[0].enable("/done", 0).unwrap();
    both[1].insert("/tags", 0, "a").unwrap();
    both[0].insert("/tags", 0, 7).unwrap();
    both[0].insert_map("/empty", 0).unwrap();
    exchange(&mut both);
    for document in &both {
        assert_eq!(document.get("/title"), Some("theirs".into()));
        assert_eq!(document.siblings("/title").len(), 2);
        assert_eq!(document.count("/count"), Some(2));
        assert!(document.is_enabled("/done") && !document.is_enabled("/title"));
        assert_eq!(document.elements("/tags"), [Scalar::from(7), "a".into()]);
        assert!(document.contains("/tags", "a") && !document.contains("/tags", "b"));
        assert_eq!(document.names(""), ["count", "done", "empty", "tags", "title"]);
        assert!(document.exists("/empty") && !document.exists("/other"));
    }
    // Disabling and taking are undone by what they have not seen.
    both[0].disable("/done").unwrap();
    both[1].enable("/done", 1).unwrap();
    both[0].take("/tags", "a").unwrap();
    both[1].insert("/tags", 1, "a").unwrap();
    both[0].take("/tags", 7).unwrap();
    exchange(&mut both);
    assert!(both.iter().all(|document| document.is_enabled("/done")));
    assert!(both.iter().all(|document| document.elements("/tags") == ["a".into()]));
    assert!(both[0].disable("/other").is_none() && both[0].take("/tags", "b").is_none());
    assert_eq!(both[0].map().encode_state(), both[1].map().encode_state());
}

#[test]
fn a_removal_removes_what_it_has_seen_and_a_field_beside_the_item_outlives_it() {
    let mut both = [1, 2].map(document);
    both[0].set("/list/milk/text", 0, "2 liters").unwrap();
    both[0].enable("/list/milk/done", 0).unwrap();
    both[0].set("/list/milk bottle/text", 0, "empty").unwrap();
    both[0].add("/bought/milk", 0, 1).unwrap();
    exchange(&mut both);
    assert_eq!(both[0].remove("/list/milk"), 2);
    both[1].set("/list/milk/text", 1, "3 liters").unwrap();
    both[1].add("/bought/milk", 1, 1).unwrap();
    exchange(&mut both);
    for document in &both {
        assert_eq!(document.names("/list"), ["milk", "milk bottle"]);
        assert_eq!(document.get("/list/milk/text"), Some("3 liters".into()));
        assert!(!document.is_enabled("/list/milk/done"));
        assert_eq!(document.count("/bought/milk"), Some(2));
    }
    assert_eq!(both[0].remove(""), 3, "all");
    assert_eq!(both[0].remove("no path"), 0);
    assert!(both[0].map().is_empty());
}

#[test]
fn paths_are_json_pointers_and_other_keys_of_the_map_stay() {
    let mut one = document(1);
    assert_eq!(one.set("no/pointer", 0, 1), Err(DocumentError::Path));
    assert_eq!(one.set(&"/a".repeat(65), 0, 1), Err(DocumentError::Depth { depth: 65 }));
    assert!(matches!(one.set(&format!("/{}", "x".repeat(5_000)), 0, 1), Err(DocumentError::Write(_))));
    assert!(matches!(one.set("/a", 0, "x".repeat(70_000)), Err(DocumentError::Write(_))));
    assert!(one.get("no/pointer").is_none() && one.names("a").is_empty() && one.elements("a").is_empty());
    one.set("/a~1b/~0", 0, 1.5).unwrap();
    assert_eq!(one.names(""), ["a/b"]);
    one.map_mut().put(b"other", 0, b"value").unwrap();
    one.map_mut().put(b"\x01bad", 0, b"value").unwrap();
    assert_eq!(one.remove(""), 1);
    assert_eq!(one.map().len(), 2);
    let saved = one.save();
    let again = Document::restore(&saved, ReplicaId::new(1), KEY).unwrap();
    assert_eq!(again.frontier(), one.frontier());
    assert_eq!(again.into_map().len(), 2);
}

#[cfg(feature = "json")]
#[test]
fn json_goes_in_and_comes_out() {
    let mut one = document(1);
    let text = r#"{"list":{"bread":{},"milk":{"done":true,"price":1.25,"tags":["a",7]}},"title":null}"#;
    one.merge_json("", 3, text).unwrap();
    assert_eq!(one.to_json("").unwrap(), text.replace(r#"["a",7]"#, r#"[7,"a"]"#));
    assert_eq!(one.to_json("/list/milk/price").unwrap(), "1.25");
    assert_eq!(one.to_json("/nothing"), None);
    let before = one.frontier();
    one.merge_json("/list/milk", 4, r#"{"price":1.25}"#).unwrap();
    assert_eq!(one.frontier(), before, "nothing has changed in it");
    one.merge_json("/list/milk", 4, r#"{"price":2}"#).unwrap();
    one.add("/count", 0, 5).unwrap();
    one.enable("/list/bread/done", 0).unwrap();
    let after = r#"{"count":5,"list":{"bread":{"done":true},"milk":{"done":true,"price":2,"tags":[7,"a"]}},"title":null}"#;
    assert_eq!(one.to_json("").unwrap(), after);
    let before = one.frontier();
    for wrong in [
        "{",
        r#"{"new":1,"a":[[1]]}"#,
        &format!(r#"{{"new":1,"a":"{}"}}"#, "x".repeat(70_000)),
        &"[".repeat(500),
    ] {
        assert!(one.merge_json("", 9, wrong).is_err(), "{}", &wrong[..wrong.len().min(40)]);
    }
    assert!(one.merge_json("a", 9, "1").is_err());
    assert!(one.merge_json("", 9, &format!("{}1{}", r#"{"a":"#.repeat(70), "}".repeat(70))).is_err());
    assert_eq!(one.frontier(), before, "a refused text changes nothing");
    // Two kinds under one path: the first of them is shown.
    one.set("/count", 0, "text").unwrap();
    assert_eq!(one.to_json("/count").unwrap(), "5");
}

/// What JSON shows is merged into a document without a change, whatever its kinds are.
#[cfg(feature = "json")]
#[test]
fn json_that_came_out_changes_nothing_when_it_goes_in() {
    let mut one = document(1);
    one.add("/count", 0, 5).unwrap();
    one.enable("/flag", 0).unwrap();
    one.insert("/set", 0, "element").unwrap();
    one.insert_map("/empty", 0).unwrap();
    one.set("/numbers/none", 0, f64::NAN).unwrap();
    one.set("/numbers/large", 0, 1e19).unwrap();
    one.set("/numbers/whole", 0, 2.0).unwrap();
    one.set("/flag/below", 0, false).unwrap();
    one.set("/mixed", 0, 7).unwrap();
    one.add("/mixed", 0, 8).unwrap();
    let mut other = document(2);
    other.set("/title", 1, "first").unwrap();
    one.set("/title", 2, "second").unwrap();
    one.map_mut().join(&other.map().complete(&Version::default())).unwrap();
    let (before, shown) = (one.frontier(), one.to_json("").unwrap());
    one.merge_json("", 9, &shown).unwrap();
    assert_eq!(one.frontier(), before, "{shown}");
    // Counters and flags stay what they are when their values change.
    one.merge_json("", 9, r#"{"count":-3,"mixed":9}"#).unwrap();
    assert_eq!(
        (one.count("/count"), one.count("/mixed"), one.get("/mixed")),
        (Some(-3), Some(9), Some(7.into()))
    );
    one.enable("/done", 9).unwrap();
    one.merge_json("/done", 9, "true").unwrap();
    assert!(one.is_enabled("/done") && one.get("/done").is_none());
    one.merge_json("/done", 9, "false").unwrap();
    assert!(!one.exists("/done"));
    // A value of another kind is a register beside them.
    one.merge_json("/count", 9, r#""text""#).unwrap();
    assert_eq!((one.count("/count"), one.get("/count")), (Some(-3), Some("text".into())));
    // An array may have an element twice.
    let mut other = document(3);
    other.merge_json("/set", 1, r#"["x","x",null,null]"#).unwrap();
    assert_eq!(other.map().history_len(), 2);
}

/// Bytes of keys, scalars and JSON in any order: the same check as that of the fuzz target.
#[cfg(feature = "json")]
#[test]
fn no_bytes_make_a_document_panic() {
    let pieces: [&[u8]; 25] = [
        b"|",
        b"=",
        b"|",
        b"=",
        b"\x01a\0",
        b"\x01b\0",
        b"\x01\x01\x02\0",
        b"\x01\xff\0",
        b"\x02",
        b"\x03",
        b"\x04",
        b"\x05",
        b"\x06",
        b"\x00",
        b"\x01",
        b"\x03\x80\0\0\0\0\0\0\x07",
        b"\x04\x7f\xf0\0\0\0\0\0\0",
        b"\x04\x3f\xb9\x99\x99\x99\x99\x99\x9a",
        b"\x05text",
        b"{\"a\":",
        b"}",
        b"[1,null]",
        b"true",
        b"-7.25e3",
        b"\xff\xfe",
    ];
    let mut random = Random::new(11);
    for _ in 0..20_000 {
        let count = 1 + random.below(14);
        let data: Vec<u8> = (0..count)
            .flat_map(|_| pieces[random.below(pieces.len() as u64) as usize].iter().copied())
            .collect();
        document_bytes::check(&data);
    }
    for text in [r#"{"a":[null,1],"b":{}}"#, r#"{"a":{"b":0.1,"c":1e300}}"#, "7", "null", r#"["x","x"]"#] {
        document_bytes::check(text.as_bytes());
    }
}

/// One event of the model: what it wrote, and what its writer had seen.
struct Event {
    dot: Dot,
    time: u64,
    value: Option<Scalar>,
}

type Element = (String, char, String);

/// A model that knows every event: of each field, those that no later one has replaced.
#[derive(Default)]
struct Model {
    fields: BTreeMap<Element, Vec<Event>>,
}

impl Model {
    fn write(&mut self, element: &Element, seen: &Version, dot: Dot, time: u64, value: Scalar) {
        let events = self.fields.entry(element.clone()).or_default();
        match element.1 {
            'c' => events.retain(|event| event.dot.replica != dot.replica),
            _ => events.retain(|event| !seen.contains(event.dot)),
        }
        events.push(Event { dot, time, value: Some(value) });
    }

    fn remove(&mut self, path: &str, kind: Option<(char, &str)>, seen: &Version) {
        for ((at, of, element), events) in &mut self.fields {
            let is_at = at == path || at.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
            let is_meant = match kind {
                None => is_at,
                Some((kind, name)) => at == path && *of == kind && element == name,
            };
            if is_meant {
                events.retain(|event| !seen.contains(event.dot));
            }
        }
    }

    fn check(&self, document: &Document, seed: u64) {
        let mut sets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut count = 0;
        for ((path, kind, element), events) in &self.fields {
            count += events.len();
            let latest = events.iter().max_by_key(|event| (event.time, event.dot));
            match kind {
                'r' => {
                    let value = latest.and_then(|event| event.value.clone());
                    assert_eq!(document.get(path), value, "seed {seed}: {path}");
                    assert_eq!(document.siblings(path).len(), events.len(), "seed {seed}: {path}");
                }
                'c' => {
                    let parts = events.iter().map(|event| match event.value {
                        Some(Scalar::Integer(part)) => part,
                        _ => panic!("a part is a number"),
                    });
                    let sum = latest.map(|_| parts.sum());
                    assert_eq!(document.count(path), sum, "seed {seed}: {path}");
                }
                'f' => assert_eq!(document.is_enabled(path), latest.is_some(), "seed {seed}: {path}"),
                _ => {
                    let set = sets.entry(path).or_default();
                    set.extend(latest.map(|_| element.as_str()));
                }
            }
        }
        for (path, set) in sets {
            let held = document.elements(path);
            let texts: BTreeSet<String> = held.iter().map(ToString::to_string).collect();
            assert!(texts.iter().map(String::as_str).eq(set), "seed {seed}: {path}");
        }
        assert_eq!(document.map().sibling_count(), count, "seed {seed}: nothing else is held");
    }
}

struct World {
    net: Net<Document>,
    lives: u32,
    model: Model,
}

impl World {
    fn new(nodes: u64, seed: u64) -> Self {
        let mut world = Self { net: Net::new(seed), lives: 0, model: Model::default() };
        for at in 0..nodes {
            let node = world.start(at, nodes, document(at));
            world.net.nodes.push(node);
        }
        world
    }

    fn start(&mut self, at: u64, nodes: u64, mut document: Document) -> Peers<u64, Document> {
        document.map_mut().members_mut().set_lease(Duration::from_secs(60));
        let options =
            SessionOptions::default().datagram_len_max(400).transfer_len_max(2_000).join_items_max(5);
        let mut node = Peers::new(document, &options, self.net.random.next());
        // A ring with chords.
        for step in [1, nodes - 1, 5, nodes - 5] {
            node.add(self.net.now, (at + step) % nodes);
        }
        node
    }

    fn step(&mut self) {
        let (now, at) = (self.net.now, self.net.random.below(self.net.nodes.len() as u64));
        let node = &mut self.net.nodes[at as usize];
        let seen = node.state().map().version();
        let path = format!(
            "/list/item-{}/{}",
            self.net.random.below(4),
            ["a", "b"][self.net.random.below(2) as usize]
        );
        let (time, name) = (self.net.random.below(5), format!("e{}", self.net.random.below(3)));
        let model = &mut self.model;
        match self.net.random.below(16) {
            0..=2 => {
                let value = Scalar::from(self.net.random.next().cast_signed());
                let dot = node.change(now, |document| document.set(&path, time, value.clone())).unwrap();
                model.write(&(path, 'r', String::new()), &seen, dot, time, value);
            }
            3 | 4 => {
                let amount = self.net.random.below(9).cast_signed() - 4;
                let dot = node.change(now, |document| document.add(&path, time, amount)).unwrap();
                let entries = node.state().map().range(b"");
                let held = entries.flat_map(|entry| entry.siblings().collect::<Vec<_>>());
                let mut part = held.filter(|held| held.dot == dot).map(|held| held.value.try_into().unwrap());
                let part = i64::from_le_bytes(part.next().unwrap());
                model.write(&(path, 'c', String::new()), &seen, dot, time, part.into());
            }
            5 | 6 => {
                let dot = node.change(now, |document| document.enable(&path, time)).unwrap();
                model.write(&(path, 'f', String::new()), &seen, dot, time, true.into());
            }
            7 | 8 => {
                let dot = node.change(now, |document| document.insert(&path, time, name.as_str())).unwrap();
                model.write(&(path, 's', name), &seen, dot, time, true.into());
            }
            9 => {
                node.change(now, |document| document.disable(&path));
                model.remove(&path, Some(('f', "")), &seen);
            }
            10 => {
                node.change(now, |document| document.take(&path, name.as_str()));
                model.remove(&path, Some(('s', name.as_str())), &seen);
            }
            11 => {
                let path = path.rsplit_once('/').unwrap().0;
                node.change(now, |document| document.remove(path));
                model.remove(path, None, &seen);
            }
            12 => {
                self.lives += 1;
                let id = ReplicaId::with_incarnation(at, self.lives);
                let saved = node.state().save();
                let count = self.net.nodes.len() as u64;
                self.net.nodes[at as usize] =
                    self.start(at, count, Document::restore(&saved, id, KEY).unwrap());
            }
            _ => {
                let time = Duration::from_millis(self.net.random.below(2_000));
                self.net.run(time);
            }
        }
    }
}

#[test]
fn twenty_replicas_hold_what_the_model_of_events_says() {
    for seed in 0..seeds(4) {
        let mut world = World::new(20, seed);
        for _ in 0..250 {
            world.step();
        }
        world.net.run_until(seed, |nodes| {
            let frontier = nodes[0].state().frontier();
            nodes.iter().all(|node| node.state().frontier() == frontier)
        });
        let bytes = world.net.nodes[0].state().map().encode_state();
        for node in &world.net.nodes {
            assert!(node.state().map().encode_state() == bytes, "seed {seed}");
        }
        world.model.check(world.net.nodes[0].state(), seed);
        #[cfg(feature = "json")]
        {
            let json = world.net.nodes[0].state().to_json("");
            assert!(world.net.nodes.iter().all(|node| node.state().to_json("") == json), "seed {seed}");
        }
    }
}
