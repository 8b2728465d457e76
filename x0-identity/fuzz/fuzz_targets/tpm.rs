//! A TPM that answers with any bytes, and messages of attestation. What is accepted has one encoding.
#![no_main]

use std::io::{self, Cursor, Read, Write};

use libfuzzer_sys::fuzz_target;
use x0_identity::tpm::{Tpm, TpmAnswer, TpmChallenge, TpmEvidence};

struct Device(Cursor<Vec<u8>>);

impl Read for Device {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Device {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = Tpm::over(Device(Cursor::new(bytes.to_vec()))).evidence();
    if let Ok(evidence) = TpmEvidence::from_bytes(bytes) {
        assert_eq!(evidence.to_bytes(), bytes);
    }
    if let Ok(challenge) = TpmChallenge::from_bytes(bytes) {
        assert_eq!(challenge.to_bytes(), bytes);
        let _ = Tpm::over(Device(Cursor::new(bytes.to_vec()))).answer(&challenge, &[0; 32]);
    }
    if let Ok(answer) = TpmAnswer::from_bytes(bytes) {
        assert_eq!(answer.to_bytes(), bytes);
    }
});
