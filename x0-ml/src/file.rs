//! Files: versioned, divided into sections, checked before use, replaced whole.
//!
//! A file begins with a header: eight bytes that name the kind, the version, and a table of sections with
//! offset, length and CRC-32C; the header has a CRC-32C of its own. [`IndexFile`] writes the new file beside
//! the old one, syncs it and renames it, so that a crash leaves one of the two. Damage is an error that names
//! the file and the offset; no part of a damaged file is used.

mod damage;
mod folder;
mod index_file;
mod sections;

pub use damage::{Damage, FileError};
pub use folder::{DiskFolder, Folder, OpenFile};
pub use index_file::IndexFile;
pub(crate) use sections::{Reader, SectionWriter, Sections, count32};
