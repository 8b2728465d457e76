//! The saved state of a knowledge base: catalogue and indexes in one file.

use crate::file::{Damage, SectionWriter, Sections};

const KIND: [u8; 8] = *b"X0MLKNO\0";
const VERSION: u32 = 1;
const FINGERPRINT: u32 = 1;
const CATALOGUE: u32 = 2;
const VECTORS: u32 = 3;
const LEXICAL: u32 = 4;

/// Catalogue and indexes of one moment. One file holds all three, so that a crash cannot separate them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot<'a> {
    /// Hash of the settings that the contents depend on, such as model and chunker. Others make the file
    /// useless.
    pub fingerprint: [u8; 32],
    /// State of the engine.
    pub catalogue: &'a [u8],
    /// The vector index.
    pub vectors: &'a [u8],
    /// The lexical index.
    pub lexical: &'a [u8],
}

impl<'a> Snapshot<'a> {
    /// A snapshot of these parts.
    #[must_use]
    pub fn new(fingerprint: [u8; 32], catalogue: &'a [u8], vectors: &'a [u8], lexical: &'a [u8]) -> Self {
        Self { fingerprint, catalogue, vectors, lexical }
    }

    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut file = SectionWriter::new(KIND, VERSION);
        file.section(FINGERPRINT, self.fingerprint.to_vec());
        file.section(CATALOGUE, self.catalogue.to_vec());
        file.section(VECTORS, self.vectors.to_vec());
        file.section(LEXICAL, self.lexical.to_vec());
        file.finish()
    }

    /// The parts of a file.
    ///
    /// # Errors
    /// [`Damage`].
    pub fn decode(file: &'a [u8]) -> Result<Self, Damage> {
        let sections = Sections::parse(file, KIND, VERSION)?;
        let part = |name| {
            let mut section = sections.section(name)?;
            section.bytes(section.len())
        };
        let fingerprint = sections.section(FINGERPRINT)?;
        fingerprint.expect(32, 1)?;
        let fingerprint = part(FINGERPRINT)?.try_into().map_err(|_| fingerprint.damage("no hash"))?;
        Ok(Self {
            fingerprint,
            catalogue: part(CATALOGUE)?,
            vectors: part(VECTORS)?,
            lexical: part(LEXICAL)?,
        })
    }
}
