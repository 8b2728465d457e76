//! Helpers of the tests of the programs: loading, or the reason why not; packets.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::cast_possible_truncation)]

use x0_ebpf::{LinkOptions, LinkProgram, LoadError};

/// The program, where the process may load it. Under CI it must.
pub fn load(options: LinkOptions) -> Option<LinkProgram> {
    granted(LinkProgram::load(options))
}

/// The value, or `None` and a line when the process may not; under CI it must.
pub fn granted<T>(result: Result<T, LoadError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error @ (LoadError::Denied | LoadError::Perfmon { .. })) if std::env::var_os("CI").is_none() => {
            println!("not tested: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

const ETHERNET: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

/// A UDP packet over IPv4 from port 4000 to 5000, `len` bytes with its Ethernet header.
pub fn udp4(source: u32, target: u32, len: usize) -> Vec<u8> {
    let total = (len - 14) as u16;
    let mut packet = ETHERNET.to_vec();
    packet.extend([8, 0, 0x45, 0]);
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source.to_be_bytes());
    packet.extend(target.to_be_bytes());
    packet.extend(4000u16.to_be_bytes());
    packet.extend(5000u16.to_be_bytes());
    packet.extend((total - 20).to_be_bytes());
    packet.resize(len, 0);
    packet
}

/// A UDP packet over IPv6 from port 4000 to 5000, `len` bytes with its Ethernet header.
pub fn udp6(source: u128, target: u128, len: usize) -> Vec<u8> {
    let payload = (len - 54) as u16;
    let mut packet = ETHERNET.to_vec();
    packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    packet.extend(payload.to_be_bytes());
    packet.extend([17, 64]);
    packet.extend(source.to_be_bytes());
    packet.extend(target.to_be_bytes());
    packet.extend(4000u16.to_be_bytes());
    packet.extend(5000u16.to_be_bytes());
    packet.extend(payload.to_be_bytes());
    packet.resize(len, 0);
    packet
}
