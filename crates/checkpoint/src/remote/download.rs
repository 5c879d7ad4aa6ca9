//! One file: from the hub into `blobs/`, and a link to it in the snapshot.
//!
//! A file that is not whole yet is `blobs/<etag>.parity-incomplete`, and a download that was cut short goes on from there. Python's client
//! has a name of its own for it: what is in that one need not be a beginning, since parts may be written in any order. Only what has the
//! promised length is renamed to `blobs/<etag>`.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use hf_hub::Repo;
use ureq::http::{StatusCode, header};

use super::client::{Client, FileInfo};
use super::{HubError, Remote};
use crate::hub::is_one_name;

/// How often a transfer may break off before it is given up.
const MAX_CUTS: u32 = 10;

/// How often one may break off in a row without a single new byte.
const MAX_BARREN_CUTS: u32 = 3;

/// The pause after the first cut; after each further one it is longer by as much.
const PAUSE: Duration = Duration::from_millis(200);

/// How long another process may take for the same file: a gigabyte at two megabytes a second.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many names of its own a download without a lock tries.
const MAX_NAMES: u64 = 1000;

/// How much is read at once.
const PIECE: usize = 1 << 16;

impl Remote {
    /// Downloads a file that the repository has.
    pub(super) fn download(&self, file: &str) -> Result<PathBuf, HubError> {
        let client = self.client()?;
        let (repo, url) = (self.repo(&self.commit), self.url(&client, file));
        let info = client.file_info(&url, &repo, &self.model)?;
        if !is_one_name(&info.etag) {
            return Err(HubError::Answer { url, reason: format!("its ETag is '{}'", info.etag) });
        }
        let transfer = Transfer { remote: self, client: &client, repo: &repo, url: &url, file, info: &info };
        let done = transfer.run();
        self.hub.progress.stopped(file);
        done
    }

    fn url(&self, client: &Client, file: &str) -> String {
        let escaped: String = file
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    char::from(byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect();
        format!("{}/{}/resolve/{}/{escaped}", client.endpoint(), self.name, self.commit)
    }
}

struct Transfer<'a> {
    remote: &'a Remote,
    client: &'a Client,
    repo: &'a Repo,
    url: &'a str,
    file: &'a str,
    info: &'a FileInfo,
}

