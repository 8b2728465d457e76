//! The reference to a blob, which is the value in a keyspace.

use bytes::Bytes;

use super::{BLOB_LEN_MAX, BlobId};
use crate::request::codec::{DecodeError, Decoder, put_bytes, put_u64};

/// The version of the encoding.
const VERSION: u8 = 1;

/// Names a blob, and says how long it is, what it is and where it comes from: small enough to be a value of
/// either kind of keyspace.
///
/// The name fixes bytes and length; everything else in the reference is a claim of its writer.
///
/// ```
/// use x0_kv::blob::{BlobId, BlobRef, Provenance};
///
/// let base = BlobId::of(b"the weights it began with");
/// let mut reference = BlobRef::new(BlobId::of(b"an adapter"), 10);
/// reference.media_type = "application/octet-stream".into();
/// reference.provenance = Provenance { maker: "node 7".into(), parents: vec![base], note: "round 12".into() };
/// let value = reference.encode()?;
/// assert_eq!(BlobRef::decode(&value)?, reference);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRef {
    /// Its name.
    pub id: BlobId,
    /// Its length in bytes, at most [`BLOB_LEN_MAX`].
    pub len: u64,
    /// The media type of RFC 6838: at most [`MEDIA_TYPE_LEN_MAX`](BlobRef::MEDIA_TYPE_LEN_MAX) bytes. May be
    /// empty.
    pub media_type: String,
    /// The provenance of the blob.
    pub provenance: Provenance,
}

/// The provenance of a blob, as the writer of the reference claims it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// The maker: at most [`MAKER_LEN_MAX`](Provenance::MAKER_LEN_MAX) bytes, a SPIFFE ID for instance. May
    /// be empty.
    pub maker: String,
    /// The blobs from which it was made: at most [`PARENTS_MAX`](Provenance::PARENTS_MAX).
    pub parents: Vec<BlobId>,
    /// Anything else: at most [`NOTE_LEN_MAX`](Provenance::NOTE_LEN_MAX) bytes. May be empty.
    pub note: String,
}

impl Provenance {
    /// Longest maker, in bytes.
    pub const MAKER_LEN_MAX: usize = 512;
    /// Most parents.
    pub const PARENTS_MAX: usize = 32;
    /// Longest note, in bytes.
    pub const NOTE_LEN_MAX: usize = 1024;
}

/// Why a reference cannot be encoded, or bytes are not a reference. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlobRefError {
    /// A field is too long.
    #[error("the {field} of a blob's reference is {len} long, at most {max} are allowed: shorten it")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its length.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// A text is not UTF-8.
    #[error("the {field} of a blob's reference is not UTF-8: the value is no reference")]
    Text {
        /// Which field.
        field: &'static str,
    },
    /// The bytes are not a reference.
    #[error("the value is no reference to a blob: {0}")]
    Decode(#[from] DecodeError),
}

impl BlobRef {
    /// Longest encoding, in bytes.
    pub const LEN_MAX: usize = 4096;
    /// Longest media type, in bytes: two names of 127 and the slash between them (RFC 6838 §4.2).
    pub const MEDIA_TYPE_LEN_MAX: usize = 255;

    /// A reference that says nothing but name and length.
    #[must_use]
    pub fn new(id: BlobId, len: u64) -> BlobRef {
        BlobRef { id, len, media_type: String::new(), provenance: Provenance::default() }
    }

    /// The bytes to keep as a value: equal references, equal bytes.
    ///
    /// # Errors
    /// [`BlobRefError::TooLong`].
    pub fn encode(&self) -> Result<Bytes, BlobRefError> {
        let Provenance { maker, parents, note } = &self.provenance;
        for (field, len, max) in [
            ("length", self.len, BLOB_LEN_MAX),
            ("media type", self.media_type.len() as u64, Self::MEDIA_TYPE_LEN_MAX as u64),
            ("maker", maker.len() as u64, Provenance::MAKER_LEN_MAX as u64),
            ("list of parents", parents.len() as u64, Provenance::PARENTS_MAX as u64),
            ("note", note.len() as u64, Provenance::NOTE_LEN_MAX as u64),
        ] {
            if len > max {
                return Err(BlobRefError::TooLong { field, len, max });
            }
        }
        let mut to = vec![VERSION];
        to.extend(self.id.as_bytes());
        put_u64(&mut to, self.len);
        put_bytes(&mut to, self.media_type.as_bytes());
        put_bytes(&mut to, maker.as_bytes());
        put_u64(&mut to, parents.len() as u64);
        for parent in parents {
            to.extend(parent.as_bytes());
        }
        put_bytes(&mut to, note.as_bytes());
        Ok(to.into())
    }

    /// The reference that these bytes are.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &Bytes) -> Result<BlobRef, BlobRefError> {
        let mut from = Decoder::new(bytes);
        match from.u8("version")? {
            VERSION => {}
            found => return Err(DecodeError::Version { found }.into()),
        }
        let id = decode_id(&mut from)?;
        let len = from.u64("length")?;
        if len > BLOB_LEN_MAX {
            return Err(BlobRefError::TooLong { field: "length", len, max: BLOB_LEN_MAX });
        }
        let media_type = text(&mut from, "media type", Self::MEDIA_TYPE_LEN_MAX)?;
        let maker = text(&mut from, "maker", Provenance::MAKER_LEN_MAX)?;
        let count = from.len("list of parents", Provenance::PARENTS_MAX)?;
        let parents = (0..count).map(|_| decode_id(&mut from)).collect::<Result<_, _>>()?;
        let note = text(&mut from, "note", Provenance::NOTE_LEN_MAX)?;
        from.finish()?;
        Ok(BlobRef { id, len, media_type, provenance: Provenance { maker, parents, note } })
    }
}

// The longest of everything fits.
const _: () = assert!(
    1 + 32
        + 10
        + 2
        + BlobRef::MEDIA_TYPE_LEN_MAX
        + 2
        + Provenance::MAKER_LEN_MAX
        + 1
        + Provenance::PARENTS_MAX * 32
        + 2
        + Provenance::NOTE_LEN_MAX
        <= BlobRef::LEN_MAX
);

pub(super) fn decode_id(from: &mut Decoder<'_>) -> Result<BlobId, DecodeError> {
    decode_digest(from, "name").map(BlobId::from_bytes)
}

pub(super) fn decode_digest(from: &mut Decoder<'_>, what: &'static str) -> Result<[u8; 32], DecodeError> {
    let mut digest = [0; 32];
    for byte in &mut digest {
        *byte = from.u8(what)?;
    }
    Ok(digest)
}

fn text(from: &mut Decoder<'_>, field: &'static str, max: usize) -> Result<String, BlobRefError> {
    let bytes = from.bytes(field, max)?;
    std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| BlobRefError::Text { field })
}
