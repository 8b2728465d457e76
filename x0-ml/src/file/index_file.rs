//! A file that is replaced whole.

use super::damage::FileError;
use super::folder::Folder;

/// The file of an index. A crash at any moment leaves the old bytes or the new ones under its name.
#[derive(Debug, Clone)]
pub struct IndexFile {
    name: String,
}

impl IndexFile {
    /// The file `name` in any folder.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// The name of the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes of the file; `None` if there is none. An index checks them when it is restored.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn read(&self, folder: &mut dyn Folder) -> Result<Option<Vec<u8>>, FileError> {
        folder.read(&self.name).map_err(|source| self.error("read", source))
    }

    /// Writes the bytes beside the file, makes them durable and renames them over it.
    ///
    /// # Errors
    /// [`FileError::Io`]; the file then holds its old bytes, or the new ones if only the last sync failed.
    pub fn write(&self, folder: &mut dyn Folder, bytes: &[u8]) -> Result<(), FileError> {
        let beside = format!("{}.new", self.name);
        folder.write(&beside, bytes).map_err(|source| self.error("write", source))?;
        folder.sync(&beside).map_err(|source| self.error("sync", source))?;
        folder.rename(&beside, &self.name).map_err(|source| self.error("rename", source))?;
        folder.sync_folder().map_err(|source| self.error("sync", source))
    }

    fn error(&self, action: &'static str, source: std::io::Error) -> FileError {
        FileError::Io { action, name: self.name.clone(), source }
    }
}
