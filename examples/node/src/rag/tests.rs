//! The routes over real connections, and the limits and TLS modes of the HTTP front.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use x0_identity::{Authority, AuthorityOptions, Identity, SpiffeId, TrustDomain};
use x0_kv::Store;
use x0_ml::knowledge::StoreError;
use x0_ml::knowledge::kv::KvKnowledgeError;

use super::cli::Place;
use super::collection::refused;
use super::commands::{Adding, Seen, follow};
use super::config::RagConfig;
use super::model::Model;
use super::{Rag, commands};
use crate::http::Http;
use crate::http::client::try_ask;
use crate::http::config::{HttpConfig, Route, TlsMode};
use crate::http::problem::Problem;
use crate::log::Log;

struct Front {
    address: SocketAddr,
    identity: Identity,
    folder: tempfile::TempDir,
    rag: Rag,
    _http: Http,
}

impl Front {
    fn start(tls: TlsMode) -> Front {
        Front::with(Model::of_words(4096), tls)
    }

    fn with(model: Model, tls: TlsMode) -> Front {
        Front::over(model, tls, tempfile::tempdir().unwrap(), &Store::open_in_memory(), "")
    }

    /// A front over files and a store that may be those of an earlier one.
    fn over(model: Model, tls: TlsMode, folder: tempfile::TempDir, store: &Store, settings: &str) -> Front {
        let domain: TrustDomain = "front.test".parse().unwrap();
        let authority = Authority::new(domain.clone(), &AuthorityOptions::default()).unwrap();
        let id = SpiffeId::for_node(&domain, crate::init::node_id(1).unwrap());
        let svid = authority.issue(&id, Duration::from_secs(3600)).unwrap();
        std::fs::write(folder.path().join("svid.pem"), svid.to_pem()).unwrap();
        let identity = Identity::new(svid, authority.bundle()).unwrap();
        let log = Log::start("test", Default::default()).unwrap();
        let collections = "collections = [{ name = \"manuals\" }, { name = \"notes\", store = \"crdt\" }]";
        let config: RagConfig = toml::from_str(&format!("{settings}\n{collections}")).unwrap();
        let rag = Rag::over(model, &config, folder.path(), store, &log).unwrap();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let file = (tls == TlsMode::Server).then(|| folder.path().join("svid.pem"));
        let listener =
            HttpConfig { address, routes: vec![Route::Rag], tls, certificate: file.clone(), key: file };
        let http = crate::http::start(&[listener], Some(&identity), &log, |_| rag.router()).unwrap();
        Front { address, identity, folder, rag, _http: http }
    }

