//! The data set: what this machine knows of its packages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;

const DPKG_STATUS: &str = "/var/lib/dpkg/status";
/// Longer ones are left out, and counted; the store takes values up to this length.
const VALUE_LEN_MAX: usize = 1 << 20;

/// Keys and values, and where they come from.
#[derive(Debug)]
pub(crate) struct DataSet {
    pub(crate) source: String,
    /// In the order of their keys, which are all different.
    pub(crate) records: Vec<(Bytes, Bytes)>,
    /// Longer than a value may be.
    pub(crate) too_long: usize,
}

impl DataSet {
    /// Every package record of `file` if one is given, else of dpkg's status file, else of cargo's registry index.
    pub(crate) fn read(file: Option<&Path>, records_max: Option<u32>) -> Result<DataSet> {
        let (source, records) = match file {
            Some(file) => (format!("package records of {}", file.display()), dpkg(file)?),
            None if Path::new(DPKG_STATUS).is_file() => {
                (format!("package records of {DPKG_STATUS}"), dpkg(Path::new(DPKG_STATUS))?)
            }
            None => {
                let folder = cargo_index_folder()?;
                (format!("releases in cargo's registry index, {}", folder.display()), cargo_index(&folder)?)
            }
        };
        let total = records.len();
        let fits = |record: &(Bytes, Bytes)| record.1.len() <= VALUE_LEN_MAX;
        let mut records: Vec<_> = records.into_iter().filter(fits).collect();
        if records.is_empty() {
            bail!(
                "there are no {source}: name a file in the format of dpkg's status file with --records FILE"
            );
        }
        let too_long = total - records.len();
        if let Some(max) = records_max {
            records.truncate(usize::try_from(max)?);
        }
        Ok(DataSet { source, records, too_long })
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.records.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

fn dpkg(file: &Path) -> Result<BTreeMap<Bytes, Bytes>> {
    let text = std::fs::read(file)
        .with_context(|| format!("cannot read {}; --records names another file", file.display()))?;
    Ok(paragraphs(&Bytes::from(text)))
}

/// The paragraphs that name a package, by package and architecture.
fn paragraphs(text: &Bytes) -> BTreeMap<Bytes, Bytes> {
    let mut records = BTreeMap::new();
    let mut start = 0;
    while start < text.len() {
        let len = text[start..].windows(2).position(|pair| pair == b"\n\n");
        let end = len.map_or(text.len(), |len| start + len + 1);
        let paragraph = text.slice(start..end);
        if let Some(package) = field(&paragraph, b"Package: ") {
            let architecture = field(&paragraph, b"Architecture: ").unwrap_or(b"-");
            records.insert([b"package/", package, b":", architecture].concat().into(), paragraph);
        }
        start = end + 1;
    }
    records
}

fn field<'a>(paragraph: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    paragraph.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))
}

fn cargo_index_folder() -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home =
        home.context("neither CARGO_HOME nor HOME is set; --records names a file to take records from")?;
    Ok(home.join("registry/index"))
}

/// The releases in the caches under `folder`, by crate and version.
fn cargo_index(folder: &Path) -> Result<BTreeMap<Bytes, Bytes>> {
    let mut records = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| {
            format!(
                "there is neither {DPKG_STATUS} nor {}: name a file in the format of dpkg's status file with --records",
                folder.display()
            )
        })?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.components().any(|part| part.as_os_str() == ".cache") {
                releases(&path, &mut records)?;
            }
        }
    }
    Ok(records)
}

/// A cache file holds a header, then version and description of each release, all ended by zero bytes.
fn releases(path: &Path, records: &mut BTreeMap<Bytes, Bytes>) -> Result<()> {
    let text = Bytes::from(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let mut version: &[u8] = b"";
    for piece in text.split(|byte| *byte == 0) {
        if piece.starts_with(b"{") && !version.is_empty() {
            records.insert([b"crate/", name, b"/", version].concat().into(), text.slice_ref(piece));
        }
        version = piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(records: &BTreeMap<Bytes, Bytes>) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        records.iter().map(|(key, value)| (text(key), text(value))).collect()
    }

    #[test]
    fn packages_are_told_apart_by_architecture() {
        let text = "Package: b\nStatus: ok\nArchitecture: all\n\nPackage: a\nArchitecture: i386\n\nPackage: a\nArchitecture: amd64\n";
        let records = paragraphs(&Bytes::from(text));
        assert_eq!(
            texts(&records),
            [
                ("package/a:amd64", "Package: a\nArchitecture: amd64\n"),
                ("package/a:i386", "Package: a\nArchitecture: i386\n"),
                ("package/b:all", "Package: b\nStatus: ok\nArchitecture: all\n"),
            ]
        );
    }

    #[test]
    fn what_names_no_package_is_passed_over() {
        assert!(paragraphs(&Bytes::from("\n\n\nStatus: ok\n\n\n\n")).is_empty());
        assert_eq!(paragraphs(&Bytes::from("\n\nPackage: a")).len(), 1);
    }

    #[test]
    fn a_cargo_cache_holds_a_record_for_each_release() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("host/.cache/se/rd");
        std::fs::create_dir_all(&cache).unwrap();
        std::fs::write(
            cache.join("serde"),
            b"\x03\x02\0\0\0etag: \"x\"\x001.0.0\0{\"a\":1}\x001.0.1\0{\"a\":2}\0",
        )
        .unwrap();
        std::fs::write(folder.path().join("host/config.json"), "{}").unwrap();
        let records = cargo_index(folder.path()).unwrap();
        assert_eq!(texts(&records), [("crate/serde/1.0.0", "{\"a\":1}"), ("crate/serde/1.0.1", "{\"a\":2}")]);
    }

    #[test]
    fn at_most_so_many_records_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("status");
        std::fs::write(&file, "Package: a\n\nPackage: b\n\nPackage: c\n").unwrap();
        assert_eq!(DataSet::read(Some(&file), Some(2)).unwrap().records.len(), 2);
        assert_eq!(DataSet::read(Some(&file), None).unwrap().records.len(), 3);
    }

    #[test]
    fn no_records_is_an_error_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("status");
        std::fs::write(&file, "").unwrap();
        assert!(DataSet::read(Some(&file), None).unwrap_err().to_string().contains("--records"));
    }
}
