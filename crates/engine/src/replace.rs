use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Writes a file as a whole or not at all: a reader never sees half of it, and a file may be replaced by something that is still
/// mapped from it.
///
/// The bytes go to a hidden file beside it first, which is then renamed and, if anything fails, removed.
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
    let path = path.as_ref();
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not the name of a file"));
    };
    let mut partial_name = OsString::from(".");
    partial_name.push(name);
    partial_name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(partial_name);
    let mut file = File::create_new(&partial)?;
    let written = write(&mut file).and_then(|()| file.sync_all());
    drop(file);
    written.and_then(|()| fs::rename(&partial, path)).inspect_err(|_| {
        // The error that led here is the one to tell; a file left over is the lesser harm.
        let _ = fs::remove_file(&partial);
    })
}

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
}
