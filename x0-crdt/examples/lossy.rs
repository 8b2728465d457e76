//! Two maps that a session synchronizes over a link that loses a third of the datagrams, in virtual time.
//! Needs no operating system.

use core::error::Error;
use core::time::Duration;

use x0_crdt::{CausalMap, HashKey, ReplicaId, Session, SessionInput, SessionOptions, SessionOutput};

fn main() -> Result<(), Box<dyn Error>> {
    let key = HashKey::new([7; 16]);
    let mut maps = [1, 2].map(|node| CausalMap::new(ReplicaId::new(node), key));
    let mut sessions = [1, 2].map(|seed| Session::new(&SessionOptions::default(), seed));
    for number in 0..500_u32 {
        maps[0].put(format!("key-{number}").as_bytes(), 1, &number.to_le_bytes())?;
        maps[1].put(format!("key-{}", number * 2).as_bytes(), 2, b"other")?;
    }
    let (mut now, mut sent) = (Duration::ZERO, 0_u32);
    while maps[0].frontier() != maps[1].frontier() {
        for side in 0..2 {
            sessions[side].handle(now, SessionInput::Timeout, &mut maps[side])?;
            while let Some(output) = sessions[side].poll_output() {
                let SessionOutput::Send(datagram) = output else { continue };
                sent += 1;
                // Every third datagram is lost.
                if !sent.is_multiple_of(3) {
                    let input = SessionInput::Datagram(&datagram);
                    sessions[1 - side].handle(now, input, &mut maps[1 - side])?;
                }
            }
        }
        now += Duration::from_millis(1);
        assert!(now < Duration::from_secs(60), "the maps converge");
    }
    assert_eq!(maps[0].encode_state(), maps[1].encode_state());
    Ok(())
}
