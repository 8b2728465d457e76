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

use anyhow::{Context, Result};
use x0_kv::Store;

use self::collection::Collection;
use self::config::RagConfig;
use self::model::Model;
use crate::log::Log;

/// The collections of a node. Dropping the last copy ends their threads.
#[derive(Debug, Clone)]
pub(crate) struct Rag {
    model: Model,
    collections: Arc<BTreeMap<String, Collection>>,
}

impl Rag {
    /// Loads the model and starts a thread for each collection. Their files go below `folder`.
    pub(crate) fn start(config: &RagConfig, folder: &Path, store: &Store, log: &Log) -> Result<Rag> {
        let model = Model::load(&config.model, config.threads)?;
        let collections = config.collections.iter().map(|collection| {
            let folder = folder.join(&collection.name);
            let started = Collection::start(collection, &folder, store, &model, log);
            let started =
                started.with_context(|| format!("cannot start the collection {}", collection.name))?;
            Ok((collection.name.clone(), started))
        });
        let collections = collections.collect::<Result<BTreeMap<_, _>>>()?;
        log.event("rag-started", format!("model={} collections={}", model.name(), collections.len()));
        Ok(Rag { model, collections: Arc::new(collections) })
    }
}
