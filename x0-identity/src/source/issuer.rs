//! An issuer in this process as a source.

use core::fmt;
use std::boxed::Box;
use std::collections::hash_map::RandomState;
use std::error::Error;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use super::{SvidPoll, SvidSource, SvidSourceError, SvidState};
use crate::{
    Authority, Renewal, RenewalInput, RenewalOptions, SpiffeId, TrustBundle, TrustBundleSet, X509Svid,
};

type Issue = dyn FnMut(SystemTime) -> Result<(X509Svid, TrustBundleSet), Box<dyn Error + Send + Sync>> + Send;

/// An issuer in this process: an [`Authority`], or whatever signs with a `CaSigner`. A [`Renewal`] decides
/// when it issues: at half of the validity, again after a failure, and when its [`IssuerHandle`] says so.
pub struct InProcessIssuer {
    shared: Arc<Mutex<Shared>>,
    renewal: Renewal,
    /// The time to an attempt that the engine does not wait for.
    pause: Duration,
    origin: Instant,
}

struct Shared {
    issue: Box<Issue>,
    is_replaced: bool,
    waker: Option<Waker>,
}

/// Replaces what an [`InProcessIssuer`] issues with, after the issuer was given to a follower.
#[derive(Clone)]
pub struct IssuerHandle(Arc<Mutex<Shared>>);

impl InProcessIssuer {
    /// Builds a source from what issues an SVID of this process, with the bundles to trust.
    pub fn new(
        issue: impl FnMut(SystemTime) -> Result<(X509Svid, TrustBundleSet), Box<dyn Error + Send + Sync>>
        + Send
        + 'static,
        options: RenewalOptions,
    ) -> InProcessIssuer {
        let shared = Shared { issue: Box::new(issue), is_replaced: false, waker: None };
        // The seed needs no secrecy: it spreads the renewals of processes that started together.
        let seed = RandomState::new().build_hasher().finish();
        InProcessIssuer {
            shared: Arc::new(Mutex::new(shared)),
            pause: options.pause_min,
            renewal: Renewal::new(options, seed),
            origin: Instant::now(),
        }
    }

    /// Builds a source from an authority, which issues a SPIFFE ID with a validity and is trusted with these
    /// bundles; its own is among them.
    pub fn from_authority(
        authority: Arc<Authority>,
        spiffe_id: SpiffeId,
        validity: Duration,
        federated: TrustBundleSet,
    ) -> InProcessIssuer {
        InProcessIssuer::new(issuing(authority, spiffe_id, validity, federated), RenewalOptions::default())
    }

    /// The handle of this issuer.
    #[must_use]
    pub fn handle(&self) -> IssuerHandle {
        IssuerHandle(Arc::clone(&self.shared))
    }
}

fn issuing(
    authority: Arc<Authority>,
    spiffe_id: SpiffeId,
    validity: Duration,
    mut bundles: TrustBundleSet,
) -> impl FnMut(SystemTime) -> Result<(X509Svid, TrustBundleSet), Box<dyn Error + Send + Sync>> + Send {
    // Bundles that were published beside the authority's own stay.
    let domain = authority.trust_domain().clone();
    let mut own =
        bundles.get(&domain).map_or_else(|| TrustBundle::empty(domain), |own| TrustBundle::clone(own));
    let extended = own.extend(&authority.bundle());
    bundles.insert(own);
    move |now| {
        extended.clone()?;
        Ok((authority.issue_at(&spiffe_id, validity, now)?, bundles.clone()))
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // A panic of the closure ends the follower, and a handle may replace the closure for another one.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl IssuerHandle {
    /// Issues in another way from now on, and at once: with another authority, or with other bundles.
    pub fn replace(
        &self,
        issue: impl FnMut(SystemTime) -> Result<(X509Svid, TrustBundleSet), Box<dyn Error + Send + Sync>>
        + Send
        + 'static,
    ) {
        let mut shared = lock(&self.0);
        shared.issue = Box::new(issue);
        shared.is_replaced = true;
        let waker = shared.waker.take();
        // Outside of the lock: a waker may ask at once.
        drop(shared);
        waker.into_iter().for_each(Waker::wake);
    }

    /// As [`IssuerHandle::replace`], with another authority, as of [`InProcessIssuer::from_authority`].
    pub fn replace_authority(
        &self,
        authority: Arc<Authority>,
        spiffe_id: SpiffeId,
        validity: Duration,
        bundles: TrustBundleSet,
    ) {
        self.replace(issuing(authority, spiffe_id, validity, bundles));
    }
}

impl SvidSource for InProcessIssuer {
    fn poll(&mut self, now: SystemTime, waker: &Waker) -> SvidPoll {
        let wall = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut shared = lock(&self.shared);
        shared.waker = Some(waker.clone());
        let is_replaced = core::mem::take(&mut shared.is_replaced);
        let elapsed = self.origin.elapsed();
        let _ = self.renewal.handle(elapsed, RenewalInput::Timeout { wall });
        let mut is_due = is_replaced;
        while self.renewal.poll_output().is_some() {
            is_due = true;
        }
        let change = if is_due { (shared.issue)(now).map(Some) } else { Ok(None) };
        drop(shared);
        let seconds = |moment: SystemTime| moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let known = match &change {
            Ok(Some((svid, _))) => {
                let (not_before, not_after) = (seconds(svid.not_before()), seconds(svid.not_after()));
                self.renewal.handle(elapsed, RenewalInput::Issued { wall, not_before, not_after })
            }
            Ok(None) => Ok(()),
            Err(_) => self.renewal.handle(elapsed, RenewalInput::Failed { wall }),
        };
        let change =
            change.map(|issued| issued.map(|(svid, bundles)| SvidState::Held { svid: svid.into(), bundles }));
        let mut again = self.renewal.poll_timeout().unwrap_or(elapsed).saturating_sub(elapsed);
        // An issuer that was replaced while the SVID is not due: the engine does not repeat what it did not
        // ask for.
        if known.is_err() && change.is_err() {
            lock(&self.shared).is_replaced = true;
            again = again.min(self.pause);
        }
        SvidPoll::new(change.map_err(SvidSourceError::new), again)
    }
}

impl fmt::Debug for InProcessIssuer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("InProcessIssuer").field("renewal", &self.renewal).finish_non_exhaustive()
    }
}

impl fmt::Debug for IssuerHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("IssuerHandle").finish_non_exhaustive()
    }
}
