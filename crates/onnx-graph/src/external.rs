//! Tensor data in files beside the model.
//!
//! A model comes from somebody else, so its `location`s are not trusted: a path must be relative and without `..`, and is resolved
//! against the folder of the model's path *as given*. What it leads to in the end, through links, must lie below that folder too, or in
//! the same repository of a hub cache, where `snapshots/<commit>/model.onnx_data` is a link to `blobs/<hash>`.

use std::collections::HashMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use engine::memory::{Budget, OverBudget};

use crate::proto::StringStringEntryProto;
use crate::{ExternalFault, GraphError};

/// The files beside one model; each is mapped once.
pub(crate) struct ExternalFiles {
    /// The model's folder, as given; `None` for a model that has none.
    folder: Option<PathBuf>,
    mapped: HashMap<String, Bytes>,
    size: Size,
}

/// Tensors may share bytes, as tied weights do; a million that share a gigabyte would take a
/// petabyte once they are run.
struct Size {
    /// Of all files together.
    files: u64,
    /// Of all tensors together.
    tensors: u64,
    /// For what the tensors are larger than the files.
    budget: Budget,
}

impl Size {
    fn of(model: &str) -> Self {
        Self { files: 0, tensors: 0, budget: Budget::of(model, 0) }
    }

    fn add_file(&mut self, bytes: &Bytes) {
        self.files += bytes.len() as u64;
        self.budget.grow(bytes.len() as u64);
    }

    fn add_tensor(&mut self, bytes: &Bytes) -> Result<(), OverBudget> {
        let beyond = self.tensors.saturating_sub(self.files);
        self.tensors = self.tensors.saturating_add(bytes.len() as u64);
        self.budget.spend(self.tensors.saturating_sub(self.files) - beyond)
    }
}

impl ExternalFiles {
    /// For a model without a folder.
    pub fn none() -> Self {
        Self { folder: None, mapped: HashMap::new(), size: Size::of("the model") }
    }

    /// Beside the model at `path`.
    pub fn beside(path: &Path) -> Self {
        // The parent of a bare file name is the empty path, which means the current folder.
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        Self {
            folder: Some(folder.to_path_buf()),
            mapped: HashMap::new(),
            size: Size::of(&path.display().to_string()),
        }
    }

    /// The `length` bytes that the entries of an `external_data` field describe.
    pub fn data(
        &mut self,
        tensor: &str,
        entries: &[StringStringEntryProto],
        length: usize,
    ) -> Result<Bytes, GraphError> {
        let mut location = "";
        let mut read = || -> Result<Bytes, ExternalFault> {
            location = entry(entries, "location")?.ok_or(ExternalFault::NoLocation)?;
            let offset = number(entries, "offset")?.unwrap_or(0);
            if let Some(found) = number(entries, "length")?
                && found != length as u64
            {
                return Err(ExternalFault::Length { expected: length, found });
            }
            let file = self.file(location)?;
            let out_of_file = || ExternalFault::OutOfFile { offset, length, size: file.len() };
            let start = usize::try_from(offset).map_err(|_| out_of_file())?;
            let end = start.checked_add(length).filter(|&end| end <= file.len()).ok_or_else(out_of_file)?;
            let bytes = file.slice(start..end);
            self.size.add_tensor(&bytes)?;
            Ok(bytes)
        };
        read().map_err(|fault| GraphError::External {
            tensor: tensor.into(),
            location: location.into(),
            fault,
        })
    }

    fn file(&mut self, location: &str) -> Result<Bytes, ExternalFault> {
        let folder = self.folder.as_ref().ok_or(ExternalFault::NoFolder)?;
        if let Some(bytes) = self.mapped.get(location) {
            return Ok(bytes.clone());
        }
        let bytes = engine::map_file(resolve(folder, location)?)?;
        self.size.add_file(&bytes);
        self.mapped.insert(location.into(), bytes.clone());
        Ok(bytes)
    }
}