    async fn json(&self, method: &str, path: &str, body: Value) -> Result<Value, Problem> {
        self.send(method, path, "application/json", body.to_string()).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<Value, Problem> {
        try_ask(self.address, method, path, content_type, body.into()).await.unwrap()
    }

    async fn query(&self, body: Value) -> Result<Value, Problem> {
        self.json("POST", "/api/v1/rag/query", body).await
    }

    /// Asks until the collections are open.
    async fn open(&self) -> Value {
        loop {
            let status = self.json("GET", "/api/v1/rag/status", Value::Null).await.unwrap();
            if status["collections"].as_array().unwrap().iter().all(|state| state["unavailable"].is_null()) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    }
}

fn documents(answer: &Value) -> Vec<&str> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["document"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn documents_are_written_found_and_removed() {
    let front = Front::start(TlsMode::Off);
    front.open().await;
    for collection in ["manuals", "notes"] {
        let path = |id: &str| format!("/api/v1/rag/collections/{collection}/documents/{id}");
        let text = "A node that loses its link asks its other neighbours.";
        let body = json!({"text": text, "source": "handbook", "tags": ["links"]});
        front.json("PUT", &path("a%20guide/links"), body).await.unwrap();
        let written =
            front.send("PUT", &path("plain"), "text/plain", "The harbour is dark.".into()).await.unwrap();
        let revision = written["revision"].as_u64().unwrap();
        for mode in ["hybrid", "dense", "lexical"] {
            let query = json!({"collection": collection, "query": "lost link", "k": 1, "mode": mode,
                "min_revision": revision, "explain": true});
            let answer = front.query(query).await.unwrap();
            assert_eq!(documents(&answer), ["a guide/links"]);
            let hit = &answer["hits"][0];
            assert_eq!((hit["text"].as_str(), &hit["span"]), (Some(text), &json!([0, text.len()])));
            assert!(answer["applied"].as_u64() >= Some(revision));
            assert_eq!(answer["explain"]["documents"], 2);
            assert_eq!(hit["rank_lexical"].is_null(), mode == "dense");
            assert_eq!(hit["rank_dense"].is_null(), mode == "lexical");
        }
        for (filter, expect) in [
            (json!({"source": "handbook"}), 1),
            (json!({"tag": "links", "revision_max": revision}), 1),
            (json!({"revision_min": revision}), 1),
            (json!({"source": "other"}), 0),
        ] {
            let query = json!({"collection": collection, "query": "link harbour", "filter": filter});
            assert_eq!(documents(&front.query(query).await.unwrap()).len(), expect);
        }
        let removed = front.json("DELETE", &path("plain"), Value::Null).await.unwrap();
        let query = json!({"collection": collection, "query": "harbour", "mode": "lexical",
            "min_revision": removed["revision"]});
        assert_eq!(documents(&front.query(query).await.unwrap()), [""; 0]);
        assert_eq!(front.json("DELETE", &path("plain"), Value::Null).await.unwrap_err().status, 404);
    }
    let status = front.open().await;
    assert_eq!(status["model"], "few words");
    assert_eq!(
        (&status["collections"][0]["documents"], &status["collections"][1]["store"]),
        (&1.into(), &"crdt".into())
    );
}

#[tokio::test]
async fn wrong_requests_are_problems_with_field_and_remedy() {
    let front = Front::start(TlsMode::Off);
    front.open().await;
    let check = async |body: Value, status: u16, field: &str, word: &str| {
        let problem = front.query(body.clone()).await.unwrap_err();
        assert_eq!((problem.status, problem.field.as_deref()), (status, Some(field)), "{body}: {problem:?}");
        assert!(problem.detail.contains(word), "{problem:?}");
    };
    let query = |field: &str, value: Value| {
        let mut body = json!({"collection": "manuals", "query": "link"});
        body[field] = value;
        body
    };
    check(query("k", json!(0)), 400, "k", "1 to 100").await;
    check(query("query", json!(" ")), 400, "query", "empty").await;
    check(query("query", json!("x".repeat(9000))), 400, "query", "shorten").await;
    check(query("colour", json!(1)), 400, "colour", "unknown field").await;
    check(query("mode", json!("fuzzy")), 400, "fuzzy", "hybrid").await;
    check(query("filter", json!({"revision_min": 2, "revision_max": 1})), 400, "filter", "exchange").await;
    check(query("collection", json!("other")), 404, "collection", "manuals, notes").await;
    let problem = front.query(query("min_revision", json!(1_u64 << 60))).await.unwrap_err();
    assert_eq!(problem.status, 503, "{problem:?}");
    assert!(problem.detail.contains("try again"), "{problem:?}");

    let send = async |method: &str, path: &str, body: String| {
        front.send(method, path, "application/json", body).await.unwrap_err()
    };
    assert_eq!(send("POST", "/api/v1/rag/query", "{".into()).await.status, 400);
    assert_eq!(send("POST", "/api/v1/rag/query", " ".repeat(70_000)).await.status, 413);
    assert_eq!(send("GET", "/api/v1/rag/query", String::new()).await.status, 405);
    assert_eq!(send("GET", "/api/v1/other", String::new()).await.status, 404);
    let path = "/api/v1/rag/collections/manuals/documents/a";
    assert_eq!(send("PUT", path, "{}".into()).await.field.as_deref(), Some("text"));
    assert_eq!(send("PUT", path, " ".repeat(33 << 20)).await.status, 413);
    let long = format!("/api/v1/rag/collections/manuals/documents/{}", "n".repeat(1025));
    assert_eq!(send("DELETE", &long, String::new()).await.field.as_deref(), Some("id"));
    let binary = try_ask::<Value>(front.address, "PUT", path, "text/plain", vec![0xff].into()).await.unwrap();
    assert_eq!(binary.unwrap_err().field.as_deref(), Some("text"));
}

/// What no store would take is the caller's mistake, and not an error of the node.
#[tokio::test]
async fn documents_that_do_not_fit_are_problems_of_the_caller() {
    let front = Front::start(TlsMode::Off);
    front.open().await;
    let put = async |id: &str, body: Value| {
        let path = format!("/api/v1/rag/collections/notes/documents/{id}");
        let problem = front.json("PUT", &path, body).await.unwrap_err();
        (problem.status, problem.field.unwrap_or_default())
    };
    let tags: Vec<String> = (0..700).map(|n| format!("{n:0100}")).collect();
    assert_eq!(put("a", json!({"text": "a", "tags": tags})).await, (413, "tags".to_owned()));
    assert_eq!(put("a", json!({"text": "a", "source": "s".repeat(70_000)})).await, (413, "tags".to_owned()));
    for error in [
        KvKnowledgeError::TextTooLong { len: 9, len_max: 8 },
        KvKnowledgeError::TooLong { len: 9, pieces: 2 },
    ] {
        let problem = refused(StoreError::new(error));
        assert_eq!((problem.status, problem.field.as_deref()), (413, Some("text")));
    }
    let name = refused(StoreError::new(KvKnowledgeError::DocumentName { len: 9, len_max: 8 }));
    assert_eq!((name.status, name.field.as_deref()), (400, Some("id")));
    assert_eq!(refused(StoreError::new(KvKnowledgeError::NoBlobs)).status, 503);
    assert_eq!(refused(StoreError::new("away")).status, 503);
}

#[tokio::test]
async fn a_query_that_was_cut_is_reported() {
    let front = Front::with(Model::of_words(3), TlsMode::Off);
    front.open().await;
    for (text, is_cut) in [("one two three", false), ("one two three four", true)] {
        for mode in ["hybrid", "dense", "lexical"] {
            let query = json!({"collection": "manuals", "query": text, "mode": mode});
            let answer = front.query(query).await.unwrap();
            let expect = if is_cut && mode != "lexical" { json!(true) } else { Value::Null };
            assert_eq!(answer["truncated"], expect, "{text} {mode}");
        }
    }
}

/// The passages of an answer are read up to a limit, and the time of it is shown.
#[tokio::test]
async fn passages_are_read_up_to_a_limit() {
    let front = Front::start(TlsMode::Off);
    front.open().await;
    let mut revision = 0;
    for (id, word) in [("long", "harbour "), ("longer", "harbour dark ")] {
        let path = format!("/api/v1/rag/collections/manuals/documents/{id}");
        let text = word.repeat(1200);
        revision =
            front.json("PUT", &path, json!({"text": text})).await.unwrap()["revision"].as_u64().unwrap();
    }
    let query = json!({"collection": "manuals", "query": "harbour", "mode": "lexical", "k": 100,
        "min_revision": revision, "explain": true});
    let answer = front.query(query).await.unwrap();
    let mut texts = std::collections::BTreeMap::new();
    for hit in answer["hits"].as_array().unwrap() {
        texts.entry(hit["document"].as_str().unwrap()).or_insert(!hit["text"].is_null());
    }
    assert_eq!(texts.values().filter(|has_text| **has_text).count(), 1, "{texts:?}");
    assert_eq!(texts.len(), 2);
    assert!(answer["explain"]["read_us"].is_u64());
}

/// Vectors in the file: the same answers, a damaged record is a problem that is repaired, and a damaged file
/// is built again.
#[tokio::test]
async fn vectors_in_the_file_give_the_same_answers() {
    let store = Store::open_in_memory();
    let (folder, settings) = (tempfile::tempdir().unwrap(), "vectors = \"file\"");
    let front = Front::over(Model::of_words(4096), TlsMode::Off, folder, &store, settings);
    let memory = Front::over(Model::of_words(4096), TlsMode::Off, tempfile::tempdir().unwrap(), &store, "");
    let mut last = Value::Null;
    front.open().await;
    memory.open().await;
    for (id, text) in [("a", "the harbour is dark"), ("b", "a dark node asks"), ("c", "links of a node")] {
        let path = format!("/api/v1/rag/collections/manuals/documents/{id}");
        last = front.json("PUT", &path, json!({"text": text})).await.unwrap()["revision"].clone();
    }
    let query = json!({"collection": "manuals", "query": "dark harbour node", "mode": "dense",
        "min_revision": last});
    let ids = |answer: &Value| documents(answer).iter().map(ToString::to_string).collect::<Vec<_>>();
    let (found, wanted) =
        (front.query(query.clone()).await.unwrap(), memory.query(query.clone()).await.unwrap());
    assert_eq!((ids(&found), ids(&found).len()), (ids(&wanted), 3));

    // The first record.
    let cache = front.folder.path().join("manuals/embeddings.cache");
    let damage = |at: usize| {
        let mut bytes = std::fs::read(&cache).unwrap();
        bytes[at] ^= 1;
        std::io::Write::write_all(&mut std::fs::OpenOptions::new().write(true).open(&cache).unwrap(), &bytes)
            .unwrap();
    };
    damage(60);
    let problem = front.query(query.clone()).await.unwrap_err();
    assert_eq!(problem.status, 500);
    assert!(problem.detail.contains("embeddings.cache") && problem.detail.contains("byte 52"), "{problem:?}");
    let begun = std::time::Instant::now();
    let found = loop {
        match front.query(query.clone()).await {
            Ok(found) => break found,
            Err(problem) => assert!(begun.elapsed() < Duration::from_secs(60), "{problem:?}"),
        }
    };
    assert_eq!(ids(&found), ids(&wanted));
    front.rag.stop().await;
    let Front { folder, .. } = front;
    damage(60);
    let front = Front::over(Model::of_words(4096), TlsMode::Off, folder, &store, settings);
    let status = front.open().await;
    let rebuild = status["collections"][0]["rebuild"].as_str().unwrap();
    assert!(rebuild.contains("embeddings.cache"), "{rebuild}");
    assert_eq!(ids(&front.query(query).await.unwrap()), ids(&wanted));
}

/// A thread that does not end holds up the stop for a while only.
#[tokio::test]
async fn a_stop_does_not_wait_for_a_thread_that_blocks() {
    let front = Front::with(Model::that_blocks(), TlsMode::Off);
    front.open().await;
    let path = "/api/v1/rag/collections/manuals/documents/a";
    front.json("PUT", path, json!({"text": "wait for ever"})).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), front.rag.stop()).await.unwrap();
}

#[tokio::test]
async fn a_stop_saves_the_indexes() {
    let front = Front::start(TlsMode::Off);
    front.open().await;
    let path = "/api/v1/rag/collections/manuals/documents/a";
    let revision = front.json("PUT", path, json!({"text": "harbour"})).await.unwrap()["revision"].clone();
    let query = json!({"collection": "manuals", "query": "harbour", "min_revision": revision});
    front.query(query.clone()).await.unwrap();
    let saved = front.folder.path().join("manuals/knowledge.index");
    assert!(!saved.exists());
    front.rag.stop().await;
    assert!(saved.exists());
    assert_eq!(front.query(query).await.unwrap_err().status, 503);
    front.rag.stop().await;
}

/// A node that is away, and documents that were removed before, do not end a watch.
#[tokio::test]
async fn a_watch_makes_good_what_failed() {
    let front = Front::start(TlsMode::Off);
    front.open().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    for name in ["a.txt", "b.txt"] {
        std::fs::write(file(name), "harbour").unwrap();
    }
    let paths = [folder.path().to_owned()];
    let tags = std::collections::BTreeSet::new();
    let at = |address: SocketAddr| Place { address, collection: "manuals".to_owned() };
    // Nothing listens on the discard port.
    let (here, away) = (at(front.address), at((Ipv4Addr::LOCALHOST, 9).into()));
    let adding = |place| Adding { source: "", tags: &tags, place };
    let mut seen = Seen::new();
    follow(&paths, &adding(&away), &mut seen).await.unwrap_err();
    assert!(seen.is_empty());
    follow(&paths, &adding(&here), &mut seen).await.unwrap();
    assert_eq!(seen.len(), 2);
    let held = async || front.open().await["collections"][0]["documents"].as_u64().unwrap();
    assert_eq!(held().await, 2);

    std::fs::remove_file(file("a.txt")).unwrap();
    std::fs::write(file("c.txt"), "harbour").unwrap();
    follow(&paths, &adding(&away), &mut seen).await.unwrap_err();
    assert_eq!(seen.len(), 2, "neither was done");
    follow(&paths, &adding(&here), &mut seen).await.unwrap();
    assert!(!seen.contains_key(&file("a.txt")) && seen.contains_key(&file("c.txt")));

    // Removed by another client.
    let id = crate::http::client::encode(&commands::name(&file("b.txt")));
    let path = format!("/api/v1/rag/collections/manuals/documents/{id}");
    front.json("DELETE", &path, Value::Null).await.unwrap();
    std::fs::remove_file(file("b.txt")).unwrap();
    follow(&paths, &adding(&here), &mut seen).await.unwrap();
    assert_eq!(seen.len(), 1);
}

/// Damaged bodies: an answer or a problem of the caller, never one of the node.
#[tokio::test]
async fn damaged_bodies_are_problems_of_the_caller() {
    let front = Front::start(TlsMode::Off);
    front.open().await;
    let query = json!({
        "collection": "manuals", "query": "link \u{fc}ber", "k": 3, "mode": "lexical", "explain": true,
        "filter": {"source": "a", "tag": "b", "revision_min": 1, "revision_max": 9},
    });
    let document = json!({"text": "A node that loses its link.", "source": "a", "tags": ["b", "c"]});
    let targets = [
        ("POST", "/api/v1/rag/query", query.to_string()),
        ("PUT", "/api/v1/rag/collections/manuals/documents/a", document.to_string()),
    ];
    let mut state = 7_u64;
    let mut random = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % bound
    };
    let mut refused = 0;
    for round in 0..1500 {
        let (method, path, whole) = &targets[round % 2];
        let mut body = whole.clone().into_bytes();
        for _ in 0..=random(3) {
            let at = random(body.len());
            match random(4) {
                0 => body[at] = b"\0\"{}[]:,\\9-e\xff"[random(13)],
                1 => body.truncate(at + 1),
                2 => drop(body.splice(at..at, std::iter::repeat_n(b'[', random(300)))),
                _ => drop(body.splice(at..at, whole.bytes().skip(at).take(20))),
            }
        }
        let answer = try_ask::<Value>(front.address, method, path, "application/json", body.into()).await;
        if let Err(problem) = answer.unwrap() {
            assert!((400..500).contains(&problem.status) && !problem.detail.is_empty(), "{problem:?}");
            refused += 1;
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[tokio::test]
async fn requests_above_the_limit_are_refused_at_once() {
    let front = Front::start(TlsMode::Off);
    front.open().await;
    // Each waits for a revision that does not come.
    let body =
        json!({"collection": "manuals", "query": "link", "mode": "lexical", "min_revision": 1_u64 << 60});
    let asked: Vec<_> = (0..80)
        .map(|_| {
            let (address, body) = (front.address, body.to_string());
            tokio::spawn(async move {
                let path = "/api/v1/rag/query";
                try_ask::<Value>(address, "POST", path, "application/json", body.into())
                    .await
                    .unwrap()
                    .unwrap_err()
                    .status
            })
        })
        .collect();
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(answer.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 16, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 503).count(), 64, "{answers:?}");
}

/// What a node answers to bytes.
async fn exchange(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    bytes: &[u8],
) -> String {
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

const STATUS: &[u8] = b"GET /api/v1/rag/status HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn heads_are_bounded() {
    let front = Front::start(TlsMode::Off);
    let head = |headers: String| {
        format!("GET /api/v1/rag/status HTTP/1.1\r\nhost: a\r\n{headers}connection: close\r\n\r\n")
    };
    let many: String = (0..100).map(|n| format!("a{n}: b\r\n")).collect();
    let long = format!("a: {}\r\n", "b".repeat(40_000));
    for (headers, expect) in [(String::new(), "200"), (many, "431"), (long, "431")] {
        let stream = TcpStream::connect(front.address).await.unwrap();
        let answer = exchange(stream, head(headers).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expect}")), "{answer}");
    }
    // A head that does not end: the connection is closed.
    let stream = TcpStream::connect(front.address).await.unwrap();
    exchange(stream, b"GET / HTTP/1.1\r\nhost: ").await;
    for garbage in [&b"\0\xff\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n\r\nPUT"] {
        let stream = TcpStream::connect(front.address).await.unwrap();
        exchange(stream, garbage).await;
    }
}

#[tokio::test]
async fn tls_modes_keep_their_word() {
    let connect = async |front: &Front, config: std::sync::Arc<rustls::ClientConfig>| {
        let stream = TcpStream::connect(front.address).await.unwrap();
        let stream = tokio_rustls::TlsConnector::from(config).connect("x".try_into().unwrap(), stream).await;
        match stream {
            Ok(stream) => exchange(stream, STATUS).await,
            Err(error) => error.to_string(),
        }
    };
    let mutual = Front::start(TlsMode::Mutual);
    assert!(connect(&mutual, mutual.identity.client_config()).await.starts_with("HTTP/1.1 200"));
    // The same verifier, without a certificate of the client.
    let anonymous = |front: &Front| -> std::sync::Arc<rustls::ClientConfig> {
        rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(front.identity.verifier())
            .with_no_client_auth()
            .into()
    };
    let refused = connect(&mutual, anonymous(&mutual)).await;
    assert!(!refused.contains("HTTP"), "{refused}");
    // Without TLS there is no answer either.
    let stream = TcpStream::connect(mutual.address).await.unwrap();
    assert!(!exchange(stream, STATUS).await.contains("HTTP"));
    let server = Front::start(TlsMode::Server);
    assert!(connect(&server, anonymous(&server)).await.starts_with("HTTP/1.1 200"));
    std::fs::write(server.folder.path().join("other.pem"), "nothing").unwrap();
    let other = Some(server.folder.path().join("other.pem"));
    let listener = HttpConfig {
        address: server.address,
        routes: vec![Route::Rag],
        tls: TlsMode::Server,
        certificate: other.clone(),
        key: other,
    };
    let error = crate::http::start(
        &[listener],
        Some(&server.identity),
        &Log::start("test", Default::default()).unwrap(),
        |_| axum::Router::new(),
    );
    assert!(error.unwrap_err().to_string().contains("cannot listen"), "the address is taken");
}
