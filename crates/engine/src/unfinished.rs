//! Files and folders in the making: hidden until they are whole, and gone if they never are.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is being made. Whoever makes, renames or removes one holds the lock.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// How many names are tried; each is taken only by what another process of the same id left behind.
const MAX_NAMES: usize = 1000;

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every file and folder in the making, for a program that ends before they are whole, by a
/// signal say. None can be finished or begun afterwards: who tries waits for the end of the
/// process.
pub fn remove_unfinished() {
    let mut all = unfinished();
    all.drain(..).rev().for_each(|path| remove(&path));
    std::mem::forget(all);
}

/// The error that led here is the one to tell; a file left over is the lesser harm.
fn remove(path: &Path) {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let _ = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// A hidden file or folder. It is removed unless it is renamed.
#[derive(Debug)]
pub(crate) struct Unfinished(PathBuf);

impl Unfinished {
    /// A new one beside `path`, which no other thread or process has.
    pub fn create<T>(path: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(Self, T)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut all = unfinished();
        let mut names_left = MAX_NAMES;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let hidden = path.with_file_name(format!(".{}-{number}.partial", process::id()));
            match make(&hidden) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && names_left > 0 => {
                    names_left -= 1
                }
                made => {
                    let made = made?;
                    all.push(hidden.clone());
                    return Ok((Self(hidden), made));
                }
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Puts it in its place.
    pub fn rename(self, place: &Path) -> io::Result<()> {
        let mut all = unfinished();
        let renamed = fs::rename(&self.0, place);
        if renamed.is_ok() {
            all.retain(|path| *path != self.0);
        }
        // It is dropped next, which takes the lock.
        drop(all);
        renamed
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let mut all = unfinished();
        let before = all.len();
        all.retain(|path| *path != self.0);
        if all.len() < before {
            remove(&self.0);
        }
    }
}

/// A folder that gets its files all at once: they are written to [`NewFolder::path`], a hidden
/// folder in it, and moved by [`NewFolder::finish`]. Without that there is nothing, and no folder
/// either where there was none.
#[derive(Debug)]
pub struct NewFolder {
    // Dropped first, so that the folders around it are empty then.
    hidden: Unfinished,
    place: PathBuf,
    made: MadeFolders,
}

/// The folders that were made, the outermost first. They go again if they stay empty.
#[derive(Debug)]
struct MadeFolders(Vec<PathBuf>);

impl Drop for MadeFolders {
    fn drop(&mut self) {
        // Only an empty folder can be removed so.
        self.0.iter().rev().for_each(|path| _ = fs::remove_dir(path));
    }
}

impl NewFolder {
    /// Begins a folder; those above it are made, too.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn create(place: impl AsRef<Path>) -> io::Result<Self> {
        let place = place.as_ref();
        let missing = place.ancestors().filter(|path| *path != OsStr::new("") && !path.exists());
        let mut missing: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
        missing.reverse();
        let made = MadeFolders(missing);
        fs::create_dir_all(place)?;
        let (hidden, ()) = Unfinished::create(&place.join("replaced"), |path| fs::create_dir(path))?;
        Ok(Self { hidden, place: place.to_path_buf(), made })
    }

    /// Where its files are written.
    pub fn path(&self) -> &Path {
        self.hidden.path()
    }

    /// Moves what was written to its place.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn finish(self) -> io::Result<()> {
        let Self { hidden, place, mut made } = self;
        let all = unfinished();
        for entry in fs::read_dir(hidden.path())? {
            let entry = entry?;
            fs::rename(entry.path(), place.join(entry.file_name()))?;
        }
        made.0.clear();
        drop(all);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gets_all_of_its_files_or_none() {
        let outer = tempfile::tempdir().unwrap();
        let place = outer.path().join("a/b");
        let folder = NewFolder::create(&place).unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("inner/one"), "1").unwrap();
        drop(folder);
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0, "there was no folder a");

        // One that was there stays.
        fs::create_dir_all(&place).unwrap();
        drop(NewFolder::create(&place).unwrap());
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
        let folder = NewFolder::create(&place).unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("inner/one"), "1").unwrap();
        folder.finish().unwrap();
        assert_eq!(fs::read_to_string(place.join("inner/one")).unwrap(), "1");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
    }
}
