//! Address prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: an address and its number of significant leading bits. The other bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// A text, or an address and length, that is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// More bits than the address has.
    #[error("a prefix length of {0} exceeds the address: use at most 32 for IPv4 and 128 for IPv6")]
    Length(u8),
    /// Bits beyond the length are set: `10.0.0.1/8` names no network.
    #[error("bits beyond the prefix length are set; write {0}")]
    HostBits(Prefix),
    /// Not `address/length` or an address alone.
    #[error("not a prefix: write an address, or an address, a slash and a length, such as 10.0.0.0/8")]
    Syntax,
}

impl Prefix {
    /// The network of the first `length` bits of `address`.
    ///
    /// # Errors
    /// [`PrefixError::Length`], or [`PrefixError::HostBits`] with the prefix without those bits.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixError> {
        let network = match address {
            IpAddr::V4(v4) if length <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) if length <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
            _ => return Err(PrefixError::Length(length)),
        };
        let prefix = Self { address: network, length };
        if network == address { Ok(prefix) } else { Err(PrefixError::HostBits(prefix)) }
    }

    /// The address, its host bits zero.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The number of significant leading bits.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether `address` lies in the network. Families do not mix: `::ffff:10.0.0.1` is not in `10.0.0.0/8`.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let back = 32 - u32::from(self.length);
                (network.to_bits() ^ address.to_bits()).checked_shr(back).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let back = 128 - u32::from(self.length);
                (network.to_bits() ^ address.to_bits()).checked_shr(back).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let Some((address, length)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| PrefixError::Syntax);
        };
        let address = address.parse().map_err(|_| PrefixError::Syntax)?;
        // No sign, no leading zero: one spelling per prefix.
        if length.is_empty() || length.len() > 3 || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PrefixError::Syntax);
        }
        Self::new(address, length.parse().map_err(|_| PrefixError::Syntax)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "2001:db8::/32", "::/0", "2001:db8::1/128"] {
            assert_eq!(text.parse::<Prefix>().expect(text).to_string(), text);
        }
        assert_eq!("192.0.2.1".parse::<Prefix>().expect("an address").length(), 32);
        for text in ["", "/", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8", "10/8", "::/ 1", "10.0.0.0/0008"] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError::Syntax), "{text}");
        }
        assert_eq!("10.0.0.0/33".parse::<Prefix>(), Err(PrefixError::Length(33)));
        let meant = "10.0.0.0/8".parse().expect("a prefix");
        assert_eq!("10.0.0.1/8".parse::<Prefix>(), Err(PrefixError::HostBits(meant)));
    }

    #[test]
    fn containment() {
        let check = |prefix: &str, address: &str, expect: bool| {
            let prefix: Prefix = prefix.parse().expect("a prefix");
            assert_eq!(
                prefix.contains(address.parse().expect("an address")),
                expect,
                "{address} in {prefix}"
            );
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("0.0.0.0/0", "255.0.0.1", true);
        check("::/0", "255.0.0.1", false);
        check("::/0", "::1", true);
        check("2001:db8::/33", "2001:db8:7fff::", true);
        check("2001:db8::/33", "2001:db8:8000::", false);
        check("192.0.2.1/32", "192.0.2.1", true);
        check("192.0.2.1/32", "192.0.2.0", false);
    }
}
