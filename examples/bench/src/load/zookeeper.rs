//! ZooKeeper's client protocol: frames of four bytes length, and in them jute records (big-endian, strings
//! and buffers with four bytes length). One connection is one session; requests are pipelined and answered in
//! their order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};

use super::serve::{Client, System};

/// `ZooDefs.OpCode`.
mod code {
    pub(super) const CREATE: i32 = 1;
    pub(super) const GET_DATA: i32 = 4;
    pub(super) const SET_DATA: i32 = 5;
    pub(super) const SYNC: i32 = 9;
    pub(super) const PING: i32 = 11;
}

/// `KeeperException.Code`.
mod error {
    pub(super) const OK: i32 = 0;
    pub(super) const NO_NODE: i32 = -101;
    pub(super) const NODE_EXISTS: i32 = -110;
}

/// The `xid` that the protocol keeps for pings.
const PING_XID: i32 = -2;
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Larger than every response here.
const FRAME_LEN_MAX: usize = 1 << 20;
/// The length of `Stat`, nine fields, after the data in the response to `getData`.
const STAT_LEN: usize = 68;

pub(crate) struct Zookeeper {
    endpoints: Vec<u16>,
    leader: Option<u16>,
    connections: Vec<Connection>,
}

impl Zookeeper {
    pub(crate) fn new(endpoints: Vec<u16>) -> Self {
        Self { endpoints, leader: None, connections: Vec::new() }
    }

    /// The port of the server that reports itself as leader, once all servers respond.
    async fn find_leader(&self) -> Result<(u16, String)> {
        let mut leader = None;
        for port in &self.endpoints {
            let mut stream =
                TcpStream::connect(("127.0.0.1", *port)).await.context("zookeeper does not answer")?;
            stream.write_all(b"srvr").await?;
            let mut text = String::new();
            stream.take(FRAME_LEN_MAX as u64).read_to_string(&mut text).await?;
            let server = Server::of(&text).context("a server does not serve yet")?;
            if server.mode == "leader" {
                leader = Some((*port, server.version.to_owned()));
            }
        }
        leader.context("no server leads")
    }
}

/// The response to the four-letter word `srvr`.
#[derive(Debug, PartialEq)]
struct Server<'a> {
    version: &'a str,
    mode: &'a str,
}

impl<'a> Server<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let version = field("Zookeeper version:")?.split(['-', ',']).next()?;
        Some(Self { version, mode: field("Mode:")? })
    }
}

impl System for Zookeeper {
    type Client = Connection;

    async fn ready(&mut self) -> Result<String> {
        let (leader, version) = self.find_leader().await?;
        let connection = Connection::open(leader).await?;
        connection.create("/bench", Bytes::new()).await?;
        Ok(version)
    }

    async fn connections(&mut self, count: usize) -> Result<&[Connection]> {
        let (leader, _) = self.find_leader().await?;
        if self.leader != Some(leader) {
            self.connections.clear();
            self.leader = Some(leader);
        }
        while self.connections.len() < count {
            self.connections.push(Connection::open(leader).await?);
        }
        Ok(&self.connections)
    }
}

/// One session; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    shared: Rc<Shared>,
}

/// Shared by the callers, the writing task and the reading task.
#[derive(Default)]
struct Shared {
    state: RefCell<State>,
    written: Notify,
}

#[derive(Default)]
struct State {
    /// Requests that were not written to the socket yet.
    output: BytesMut,
    /// The waiting callers in the order of their requests; pings have none.
    waiting: VecDeque<(i32, Option<oneshot::Sender<Answer>>)>,
    next_xid: i32,
    closed: bool,
}

struct Answer {
    error: i32,
    body: Bytes,
}

impl Connection {
    async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.context("zookeeper does not answer")?;
        stream.set_nodelay(true)?;
        let (mut read, mut write) = stream.into_split();
        write.write_all(&connect_request()).await?;
        let mut input = BytesMut::new();
        let answer = read_frame(&mut read, &mut input).await?;
        check_connected(answer)?;
        let shared = Rc::new(Shared::default());
        tokio::task::spawn_local(write_requests(write, Rc::clone(&shared)));
        tokio::task::spawn_local(read_answers(read, input, Rc::clone(&shared)));
        tokio::task::spawn_local(ping(Rc::downgrade(&shared)));
        Ok(Self { shared })
    }

    async fn call(&self, code: i32, body: impl FnOnce(&mut BytesMut)) -> Result<Answer> {
        let (sender, answer) = oneshot::channel();
        self.shared.ask(code, Some(sender), body)?;
        answer.await.context("zookeeper closed the session")
    }

    async fn create(&self, path: &str, value: Bytes) -> Result<()> {
        let answer = self.call(code::CREATE, |output| put_create(output, path, &value)).await?;
        match answer.error {
            error::OK | error::NODE_EXISTS => Ok(()),
            error => bail!("zookeeper refused to create: error {error}"),
        }
    }
}

