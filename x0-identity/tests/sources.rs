//! The sources of an SVID: one suite for each of them, and the follower.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]
#![cfg(unix)]

mod common;
#[allow(dead_code, reason = "of the tests of the Workload API")]
#[path = "workload_api/kit.rs"]
mod kit;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant, SystemTime};

use kit::{Domain, HOUR, domain, id};
use x0_identity::workload_api::{
    Client, ClientOptions, EndpointAddress, Listener, Server, ServerOptions, SharedWorkload, Workload,
};
use x0_identity::{
    FollowError, Identity, InProcessIssuer, RenewalOptions, SvidFiles, SvidFollower, SvidPoll, SvidSource,
    SvidSourceError, SvidState, TrustBundle, TrustBundleSet, X509Svid,
};

/// Longer than any step takes on a machine under load.
const PATIENCE: Duration = Duration::from_secs(30);

/// Blocks until it is woken, or a time is over.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl Bell {
    fn wait(&self, limit: Duration) {
        let rung = self.rung.lock().unwrap();
        let (mut rung, _) = self.changed.wait_timeout_while(rung, limit, |rung| !*rung).unwrap();
        *rung = false;
    }
}

/// Asks as a follower does, until there is a change or an error.
fn next(source: &mut dyn SvidSource, bell: &Arc<Bell>) -> Result<SvidState, String> {
    let (begun, waker) = (Instant::now(), Waker::from(Arc::clone(bell)));
    loop {
        let SvidPoll { change, again, .. } = source.poll(SystemTime::now(), &waker);
        match change {
            Ok(Some(state)) => return Ok(state),
            Ok(None) => {}
            Err(error) => return Err(error.source.to_string()),
        }
        assert!(begun.elapsed() < PATIENCE, "no change came");
        bell.wait(again.min(Duration::from_secs(1)));
    }
}

fn held(state: Result<SvidState, String>) -> (X509Svid, TrustBundleSet) {
    match state.unwrap() {
        SvidState::Held { svid, bundles } => (*svid, bundles),
        state => panic!("{state:?}"),
    }
}

/// The contract of a source. `change` makes the source give another SVID, and a foreign bundle.
fn conforms(mut source: impl SvidSource, change: impl FnOnce()) {
    let bell = Arc::new(Bell::default());
    let (first, bundles) = held(next(&mut source, &bell));
    assert_eq!(first.spiffe_id(), &id("spiffe://example.org/web"));
    // The bundle of its trust domain trusts the SVID.
    let own = TrustBundle::clone(bundles.get(&domain("example.org")).unwrap());
    Identity::new(first.clone(), own).unwrap();
    assert!(bundles.get(&domain("example.com")).is_none());
    // Nothing has changed.
    let again = source.poll(SystemTime::now(), &Waker::from(Arc::clone(&bell)));
    assert!(matches!(again.change, Ok(None)), "{again:?}");
    change();
    let (second, bundles) = held(next(&mut source, &bell));
    assert_eq!(second.spiffe_id(), first.spiffe_id());
    assert_ne!(second.serial_number(), first.serial_number());
    assert!(bundles.get(&domain("example.com")).is_some());
}

/// The identity of a follower has the newer SVID and the foreign bundle after a change, and the follower
/// ends.
fn is_followed(source: impl SvidSource + 'static, change: impl FnOnce()) {
    let follower = SvidFollower::start(source, PATIENCE).unwrap();
    let identity = follower.identity().clone();
    let (first, trusts) = (identity.svid_serial_number(), |identity: &Identity| {
        let foreign = Domain::new("example.com").svid("peer");
        // Of the trust domains the foreign one is known: the peer has another authority of that name.
        let verified = identity.admit(foreign.chain(), x0_identity::PeerRole::Client, SystemTime::now());
        matches!(verified, Err(x0_identity::VerifyError::Path(_)))
    });
    assert!(!trusts(&identity));
    change();
    until(|| identity.svid_serial_number() != first && trusts(&identity));
    assert!(follower.problem().is_none(), "{:?}", follower.problem());
    drop(follower);
}

fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "it did not come");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

