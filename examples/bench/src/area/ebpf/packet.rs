//! Packets to run programs on.

/// An Ethernet frame of 64 bytes with a UDP packet from `source` to 10.0.0.2.
pub(super) fn udp(source: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    packet.extend([0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source);
    packet.extend([10, 0, 0, 2]);
    packet.extend([0x0f, 0xa0, 0x13, 0x88, 0, 30, 0, 0]);
    packet.resize(64, 0);
    packet
}