impl Client for Connection {
    async fn put(&self, key: Bytes, value: Bytes) -> Result<()> {
        let answer = self.call(code::SET_DATA, |output| put_set_data(output, &key, &value)).await?;
        match answer.error {
            error::OK => Ok(()),
            error::NO_NODE => self.create(&format!("/{}", String::from_utf8_lossy(&key)), value).await,
            error => bail!("zookeeper refused to write: error {error}"),
        }
    }

    /// `sync` and then `getData` in the same session, sent together: ZooKeeper's way to a linearizable read.
    async fn get(&self, key: Bytes) -> Result<Option<usize>> {
        self.shared.ask(code::SYNC, None, |output| put_path(output, &key))?;
        let get = self.call(code::GET_DATA, |output| {
            put_path(output, &key);
            output.put_u8(0); // no watch
        });
        let answer = get.await?;
        match answer.error {
            error::OK => data_len(&answer.body).map(Some),
            error::NO_NODE => Ok(None),
            error => bail!("zookeeper refused to read: error {error}"),
        }
    }
}

impl Shared {
    fn ask(
        &self,
        code: i32,
        sender: Option<oneshot::Sender<Answer>>,
        body: impl FnOnce(&mut BytesMut),
    ) -> Result<()> {
        let state = &mut *self.state.borrow_mut();
        ensure!(!state.closed, "zookeeper closed the session");
        let xid = if code == code::PING { PING_XID } else { state.next_xid };
        state.next_xid = (state.next_xid + 1) & i32::MAX;
        let start = state.output.len();
        state.output.put_u32(0);
        state.output.put_i32(xid);
        state.output.put_i32(code);
        body(&mut state.output);
        let len = u32::try_from(state.output.len() - start - 4)?;
        state.output[start..start + 4].copy_from_slice(&len.to_be_bytes());
        state.waiting.push_back((xid, sender));
        self.written.notify_one();
        Ok(())
    }
}

/// Writes all requests since the last write at once.
async fn write_requests(mut stream: OwnedWriteHalf, shared: Rc<Shared>) {
    loop {
        let output = {
            let state = &mut *shared.state.borrow_mut();
            if state.closed {
                return;
            }
            state.output.split()
        };
        if output.is_empty() {
            shared.written.notified().await;
        } else if stream.write_all(&output).await.is_err() {
            return; // The reader sees the end as well, and notifies the waiting callers.
        }
    }
}

async fn read_answers(mut stream: OwnedReadHalf, mut input: BytesMut, shared: Rc<Shared>) {
    loop {
        let answer = read_frame(&mut stream, &mut input).await.and_then(|frame| deliver(frame, &shared));
        if answer.is_err() {
            let state = &mut *shared.state.borrow_mut();
            state.closed = true;
            state.waiting.clear(); // Dropped senders notify the waiting callers.
            shared.written.notify_one();
            return;
        }
    }
}

fn deliver(mut frame: Bytes, shared: &Shared) -> Result<()> {
    let xid = frame.try_get_i32()?;
    let _zxid = frame.try_get_i64()?;
    let error = frame.try_get_i32()?;
    let (asked, sender) = shared.state.borrow_mut().waiting.pop_front().context("an answer to no request")?;
    ensure!(asked == xid, "answer {xid} to request {asked}");
    match sender {
        // The caller is gone if the window has ended.
        Some(sender) => drop(sender.send(Answer { error, body: frame })),
        None => ensure!(error == error::OK, "sync or ping failed: error {error}"),
    }
    Ok(())
}

/// Keeps the session alive between windows.
async fn ping(shared: std::rc::Weak<Shared>) {
    loop {
        tokio::time::sleep(SESSION_TIMEOUT / 6).await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.ask(code::PING, None, |_| {}).is_err() {
            return;
        }
    }
}

async fn read_frame(stream: &mut OwnedReadHalf, input: &mut BytesMut) -> Result<Bytes> {
    loop {
        if let Some(frame) = take_frame(input)? {
            return Ok(frame);
        }
        input.reserve(16 * 1024);
        ensure!(stream.read_buf(input).await? > 0, "zookeeper closed the connection");
    }
}

fn take_frame(input: &mut BytesMut) -> Result<Option<Bytes>> {
    let Some(len) = input.first_chunk::<4>() else { return Ok(None) };
    let len = usize::try_from(u32::from_be_bytes(*len))?;
    ensure!(len <= FRAME_LEN_MAX, "a frame of {len} bytes");
    if input.len() < 4 + len {
        return Ok(None);
    }
    input.advance(4);
    Ok(Some(input.split_to(len).freeze()))
}