/// The value of an entry, which may be there once.
fn entry<'a>(entries: &'a [StringStringEntryProto], key: &str) -> Result<Option<&'a str>, ExternalFault> {
    let mut values = entries.iter().filter(|entry| entry.key == key).map(|entry| entry.value.as_str());
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(ExternalFault::KeyTwice(key.into())),
    }
}

fn number(entries: &[StringStringEntryProto], key: &'static str) -> Result<Option<u64>, ExternalFault> {
    let parse =
        |value: &str| value.parse().map_err(|_| ExternalFault::NotANumber { key, value: value.into() });
    entry(entries, key)?.map(parse).transpose()
}

/// The file that a location means, with all links followed.
fn resolve(folder: &Path, location: &str) -> Result<PathBuf, ExternalFault> {
    let mut path = folder.to_path_buf();
    let mut named = false;
    for component in Path::new(location).components() {
        match component {
            Component::Normal(name) => {
                path.push(name);
                named = true;
            }
            Component::CurDir => {}
            Component::ParentDir => return Err(ExternalFault::ParentFolder),
            Component::RootDir | Component::Prefix(_) => return Err(ExternalFault::Absolute),
        }
    }
    if !named {
        return Err(ExternalFault::NoLocation);
    }
    let canonical = |path: &Path| {
        path.canonicalize().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ExternalFault::Missing(path.to_path_buf()),
            _ => ExternalFault::Io { path: path.to_path_buf(), source },
        })
    };
    let (root, target) = (canonical(folder)?, canonical(&path)?);
    let allowed =
        target.starts_with(&root) || hub_repository(&root).is_some_and(|repo| target.starts_with(repo));
    if allowed { Ok(target) } else { Err(ExternalFault::Outside(target)) }
}

