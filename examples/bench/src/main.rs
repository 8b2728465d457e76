//! Measures x0 side by side with its peers on this machine. `x0-bench list` lists the areas.
#![expect(clippy::print_stdout, reason = "tables are what this program is for")]

mod area;
mod case;
mod disk;
mod load;
mod memory;
mod peer;
mod process;
mod procfs;
mod random;
mod row;
mod statistics;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures x0 side by side with its peers on this machine
#[derive(Debug, Parser)]
#[command(name = "x0-bench")]
struct Command {
    #[command(subcommand)]
    area: Area,
}

#[derive(Debug, Subcommand)]
enum Area {
    /// List the areas and the requirements of each
    List,
    /// Three-node x0-kv beside three-node etcd and ZooKeeper
    Kv(area::kv::Options),
    /// x0-crdt beside automerge, yrs, loro and crdts: bytes, processor time, memory
    Crdt(area::crdt::Options),
    /// A channel of an x0-mesh mux beside the bare transport and plain quinn
    Mesh(area::mesh::Options),
    /// x0-identity beside webpki, jsonwebtoken, cfssl, nginx and tonic
    Identity(area::identity::Options),
    /// The detectors of x0-mapek beside a textbook cumulative sum and the theoretical limit
    Mapek(area::mapek::Options),
    /// The programs of x0-ebpf in the kernel, beside an empty one, xdp-filter, the kernel's trie and aya
    Ebpf(area::ebpf::Options),
    /// x0-ml's graph index beside hnswlib, faiss, usearch and hnsw_rs
    Rag(area::rag::Options),
    /// x0-ml's MiniLM beside sentence-transformers on torch and onnxruntime
    RagEmbed(area::rag::embed::Options),
    /// Queries of a knowledge base with 50,000 chunks, without their embedding
    RagQuery(area::rag::query::Options),
    /// The quality of x0-ml's rankings on manuals from Debian
    RagQuality(area::rag::quality::Options),
    /// The cost of metrics and JSON logs, beside etcd that is scraped the same way
    Observe(area::observe::Options),
    /// Hours of a cluster in virtual time, with faults of every kind and checked histories
    Sim(area::sim::Options),
    /// The time of a disk for 4 KiB and an fdatasync
    Fsync(area::fsync::Options),
    /// The process of the load generator, with orders on its standard input
    #[command(hide = true)]
    Load,
    /// A server process of x0-identity
    #[command(hide = true)]
    IdentityWorker(area::identity::worker::Options),
    /// The process that measures x0-ml
    #[command(hide = true)]
    RagWorker(area::rag::worker::Options),
    /// The process that embeds with x0-ml
    #[command(hide = true)]
    RagEmbedWorker(area::rag::embed::WorkerOptions),
}

fn main() -> ExitCode {
    let done = match Command::parse().area {
        Area::List => {
            area::list();
            Ok(())
        }
        Area::Kv(options) => area::kv::run(&options),
        Area::Crdt(options) => area::crdt::run(&options),
        Area::Mesh(options) => area::mesh::run(&options),
        Area::Identity(options) => area::identity::run(&options),
        Area::IdentityWorker(options) => area::identity::worker::run(&options),
        Area::Mapek(options) => area::mapek::run(&options),
        Area::Ebpf(options) => area::ebpf::run(&options),
        Area::Rag(options) => area::rag::run(&options),
        Area::RagQuality(options) => area::rag::quality::run(&options),
        Area::RagEmbed(options) => area::rag::embed::run(&options),
        Area::RagEmbedWorker(options) => area::rag::embed::work(&options),
        Area::RagQuery(options) => area::rag::query::run(&options),
        Area::RagWorker(options) => area::rag::worker::run(&options),
        Area::Observe(options) => area::observe::run(&options),
        Area::Sim(options) => area::sim::run(&options),
        Area::Fsync(options) => area::fsync::run(&options),
        Area::Load => load::serve(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("x0-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
