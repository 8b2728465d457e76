//! Damage to the data folder of a stopped node.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::random::Random;

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Flips bits of one file. Returns its name.
pub(super) fn flip(folder: &Path, count: u64, random: &mut Random) -> Result<Option<String>> {
    let mut files = files(folder)?;
    files.retain(|file| fs::metadata(file).is_ok_and(|data| data.len() > 0));
    if files.is_empty() {
        return Ok(None);
    }
    let path = &files[random.place(files.len())];
    let file = File::options().read(true).write(true).open(path)?;
    let len = used_len(&file)?;
    for _ in 0..count {
        let (mut byte, at) = ([0], random.below(len));
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << random.below(8);
        file.write_all_at(&byte, at)?;
    }
    Ok(Some(path.display().to_string()))
}

/// The length of a file without the zeros at its end: most of a log segment is not written yet.
fn used_len(file: &File) -> Result<u64> {
    let mut len = file.metadata()?.len();
    let mut block = vec![0; 64 << 10];
    while len > 0 {
        let start = len.saturating_sub(block.len() as u64);
        let part = usize::try_from(len - start)?;
        file.read_exact_at(&mut block[..part], start)?;
        if let Some(last) = block[..part].iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        len = start;
    }
    Ok(file.metadata()?.len())
}

/// Removes everything in a folder.
pub(super) fn empty(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Copies everything in a folder to another one, which is emptied first.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    empty(to)?;
    for path in files(from)? {
        let target = to.join(path.strip_prefix(from)?);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::copy(&path, &target) {
            // A node that runs renames and removes files meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            copied => drop(copied.with_context(|| format!("cannot copy {}", path.display()))?),
        }
    }
    Ok(())
}

/// Removes the newest segment of a log. Returns its name.
pub(super) fn remove_segment(folder: &Path) -> Result<Option<String>> {
    let mut segments = files(folder)?;
    segments.retain(|file| file.extension().is_some_and(|extension| extension == "wal"));
    // Logs are in folders of their own: the newest of any.
    let Some(newest) = segments.into_iter().next_back() else { return Ok(None) };
    fs::remove_file(&newest)?;
    Ok(Some(newest.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_changes_one_bit_of_what_is_used() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("log"), [[7; 1000].as_slice(), &[0; 100_000]].concat()).unwrap();
        let name = flip(folder.path(), 1, &mut Random::new(1)).unwrap().unwrap();
        assert!(name.ends_with("log"));
        let after = fs::read(folder.path().join("log")).unwrap();
        let flipped: u32 = after[..1000].iter().map(|byte| (byte ^ 7).count_ones()).sum();
        assert_eq!((flipped, after[1000..].iter().max()), (1, Some(&0)));
    }

    #[test]
    fn a_folder_is_copied_and_emptied_with_what_is_below_it() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(one.path().join("crdt")).unwrap();
        for name in ["crdt/0000000000000002.wal", "0000000000000001.wal", "manifest"] {
            fs::write(one.path().join(name), name).unwrap();
        }
        fs::write(two.path().join("old"), "old").unwrap();
        copy(one.path(), two.path()).unwrap();
        assert_eq!(files(two.path()).unwrap().len(), 3);
        assert_eq!(fs::read_to_string(two.path().join("manifest")).unwrap(), "manifest");
        assert!(remove_segment(two.path()).unwrap().unwrap().ends_with("2.wal"));
        empty(two.path()).unwrap();
        assert_eq!((files(two.path()).unwrap().len(), remove_segment(two.path()).unwrap()), (0, None));
    }
}
