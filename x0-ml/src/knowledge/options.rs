//! Settings of the engine.

use std::time::Duration;

/// Settings of a [`Knowledge`](super::Knowledge).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnowledgeOptions {
    /// Chunks of one [`Output::Embed`](super::Output::Embed); 32 by default.
    pub batch_max: usize,
    /// Changed documents that are remembered; with more, the store is scanned. 65,536 by default.
    pub pending_max: usize,
    /// Documents of one page of a scan; 256 by default.
    pub page_max: usize,
    /// Changes after which the state is saved; 1,024 by default.
    pub save_changes: u64,
    /// Time after the first change after which the state is saved; 30 s by default.
    pub save_interval: Duration,
    /// Time before a failed step is tried again; 1 s by default, doubled at each failure up to 64 times.
    /// Other documents are indexed meanwhile. After three failures in a row, they wait for this time as well.
    pub retry: Duration,
    /// Failures after which a document is left out until it changes or the store is scanned, which it is
    /// after [`rescan`](Self::rescan); 8 by default.
    pub attempts_max: u32,
    /// Time for which a document that is not complete on this node holds back
    /// [`applied`](super::Knowledge::applied), once for each of its changes; 60 s by default. After it the
    /// document is left out until the store reports it or is scanned.
    pub late_max: Duration,
    /// Time after which the store is scanned because a document was left out; 10 minutes by default.
    pub rescan: Duration,
}

impl Default for KnowledgeOptions {
    fn default() -> Self {
        Self {
            batch_max: 32,
            pending_max: 65_536,
            page_max: 256,
            save_changes: 1024,
            save_interval: Duration::from_secs(30),
            retry: Duration::from_secs(1),
            attempts_max: 8,
            late_max: Duration::from_secs(60),
            rescan: Duration::from_secs(600),
        }
    }
}

impl KnowledgeOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the chunks of one embedding (at least 1).
    #[must_use]
    pub fn batch_max(mut self, chunks: usize) -> Self {
        self.batch_max = chunks.max(1);
        self
    }

    /// Sets the changed documents that are remembered (at least 1).
    #[must_use]
    pub fn pending_max(mut self, documents: usize) -> Self {
        self.pending_max = documents.max(1);
        self
    }

    /// Sets the documents of a page (at least 1).
    #[must_use]
    pub fn page_max(mut self, documents: usize) -> Self {
        self.page_max = documents.max(1);
        self
    }

    /// Sets the changes after which the state is saved.
    #[must_use]
    pub fn save_changes(mut self, changes: u64) -> Self {
        self.save_changes = changes;
        self
    }

    /// Sets the time after which the state is saved.
    #[must_use]
    pub fn save_interval(mut self, interval: Duration) -> Self {
        self.save_interval = interval;
        self
    }

    /// Sets the time before a failed step is tried again.
    #[must_use]
    pub fn retry(mut self, delay: Duration) -> Self {
        self.retry = delay;
        self
    }

    /// Sets the failures after which a document is left out (at least 1).
    #[must_use]
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts.max(1);
        self
    }

    /// Sets the time for which a late document holds back the applied revision.
    #[must_use]
    pub fn late_max(mut self, time: Duration) -> Self {
        self.late_max = time;
        self
    }

    /// Sets the time after which documents that were left out are looked for again.
    #[must_use]
    pub fn rescan(mut self, time: Duration) -> Self {
        self.rescan = time;
        self
    }
}