struct Folder {
    folder: tempfile::TempDir,
    example: Domain,
    foreign: Domain,
}

impl Folder {
    fn new() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        let new = Folder { folder, example: Domain::new("example.org"), foreign: Domain::new("example.com") };
        new.write("svid.pem", &new.example.svid("web").to_pem());
        new.write("bundle.pem", &new.example.authority.bundle().to_pem());
        new.write("foreign.pem", "");
        new
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        replace(&self.path(name), text);
    }

    fn source(&self) -> SvidFiles {
        SvidFiles::new(domain("example.org"), self.path("svid.pem"), self.path("bundle.pem"))
            .look(Duration::from_millis(5))
    }

    fn change(&self) {
        self.write("svid.pem", &self.example.svid("web").to_pem());
    }
}

/// As a program that distributes files does it.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[test]
fn files_conform() {
    let folder = Folder::new();
    // The bundles of files are those that the program names.
    let mut source = folder.source();
    let bell = Arc::new(Bell::default());
    let (first, bundles) = held(next(&mut source, &bell));
    assert_eq!(bundles.iter().count(), 1);
    assert!(matches!(source.poll(SystemTime::now(), &Waker::from(Arc::clone(&bell))).change, Ok(None)));
    folder.change();
    let (second, _) = held(next(&mut source, &bell));
    assert_ne!(second.serial_number(), first.serial_number());
    // A foreign bundle beside, and its change alone.
    let mut source = folder.source().federated(domain("example.com"), folder.path("foreign.pem"));
    let (_, bundles) = held(next(&mut source, &bell));
    assert!(bundles.get(&domain("example.com")).unwrap().is_empty());
    folder.write("foreign.pem", &folder.foreign.authority.bundle().to_pem());
    let (_, bundles) = held(next(&mut source, &bell));
    assert_eq!(**bundles.get(&domain("example.com")).unwrap(), folder.foreign.authority.bundle());
}

#[test]
fn files_are_followed_whichever_changes_first() {
    let folder = Folder::new();
    let follower = SvidFollower::start(folder.source(), PATIENCE).unwrap();
    let identity = follower.identity().clone();
    let before = identity.svid_serial_number();
    // The SVID of the next authority comes before its bundle: it is refused, and offered again.
    let next = Domain::new("example.org");
    folder.write("svid.pem", &next.svid("web").to_pem());
    until(|| matches!(follower.problem(), Some(FollowError::Rotate(_))));
    assert_eq!(identity.svid_serial_number(), before);
    let mut both = folder.example.authority.bundle();
    both.extend(&next.authority.bundle()).unwrap();
    folder.write("bundle.pem", &both.to_pem());
    until(|| identity.svid_serial_number() != before);
    until(|| follower.problem().is_none());
    // What cannot be read changes nothing, and is read when it is there.
    for (name, text, words) in [
        ("svid.pem", "no PEM".to_owned(), "is not an X.509-SVID"),
        ("bundle.pem", next.svid("web").to_pem(), "is not a trust bundle"),
        ("svid.pem", folder.foreign.svid("web").to_pem(), "another trust domain"),
        ("svid.pem", "#".repeat(x0_identity::PEM_LEN_MAX + 1), "more than"),
    ] {
        let held = std::fs::read_to_string(folder.path(name)).unwrap();
        folder.write(name, &text);
        let shown = |error: FollowError| match error {
            FollowError::Source(error) => error.source.to_string(),
            error => error.to_string(),
        };
        until(|| follower.problem().map(shown).is_some_and(|text| text.contains(words)));
        folder.write(name, &held);
        until(|| follower.problem().is_none());
    }
    std::fs::remove_file(folder.path("bundle.pem")).unwrap();
    until(|| matches!(follower.problem(), Some(FollowError::Source(_))));
    assert_eq!(identity.trust_bundle(), both);
}

fn foreign_bundles() -> TrustBundleSet {
    let mut bundles = TrustBundleSet::new();
    bundles.insert(Domain::new("example.com").authority.bundle());
    bundles
}

