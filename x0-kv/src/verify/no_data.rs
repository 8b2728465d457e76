//! A replacement of the verification of the redb file in a build without that engine.

use std::path::Path;

use super::VerifyError;
use super::folder::{FolderPart, FolderProgress, PartReport};

/// Reports a redb file as one that cannot be verified.
pub(super) fn verify_data(
    folder: &Path,
    _: &mut dyn FnMut(FolderProgress),
) -> Result<Option<PartReport>, VerifyError> {
    let path = folder.join("data.redb");
    if !path.is_file() {
        return Ok(None);
    }
    let mut report = PartReport::new(FolderPart::Data, &path);
    report.damage.push(format!("cannot verify {}: this build has no redb engine", path.display()));
    Ok(Some(report))
}