/// The folder `models--<org>--<name>` of a hub cache that a path lies in.
fn hub_repository(path: &Path) -> Option<&Path> {
    path.ancestors().find(|ancestor| {
        ancestor.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"models--"))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Vec<StringStringEntryProto> {
        pairs
            .iter()
            .map(|(key, value)| StringStringEntryProto { key: (*key).into(), value: (*value).into() })
            .collect()
    }

    /// A folder with a model's place and ten bytes in `w.bin`.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("w.bin"), b"0123456789").unwrap();
        folder
    }

    fn read(folder: &Path, pairs: &[(&str, &str)], length: usize) -> Result<Bytes, ExternalFault> {
        ExternalFiles::beside(&folder.join("m.onnx"))
            .data("initializer 'w'", &entries(pairs), length)
            .map_err(|error| match error {
                GraphError::External { fault, .. } => fault,
                other => panic!("{other}"),
            })
    }

    #[test]
    fn a_part_of_a_file_is_read() {
        let folder = folder();
        let part = [("location", "w.bin"), ("offset", "3"), ("length", "4"), ("checksum", "?")];
        assert_eq!(read(folder.path(), &part, 4).unwrap(), "3456");
        // Without a length the tensor's own counts.
        assert_eq!(read(folder.path(), &[("location", "./w.bin")], 2).unwrap(), "01");
    }

    #[test]
    fn a_file_is_mapped_once() {
        let folder = folder();
        let mut files = ExternalFiles::beside(&folder.path().join("m.onnx"));
        let pointers: Vec<_> = (0..2)
            .map(|_| files.data("w", &entries(&[("location", "w.bin")]), 10).unwrap().as_ptr())
            .collect();
        assert_eq!(pointers[0], pointers[1]);
    }

    #[test]
    fn locations_that_lead_elsewhere_are_refused() {
        let folder = folder();
        let fault = |location: &str| read(folder.path(), &[("location", location)], 1).unwrap_err();
        assert!(matches!(fault("/etc/hostname"), ExternalFault::Absolute));
        assert!(matches!(fault("../w.bin"), ExternalFault::ParentFolder));
        assert!(matches!(fault("sub/../w.bin"), ExternalFault::ParentFolder));
        assert!(matches!(fault(""), ExternalFault::NoLocation));
        assert!(matches!(fault("."), ExternalFault::NoLocation));
        assert!(matches!(fault("missing.bin"), ExternalFault::Missing(_)));
        assert!(matches!(read(folder.path(), &[], 1).unwrap_err(), ExternalFault::NoLocation));
    }

    #[test]
    fn numbers_are_checked() {
        let folder = folder();
        let fault = |key: &str, value: &str| {
            read(folder.path(), &[("location", "w.bin"), (key, value)], 4).unwrap_err()
        };
        assert!(matches!(fault("offset", "-1"), ExternalFault::NotANumber { key: "offset", .. }));
        assert!(matches!(fault("length", "four"), ExternalFault::NotANumber { key: "length", .. }));
        assert!(matches!(fault("length", "5"), ExternalFault::Length { expected: 4, found: 5 }));
        assert!(matches!(fault("offset", "7"), ExternalFault::OutOfFile { offset: 7, length: 4, size: 10 }));
        assert!(matches!(fault("offset", "18446744073709551615"), ExternalFault::OutOfFile { .. }));
        assert!(matches!(fault("location", "w.bin"), ExternalFault::KeyTwice(_)));
    }

    #[test]
    fn errors_name_tensor_and_file() {
        let folder = folder();
        let error = ExternalFiles::beside(&folder.path().join("m.onnx"))
            .data("initializer 'w'", &entries(&[("location", "gone.bin")]), 1)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("initializer 'w', stored in 'gone.bin': there is no file "), "{error}");
        let error = ExternalFiles::none()
            .data("initializer 'w'", &entries(&[("location", "w.bin")]), 1)
            .unwrap_err()
            .to_string();
        assert!(error.contains("open it from its file"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_may_lead_into_the_same_hub_repository_only() {
        use std::os::unix::fs::symlink;

        let hub = tempfile::tempdir().unwrap();
        let place = |repository: &str, folder: &str| {
            let path = hub.path().join(repository).join(folder);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (blobs, snapshot) = (place("models--a--b", "blobs"), place("models--a--b", "snapshots/1/onnx"));
        let other = place("models--a--other", "blobs");
        fs::write(blobs.join("d0"), b"data").unwrap();
        fs::write(other.join("d1"), b"data").unwrap();
        symlink("../../../blobs/d0", snapshot.join("m.onnx_data")).unwrap();
        symlink(other.join("d1"), snapshot.join("stolen")).unwrap();
        symlink("../../../blobs", snapshot.join("folder")).unwrap();

        assert_eq!(read(&snapshot, &[("location", "m.onnx_data")], 4).unwrap(), "data");
        assert_eq!(read(&snapshot, &[("location", "folder/d0")], 4).unwrap(), "data");
        let fault = read(&snapshot, &[("location", "stolen")], 4).unwrap_err();
        assert!(matches!(fault, ExternalFault::Outside(_)), "{fault}");

        // Outside a hub cache, a link may not leave the folder.
        let folder = folder();
        symlink(blobs.join("d0"), folder.path().join("link")).unwrap();
        let fault = read(folder.path(), &[("location", "link")], 4).unwrap_err();
        assert!(matches!(fault, ExternalFault::Outside(_)), "{fault}");
        symlink("w.bin", folder.path().join("inside")).unwrap();
        assert_eq!(read(folder.path(), &[("location", "inside")], 1).unwrap(), "0");
    }

    proptest! {
        #[test]
        fn no_location_leaves_the_folder(parts in proptest::collection::vec("\\.|\\.\\.|sub|w\\.bin|/|", 0..6)) {
            let outer = folder();
            let inner = outer.path().join("inner");
            fs::create_dir_all(inner.join("sub")).unwrap();
            fs::write(inner.join("sub/w.bin"), b"in").unwrap();
            if let Ok(path) = resolve(&inner, &parts.join("/")) {
                prop_assert!(path.starts_with(inner.canonicalize().unwrap()), "{}", path.display());
            }
        }
    }
}