#[test]
fn an_issuer_in_this_process_conforms() {
    let source = || {
        let authority = Arc::new(Domain::new("example.org").authority);
        let web = id("spiffe://example.org/web");
        let source =
            InProcessIssuer::from_authority(Arc::clone(&authority), web.clone(), HOUR, TrustBundleSet::new());
        let handle = source.handle();
        (source, move || handle.replace_authority(authority, web, HOUR, foreign_bundles()))
    };
    let (one, change) = source();
    conforms(one, change);
    let (two, change) = source();
    is_followed(two, change);
}

/// An issuer that fails is asked again, whether the SVID is due or the issuer was replaced.
#[test]
fn an_issuer_that_fails_is_asked_again() {
    let domain_of = Domain::new("example.org");
    let fails = Arc::new(AtomicBool::new(true));
    let issue = {
        let (authority, fails) = (Arc::new(domain_of.authority), Arc::clone(&fails));
        move |now: SystemTime| {
            if fails.load(Ordering::Relaxed) {
                return Err("no signer".into());
            }
            let mut bundles = TrustBundleSet::new();
            bundles.insert(authority.bundle());
            Ok((authority.issue_at(&id("spiffe://example.org/web"), HOUR, now)?, bundles))
        }
    };
    let millisecond = Duration::from_millis(1);
    let options = RenewalOptions::default().pauses(millisecond, millisecond);
    let mut source = InProcessIssuer::new(issue.clone(), options);
    let (handle, bell) = (source.handle(), Arc::new(Bell::default()));
    assert_eq!(next(&mut source, &bell).unwrap_err(), "no signer");
    fails.store(false, Ordering::Relaxed);
    let (first, _) = held(next(&mut source, &bell));
    // Not due, and replaced: the first attempt fails.
    fails.store(true, Ordering::Relaxed);
    handle.replace(issue);
    assert_eq!(next(&mut source, &bell).unwrap_err(), "no signer");
    fails.store(false, Ordering::Relaxed);
    let (second, _) = held(next(&mut source, &bell));
    assert_ne!(second.serial_number(), first.serial_number());
    // At half of the validity.
    let waker = Waker::from(Arc::clone(&bell));
    assert!(matches!(source.poll(SystemTime::now(), &waker).change, Ok(None)));
    assert!(matches!(source.poll(SystemTime::now() + HOUR * 2 / 3, &waker).change, Ok(Some(_))));
}

/// Gives an SVID once that is valid two seconds later, and then nothing more, or an error, for hours.
struct Early {
    authority: x0_identity::Authority,
    polls: Arc<AtomicUsize>,
    then_fails: bool,
}

impl SvidSource for Early {
    fn poll(&mut self, now: SystemTime, _waker: &Waker) -> SvidPoll {
        let change = if self.polls.fetch_add(1, Ordering::Relaxed) > 0 {
            if self.then_fails { Err(SvidSourceError::new("no issuer")) } else { Ok(None) }
        } else {
            // Certificates are backdated by a minute.
            let ahead = now + Duration::from_secs(62);
            let svid = self.authority.issue_at(&id("spiffe://example.org/web"), HOUR, ahead).unwrap();
            Ok(Some(state(svid, &self.authority)))
        };
        SvidPoll::new(change, HOUR)
    }
}

fn state(svid: X509Svid, authority: &x0_identity::Authority) -> SvidState {
    let mut bundles = TrustBundleSet::new();
    bundles.insert(authority.bundle());
    SvidState::Held { svid: svid.into(), bundles }
}

/// The clock of the process lags: the SVID that the source gives is not valid yet, and comes into use when it
/// is, also if the source has failed since.
#[test]
fn an_svid_that_was_refused_is_tried_again() {
    for then_fails in [false, true] {
        let (follower, problem) = loop {
            let (authority, polls) = (Domain::new("example.org").authority, Arc::<AtomicUsize>::default());
            let source = Early { authority, polls: Arc::clone(&polls), then_fails };
            let follower = SvidFollower::start(source, PATIENCE).unwrap();
            let problem = follower.problem();
            // Once alone on a machine that stalled until the SVID was valid: begin again.
            if polls.load(Ordering::Relaxed) > 1 {
                break (follower, problem);
            }
        };
        assert_eq!(follower.identity().spiffe_id(), &id("spiffe://example.org/web"));
        assert_eq!(matches!(problem, Some(FollowError::Source(_))), then_fails, "{problem:?}");
        assert_eq!(problem.is_none(), !then_fails, "{problem:?}");
    }
}

