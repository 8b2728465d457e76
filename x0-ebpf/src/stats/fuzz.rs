//! The parsers of bytes from the kernel, for `fuzz/` and the tests. Not part of the public API.

/// The text of `/proc/net/dev`.
pub fn proc_net_dev(bytes: &[u8]) {
    let mut links = Vec::new();
    if super::proc_net_dev::parse(bytes, &mut links) {
        assert!(links.len() <= bytes.len());
        assert!(links.iter().all(|link| !link.name.is_empty() && link.index.is_none()));
    }
}

/// A datagram from rtnetlink and from sock_diag.
#[cfg(feature = "netlink")]
pub fn netlink(bytes: &[u8]) {
    let mut read = 0;
    for message in super::netlink::messages(bytes) {
        let Some(message) = message else { break };
        read += message.body.len();
        let _ = super::rtnetlink::link(message.body);
        let _ = super::sock_diag::connection_of(message.body);
    }
    assert!(read <= bytes.len());
    let _ = super::rtnetlink::link(bytes);
    let _ = super::sock_diag::connection_of(bytes);
}
