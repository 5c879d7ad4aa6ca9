use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::unfinished::Unfinished;

/// Linux follows no more links than this either.
const MAX_LINKS: usize = 40;

/// Writes a file as a whole or not at all: a reader never sees half of it, and a file may be replaced by something that is still
/// mapped from it.
///
/// The bytes go to a hidden file beside it first, which is then renamed and, if anything fails,
/// removed; a program that a signal ends removes it with
/// [`remove_unfinished`](crate::remove_unfinished). A link stays: the file that it leads to is
/// replaced. So do the permissions, and as far as the system allows it the owner, of a file that is
/// replaced; one that may not be written to is not replaced. A device or a pipe, or what
/// `/dev/stdout` stands for, is never replaced: it is written to.
///
/// # Errors
/// What the operating system said, or that the path does not end in a file's name.
pub fn replace_file(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    replace_file_with(path, |file| file.write_all(bytes))
}

/// The same for bytes that are not all in memory: `write` writes them. If it fails, there is no file.
///
/// # Errors
/// As [`replace_file`], and what `write` returns.
pub fn replace_file_with(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut replacement = Replacement::create(path)?;
    write(&mut replacement.file)?;
    replacement.finish()
}

/// A file in the making, as [`replace_file`] makes it, for bytes that come little by little. Without [`Replacement::finish`] there is no file.
#[derive(Debug)]
pub struct Replacement {
    file: File,
    hidden: Option<Hidden>,
}

/// The hidden file, and the one whose place it takes; it goes unless it has taken it.
#[derive(Debug)]
struct Hidden {
    partial: Unfinished,
    place: PathBuf,
}

impl Replacement {
    /// Begins a file.
    ///
    /// # Errors
    /// As [`replace_file`].
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let unnamed = || io::Error::new(io::ErrorKind::InvalidInput, "it is not the name of a file");
        path.as_ref().file_name().ok_or_else(unnamed)?;
        let place = target(path.as_ref())?;
        place.file_name().ok_or_else(unnamed)?;
        if let Some(file) = standard_stream(&place) {
            return Ok(Self { file: file?, hidden: None });
        }
        if is_the_systems(&place) {
            // Behind /dev/stdout may be a file that others write to as well: what they wrote stays.
            return Ok(Self { file: File::options().append(true).open(&place)?, hidden: None });
        }
        let old = match fs::metadata(&place) {
            Ok(old) if old.is_dir() => {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
            }
            // One that may not be written to, or is no file, says so here.
            Ok(old) => Some((File::options().write(true).open(&place)?, old)),
            Err(_) => None,
        };
        let old = match old {
            Some((file, old)) if !old.is_file() => return Ok(Self { file, hidden: None }),
            old => old.map(|(_, old)| old),
        };
        let (partial, file) = Unfinished::create(&place, |path| File::create_new(path))?;
        if let Some(old) = old {
            keep_owner(&file, &old);
            file.set_permissions(old.permissions())?;
        }
        Ok(Self { file, hidden: Some(Hidden { partial, place }) })
    }

    /// Whether what is written goes where it stays at once, to a device or a pipe: then there is no way back to its beginning.
    pub fn is_direct(&self) -> bool {
        self.hidden.is_none()
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// What the operating system said; then what was there before is still there.
    pub fn finish(self) -> io::Result<()> {
        let Self { file, hidden } = self;
        let Some(hidden) = hidden else { return Ok(()) };
        file.sync_all()?;
        drop(file);
        hidden.partial.rename(&hidden.place)
    }
}

impl io::Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl io::Seek for Replacement {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Where a path leads, links in its last part followed; it need not be there.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(next) if !is_the_systems(&path) => path = path.with_file_name("").join(next),
            _ => return Ok(path),
        }
    }
    Err(io::Error::other(format!("there are more than {MAX_LINKS} links to follow")))
}

/// Whether a path stands for something of the system's; a link there may lead to a file that another process has open.
fn is_the_systems(path: &Path) -> bool {
    // That is an ordinary folder, in memory.
    let is_memory = path.starts_with("/dev/shm");
    cfg!(unix) && !is_memory && (path.starts_with("/dev") || path.starts_with("/proc"))
}

