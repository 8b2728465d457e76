//! The address of the endpoint (Workload Endpoint §4), and where a server listens (§3).

use std::process::Command;

use proptest::prelude::*;
use x0_identity::workload_api::{
    BindError, Client, ClientOptions, ClientStartError, ENDPOINT_SOCKET, EndpointAddress,
    EndpointAddressError, Listener,
};

#[test]
fn endpoint_4_addresses() {
    let unix = |path: &str| EndpointAddress::Unix(path.into());
    let tcp = |address: &str| EndpointAddress::Tcp(address.parse().unwrap());
    for (text, expected) in [
        ("unix:///path/to/endpoint.sock", unix("/path/to/endpoint.sock")),
        ("unix:/path/to/endpoint.sock", unix("/path/to/endpoint.sock")),
        ("UNIX:///a", unix("/a")),
        ("unix:///a%20b%C3%A4", unix("/a b\u{e4}")),
        ("unix:///a:b@c", unix("/a:b@c")),
        ("tcp://127.0.0.1:8000", tcp("127.0.0.1:8000")),
        ("tcp://[::1]:8000", tcp("[::1]:8000")),
        ("tcp://169.254.1.1:1", tcp("169.254.1.1:1")),
    ] {
        assert_eq!(EndpointAddress::parse(text), Ok(expected), "{text}");
    }
    let refused = |text: &str| EndpointAddress::parse(text).expect_err(text);
    for text in ["", "/path", "path", "http://127.0.0.1:80", "unix2:///a", ":///a", "127.0.0.1:8000"] {
        assert!(matches!(refused(text), EndpointAddressError::Scheme { .. }), "{text}");
    }
    for text in ["unix://host/path", "unix://path", "unix://user@/path", "unix://:1/path"] {
        assert!(matches!(refused(text), EndpointAddressError::Authority { .. }), "{text}");
    }
    for text in ["unix:", "unix:path", "unix:./path", "unix://", "unix:///", "unix:/", "unix:///a%00"] {
        assert!(matches!(refused(text), EndpointAddressError::Path { .. }), "{text}");
    }
    for (text, wanted) in [
        ("unix:///a?b", "query"),
        ("unix:///a#b", "fragment"),
        ("unix:///a?", "query"),
        ("tcp://127.0.0.1:8000?a", "query"),
        ("tcp://127.0.0.1:8000#a", "fragment"),
        ("tcp://127.0.0.1:8000/foo", "path"),
        ("tcp://127.0.0.1:8000/", "path"),
        ("tcp://user@127.0.0.1:8000", "user information"),
    ] {
        let error = refused(text);
        assert!(matches!(&error, EndpointAddressError::Component { component, .. } if *component == wanted));
        assert!(error.to_string().contains(wanted), "{error}");
    }
    for text in [
        "tcp:",
        "tcp:127.0.0.1:8000",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65536",
        "tcp://localhost:8000",
        "tcp://::1:8000",
        "tcp://[fe80::1%1]:8000",
    ] {
        assert!(matches!(refused(text), EndpointAddressError::IpAndPort { .. }), "{text}");
    }
    for text in ["unix:///a b", "unix:///a%2", "unix:///a%zz", "unix:///\u{e4}", "unix:///%ff"] {
        assert!(matches!(refused(text), EndpointAddressError::Uri { .. }), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_refused_or_written_as_it_means(text in "(unix:/{0,4}|tcp://)?[ -~]{0,24}", path in "/[^\0]{1,12}") {
        if let Ok(address) = EndpointAddress::parse(&text) {
            prop_assert_eq!(EndpointAddress::parse(&address.to_string()).unwrap(), address);
        }
        let address = EndpointAddress::Unix(path.into());
        prop_assert_eq!(EndpointAddress::parse(&address.to_string()).unwrap(), address);
    }
}

/// Environments belong to processes: the test runs itself in each of them.
#[test]
fn endpoint_4_the_environment_locates_the_endpoint() {
    if let Ok(expected) = std::env::var("X0_EXPECTED_ENDPOINT") {
        let found = match EndpointAddress::from_env() {
            Ok(address) => address.to_string(),
            Err(EndpointAddressError::NotSet) => "not set".into(),
            Err(error) => format!("error {error}"),
        };
        assert!(found.starts_with(&expected), "{found}");
        let client = Client::from_env(ClientOptions::default());
        assert_eq!(matches!(client, Err(ClientStartError::Address(_))), !expected.contains("://"));
        return;
    }
    for (value, expected) in [
        (Some("unix:///no/such.sock"), "unix:///no/such.sock"),
        (Some("tcp://127.0.0.1:9"), "tcp://127.0.0.1:9"),
        (Some("/no/such.sock"), "error"),
        (Some(""), "error"),
        (None, "not set"),
    ] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "endpoint::endpoint_4_the_environment_locates_the_endpoint"]);
        child.env_remove(ENDPOINT_SOCKET).env("X0_EXPECTED_ENDPOINT", expected);
        child.envs(value.map(|value| (ENDPOINT_SOCKET, value)));
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{value:?}: {text}");
    }
}

#[test]
fn endpoint_3_tcp_is_local() {
    for address in ["0.0.0.0:0", "192.0.2.1:8000", "[::]:0", "[2001:db8::1]:8000"] {
        let address = EndpointAddress::Tcp(address.parse().unwrap());
        let error = Listener::bind(&address).unwrap_err();
        assert!(matches!(error, BindError::NotLocal { .. }), "{error}");
    }
    let local = Listener::bind(&EndpointAddress::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let Some(EndpointAddress::Tcp(bound)) = local.address() else { panic!("an address of TCP") };
    assert_ne!(bound.port(), 0);
}

#[test]
fn a_socket_that_was_left_behind_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let address = EndpointAddress::Unix(path.clone());
    // A socket without a listener, as after SIGKILL.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Listener::bind(&address).unwrap();
    assert_eq!(listener.address(), Some(address.clone()));
    assert!(matches!(Listener::bind(&address), Err(BindError::InUse { .. })));
    drop(listener);
    assert!(!path.exists());
    // A file that is no socket is not removed.
    std::fs::write(&path, "data").unwrap();
    assert!(matches!(Listener::bind(&address), Err(BindError::System { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
    let missing = EndpointAddress::Unix(folder.path().join("no/api.sock"));
    assert!(matches!(Listener::bind(&missing), Err(BindError::System { .. })));
}
