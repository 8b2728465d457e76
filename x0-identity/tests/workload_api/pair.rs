//! The engines of both sides, in virtual time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use x0_identity::workload_api::{
    ClientError, ClientInput, ClientOptions, ClientOutput, ClientSession, ServerConnection, ServerInput,
    ServerOptions, ServerOutput, Subscription, Workload, X509Context,
};

pub(crate) struct Pair {
    pub(crate) client: ClientSession,
    pub(crate) server: Option<ServerConnection>,
    pub(crate) server_options: ServerOptions,
    pub(crate) workload: Option<Arc<Workload>>,
    /// Whether the server accepts connections.
    pub(crate) listening: bool,
    pub(crate) now: Duration,
    pub(crate) connects: Vec<Duration>,
    /// What the client reported, with its time.
    pub(crate) outputs: Vec<(Duration, ClientOutput)>,
}

impl Pair {
    pub(crate) fn new(options: ClientOptions, workload: Option<Workload>) -> Pair {
        Pair {
            client: ClientSession::new(options, "localhost", 7),
            server: None,
            server_options: ServerOptions::default(),
            workload: workload.map(Arc::new),
            listening: true,
            now: Duration::ZERO,
            connects: Vec::new(),
            outputs: Vec::new(),
        }
    }

    pub(crate) fn set(&mut self, workload: Option<Workload>) {
        self.workload = workload.map(Arc::new);
        if let Some(server) = &mut self.server {
            server.handle(self.now, ServerInput::Workload(self.workload.clone())).unwrap();
        }
        self.settle();
    }

    pub(crate) fn input(&mut self, input: ClientInput<'_>) {
        self.client.handle(self.now, input).unwrap();
        self.settle();
    }

    /// The connection breaks.
    pub(crate) fn cut(&mut self) {
        self.server = None;
        self.input(ClientInput::Closed);
    }

    /// Everything that happens without time.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(output) = self.client.poll_output() {
                quiet = false;
                match output {
                    ClientOutput::Connect => {
                        self.connects.push(self.now);
                        assert!(self.server.is_none(), "connected twice");
                        let input = if self.listening {
                            let mut server = ServerConnection::new(&self.server_options, self.now);
                            server.handle(self.now, ServerInput::Workload(self.workload.clone())).unwrap();
                            self.server = Some(server);
                            ClientInput::Connected
                        } else {
                            ClientInput::Closed
                        };
                        self.client.handle(self.now, input).unwrap();
                    }
                    ClientOutput::Send(bytes) => {
                        let server = self.server.as_mut().expect("a connection");
                        server.handle(self.now, ServerInput::Bytes(&bytes)).unwrap();
                    }
                    ClientOutput::Close => self.server = None,
                    output => self.outputs.push((self.now, output)),
                }
            }
            while let Some(output) = self.server.as_mut().and_then(ServerConnection::poll_output) {
                quiet = false;
                match output {
                    ServerOutput::Send(bytes) => {
                        self.client.handle(self.now, ClientInput::Bytes(&bytes)).unwrap();
                        // The contract: first the client's outputs, which may close the connection.
                        break;
                    }
                    ServerOutput::Jwt(request) => {
                        let answer = request.answer(SystemTime::now());
                        let server = self.server.as_mut().unwrap();
                        server.handle(self.now, ServerInput::Answer(answer)).unwrap();
                    }
                    ServerOutput::Close => {
                        self.server = None;
                        self.client.handle(self.now, ClientInput::Closed).unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.input(ClientInput::Timeout);
        loop {
            let server = self.server.as_ref().and_then(ServerConnection::poll_timeout);
            let due = self.client.poll_timeout().into_iter().chain(server).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            if let Some(server) = &mut self.server {
                server.handle(self.now, ServerInput::Timeout).unwrap();
            }
            self.input(ClientInput::Timeout);
        }
        self.now = end;
        self.input(ClientInput::Timeout);
    }

    /// The newest context.
    pub(crate) fn context(&self) -> &X509Context {
        let contexts = self.outputs.iter().rev().find_map(|(_, output)| match output {
            ClientOutput::X509Svids(context) => Some(context),
            _ => None,
        });
        contexts.expect("a context")
    }

    /// The failures of a subscription, and whether each is tried again.
    pub(crate) fn failures(&self, wanted: Subscription) -> Vec<(ClientError, bool)> {
        let failure = |output: &ClientOutput| match output {
            ClientOutput::Failed { subscription, error, again } if *subscription == wanted => {
                Some((error.clone(), *again))
            }
            _ => None,
        };
        self.outputs.iter().filter_map(|(_, output)| failure(output)).collect()
    }
}
