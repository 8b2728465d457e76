//! Ethernet links, which exist on Linux only.

#[cfg(target_os = "linux")]
pub(super) use linux::{MacAddressError, mac_address, open};
#[cfg(not(target_os = "linux"))]
pub(super) use other::{MacAddressError, mac_address, open};

#[cfg(target_os = "linux")]
mod linux {
    use std::net::SocketAddr;

    use anyhow::Result;
    pub(in super::super) use x0_mesh::link::MacAddressError;
    use x0_mesh::link::{EthernetLink, EthernetLinkOptions, Link, MacAddress};

    /// The address that stands for a neighbour.
    pub(in super::super) fn mac_address(mac: MacAddress) -> SocketAddr {
        EthernetLink::address(mac)
    }

    pub(in super::super) fn open(interface: &str, mtu: Option<usize>) -> Result<Box<dyn Link>> {
        let mut options = EthernetLinkOptions::new(interface);
        options.mtu_max = mtu;
        Ok(Box::new(EthernetLink::open(&options)?))
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::net::SocketAddr;
    use std::str::FromStr;

    use anyhow::{Result, bail};
    use x0_mesh::link::Link;

    #[derive(Debug, thiserror::Error)]
    #[error("this system has no Ethernet links: use a UDP link")]
    pub(in super::super) struct MacAddressError;

    /// No address is valid.
    pub(in super::super) enum Never {}

    impl FromStr for Never {
        type Err = MacAddressError;

        fn from_str(_: &str) -> Result<Never, MacAddressError> {
            Err(MacAddressError)
        }
    }

    pub(in super::super) fn mac_address(never: Never) -> SocketAddr {
        match never {}
    }

    pub(in super::super) fn open(interface: &str, _: Option<usize>) -> Result<Box<dyn Link>> {
        bail!("cannot open an Ethernet link on {interface}: this system has none; use a UDP link")
    }
}
