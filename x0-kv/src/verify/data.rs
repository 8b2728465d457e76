//! Verification of the redb file as a part of a data folder.

use std::path::Path;

use super::folder::{FolderPart, FolderProgress, PartReport, with_causes};
use super::verify;

/// Verifies the redb file of `folder`, if there is one.
pub(super) fn verify_data(folder: &Path, progress: &mut dyn FnMut(FolderProgress)) -> Option<PartReport> {
    let path = folder.join("data.redb");
    let bytes_total = path.metadata().ok()?.len();
    let part = FolderPart::Data;
    let mut report = PartReport::new(part, &path);
    let verified = verify(folder, |done| {
        (report.entries, report.bytes) = (done.entries, done.bytes);
        progress(FolderProgress { part, bytes: done.bytes, bytes_total });
    });
    if let Err(error) = verified {
        report.damage.push(with_causes(&error));
    }
    Some(report)
}