impl Transfer<'_> {
    fn run(&self) -> Result<PathBuf, HubError> {
        let blobs = self.remote.repository.join("blobs");
        let (blob, pointer) = (blobs.join(&self.info.etag), self.remote.snapshot().join(self.file));
        self.make(&blobs)?;
        let lock = self.lock()?;
        // Another revision may have the same file, or another process may have been faster.
        if !blob.exists() && !pointer.exists() {
            self.fetch(&blob, lock.is_some())?;
        }
        self.make(pointer.parent().unwrap_or(&pointer))?;
        let depth = self.file.matches('/').count();
        place(&blob, &pointer, depth, link).map_err(|source| self.store(&pointer, source))?;
        Ok(pointer)
    }

    /// Downloads the whole of the file, or what was missing of it.
    fn fetch(&self, blob: &Path, is_locked: bool) -> Result<(), HubError> {
        let (mut out, partial) = open_partial(blob, is_locked).map_err(|source| self.store(blob, source))?;
        let filled = self.fill(&mut out, &partial);
        let whole = filled.and_then(|length| {
            out.sync_all().map_err(|source| self.store(&partial, source))?;
            has_length(&out, length).map_err(|source| {
                // What others wrote in is no beginning.
                let _ = fs::remove_file(&partial);
                self.store(&partial, source)
            })
        });
        drop(out);
        match whole {
            Ok(()) => fs::rename(&partial, blob).map_err(|source| self.store(blob, source)),
            Err(error) => {
                // What is left on a full disk is in the way of everything else, and to what was not locked nobody comes back.
                if matches!(error, HubError::NoSpace { .. }) || !is_locked {
                    let _ = fs::remove_file(&partial);
                }
                Err(error)
            }
        }
    }

    /// Gives the length that the file must have now.
    fn fill(&self, out: &mut File, path: &Path) -> Result<u64, HubError> {
        let mut done = out.metadata().map_err(|source| self.store(path, source))?.len();
        // Without a length nobody can tell whether what is there belongs to this file's beginning alone.
        if self.info.size.is_none_or(|size| done > size) {
            self.begin_anew(out, path, &mut done)?;
        }
        let (mut cuts, mut barren) = (0, 0);
        loop {
            self.remote.hub.progress.downloading(self.file, done, self.info.size);
            if self.info.size == Some(done) {
                return Ok(done);
            }
            let before = done;
            let (reason, error) = match self.receive(out, path, &mut done) {
                Ok(None) => return Ok(done),
                Ok(Some(reason)) => (reason, None),
                Err(error @ HubError::Unreachable { .. }) => (error.to_string(), Some(error)),
                Err(error) => return Err(error),
            };
            cuts += 1;
            barren = if done > before { 0 } else { barren + 1 };
            if cuts >= MAX_CUTS || barren >= MAX_BARREN_CUTS {
                return Err(error.filter(|_| done == 0).unwrap_or_else(|| HubError::CutShort {
                    file: self.file.to_owned(),
                    found: done,
                    promised: self.info.size.map_or_else(|| "unknown".to_owned(), |size| size.to_string()),
                    reason,
                }));
            }
            sleep(PAUSE * cuts);
        }
    }

    /// Asks for the rest of the file once, and writes what comes; gives why it broke off, if so.
    fn receive(&self, out: &mut File, path: &Path, done: &mut u64) -> Result<Option<String>, HubError> {
        let response = self.client.file(self.url, *done, self.repo, &self.remote.model)?;
        let answer = |reason: String| HubError::Answer { url: self.url.to_owned(), reason };
        let text = |name| response.headers().get(name)?.to_str().ok();
        let mut total = None;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = text(header::CONTENT_RANGE).unwrap_or_default();
            if !range.starts_with(&format!("bytes {done}-")) {
                return Err(answer(format!("asked for bytes from {done}, it sends '{range}'")));
            }
            total = range.rsplit_once('/').and_then(|(_, total)| total.parse::<u64>().ok());
        } else {
            self.begin_anew(out, path, done)?;
            if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(Some("its server cannot go on from there".to_owned()));
            }
        }
        let rest = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        let too_long = |rest| answer(format!("it sends {rest} bytes more after {done}"));
        let sent = rest.map(|rest| done.checked_add(rest).ok_or_else(|| too_long(rest))).transpose()?;
        // A part of a file need not go on to its end.
        let sent = total.or(sent);
        let is_chunked = text(header::TRANSFER_ENCODING).is_some_and(|encoding| encoding.contains("chunked"));
        let expected = match (self.info.size, sent) {
            (Some(size), Some(sent)) if size != sent => {
                return Err(answer(format!(
                    "it sends a file of {sent} bytes, and the hub says it has {size}"
                )));
            }
            (size, sent) => size.or(sent),
        };
        if expected.is_none() && !is_chunked {
            return Err(answer(
                "it does not say how long the file is, so that nobody can tell whether it is whole".into(),
            ));
        }

        let mut body = response.into_body().into_reader();
        let mut piece = vec![0; PIECE];
        loop {
            let count = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Some(error.to_string())),
            };
            if expected.is_some_and(|size| done.saturating_add(count as u64) > size) {
                self.begin_anew(out, path, done)?;
                return Err(answer("it sends more than the file has".into()));
            }
            out.write_all(&piece[..count]).map_err(|source| self.store(path, source))?;
            *done += count as u64;
            self.remote.hub.progress.downloading(self.file, *done, expected);
        }
        let is_cut = expected.is_some_and(|size| *done < size);
        Ok(is_cut.then(|| "the connection was closed".to_owned()))
    }

    fn begin_anew(&self, out: &File, path: &Path, done: &mut u64) -> Result<(), HubError> {
        if *done > 0 {
            out.set_len(0).map_err(|source| self.store(path, source))?;
            *done = 0;
        }
        Ok(())
    }

    /// Python's client holds the same lock.
    fn lock(&self) -> Result<Option<File>, HubError> {
        let cache = self.remote.hub.cache.folder();
        let folder = cache.join(".locks").join(self.remote.repository.file_name().unwrap_or_default());
        self.make(&folder)?;
        let path = folder.join(format!("{}.lock", self.info.etag));
        let file = File::options().read(true).append(true).create(true).open(&path);
        let file = file.map_err(|source| self.store(&path, source))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                // A file system without locks: each writer has a file of its own.
                Err(TryLockError::Error(_)) => return Ok(None),
                Err(TryLockError::WouldBlock) if begun.elapsed() > PATIENCE => {
                    return Err(HubError::Busy { file: self.file.to_owned(), lock: path });
                }
                Err(TryLockError::WouldBlock) => sleep(PAUSE),
            }
        }
    }

    fn make(&self, folder: &Path) -> Result<(), HubError> {
        fs::create_dir_all(folder).map_err(|source| self.store(folder, source))
    }

    fn store(&self, path: &Path, source: io::Error) -> HubError {
        HubError::store(self.file, self.remote.hub.cache.folder(), path, source)
    }
}

