//! A Workload API as a source.

use std::string::String;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;

use super::{Client, Subscription, WaitError, X509Context};
use crate::source::{SvidPoll, SvidSource, SvidSourceError, SvidState};
use crate::{SpiffeId, X509Svid};

/// The SVIDs of a Workload API, SPIRE's or any other, as a source: the default SVID, or the first one with a
/// hint.
#[derive(Debug)]
pub struct ClientSource {
    client: Client,
    hint: Option<String>,
    /// The SPIFFE ID of the first SVID, which the later ones have too.
    spiffe_id: Option<SpiffeId>,
    /// The version and the problem of the last call.
    seen: Option<(u64, Option<WaitError>)>,
}

/// The Workload API has no SVID with the hint.
#[derive(Debug, thiserror::Error)]
#[error("the Workload API has no SVID with the hint {hint:?}: register one, or choose another hint")]
struct NoHint {
    hint: String,
}

impl ClientSource {
    pub(super) fn new(client: Client, hint: Option<&str>) -> ClientSource {
        ClientSource { client, hint: hint.map(Into::into), spiffe_id: None, seen: None }
    }

    /// The client below.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn svid_in<'a>(&self, context: &'a X509Context) -> Option<&'a X509Svid> {
        let mut named = context
            .svids()
            .iter()
            .filter(|held| self.hint.as_ref().is_none_or(|hint| held.hint == *hint))
            .map(|held| &held.svid);
        named.find(|svid| self.spiffe_id.as_ref().is_none_or(|spiffe_id| spiffe_id == svid.spiffe_id()))
    }

    fn state(&mut self, context: &X509Context) -> Result<SvidState, SvidSourceError> {
        match (self.svid_in(context).cloned(), &self.spiffe_id) {
            (Some(svid), _) => {
                self.spiffe_id.get_or_insert_with(|| svid.spiffe_id().clone());
                Ok(SvidState::Held { svid: svid.into(), bundles: context.bundles().clone() })
            }
            (None, Some(_)) => Ok(SvidState::Withdrawn),
            (None, None) => Err(SvidSourceError::new(NoHint { hint: self.hint.clone().unwrap_or_default() })),
        }
    }
}

impl SvidSource for ClientSource {
    fn poll(&mut self, _now: SystemTime, waker: &core::task::Waker) -> SvidPoll {
        // The client wakes: the pause is for nothing but a lost wake-up.
        let again = Duration::from_secs(60);
        let (version, context, problem) = self.client.look(Subscription::X509Svids, waker);
        let seen = Some((version, problem.clone()));
        if self.seen == seen {
            return SvidPoll::new(Ok(None), again);
        }
        self.seen = seen;
        let change = match (context, problem) {
            (_, Some(WaitError::Denied)) => Ok(Some(SvidState::Withdrawn)),
            (Some(context), None) => self.state(&context).map(Some),
            (_, Some(problem)) => Err(SvidSourceError::new(problem)),
            (None, None) => Ok(None),
        };
        SvidPoll::new(change, again)
    }

    fn provider(&self) -> Option<Arc<CryptoProvider>> {
        Some(Arc::clone(self.client.crypto_provider()))
    }
}