/// Panics at a call.
struct Panics {
    given: Option<SvidState>,
}

impl SvidSource for Panics {
    fn poll(&mut self, _now: SystemTime, _waker: &Waker) -> SvidPoll {
        match self.given.take() {
            Some(state) => SvidPoll::new(Ok(Some(state)), Duration::from_millis(1)),
            None => panic!("a source with a defect"),
        }
    }
}

#[test]
fn a_source_that_panics_is_a_problem() {
    let example = Domain::new("example.org");
    let given = Some(state(example.svid("web"), &example.authority));
    match SvidFollower::start(Panics { given }, PATIENCE) {
        Ok(follower) => until(|| matches!(follower.problem(), Some(FollowError::Ended))),
        // The second call came before this thread was woken.
        Err(error) => assert!(matches!(error, FollowError::Ended), "{error}"),
    }
    let begun = Instant::now();
    let error = SvidFollower::start(Panics { given: None }, PATIENCE).unwrap_err();
    assert!(matches!(error, FollowError::Ended), "{error}");
    assert!(begun.elapsed() < PATIENCE);
}

/// A server on a socket in a folder of its own.
struct Running {
    callers: SharedWorkload,
    server: Server,
    address: EndpointAddress,
    _folder: tempfile::TempDir,
}

impl Running {
    fn new(workload: Option<Workload>) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let address = EndpointAddress::Unix(folder.path().join("api.sock"));
        let callers = SharedWorkload::new();
        callers.set(workload);
        let listener = Listener::bind(&address).unwrap();
        let server = Server::start(listener, Arc::new(callers.clone()), ServerOptions::default()).unwrap();
        Running { callers, server, address, _folder: folder }
    }

    fn set(&self, workload: Option<Workload>) {
        self.callers.set(workload);
        self.server.refresh();
    }

    fn client(&self) -> Client {
        let options = ClientOptions::default().pause_max(Duration::from_millis(50));
        Client::start(self.address.clone(), options).unwrap()
    }
}

#[test]
fn a_workload_api_conforms() {
    let (example, foreign) = (Domain::new("example.org"), Domain::new("example.com"));
    let federated = |example: &Domain| example.workload(&["web"]).with_federated(foreign.bundle()).unwrap();
    let running = Running::new(Some(example.workload(&["web"])));
    conforms(running.client().into_source(None), || running.set(Some(federated(&example))));
    let running = Running::new(Some(example.workload(&["web"])));
    is_followed(running.client().into_source(Some("web")), || running.set(Some(federated(&example))));
}

#[test]
fn what_a_workload_api_redacts_is_withdrawn() {
    let example = Domain::new("example.org");
    let running = Running::new(Some(example.workload(&["web"])));
    let follower = SvidFollower::start(running.client().into_source(Some("web")), PATIENCE).unwrap();
    let identity = follower.identity().clone();
    let peer = Identity::new(example.svid("peer"), example.authority.bundle()).unwrap();
    let accepts = || common::connect(&peer.client_config(), &identity.server_config()).is_ok();
    assert!(accepts());
    // Another SVID stays, without the hint; then nothing.
    for workload in [Some(example.workload(&["batch"])), None] {
        running.set(workload);
        until(|| matches!(follower.problem(), Some(FollowError::Withdrawn)));
        assert!(!accepts());
        running.set(Some(example.workload(&["web"])));
        until(|| follower.problem().is_none());
        assert!(accepts());
    }
    // A hint that nothing has, and an endpoint that does not answer.
    let error = SvidFollower::start(running.client().into_source(Some("none")), Duration::from_millis(300));
    assert!(matches!(error, Err(FollowError::Source(_) | FollowError::TimedOut)), "{error:?}");
    drop(running.server);
    let client = Client::start(running.address, ClientOptions::default()).unwrap();
    let error = SvidFollower::start(client.into_source(None), Duration::from_millis(100));
    assert!(error.is_err());
}