/// Puts a blob into a snapshot: as a relative link, so that a cache can be moved; where links are not possible, the file itself goes there.
fn place(
    blob: &Path,
    pointer: &Path,
    depth: usize,
    link: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    if pointer.exists() {
        return Ok(());
    }
    // A link whose file was pruned.
    if pointer.is_symlink() {
        fs::remove_file(pointer)?;
    }
    // From snapshots/<commit>/ and what is below.
    let mut target: PathBuf = std::iter::repeat_n("..", depth + 2).collect();
    target.push("blobs");
    target.push(blob.file_name().unwrap_or_default());
    match link(&target, pointer) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if is_refusal(&error) => fs::rename(blob, pointer),
        Err(error) => Err(error),
    }
}

/// Whether there are no links here, for nobody or not for this user.
fn is_refusal(error: &io::Error) -> bool {
    /// `ERROR_PRIVILEGE_NOT_HELD`: on Windows links are for administrators, and for developers.
    const NO_PRIVILEGE: i32 = 1314;
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
        || cfg!(windows) && error.raw_os_error() == Some(NO_PRIVILEGE)
}

/// The file beside a blob that it is written to: what a download before this one left, if nobody else can be writing there, else one
/// that nobody else has.
fn open_partial(blob: &Path, is_locked: bool) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let beside = |between: String| {
        let mut name = blob.file_name().unwrap_or_default().to_owned();
        name.push(format!("{between}.parity-incomplete"));
        blob.with_file_name(name)
    };
    let mut options = File::options();
    options.read(true).append(true);
    if is_locked {
        let path = beside(String::new());
        return Ok((options.create(true).open(&path)?, path));
    }
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = beside(format!(".{}-{number}", process::id()));
        match options.create_new(true).open(&path) {
            // Of a process of the same number, on another machine or long ago.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MAX_NAMES => {}
            opened => return Ok((opened?, path)),
        }
    }
}

/// An error, if the file has another length than was written to it.
fn has_length(file: &File, length: u64) -> io::Result<()> {
    let found = file.metadata()?.len();
    if found == length {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "it has {found} bytes, and {length} were written: something else writes there; run the command again"
    )))
}

#[cfg(unix)]
fn link(target: &Path, pointer: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

#[cfg(windows)]
fn link(target: &Path, pointer: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, pointer)
}

#[cfg(not(any(unix, windows)))]
fn link(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (blob, pointer) =
            (folder.path().join("blobs/abc"), folder.path().join("snapshots/0123/onnx/model.onnx"));
        for path in [&blob, &pointer] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::write(&blob, "graph").unwrap();
        (folder, blob, pointer)
    }

    #[cfg(unix)]
    #[test]
    fn a_blob_is_linked_relatively_and_a_broken_link_mended() {
        let (_folder, blob, pointer) = cache();
        std::os::unix::fs::symlink("../../../blobs/pruned", &pointer).unwrap();
        for _ in 0..2 {
            place(&blob, &pointer, 1, link).unwrap();
            assert_eq!(fs::read_link(&pointer).unwrap(), Path::new("../../../blobs/abc"));
            assert_eq!(fs::read(&pointer).unwrap(), b"graph");
        }
    }

    #[test]
    fn where_links_are_not_possible_the_file_itself_is_in_the_snapshot() {
        let (_folder, blob, pointer) = cache();
        place(&blob, &pointer, 1, |_, _| Err(io::ErrorKind::PermissionDenied.into())).unwrap();
        assert!(!pointer.is_symlink() && !blob.exists());
        assert_eq!(fs::read(&pointer).unwrap(), b"graph");
    }

    #[test]
    fn a_link_that_fails_for_another_reason_is_an_error_and_the_blob_stays() {
        let (_folder, blob, pointer) = cache();
        let error = place(&blob, &pointer, 1, |_, _| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(blob.exists() && !pointer.exists());
    }

    #[test]
    fn without_a_lock_each_has_a_file_of_its_own_and_with_one_the_last_is_gone_on_with() {
        let (_folder, blob, _) = cache();
        let open = |is_locked| open_partial(&blob, is_locked).unwrap();
        let ((mut first, first_path), (_, second_path)) = (open(false), open(false));
        assert_ne!(first_path, second_path);
        first.write_all(b"one").unwrap();
        assert_eq!(fs::metadata(&second_path).unwrap().len(), 0);
        has_length(&first, 3).unwrap();
        assert!(has_length(&first, 2).unwrap_err().to_string().contains("it has 3 bytes, and 2"));

        let (mut shared, path) = open(true);
        shared.write_all(b"begin").unwrap();
        assert_eq!(path.file_name().unwrap(), "abc.parity-incomplete");
        assert_eq!(open(true).0.metadata().unwrap().len(), 5);
    }
}
