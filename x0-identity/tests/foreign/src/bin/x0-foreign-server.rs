//! A server of the Workload API with tonic, as its generated code would be: `FetchX509SVID` only. It serves
//! the message in a file, and again at each connection to a port.
//!
//! Usage: `x0-foreign-server SOCKET FILE PORT`

use std::convert::Infallible;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use prost::Message;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

/// `X509SVIDRequest`.
#[derive(Clone, PartialEq, Message)]
struct SvidRequest {}

/// `X509SVIDResponse`.
#[derive(Clone, PartialEq, Message)]
struct SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, Message)]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    chain: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    hint: String,
}

type Later<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;
type Responses = Pin<Box<dyn Stream<Item = Result<SvidResponse, Status>> + Send>>;

#[derive(Clone)]
struct WorkloadApi(watch::Receiver<SvidResponse>);

impl NamedService for WorkloadApi {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl ServerStreamingService<SvidRequest> for WorkloadApi {
    type Response = SvidResponse;
    type ResponseStream = Responses;
    type Future = Later<Response<Responses>, Status>;

    fn call(&mut self, request: Request<SvidRequest>) -> Self::Future {
        let current = self.0.clone();
        Box::pin(async move {
            if request.metadata().get("workload.spiffe.io").is_none_or(|value| value != "true") {
                return Err(Status::invalid_argument("the security header is missing"));
            }
            let responses: Responses = Box::pin(WatchStream::new(current).map(Ok));
            Ok(Response::new(responses))
        })
    }
}

impl<B> Service<http::Request<B>> for WorkloadApi
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/SpiffeWorkloadAPI/FetchX509SVID" {
                return Ok(Status::new(Code::Unimplemented, "not implemented").into_http());
            }
            let mut grpc = Grpc::new(ProstCodec::<SvidResponse, SvidRequest>::default());
            Ok(grpc.server_streaming(service, request).await)
        })
    }
}

fn read(file: &Path) -> SvidResponse {
    let bytes = std::fs::read(file).expect("the file with the message");
    SvidResponse::decode(&bytes[..]).expect("an X509SVIDResponse")
}

async fn serve(socket: PathBuf, file: PathBuf, port: u16) {
    let (sender, receiver) = watch::channel(read(&file));
    let listener = UnixListener::bind(socket).expect("the socket");
    let service = tonic::transport::Server::builder().add_service(WorkloadApi(receiver));
    tokio::spawn(service.serve_with_incoming(UnixListenerStream::new(listener)));
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("the port");
    loop {
        let (stream, _) = control.accept().await.expect("a connection to the port");
        sender.send_replace(read(&file));
        drop(stream);
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("usage: x0-foreign-server SOCKET FILE PORT");
    let (socket, file, port) = (next().into(), next().into(), next().parse().expect("a port"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(serve(socket, file, port));
}
