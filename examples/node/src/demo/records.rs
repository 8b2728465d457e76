//! The data set: package records of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;

const DPKG_STATUS: &str = "/var/lib/dpkg/status";
/// The maximum length of a value; longer records are skipped and counted.
const VALUE_LEN_MAX: usize = 1 << 20;

/// Keys, values and their source.
#[derive(Debug)]
pub(crate) struct DataSet {
    pub(crate) source: String,
    /// In the order of their keys, which are distinct.
    pub(crate) records: Vec<(Bytes, Bytes)>,
    /// The number of skipped records that exceed the maximum length of a value.
    pub(crate) too_long: usize,
}

impl DataSet {
    /// The package records of `file` or, without one, of dpkg's status file, else the releases in cargo's
    /// registry index, else the source files of this program.
    pub(crate) fn read(file: Option<&Path>, records_max: Option<u32>) -> Result<DataSet> {
        let (source, records) = match file {
            Some(file) => (format!("package records of {}", file.display()), dpkg(file)?),
            None if Path::new(DPKG_STATUS).is_file() => {
                (format!("package records of {DPKG_STATUS}"), dpkg(Path::new(DPKG_STATUS))?)
            }
            None => match cargo_index_folder() {
                Some(folder) => (
                    format!("releases in cargo's registry index, {}", folder.display()),
                    cargo_index(&folder)?,
                ),
                None => {
                    // The path at compile time, which does not exist on a machine that the program was copied
                    // to.
                    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
                    (format!("source files of x0 in {}", folder.display()), sources(folder)?)
                }
            },
        };
        let total = records.len();
        let fits = |record: &(Bytes, Bytes)| record.1.len() <= VALUE_LEN_MAX;
        let mut records: Vec<_> = records.into_iter().filter(fits).collect();
        if records.is_empty() {
            bail!("found no {source}: name a file in the format of dpkg's status file with --records FILE");
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
        .with_context(|| format!("cannot read {}; name another file with --records", file.display()))?;
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

fn cargo_index_folder() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.map(|home| home.join("registry/index")).filter(|index| index.is_dir())
}

/// The text files below `folder`, by path, without hidden folders and build output.
fn sources(folder: &Path) -> Result<BTreeMap<Bytes, Bytes>> {
    let mut records = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(below) = folders.pop() {
        let entries = std::fs::read_dir(&below).with_context(|| {
            format!("cannot read {}; name a file with records with --records", below.display())
        })?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    folders.push(path);
                }
            } else if ["rs", "toml", "md"].iter().any(|kind| path.extension().is_some_and(|it| it == *kind)) {
                let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let within = path.strip_prefix(folder).unwrap_or(&path).as_os_str().as_encoded_bytes();
                records.insert([b"source/", within].concat().into(), text.into());
            }
        }
    }
    Ok(records)
}

/// The releases in the caches under `folder`, by crate and version.
fn cargo_index(folder: &Path) -> Result<BTreeMap<Bytes, Bytes>> {
    let mut records = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| {
            format!("cannot read {}; name a file with records with --records", folder.display())
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
    fn packages_of_several_architectures_have_keys_of_their_own() {
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
    fn paragraphs_without_a_package_are_skipped() {
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
    fn the_sources_exclude_build_output() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("a/src/lib.rs", "a"),
            ("README.md", "b"),
            ("target/x.rs", "c"),
            (".git/x.md", "d"),
            ("a/x.bin", "e"),
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let records = sources(folder.path()).unwrap();
        assert_eq!(texts(&records), [("source/README.md", "b"), ("source/a/src/lib.rs", "a")]);
    }

    #[test]
    fn the_number_of_records_can_be_limited() {
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