/// `ConnectRequest`, framed: a new session.
fn connect_request() -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_u32(45);
    frame.put_i32(0); // protocolVersion
    frame.put_i64(0); // lastZxidSeen
    frame.put_u32(u32::try_from(SESSION_TIMEOUT.as_millis()).unwrap_or(u32::MAX));
    frame.put_i64(0); // sessionId
    frame.put_u32(16); // passwd
    frame.put_bytes(0, 16);
    frame.put_u8(0); // readOnly
    frame
}

/// `ConnectResponse`: a refused session has a timeout of 0.
fn check_connected(mut answer: Bytes) -> Result<()> {
    let _protocol = answer.try_get_i32()?;
    ensure!(answer.try_get_i32()? > 0, "zookeeper refused the session");
    Ok(())
}

/// Keys have no leading slash; paths do.
fn put_path(output: &mut BytesMut, key: &[u8]) {
    output.put_u32(u32::try_from(key.len() + 1).unwrap_or(u32::MAX));
    output.put_u8(b'/');
    output.put_slice(key);
}

fn put_buffer(output: &mut BytesMut, bytes: &[u8]) {
    output.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    output.put_slice(bytes);
}

fn put_set_data(output: &mut BytesMut, key: &[u8], value: &[u8]) {
    put_path(output, key);
    put_buffer(output, value);
    output.put_i32(-1); // any version
}

fn put_create(output: &mut BytesMut, path: &str, value: &[u8]) {
    put_buffer(output, path.as_bytes());
    put_buffer(output, value);
    output.put_u32(1); // one access rule: every client may do everything
    output.put_i32(0x1f);
    put_buffer(output, b"world");
    put_buffer(output, b"anyone");
    output.put_i32(0); // a persistent node
}

/// The response to `getData` is the data and the node's `Stat`.
fn data_len(body: &Bytes) -> Result<usize> {
    let len = usize::try_from(u32::from_be_bytes(*body.first_chunk().context("an empty answer")?))?;
    ensure!(body.len() == 4 + len + STAT_LEN, "an answer of {} bytes for {len} bytes of data", body.len());
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_framed() {
        let shared = Shared::default();
        shared.ask(code::SET_DATA, None, |output| put_set_data(output, b"k", b"abc")).unwrap();
        shared.ask(code::SYNC, None, |output| put_path(output, b"k")).unwrap();
        let expect = b"\0\0\0\x19\0\0\0\0\0\0\0\x05\0\0\0\x02/k\0\0\0\x03abc\xff\xff\xff\xff\
                       \0\0\0\x0e\0\0\0\x01\0\0\0\x09\0\0\0\x02/k";
        assert_eq!(shared.state.borrow().output, expect[..]);
        assert_eq!(connect_request().len(), 49);
    }

    #[test]
    fn answers_go_to_those_who_asked_in_order() {
        let shared = Shared::default();
        let (sender, mut answer) = oneshot::channel();
        shared.ask(code::SYNC, None, |_| {}).unwrap();
        shared.ask(code::GET_DATA, Some(sender), |_| {}).unwrap();
        deliver(Bytes::from_static(b"\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0"), &shared).unwrap();
        assert!(answer.try_recv().is_err());
        deliver(Bytes::from_static(b"\0\0\0\x01\0\0\0\0\0\0\0\x09\xff\xff\xff\x9b"), &shared).unwrap();
        assert_eq!(answer.try_recv().unwrap().error, error::NO_NODE);
        assert!(deliver(Bytes::from_static(b"\0\0\0\x02\0\0\0\0\0\0\0\x09\0\0\0\0"), &shared).is_err());
    }

    #[test]
    fn frames_are_taken_whole_and_bounded() {
        let mut input = BytesMut::from(&b"\0\0\0\x02ab\0\0\0\x01"[..]);
        assert_eq!(take_frame(&mut input).unwrap().unwrap(), "ab");
        assert_eq!(take_frame(&mut input).unwrap(), None);
        input.put_u8(b'c');
        assert_eq!(take_frame(&mut input).unwrap().unwrap(), "c");
        assert!(take_frame(&mut BytesMut::from(&b"\xff\xff\xff\xff"[..])).is_err());
    }

    #[test]
    fn data_is_as_long_as_it_says() {
        let answer = |len: u8, bytes: usize| Bytes::from([vec![0, 0, 0, len], vec![0; bytes]].concat());
        assert_eq!(data_len(&answer(3, 3 + STAT_LEN)).unwrap(), 3);
        assert!(data_len(&answer(3, 2 + STAT_LEN)).is_err());
        assert!(data_len(&Bytes::new()).is_err());
    }

    #[test]
    fn srvr_names_version_and_mode() {
        let text = "Zookeeper version: 3.8.0-${mvngit.commit.id}, built on 2024-01-01\nLatency min/avg/max: 0/0.0/0\nMode: leader\n";
        assert_eq!(Server::of(text), Some(Server { version: "3.8.0", mode: "leader" }));
        assert_eq!(Server::of("This ZooKeeper instance is not currently serving requests\n"), None);
    }
}
