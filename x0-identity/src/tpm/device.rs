//! The machine's side: commands to a TPM (TPM 2.0 Library part 3).

use core::fmt;
use std::boxed::Box;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::vec;
use std::vec::Vec;

use super::attestor::qualifying;
use super::message::{TpmAnswer, TpmChallenge, TpmEvidence};
use super::public::{
    ALG_ECDSA, ALG_NULL, ALG_SHA256, EndorsementAlgorithm, EndorsementKey, KeyRole, PublicKey, coordinate,
    endorsement_template, template,
};
use super::wire::{Reader, put_sized, sized};

/// The longest response that is read, in bytes: what a TPM's buffer holds.
const RESPONSE_LEN_MAX: usize = 4096;

const ST_NO_SESSIONS: u16 = 0x8001;
const ST_SESSIONS: u16 = 0x8002;
const RH_NULL: u32 = 0x4000_0007;
const RS_PW: u32 = 0x4000_0009;
const RH_ENDORSEMENT: u32 = 0x4000_000b;
const SE_POLICY: u8 = 1;

/// A command, by its code and the name that the specification has for it.
#[derive(Debug, Clone, Copy)]
struct Command(u32, &'static str);

const CREATE_PRIMARY: Command = Command(0x131, "TPM2_CreatePrimary");
const ACTIVATE_CREDENTIAL: Command = Command(0x147, "TPM2_ActivateCredential");
const POLICY_SECRET: Command = Command(0x151, "TPM2_PolicySecret");
const QUOTE: Command = Command(0x158, "TPM2_Quote");
const FLUSH_CONTEXT: Command = Command(0x165, "TPM2_FlushContext");
const START_AUTH_SESSION: Command = Command(0x176, "TPM2_StartAuthSession");

/// What carries commands and responses, as bytes.
trait Transport: Read + Write + Send {}
impl<T: Read + Write + Send> Transport for T {}

/// A TPM 2.0 of this machine. It stores nothing in the TPM, and leaves no key loaded.
pub struct Tpm {
    transport: Box<dyn Transport>,
    endorsement: EndorsementAlgorithm,
}

/// A TPM did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    /// The device cannot be used.
    #[error("the TPM cannot be reached: check that the device exists, and that this user may use it")]
    Device {
        /// The reason.
        #[from]
        source: io::Error,
    },
    /// The TPM refused a command.
    #[error("{command} failed with code {code:#x}: check that the endorsement hierarchy has no password")]
    Refused {
        /// The name of the command.
        command: &'static str,
        /// The response code (part 2, §6.6).
        code: u32,
    },
    /// The challenge is for another pair of keys.
    #[error(
        "the challenge is not for the keys of this TPM: send the evidence of this TPM, and answer its challenge"
    )]
    AnotherTpm {
        /// The response code.
        code: u32,
    },
    /// A response cannot be read.
    #[error(
        "the response to {command} cannot be read: the TPM lacks the algorithm of the key, or it is not a TPM 2.0"
    )]
    Response {
        /// The name of the command.
        command: &'static str,
    },
}

impl Tpm {
    /// Opens a device: `/dev/tpmrm0`, whose sessions and keys the kernel keeps apart from those of others.
    ///
    /// # Errors
    /// [`TpmError::Device`], when it is not there or this user may not use it.
    pub fn open(device: impl AsRef<Path>) -> Result<Tpm, TpmError> {
        let file: File = OpenOptions::new().read(true).write(true).open(device)?;
        Ok(Tpm::over(file))
    }

    /// Takes what carries commands and responses as they are: a socket of a simulator.
    #[must_use]
    pub fn over(transport: impl Read + Write + Send + 'static) -> Tpm {
        Tpm { transport: Box::new(transport), endorsement: EndorsementAlgorithm::default() }
    }

    /// Uses the endorsement key of this algorithm. Unless set it is on P-256.
    #[must_use]
    pub fn endorsement(mut self, algorithm: EndorsementAlgorithm) -> Tpm {
        self.endorsement = algorithm;
        self
    }