/// This process's own standard output or error, where a path stands for it: what else is written
/// there keeps its place. Opened anew, a file behind it would be written from its beginning by one
/// and from its end by the other.
#[cfg(unix)]
fn standard_stream(path: &Path) -> Option<io::Result<File>> {
    use std::os::fd::AsFd as _;
    let cloned = match path.to_str()? {
        "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => {
            let _ = io::stdout().flush();
            io::stdout().as_fd().try_clone_to_owned()
        }
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => io::stderr().as_fd().try_clone_to_owned(),
        _ => return None,
    };
    Some(cloned.map(File::from))
}

#[cfg(not(unix))]
fn standard_stream(_: &Path) -> Option<io::Result<File>> {
    None
}

/// Gives a file the owner and the group of another, as far as the system allows it: to somebody
/// else's file only root may.
#[cfg(unix)]
fn keep_owner(file: &File, old: &fs::Metadata) {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    let is_other = file.metadata().is_ok_and(|new| (new.uid(), new.gid()) != (old.uid(), old.gid()));
    if is_other && fchown(file, Some(old.uid()), Some(old.gid())).is_err() {
        let _ = fchown(file, None, Some(old.gid()));
    }
}

#[cfg(not(unix))]
fn keep_owner(_: &File, _: &fs::Metadata) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("values");
        replace_file(&path, b"one").unwrap();
        replace_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        // A folder cannot be replaced, and nothing is left behind.
        let occupied = folder.path().join("folder");
        fs::create_dir(&occupied).unwrap();
        replace_file(&occupied, b"three").unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(replace_file("..", b"").unwrap_err().to_string().contains("not the name of a file"));
    }
    #[test]
    fn a_disk_that_fills_up_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("values");
        replace_file(&path, b"old").unwrap();
        let error = replace_file_with(&path, |file| {
            file.write_all(b"ne")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_writers_of_one_file_in_one_process_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("values");
        replace_file_with(&path, |outer| {
            outer.write_all(b"outer")?;
            replace_file(&path, b"inner")
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"outer");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_kept_and_new_files_have_the_usual_ones() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
        fs::write(at("usual"), "").unwrap();
        replace_file(at("new"), b"one").unwrap();
        assert_eq!(mode("new"), mode("usual"));
        for kept in [0o600, 0o640, 0o777, 0o666] {
            fs::set_permissions(at("new"), fs::Permissions::from_mode(kept)).unwrap();
            replace_file(at("new"), b"two").unwrap();
            assert_eq!(mode("new"), kept);
        }
        assert_eq!(fs::read(at("new")).unwrap(), b"two");
    }

    /// 255 bytes is what a name may have.
    #[test]
    fn the_longest_name_is_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n".repeat(255));
        replace_file(&path, b"one").unwrap();
        replace_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_its_target_is_replaced_or_made() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("real")).unwrap();
        symlink("real/values", at("link")).unwrap();
        symlink(at("link"), at("again")).unwrap();
        for bytes in [b"one", b"two"] {
            replace_file(at("again"), bytes).unwrap();
            assert_eq!(fs::read(at("real/values")).unwrap(), bytes);
            assert!(at("again").is_symlink() && at("link").is_symlink());
        }
        assert_eq!(fs::read_dir(at("real")).unwrap().count(), 1);
        symlink("circle", at("circle")).unwrap();
        assert!(replace_file(at("circle"), b"").unwrap_err().to_string().contains("links to follow"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_behind_a_descriptor_is_written_to_and_not_replaced() {
        use std::os::fd::AsRawFd as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        // What a shell does for `> out`.
        let mut redirected = File::create(&path).unwrap();
        redirected.write_all(b"before ").unwrap();
        for prefix in ["/dev/fd", "/proc/self/fd"] {
            replace_file(format!("{prefix}/{}", redirected.as_raw_fd()), b"one ").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"before one one ");
        assert_eq!(redirected.metadata().unwrap().len(), 15, "the same file");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_is_written_to_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        for (device, expected) in [("/dev/null", None), ("/dev/full", Some(io::ErrorKind::StorageFull))] {
            let path = folder.path().join("device");
            std::os::unix::fs::symlink(device, &path).unwrap();
            let written = replace_file(&path, b"one");
            assert_eq!(written.err().map(|error| error.kind()), expected, "{device}");
            assert!(path.is_symlink() && !Path::new(device).is_file(), "{device}");
            fs::remove_file(path).unwrap();
        }
    }
}
