//! Claims on the replacement of voters: of several healers one acts.
//!
//! A leader and one that does not know yet that it was deposed may plan the same replacement, or two. Each
//! writes a claim first, with compare-and-swap, under one key of a linearizable keyspace: one change of the
//! voters at a time in the whole group. The revision of the claim is the fence of the action. It is compared
//! once more when the action begins, in the write that moves the claim to its next step. The holder writes
//! the claim again every few seconds. When it does not for the lease in the claim, on the clock of the
//! observer, another healer may take the claim over.
//!
//! A transfer of the leadership is not claimed: a leader acts on itself, and cannot wait for its own slow
//! disk.

use std::time::Duration;

use bytes::Bytes;
use x0_identity::NodeId;
use x0_kv::{Expect, OperationError, Revision, Store, Swap, Transaction};

use super::why;
use crate::claim::{Claim, ClaimStep, ClaimWatch};

/// The keyspace of the claims. [`carry_out`] creates it when it is missing.
pub const KEYSPACE: &str = "x0/heal";
/// The key of the claim on a change of the voters.
const KEY: &str = "claim/voters";
/// The holder writes its claim again after this time: three times in a lease.
const RENEWAL: Duration = Duration::from_secs(3);

/// What a healer asks of the store about the claim. Each is answered by one [`Answer`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Ask {
    /// Read the claim.
    Read,
    /// Write the claim by compare-and-swap.
    Write {
        /// What the key must hold.
        expect: Expect,
        /// The claim.
        claim: Claim,
    },
    /// Remove the claim.
    Remove {
        /// The revision that the key must have.
        revision: Revision,
    },
}

/// An answer of the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The claim, if there is one; or why it cannot be read.
    Read(Result<Option<(Revision, Bytes)>, String>),
    /// The revision of the new claim; `None` if the key held another one than expected; or why it cannot be
    /// written.
    Written(Result<Option<Revision>, String>),
    /// The claim is removed, or expires.
    Removed,
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    Nothing,
    Ask(Ask),
    /// The claim on the action is decided: its fence, or none.
    Decided {
        id: u64,
        fence: Option<u64>,
    },
    /// The action may begin, or why it may not.
    Begin {
        id: u64,
        result: Result<(), String>,
    },
}

/// The claims of one healer. A protocol engine: the caller carries out each [`Ask`].
#[derive(Debug)]
pub(super) struct Claims {
    node: NodeId,
    watch: ClaimWatch,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    /// The present claim is being read.
    Reading(Claim),
    /// The first step is being written.
    Claiming(Claim),
    Held(Held),
    /// The claim is being removed.
    Removing,
}

#[derive(Debug)]
struct Held {
    claim: Claim,
    revision: Revision,
    renew_at: Duration,
    /// Whether a write is under way, and whether the action begins with its answer.
    writing: Option<bool>,
}

impl Claims {
    pub(super) fn new(node: NodeId) -> Claims {
        Claims { node, watch: ClaimWatch::default(), state: State::Idle }
    }

    /// Claims an action.
    pub(super) fn claim(&mut self, id: u64, kind: &str, subject: &str) -> Next {
        match self.state {
            State::Idle => {
                self.state = State::Reading(Claim::new(self.node.get(), id, kind, subject));
                Next::Ask(Ask::Read)
            }
            // The claim of the action before is not given back yet: the action is proposed again later.
            _ => Next::Decided { id, fence: None },
        }
    }

    /// An action is to begin.
    pub(super) fn execute(&mut self, id: u64, fence: Option<u64>) -> Next {
        let lost = |reason: &str| Next::Begin { id, result: Err(reason.into()) };
        let State::Held(held) = &mut self.state else { return lost("it is not claimed") };
        if held.claim.action != id || fence != Some(held.revision.get()) || held.writing.is_some() {
            return lost("the claim is that of another action");
        }
        held.claim.step = ClaimStep::Executing;
        held.writing = Some(true);
        Next::Ask(Ask::Write { expect: Expect::Revision(held.revision), claim: held.claim.clone() })
    }

    /// Renews the claim of an action that is in flight, and gives that of another one back.
    pub(super) fn tick(&mut self, now: Duration, in_flight: impl Fn(u64) -> bool) -> Next {
        let State::Held(held) = &mut self.state else { return Next::Nothing };
        if held.writing.is_some() {
            return Next::Nothing;
        }
        let (revision, claim) = (held.revision, held.claim.clone());
        if !in_flight(claim.action) {
            self.state = State::Removing;
            return Next::Ask(Ask::Remove { revision });
        }
        if now < held.renew_at {
            return Next::Nothing;
        }
        held.writing = Some(false);
        Next::Ask(Ask::Write { expect: Expect::Revision(revision), claim })
    }