    /// The endorsement key and the attestation key of this TPM.
    ///
    /// # Errors
    /// [`TpmError`] names the command that failed.
    pub fn evidence(&mut self) -> Result<TpmEvidence, TpmError> {
        let (handle, ek) = self.endorsement_key()?;
        self.flush(handle)?;
        let (handle, ak) = self.attestation_key()?;
        self.flush(handle)?;
        Ok(TpmEvidence { ek, ak })
    }

    /// The answer to a challenge for [`Tpm::evidence`].
    ///
    /// # Errors
    /// [`TpmError`] names the command that failed; [`TpmError::AnotherTpm`], when the challenge is for other
    /// keys.
    pub fn answer(&mut self, challenge: &TpmChallenge, binding: &[u8; 32]) -> Result<TpmAnswer, TpmError> {
        let (ek, _) = self.endorsement_key()?;
        let with_ak = self.attestation_key().and_then(|(ak, _)| {
            let answer = self.answer_with(ek, ak, challenge, binding);
            self.flush(ak).and(answer)
        });
        self.flush(ek).and(with_ak)
    }

    fn answer_with(
        &mut self,
        ek: u32,
        ak: u32,
        challenge: &TpmChallenge,
        binding: &[u8; 32],
    ) -> Result<TpmAnswer, TpmError> {
        let secret = self.activate_credential(ek, ak, challenge)?;
        let (quote, signature) = self.quote(ak, &qualifying(&challenge.nonce, binding))?;
        Ok(TpmAnswer { secret, quote, signature })
    }

    fn endorsement_key(&mut self) -> Result<(u32, EndorsementKey), TpmError> {
        self.create_primary(&endorsement_template(self.endorsement), EndorsementKey::read)
    }

    fn attestation_key(&mut self) -> Result<(u32, PublicKey), TpmError> {
        let role = KeyRole::Attestation;
        self.create_primary(&template(role), |area| PublicKey::read(role, area))
    }

    fn create_primary<K>(
        &mut self,
        template: &[u8],
        read_key: impl Fn(&[u8]) -> Option<K>,
    ) -> Result<(u32, K), TpmError> {
        // No password and no data; no external data; no registers.
        let mut parameters = sized(&[0; 4]);
        put_sized(&mut parameters, template);
        parameters.extend([0; 2 + 4]);
        let response = self.run(CREATE_PRIMARY, &[RH_ENDORSEMENT], &[RS_PW], &parameters)?;
        let mut reader = Reader::new(&response);
        let mut read = || {
            let handle = reader.u32()?;
            reader.u32()?;
            let public = read_key(reader.sized()?)?;
            Some((handle, public))
        };
        read().ok_or(TpmError::Response { command: CREATE_PRIMARY.1 })
    }

    /// The session that the policy of the EK demands: the authorization of the endorsement hierarchy.
    fn policy_session(&mut self) -> Result<u32, TpmError> {
        // The TPM's nonce is not used: the session authorizes one command by policy alone.
        let mut parameters = sized(&[0; 16]);
        put_sized(&mut parameters, &[]);
        parameters.push(SE_POLICY);
        parameters.extend(ALG_NULL.to_be_bytes());
        parameters.extend(ALG_SHA256.to_be_bytes());
        let response = self.run(START_AUTH_SESSION, &[RH_NULL, RH_NULL], &[], &parameters)?;
        let session = Reader::new(&response).u32();
        let session = session.ok_or(TpmError::Response { command: START_AUTH_SESSION.1 })?;
        // No nonce, no digest of a command, no reference, no expiry.
        let authorized = self.run(POLICY_SECRET, &[RH_ENDORSEMENT, session], &[RS_PW], &[0; 2 + 2 + 2 + 4]);
        match authorized {
            Ok(_) => Ok(session),
            Err(error) => self.flush(session).and(Err(error)),
        }
    }

    fn activate_credential(
        &mut self,
        ek: u32,
        ak: u32,
        challenge: &TpmChallenge,
    ) -> Result<Vec<u8>, TpmError> {
        let session = self.policy_session()?;
        let mut parameters = sized(&challenge.credential);
        put_sized(&mut parameters, &challenge.seed);
        let activated = self.run(ACTIVATE_CREDENTIAL, &[ak, ek], &[RS_PW, session], &parameters);
        self.flush(session)?;
        let response = activated.map_err(|error| match error {
            TpmError::Refused { code, .. } => TpmError::AnotherTpm { code },
            error => error,
        })?;
        let mut reader = Reader::new(&response);
        let secret = reader.u32().and_then(|_| reader.sized());
        secret.map(<[u8]>::to_vec).ok_or(TpmError::Response { command: ACTIVATE_CREDENTIAL.1 })
    }

