use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memmap2::Mmap;

/// A file that could not be mapped into memory.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct MapError {
    /// The file.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

/// Maps a file into memory, read-only. The bytes are shared, not copied: clones and slices of them keep the file mapped.
///
/// The file must not be changed while it is mapped: another process that truncates it would end this one with a
/// bus error. That is the price every reader of mapped weights pays (safetensors, ONNX Runtime, llama.cpp); model files are
/// written once and then read.
///
/// # Errors
/// If the file cannot be opened or mapped, or is not a regular file.
pub fn map_file(path: impl AsRef<Path>) -> Result<Bytes, MapError> {
    let path = path.as_ref();
    let map = || {
        // Looked at before it is opened: opening a pipe waits for whoever writes to it, perhaps for ever, and a device has no size.
        let kind = std::fs::metadata(path)?;
        if kind.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        if !kind.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::new());
        }
        // SAFETY: the map is read-only and lives as long as the `Bytes` that own it. The one thing the compiler cannot
        // rule out, a change of the file by somebody else, is stated above.
        #[expect(
            unsafe_code,
            reason = "mapping a file is unsafe by nature; this is the only place that does"
        )]
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Bytes::from_owner(map))
    };
    map().map_err(|source| MapError { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(map_file(&path).unwrap(), "abc");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(map_file(&path).unwrap(), "");
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = map_file(folder.path().join("missing")).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
        let error = map_file(folder.path()).unwrap_err();
        assert!(error.to_string().contains("it is a folder"), "{error}");
    }
    /// A pipe that nobody writes to, by itself and through a link.
    #[cfg(unix)]
    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        /// A refusal takes no time at all; a machine may be busy.
        const LONGEST: std::time::Duration = std::time::Duration::from_secs(10);
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for path in [pipe, link] {
            let (sender, receiver) = std::sync::mpsc::channel();
            let tried = path.clone();
            std::thread::spawn(move || sender.send(map_file(tried)));
            let error = receiver.recv_timeout(LONGEST).expect("it waits for the pipe").unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("cannot read {}: it is not a regular file", path.display())
            );
        }
    }
}
