//! A file that the user names: a file, a pipe, or `-` for standard input. It is opened once, and
//! read once.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, IsTerminal as _, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::memory::{allowed_memory, argument, shown};
use crate::{MapError, map_file};

/// What stands for standard input.
pub const STDIN: &str = "-";

/// How much of a pipe is read at once, in bytes: what Linux lets one hold.
const PART: usize = 1 << 16;

/// Whether it was opened: what came through it will not come again.
static STDIN_TAKEN: AtomicBool = AtomicBool::new(false);

/// How long a named pipe is waited for that nobody writes to.
#[cfg(unix)]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// The bytes of a file that the user names: a file is mapped, as [`map_file`] does it; a pipe, a
/// terminal, or what `-` stands for, is read to its end.
///
/// # Errors
/// As [`map_file`]; if nobody writes to a pipe; and if more comes through it than
/// [`allowed_memory`] lets it make.
pub fn read_file(path: impl AsRef<Path>) -> Result<Bytes, MapError> {
    let path = path.as_ref();
    let failed = |source| MapError { path: shown_path(path).as_ref().into(), source };
    if path.as_os_str() != STDIN && !is_stream(path).map_err(failed)? {
        return map_file(path);
    }
    let allowed = allowed_memory(0);
    let mut stream = open_stream(path)?;
    let (mut bytes, mut part) = (Vec::new(), vec![0; PART]);
    loop {
        let found = stream.read(&mut part).map_err(failed)?;
        if found == 0 {
            break;
        }
        if bytes.len() as u64 + found as u64 > allowed {
            return Err(failed(io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!(
                    "more than {} come through this pipe: save it to a file, or allow more, such as --max-memory {}",
                    shown(allowed),
                    argument(allowed)
                ),
            )));
        }
        bytes.extend_from_slice(&part[..found]);
    }
    Ok(bytes.into())
}

/// What errors call a file: its path, or `standard input`.
pub fn shown_path(path: &Path) -> Cow<'_, str> {
    if path.as_os_str() == STDIN { "standard input".into() } else { path.to_string_lossy() }
}

/// Whether what is at a path can only be read from its beginning to its end, and once: a pipe, a
/// socket, a terminal, or what `-` stands for.
///
/// # Errors
/// What the operating system said.
pub fn is_stream(path: impl AsRef<Path>) -> io::Result<bool> {
    let path = path.as_ref();
    if path.as_os_str() == STDIN {
        return Ok(true);
    }
    let kind = std::fs::metadata(path)?;
    Ok(is_pipe(&kind) || (is_character_device(&kind) && File::open(path)?.is_terminal()))
}

/// Opens what is at a path, once, to be read to its end.
///
/// # Errors
/// What the operating system said. That nobody writes to a pipe is an error of the first read.
pub fn open_stream(path: impl AsRef<Path>) -> Result<Box<dyn Read>, MapError> {
    let path = path.as_ref();
    let open = || -> io::Result<Box<dyn Read>> {
        if path.as_os_str() == STDIN {
            if STDIN_TAKEN.swap(true, Ordering::Relaxed) {
                return Err(io::Error::other("it was read already, and only one file can come through it"));
            }
            return Ok(Box::new(io::stdin()));
        }
        let kind = std::fs::metadata(path)?;
        if kind.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        #[cfg(unix)]
        if is_pipe(&kind) {
            return Ok(Box::new(pipe::Pipe::open(path)?));
        }
        Ok(Box::new(File::open(path)?))
    };
    open().map_err(|source| MapError { path: shown_path(path).as_ref().into(), source })
}

#[cfg(unix)]
fn is_pipe(kind: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    kind.file_type().is_fifo() || kind.file_type().is_socket()
}

#[cfg(unix)]
fn is_character_device(kind: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    kind.file_type().is_char_device()
}

#[cfg(not(unix))]
fn is_pipe(_: &Metadata) -> bool {
    false
}

#[cfg(not(unix))]
fn is_character_device(_: &Metadata) -> bool {
    false
}

#[cfg(unix)]
mod pipe {
    use std::fs::{File, OpenOptions};
    use std::io::{self, Read};
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::path::Path;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use rustix::fs::{OFlags, fcntl_setfl};

    use super::PATIENCE;

    /// How often a pipe without a writer is looked at.
    const LOOKED_AT: Duration = Duration::from_millis(5);

    /// A pipe that is not waited for where nobody writes to it: to open one as usual waits for a
    /// writer, perhaps for ever.
    pub(super) struct Pipe {
        file: File,
        /// Until when a writer may come; `None` once there is or was one.
        until: Option<Instant>,
    }

    impl Pipe {
        pub fn open(path: &Path) -> io::Result<Self> {
            let flags = OFlags::NONBLOCK.bits().cast_signed();
            let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
            // What the shell hands over has had its writer from the beginning: if there is none
            // now, it has ended.
            let is_handed_over = path.starts_with("/dev") || path.starts_with("/proc");
            Ok(Self { file, until: (!is_handed_over).then(|| Instant::now() + PATIENCE) })
        }
    }

    impl Read for Pipe {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            loop {
                match (self.file.read(buffer), self.until) {
                    // Where there is no writer, a pipe seems to be at its end.
                    (Ok(0), Some(until)) if !buffer.is_empty() => {
                        if Instant::now() >= until {
                            let seconds = PATIENCE.as_secs();
                            let why = format!(
                                "it is not a regular file but a pipe, and nobody has written to it for {seconds} s"
                            );
                            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                        }
                        sleep(LOOKED_AT);
                    }
                    (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => {
                        // There is a writer, who may take all the time in the world.
                        self.until = None;
                        fcntl_setfl(&self.file, OFlags::empty())?;
                    }
                    (read, _) => {
                        self.until = None;
                        return read;
                    }
                }
            }
        }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::process::Command;
    use std::thread;

    use super::*;

    fn fifo(folder: &tempfile::TempDir) -> PathBuf {
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        pipe
    }

    /// Its writer comes late, and takes its time.
    #[test]
    fn a_pipe_is_read_to_its_end_and_opened_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = fifo(&folder);
        let writer = {
            let pipe = pipe.clone();
            thread::spawn(move || {
                thread::sleep(std::time::Duration::from_millis(100));
                let mut file = File::options().write(true).open(pipe).unwrap();
                for part in [b"one ", b"two "] {
                    thread::sleep(std::time::Duration::from_millis(50));
                    file.write_all(part).unwrap();
                }
            })
        };
        assert_eq!(read_file(&pipe).unwrap(), "one two ");
        writer.join().unwrap();
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = read_file(fifo(&folder)).unwrap_err().to_string();
        assert!(error.contains("not a regular file but a pipe, and nobody has written to it"), "{error}");
    }

    #[test]
    fn a_file_is_mapped_and_a_folder_or_a_device_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(read_file(&path).unwrap(), "abc");
        for (path, word) in [(folder.path(), "folder"), (Path::new("/dev/zero"), "not a regular file")] {
            assert!(read_file(path).unwrap_err().to_string().contains(word));
        }
    }
}