    /// Takes an answer of the store.
    pub(super) fn answer(&mut self, now: Duration, answer: Answer) -> Next {
        let state = std::mem::replace(&mut self.state, State::Idle);
        match (state, answer) {
            (State::Reading(claim), Answer::Read(Ok(found))) => {
                let id = claim.action;
                match self.expected(now, found) {
                    Some(expect) => {
                        self.state = State::Claiming(claim.clone());
                        Next::Ask(Ask::Write { expect, claim })
                    }
                    None => Next::Decided { id, fence: None },
                }
            }
            (State::Claiming(claim), Answer::Written(Ok(Some(revision)))) => {
                let id = claim.action;
                self.hold(now, claim, revision);
                Next::Decided { id, fence: Some(revision.get()) }
            }
            // The store does not answer, or another healer was faster. A claim that was written in spite of
            // an error expires.
            (State::Reading(claim) | State::Claiming(claim), _) => {
                Next::Decided { id: claim.action, fence: None }
            }
            (State::Held(held), Answer::Written(result)) => {
                let id = held.claim.action;
                let begins = held.writing == Some(true);
                let result = match result {
                    Ok(Some(revision)) => {
                        self.hold(now, held.claim, revision);
                        Ok(())
                    }
                    // Not held any more. An action that has begun is stopped by the leader, which compares
                    // the membership.
                    Ok(None) => Err("another healer has taken the claim over".into()),
                    Err(error) => Err(format!("the claim cannot be written: {error}")),
                };
                if begins { Next::Begin { id, result } } else { Next::Nothing }
            }
            // Removed, or it expires.
            _ => Next::Nothing,
        }
    }

    fn hold(&mut self, now: Duration, claim: Claim, revision: Revision) {
        self.state = State::Held(Held { claim, revision, renew_at: now + RENEWAL, writing: None });
    }

    /// The state of the key that may be replaced: nothing, or a claim that has expired.
    fn expected(&mut self, now: Duration, found: Option<(Revision, Bytes)>) -> Option<Expect> {
        let Some((revision, bytes)) = found else {
            self.watch.clear();
            return Some(Expect::Absent);
        };
        // Bytes that are no claim hold the key for a usual lease.
        let claim = Claim::from_bytes(&bytes).unwrap_or_else(|_| Claim::new(0, 0, "", ""));
        self.watch.observe(now, revision.get(), &claim);
        (self.watch.expired(now) == Some(revision.get())).then_some(Expect::Revision(revision))
    }
}

/// Asks the store: the driver of [`Ask`]. It never fails; an error of the store is in the answer.
pub async fn carry_out(store: Store, ask: Ask) -> Answer {
    let keyspace = match store.keyspace(KEYSPACE) {
        Ok(keyspace) => keyspace,
        Err(error) => return Answer::Read(Err(error.to_string())),
    };
    match ask {
        Ask::Read => Answer::Read(match keyspace.get(KEY).await {
            Ok(found) => Ok(found.map(|found| (found.revision, found.value))),
            Err(OperationError::KeyspaceMissing) => create(&store).await.map(|()| None),
            Err(error) => Err(why(&error)),
        }),
        Ask::Write { expect, claim } => {
            let written = keyspace.compare_and_swap(KEY, expect, claim.to_bytes()).await;
            Answer::Written(match written {
                Ok(Swap::Swapped { revision }) => Ok(Some(revision)),
                Ok(Swap::Kept { .. }) => Ok(None),
                Err(error) => Err(why(&error)),
            })
        }
        Ask::Remove { revision } => {
            let remove = Transaction::new().when(KEY, Expect::Revision(revision)).delete(KEY);
            // A claim that cannot be removed expires.
            let _ = keyspace.transact(remove).await;
            Answer::Removed
        }
    }
}

