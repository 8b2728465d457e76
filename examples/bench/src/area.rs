//! The areas of measurement. Each is one module with one entry point; `list` prints their requirements.

pub(crate) mod crdt;
pub(crate) mod ebpf;
pub(crate) mod fsync;
pub(crate) mod identity;
pub(crate) mod kv;
pub(crate) mod mapek;
pub(crate) mod mesh;
pub(crate) mod observe;
pub(crate) mod rag;
pub(crate) mod sim;

use crate::peer;

/// An area and its requirements on this machine.
pub(crate) struct Area {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) needs: Vec<Need>,
}

/// A program that is installed or that x0-bench fetches.
pub(crate) struct Need {
    pub(crate) what: &'static str,
    /// The path at which it was found.
    pub(crate) found: Option<String>,
    pub(crate) otherwise: &'static str,
}

/// Every area, in the order of the help text.
pub(crate) fn all() -> Vec<Area> {
    let found = |path: Option<std::path::PathBuf>| path.map(|path| path.display().to_string());
    let (java, zookeeper) = peer::zookeeper::present();
    let fetched = "fetched with apt-get download into a private folder";
    let need = |what, path, otherwise| Need { what, found: found(path), otherwise };
    vec![
        Area {
            name: "kv",
            about: "three-node x0-kv beside three-node etcd and ZooKeeper, and x0-kv embedded",
            needs: vec![
                need("etcd (Debian: etcd-server)", peer::etcd::present(), fetched),
                need("ZooKeeper (Debian: libzookeeper-java)", zookeeper, fetched),
                need("Java (Debian: default-jre-headless)", java, fetched),
            ],
        },
        Area {
            name: "crdt",
            about: "x0-crdt beside automerge, yrs, loro and crdts, all built in: bytes, processor time, memory",
            needs: Vec::new(),
        },
        Area {
            name: "mesh",
            about: "a channel of an x0-mesh mux beside the bare transport and plain quinn, and grids of routers beside babel-protocol, all built in",
            needs: Vec::new(),
        },
        Area {
            name: "identity",
            about: "x0-identity beside rustls-webpki and jsonwebtoken, which are built in, cfssl, nginx and tonic",
            needs: vec![
                need("cfssl (Debian: golang-cfssl)", identity::present().0, fetched),
                need("nginx (Debian: nginx)", identity::present().1, fetched),
            ],
        },
        Area {
            name: "mapek",
            about: "x0-mapek's detectors beside a textbook cumulative sum, the theoretical limit and foca: delay, false alarms, cost; `--healer`: that of x0-node's",
            needs: Vec::new(),
        },
        Area {
            name: "ebpf",
            about: "x0-ebpf's programs in the kernel, beside an empty one, xdp-filter, the kernel's trie and aya; as root",
            needs: vec![need("xdp-filter (Debian: libxdp1, bpftool)", ebpf::xdp_filter::present(), fetched)],
        },
        Area {
            name: "rag",
            about: "x0-ml's graph index beside hnswlib, faiss, usearch and hnsw_rs; MiniLM beside torch and onnxruntime; rankings beside tantivy and bm25s",
            needs: vec![need(
                "Python environment with hnswlib, faiss-cpu, usearch, bm25s, tantivy, torch, sentence-transformers, onnxruntime",
                rag::present(),
                "made with python3 -m venv and pip in a private folder; hnswlib needs a C++ compiler",
            )],
        },
        Area {
            name: "observe",
            about: "the cost of metrics and JSON logs of x0-node, beside etcd that is scraped the same way",
            needs: vec![need("etcd (Debian: etcd-server)", peer::etcd::present(), fetched)],
        },
        Area {
            name: "sim",
            about: "cluster-hours in virtual time under faults, every answer checked",
            needs: Vec::new(),
        },
        Area { name: "fsync", about: "what the disk takes for 4 KiB and an fdatasync", needs: Vec::new() },
    ]
}

/// Prints the areas.
pub(crate) fn list() {
    for area in all() {
        println!("{:<6} {}", area.name, area.about);
        for need in area.needs {
            match need.found {
                Some(found) => println!("         present  {}: {found}", need.what),
                None => println!("         missing  {}: {}", need.what, need.otherwise),
            }
        }
    }
}