    fn quote(&mut self, ak: u32, qualifying: &[u8; 32]) -> Result<(Vec<u8>, [u8; 64]), TpmError> {
        let mut parameters = sized(qualifying);
        // The scheme of the key; registers 0 to 7 of SHA-256.
        parameters.extend(ALG_NULL.to_be_bytes());
        parameters.extend(1_u32.to_be_bytes());
        parameters.extend(ALG_SHA256.to_be_bytes());
        parameters.extend([3, 0xff, 0, 0]);
        let response = self.run(QUOTE, &[ak], &[RS_PW], &parameters)?;
        let mut reader = Reader::new(&response);
        let mut read = || {
            reader.u32()?;
            let quote = reader.sized()?.to_vec();
            if (reader.u16()?, reader.u16()?) != (ALG_ECDSA, ALG_SHA256) {
                return None;
            }
            let (r, s) = (coordinate(reader.sized()?)?, coordinate(reader.sized()?)?);
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&r);
            signature[32..].copy_from_slice(&s);
            Some((quote, signature))
        };
        read().ok_or(TpmError::Response { command: QUOTE.1 })
    }

    /// Unloads a key or ends a session.
    fn flush(&mut self, handle: u32) -> Result<(), TpmError> {
        self.run(FLUSH_CONTEXT, &[], &[], &handle.to_be_bytes()).map(drop)
    }

    /// Runs a command with handles, authorizations with empty passwords or by policy, and parameters. Returns
    /// what follows the head of the response.
    fn run(
        &mut self,
        command: Command,
        handles: &[u32],
        sessions: &[u32],
        parameters: &[u8],
    ) -> Result<Vec<u8>, TpmError> {
        let Command(code, command) = command;
        let mut body: Vec<u8> = handles.iter().flat_map(|handle| handle.to_be_bytes()).collect();
        if !sessions.is_empty() {
            // The handle, no nonce, "continue", no HMAC: 9 bytes each.
            let len = sessions.iter().fold(0_u32, |len, _| len + 9);
            body.extend(len.to_be_bytes());
            for session in sessions {
                body.extend(session.to_be_bytes());
                body.extend([0, 0, 1, 0, 0]);
            }
        }
        body.extend(parameters);
        let tag = if sessions.is_empty() { ST_NO_SESSIONS } else { ST_SESSIONS };
        let len = u32::try_from(body.len() + 10).map_err(io::Error::other)?;
        let mut message = tag.to_be_bytes().to_vec();
        message.extend(len.to_be_bytes());
        message.extend(code.to_be_bytes());
        message.extend(body);
        // In one piece: the kernel's device takes a command with one write.
        self.transport.write_all(&message)?;
        self.transport.flush()?;
        let response = self.read_response(command)?;
        let mut reader = Reader::new(&response);
        let mut head = || Some((reader.u16()?, reader.u32()?, reader.u32()?));
        match head() {
            Some((_, _, 0)) => Ok(response[10..].to_vec()),
            Some((_, _, code)) => Err(TpmError::Refused { command, code }),
            None => Err(TpmError::Response { command }),
        }
    }

    /// The device gives a response with one read, a socket in pieces: until the length in its head.
    fn read_response(&mut self, command: &'static str) -> Result<Vec<u8>, TpmError> {
        let mut response = vec![0; RESPONSE_LEN_MAX];
        let mut len = 0;
        loop {
            let wanted = match response[..len].get(2..6).and_then(|bytes| bytes.try_into().ok()) {
                Some(bytes) => usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX),
                None => 10,
            };
            if !(10..=RESPONSE_LEN_MAX).contains(&wanted) {
                return Err(TpmError::Response { command });
            }
            if len >= wanted && len >= 10 {
                response.truncate(wanted);
                return Ok(response);
            }
            match self.transport.read(&mut response[len..]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl fmt::Debug for Tpm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tpm").finish_non_exhaustive()
    }
}
