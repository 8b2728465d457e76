//! Verification of the redb file as a part of a data folder.

use std::path::Path;

use super::folder::{FolderPart, FolderProgress, PartReport, with_causes};
use super::{VerifyError, verify};

/// Verifies the redb file of `folder`, if there is one. An error if a node or store has it open.
pub(super) fn verify_data(
    folder: &Path,
    progress: &mut dyn FnMut(FolderProgress),
) -> Result<Option<PartReport>, VerifyError> {
    let path = folder.join("data.redb");
    let Ok(metadata) = path.metadata() else { return Ok(None) };
    let bytes_total = metadata.len();
    let part = FolderPart::Data;
    let mut report = PartReport::new(part, &path);
    let verified = verify(folder, |done| {
        (report.entries, report.bytes) = (done.entries, done.bytes);
        progress(FolderProgress { part, bytes: done.bytes, bytes_total });
    });
    match verified {
        Ok(_) => {}
        Err(error @ VerifyError::InUse { .. }) => return Err(error),
        Err(error) => report.damage.push(with_causes(&error)),
    }
    Ok(Some(report))
}
