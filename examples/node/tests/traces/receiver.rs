//! Receivers of traces: one in this process, and the programs `oteltap` and `rotel`, which others wrote.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use prost::Message;
use serde_json::Value;

use crate::common::LIMIT;

/// A span that was received. Ids are in hexadecimal digits; an id that is absent is empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    /// Nanoseconds since 1970.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The attributes that are texts.
    pub(crate) texts: BTreeMap<String, String>,
    /// The ids of the spans that it is linked to.
    pub(crate) links: Vec<String>,
}

/// A receiver and what it has received.
pub(crate) struct Receiver {
    pub(crate) url: String,
    spans: Arc<Mutex<Vec<Span>>>,
    /// The process of a receiver that is a program.
    child: Option<Child>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Receiver {
    /// A receiver in this process.
    pub(crate) fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let to = Arc::clone(&spans);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, to) = (stream.unwrap(), Arc::clone(&to));
                std::thread::spawn(move || {
                    while let Some(body) = request(&stream) {
                        to.lock().unwrap().extend(decode(&body));
                    }
                });
            }
        });
        Receiver { url, spans, child: None }
    }

    /// The program `oteltap` of PyPI at this path, which writes a line for each span.
    pub(crate) fn oteltap(program: &str) -> Receiver {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        // Python would keep lines for a pipe in a buffer.
        command.args(["--port", &port.to_string()]).env("PYTHONUNBUFFERED", "1").stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let to = Arc::clone(&spans);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                // The first lines are for a person.
                if let Ok(line) = serde_json::from_str::<Value>(&line) {
                    to.lock().unwrap().push(of_json(&line));
                }
            }
        });
        until_listens(port);
        Receiver { url: format!("http://127.0.0.1:{port}"), spans, child: Some(child) }
    }

    /// The program `rotel-agent` of PyPI at this path, which forwards all spans to a receiver in this
    /// process.
    pub(crate) fn rotel(program: &str) -> Receiver {
        let to = Receiver::start();
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [grpc, http] = ports.map(|listener| listener.local_addr().unwrap().port());
        let mut command = Command::new(program);
        command.args(["start", "--exporter", "otlp", "--disable-batching"]);
        command.args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")]);
        command.args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")]);
        command.args(["--otlp-exporter-endpoint", &to.url, "--otlp-exporter-protocol", "http"]);
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        until_listens(http);
        Receiver { url: format!("http://127.0.0.1:{http}"), spans: Arc::clone(&to.spans), child: Some(child) }
    }

    /// All spans so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// Waits until the spans of a trace are as `is_whole` says.
    pub(crate) fn trace(&self, trace: &str, is_whole: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        self.trace_within(LIMIT, trace, is_whole)
            .unwrap_or_else(|spans| panic!("the trace {trace} is not whole: {spans:#?}"))
    }

    /// Waits at most as long, or returns what there is.
    pub(crate) fn trace_within(
        &self,
        limit: Duration,
        trace: &str,
        is_whole: impl Fn(&[Span]) -> bool,
    ) -> Result<Vec<Span>, Vec<Span>> {
        let begun = Instant::now();
        loop {
            let mut spans = self.spans();
            spans.retain(|span| span.trace == trace);
            if is_whole(&spans) {
                return Ok(spans);
            }
            if begun.elapsed() >= limit {
                return Err(spans);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Waits until a program listens at this port of the machine.
fn until_listens(port: u16) {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < LIMIT, "the receiver does not listen at port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads a request and answers it. Returns its body, or nothing where the connection has ended.
fn request(mut stream: &TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    let (head, len, is_packed) = loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some(head) = text.find("\r\n\r\n") {
            assert!(text.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{text}");
            let text = text.to_lowercase();
            assert!(text.contains("\r\ncontent-type: application/x-protobuf\r\n"), "{text}");
            let len = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let is_packed = text.contains("\r\ncontent-encoding: gzip\r\n");
            break (head + 4, len.parse::<usize>().unwrap(), is_packed);
        }
        let read = stream.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            assert_eq!(text, "", "the connection ended within a request");
            return None;
        }
        request.extend_from_slice(&buffer[..read]);
    };
    while request.len() < head + len {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "a short body");
        request.extend_from_slice(&buffer[..read]);
    }
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    let answer_head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    stream.write_all(answer_head.as_bytes()).unwrap();
    stream.write_all(&answer).unwrap();
    let body = request.split_off(head);
    Some(if is_packed { unpacked(body) } else { body })
}

/// What the program `gzip` makes of packed bytes.
fn unpacked(bytes: Vec<u8>) -> Vec<u8> {
    let mut gzip =
        Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = gzip.stdin.take().unwrap();
    // The program writes before it has read all, so its input has a thread of its own.
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = gzip.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut spans = Vec::new();
    for of_process in request.resource_spans {
        let resource = of_process.resource.unwrap();
        assert!(resource.attributes.iter().any(|attribute| attribute.key == "service.name"));
        assert!(resource.attributes.iter().any(|attribute| attribute.key == "service.instance.id"));
        for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let texts = span.attributes.into_iter().filter_map(|attribute| {
                match attribute.value.and_then(|value| value.value) {
                    Some(AnyValue::StringValue(text)) => Some((attribute.key, text)),
                    _ => None,
                }
            });
            spans.push(Span {
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                texts: texts.collect(),
                links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
            });
        }
    }
    spans
}

/// A line of `oteltap`.
fn of_json(line: &Value) -> Span {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let list = |key: &str| line[key].as_array().cloned().unwrap_or_default();
    let texts = list("attributes").into_iter().filter_map(|attribute| {
        let value = attribute["value"]["stringValue"].as_str()?;
        Some((text(&attribute, "key"), value.to_owned()))
    });
    Span {
        trace: text(line, "traceId"),
        id: text(line, "spanId"),
        parent: text(line, "parentSpanId"),
        name: text(line, "name"),
        start: text(line, "startTimeUnixNano").parse().unwrap(),
        end: text(line, "endTimeUnixNano").parse().unwrap(),
        texts: texts.collect(),
        links: list("links").iter().map(|link| text(link, "spanId")).collect(),
    }
}