async fn create(store: &Store) -> Result<(), String> {
    let created = store.create_keyspace(KEYSPACE).map_err(|error| error.to_string())?.await;
    created.map(drop).map_err(|error| why(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn claims(node: u64) -> Claims {
        Claims::new(NodeId::new(node).unwrap())
    }

    /// Carries an ask out, and returns what follows from the answer.
    async fn step(claims: &mut Claims, store: &Store, now: Duration, next: Next) -> Next {
        let Next::Ask(ask) = next else { panic!("{next:?}") };
        let answer = carry_out(store.clone(), ask).await;
        claims.answer(now, answer)
    }

    /// Claims an action, from a store that may have no keyspace yet. The fence.
    async fn claim(claims: &mut Claims, store: &Store, now: Duration, id: u64) -> Option<u64> {
        let mut next = claims.claim(id, "replace-voter", "node 3");
        loop {
            match next {
                Next::Decided { id: decided, fence } => {
                    assert_eq!(decided, id);
                    return fence;
                }
                other => next = step(claims, store, now, other).await,
            }
        }
    }

    async fn begin(claims: &mut Claims, store: &Store, now: Duration, id: u64, fence: u64) -> Next {
        let next = claims.execute(id, Some(fence));
        step(claims, store, now, next).await
    }

    #[tokio::test]
    async fn one_healer_acts_until_it_gives_its_claim_back() {
        let store = Store::open_in_memory();
        let (mut first, mut second) = (claims(1), claims(2));
        let fence = claim(&mut first, &store, SECOND, 7).await.unwrap();
        assert_eq!(claim(&mut second, &store, SECOND, 1).await, None);
        assert_eq!(begin(&mut first, &store, SECOND, 7, fence).await, Next::Begin { id: 7, result: Ok(()) });
        // While the action is in flight, the claim is renewed for as long as it takes.
        for seconds in 2..60 {
            let now = seconds * SECOND;
            let next = first.tick(now, |id| id == 7);
            assert_eq!(next == Next::Nothing, !(seconds - 1).is_multiple_of(3), "{seconds} {next:?}");
            if next != Next::Nothing {
                assert_eq!(step(&mut first, &store, now, next).await, Next::Nothing);
            }
            assert_eq!(claim(&mut second, &store, now, u64::from(seconds)).await, None);
        }
        // The action has ended.
        let next = first.tick(60 * SECOND, |_| false);
        assert_eq!(step(&mut first, &store, 60 * SECOND, next).await, Next::Nothing);
        assert!(claim(&mut second, &store, 60 * SECOND, 60).await.is_some());
        assert_eq!(claim(&mut first, &store, 60 * SECOND, 8).await, None);
    }

    #[tokio::test]
    async fn a_claim_that_is_not_renewed_is_taken_over_and_its_action_refused() {
        let store = Store::open_in_memory();
        let (mut first, mut second) = (claims(1), claims(2));
        let fence = claim(&mut first, &store, SECOND, 7).await.unwrap();
        // The first healer stops. The second one sees its claim at 5 s of its own clock.
        assert_eq!(claim(&mut second, &store, 5 * SECOND, 1).await, None);
        assert_eq!(claim(&mut second, &store, 14 * SECOND, 2).await, None);
        let taken = claim(&mut second, &store, 15 * SECOND, 3).await;
        assert!(taken.is_some_and(|taken| taken > fence), "{taken:?}");
        let refused = begin(&mut first, &store, SECOND, 7, fence).await;
        let Next::Begin { id: 7, result: Err(reason) } = refused else { panic!("{refused:?}") };
        assert!(reason.contains("another healer"), "{reason}");
        // An action with another fence does not begin either.
        let other = second.execute(3, Some(fence));
        assert!(matches!(other, Next::Begin { id: 3, result: Err(_) }), "{other:?}");
    }

    #[tokio::test]
    async fn bytes_that_are_no_claim_hold_the_key_for_a_lease() {
        let store = Store::open_in_memory();
        store.create_keyspace(KEYSPACE).unwrap().await.unwrap();
        store.keyspace(KEYSPACE).unwrap().put(KEY, "no claim").await.unwrap();
        let mut healer = claims(1);
        assert_eq!(claim(&mut healer, &store, SECOND, 1).await, None);
        assert!(claim(&mut healer, &store, 11 * SECOND, 2).await.is_some());
    }

    /// Whatever the key holds, a healer acts only after a lease without a change.
    #[test]
    fn mutated_claims_hold_the_key() {
        let mut healer = claims(1);
        let whole = Claim::new(2, 7, "replace-voter", "node 3").to_bytes();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |limit: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random >> 8).unwrap() % limit
        };
        for number in 0..crate::mutations() {
            let mut bytes = whole.clone();
            for _ in 0..below(4) {
                let at = below(bytes.len());
                bytes[at] ^= 1 << below(8);
            }
            if below(8) == 0 {
                bytes.truncate(below(bytes.len() + 1));
            }
            let now = Duration::from_millis(number);
            let next = healer.claim(number, "replace-voter", "node 3");
            assert_eq!(next, Next::Ask(Ask::Read));
            let found = Answer::Read(Ok(Some((Revision::new(number + 1), bytes.into()))));
            assert_eq!(healer.answer(now, found), Next::Decided { id: number, fence: None });
        }
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_gives_no_claim() {
        let store = Store::open_in_memory();
        let mut healer = claims(1);
        let fence = claim(&mut healer, &store, SECOND, 1).await.unwrap();
        store.close();
        let refused = begin(&mut healer, &store, SECOND, 1, fence).await;
        assert!(matches!(refused, Next::Begin { id: 1, result: Err(_) }), "{refused:?}");
        assert_eq!(claim(&mut healer, &store, SECOND, 2).await, None);
        assert_eq!(healer.tick(99 * SECOND, |_| true), Next::Nothing, "nothing is held");
    }
}
