//! The example `gossip` tries itself, over real sockets.

#![allow(dead_code, reason = "an example is a program, and only its try-out is run here")]

#[path = "../examples/gossip.rs"]
mod gossip;

#[test]
fn the_example_converges_over_udp_that_loses_every_third_datagram() {
    gossip::try_out().map_err(|error| error.to_string()).expect("the try-out");
}
