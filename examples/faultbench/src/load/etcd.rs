//! The load on etcd, through the HTTP gateway that each member has.
//!
//! A client keeps to one member until that fails or is silent, and then goes on to the next one with all its
//! requests, as etcd's own client does with its connections.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::http::{Connection, get_all};
use super::{key, number};
use crate::client::{number_of, value_of};

/// A member that is silent for this long is left: as long as x0's client waits at least.
const ATTEMPT: Duration = Duration::from_millis(300);
/// The pause after an answer that is an error, such as that there is no leader.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Etcd {
    members: Vec<SocketAddr>,
    /// The member that is used now.
    current: Cell<usize>,
    /// Connections without a request, by member.
    idle: Vec<RefCell<Vec<Connection>>>,
}

/// The answer to a range.
#[derive(Debug, Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    key: String,
    #[serde(default)]
    value: String,
}

impl Etcd {
    pub(super) fn new(members: Vec<SocketAddr>) -> Etcd {
        let idle = members.iter().map(|_| RefCell::default()).collect();
        Etcd { members, current: Cell::new(0), idle }
    }

    pub(super) async fn put(&self, number: u64, patience: Duration) -> bool {
        let (key, value) = (STANDARD.encode(key(number)), STANDARD.encode(value_of(number)));
        let body = format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}");
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let place = self.current.get();
            match timeout(ATTEMPT, self.post(place, "/v3/kv/put", &body)).await {
                Ok(Ok(200)) => return true,
                answer => {
                    // Only the first of the requests that find the member silent goes on to the next one.
                    if self.current.get() == place {
                        self.current.set((place + 1) % self.members.len());
                        self.idle[place].borrow_mut().clear();
                    }
                    if answer.is_ok() {
                        sleep(PAUSE).await;
                    }
                }
            }
        }
        false
    }

    /// The status of the answer. The connection is used again if the answer was complete.
    async fn post(&self, place: usize, path: &str, body: &str) -> Result<u16> {
        let kept = self.idle[place].borrow_mut().pop();
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(self.members[place]).await?,
        };
        let status = connection.post(path, body).await?;
        self.idle[place].borrow_mut().push(connection);
        Ok(status)
    }

    pub(super) async fn numbers(&self) -> Result<BTreeSet<u64>> {
        let (begin, end) = (STANDARD.encode("load/"), STANDARD.encode("load0"));
        let body = format!("{{\"key\":\"{begin}\",\"range_end\":\"{end}\"}}");
        let mut last = None;
        for member in &self.members {
            match get_all(*member, "/v3/kv/range", &body).await {
                Ok(answer) => return whole(&answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("there is no member")?)
    }
}

/// The numbers of the entries with whole values.
fn whole(answer: &[u8]) -> Result<BTreeSet<u64>> {
    let range: Range = serde_json::from_slice(answer).context("etcd's answer to a range cannot be read")?;
    let decode = |text: &String| STANDARD.decode(text).ok();
    let entries = range.kvs.iter().filter_map(|entry| decode(&entry.key).zip(decode(&entry.value)));
    Ok(entries
        .filter_map(|(key, value)| number(&key).filter(|number| number_of(&value) == Some(*number)))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A member that answers every request with this status, or none; it counts the requests.
    async fn member(status: Option<&'static str>) -> (SocketAddr, Rc<Cell<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, count) = (listener.local_addr().unwrap(), Rc::new(Cell::new(0)));
        let counted = Rc::clone(&count);
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let counted = Rc::clone(&counted);
                tokio::task::spawn_local(async move {
                    let mut buffer = vec![0; 4096];
                    // Each request is in one packet: the client waits for the answer before the next one.
                    while stream.read(&mut buffer).await.is_ok_and(|len| len > 0) {
                        counted.set(counted.get() + 1);
                        let Some(status) = status else { continue };
                        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        if buffer.windows(8).any(|eight| eight == b"HTTP/1.0") {
                            break;
                        }
                    }
                });
            }
        });
        (address, count)
    }

    fn on_a_runtime(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn a_member_that_is_silent_or_refuses_is_left() {
        on_a_runtime(async {
            let (silent, asked) = member(None).await;
            let (refusing, refused) = member(Some("503 Service Unavailable")).await;
            let (good, served) = member(Some("200 OK")).await;
            let etcd = Etcd::new(vec![silent, refusing, good]);
            let begun = Instant::now();
            assert!(etcd.put(1, Duration::from_secs(20)).await);
            assert!(begun.elapsed() >= ATTEMPT);
            assert!(etcd.put(2, Duration::from_secs(20)).await);
            // The second request went to the good member at once, over the same connection.
            assert_eq!((asked.get(), refused.get(), served.get()), (1, 1, 2));
            assert_eq!(etcd.idle[2].borrow().len(), 1);
        });
    }

    #[test]
    fn a_put_without_a_member_that_serves_ends_in_time() {
        on_a_runtime(async {
            let (refusing, _) = member(Some("503 Service Unavailable")).await;
            let etcd = Etcd::new(vec![refusing]);
            assert!(!etcd.put(1, Duration::from_millis(100)).await);
            assert!(etcd.numbers().await.is_err());
        });
    }

    #[test]
    fn latency_counts_from_the_time_at_which_a_request_was_to_be_sent() {
        on_a_runtime(async {
            let (silent, _) = member(None).await;
            let (good, served) = member(Some("200 OK")).await;
            let client = super::super::Client::Etcd(Rc::new(Etcd::new(vec![silent, good])));
            let requests = super::super::load(client, 100, Duration::from_millis(200)).await.unwrap();
            let times: Vec<u64> = requests.samples.iter().map(|sample| sample.at_us).collect();
            assert_eq!(times, (0..20).map(|n| n * 10_000).collect::<Vec<_>>(), "whatever happened before");
            assert_eq!(served.get(), 20);
            let least = u64::try_from(ATTEMPT.as_micros()).unwrap();
            assert!(requests.samples[0].latency_us.unwrap() >= least, "{:?}", requests.samples[0]);
        });
    }

    #[test]
    fn entries_count_with_their_whole_values_only() {
        let entry = |number: u64, value: &[u8]| {
            format!(
                "{{\"key\":\"{}\",\"value\":\"{}\"}}",
                STANDARD.encode(key(number)),
                STANDARD.encode(value)
            )
        };
        let torn = &value_of(2)[1..];
        let answer =
            format!("{{\"kvs\":[{},{},{}]}}", entry(1, &value_of(1)), entry(2, torn), entry(3, &value_of(4)));
        assert_eq!(whole(answer.as_bytes()).unwrap(), [1].into());
        assert!(whole(b"{}").unwrap().is_empty());
        assert!(whole(b"<html>").is_err());
    }
}
