//! Retrieval on a node: collections of documents in its store, kept in indexes and asked over HTTP.

pub(crate) mod cli;
mod collection;
pub(crate) mod commands;
pub(crate) mod config;
mod demo;
mod documents;
mod fetch;
mod message;
mod model;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Semaphore;
use x0_kv::Store;
use x0_ml::knowledge::kv::KvKnowledgeOptions;

use self::collection::{Collection, Opener};
use self::config::RagConfig;
use self::model::Model;
use crate::log::Log;

/// The time for which the end of a node waits for its collections. The rest of the stop fits into what then
/// is left of the time after which the process ends anyway (module `fatal`).
const STOP_LIMIT: Duration = Duration::from_secs(3);
const _: () = assert!(STOP_LIMIT.as_millis() + 1000 <= crate::fatal::STOP_LIMIT.as_millis());

/// The collections of a node. Dropping the last copy ends their threads.
#[derive(Debug, Clone)]
pub(crate) struct Rag {
    model: Model,
    collections: Arc<BTreeMap<String, Collection>>,
    /// Slots for large documents that are being received.
    large: Arc<Semaphore>,
}

impl Rag {
    /// Loads the model and starts a thread for each collection. Their files go below `folder`.
    pub(crate) fn start(config: &RagConfig, folder: &Path, store: &Store, log: &Log) -> Result<Rag> {
        Self::over(Model::load(&config.model, config.threads)?, config, folder, store, log)
    }

    fn over(model: Model, config: &RagConfig, folder: &Path, store: &Store, log: &Log) -> Result<Rag> {
        let collections = config.collections.iter().map(|collection| {
            let folder = folder.join(&collection.name);
            let options = KvKnowledgeOptions::new().pieces_len_max(config.pieces_kib << 10);
            let opener = Opener {
                config: collection.clone(),
                options,
                vectors: config.vectors.exact(),
                store: store.clone(),
            };
            let started = Collection::start(opener, &folder, &model, log);
            let started =
                started.with_context(|| format!("cannot start the collection {}", collection.name))?;
            Ok((collection.name.clone(), started))
        });
        let collections = collections.collect::<Result<BTreeMap<_, _>>>()?;
        log.event("rag-started", format!("model={} collections={}", model.name(), collections.len()));
        let large = Arc::new(Semaphore::new(routes::LARGE_MAX));
        Ok(Rag { model, collections: Arc::new(collections), large })
    }

    /// Ends the threads after they have saved their indexes, or after [`STOP_LIMIT`]: what is not saved is
    /// built again from the cache at the next start.
    pub(crate) async fn stop(&self) {
        self.collections.values().for_each(Collection::stop);
        let stopped = async {
            for collection in self.collections.values() {
                collection.ended().await;
            }
        };
        let _ = tokio::time::timeout(STOP_LIMIT, stopped).await;
    }
}
