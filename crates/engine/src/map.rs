use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use memmap2::Mmap;

/// The maps that are alive, so that [`release`] can tell a mapped file's bytes from others.
static MAPS: Mutex<Vec<Weak<Mmap>>> = Mutex::new(Vec::new());

/// A map, as the owner of `Bytes`.
struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

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
        let map = Arc::new(map);
        let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
        maps.retain(|map| map.strong_count() > 0);
        maps.push(Arc::downgrade(&map));
        Ok(Bytes::from_owner(Mapped(map)))
    };
    map().map_err(|source| MapError { path: path.to_path_buf(), source })
}

/// Lets go of the memory that bytes of a mapped file occupy, as weights do that have been copied into another form. They stay what they are, and are read
/// from the file again when somebody looks at them. Nothing happens to bytes that are not of a file which [`map_file`] has mapped, and on Windows.
///
/// ```
/// let (folder, bytes) = (std::env::temp_dir(), b"weights");
/// let path = folder.join(format!("released-{}", std::process::id()));
/// std::fs::write(&path, bytes)?;
/// let mapped = engine::map_file(&path)?;
/// engine::release(&mapped);
/// assert_eq!(mapped, bytes[..]);
/// # drop(mapped);
/// # std::fs::remove_file(path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn release(bytes: &[u8]) {
    #[cfg(unix)]
    {
        let start = bytes.as_ptr() as usize;
        let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
        let of_map = maps.iter().filter_map(Weak::upgrade).find_map(|map| {
            let offset = start.checked_sub(map.as_ptr() as usize)?;
            (offset + bytes.len() <= map.len()).then_some((map, offset))
        });
        if let Some((map, offset)) = of_map.filter(|_| !bytes.is_empty()) {
            // SAFETY: the map is read-only and of a file, and was never written, so that its pages are the file's: what is let go of is read again, the same.
            #[expect(unsafe_code, reason = "what it could lose, changes to the pages, cannot be there")]
            let advised = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, bytes.len())
            };
            // It is advice: where it is not taken, nothing is lost but memory.
            let _ = advised;
        }
    }
    #[cfg(not(unix))]
    let _ = bytes;
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
    fn what_is_released_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        let bytes: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = map_file(&path).unwrap();
        for part in [0..100_000, 5000..5001, 4096..70_001, 99_999..100_000, 7..7] {
            release(&map[part]);
            assert!(map == bytes);
        }
        // What is not mapped stays.
        let own = bytes.clone();
        release(&own);
        assert!(own == bytes);
        // A map that is gone leaves nothing behind that could be taken for it.
        drop(map);
        release(&own);
        assert!(own == bytes);
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
