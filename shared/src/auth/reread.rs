//! A value read from a file or a folder, and read again after a change, so that keys are rotated without a
//! restart.
//!
//! A writer replaces files by renaming. So a reader sees an old or a new file, never half of one, and a
//! folder's time changes with each file in it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use crate::config::{Secret, Variable};

/// How old a change must be before an unchanged time stamp means unchanged content. Clocks of file systems are
/// coarse: a second change can have the stamp of the first.
const SETTLED: Duration = Duration::from_secs(1);

/// Time of the last change, inode and length.
type Stamp = (SystemTime, u64, u64);

/// The current content of a file. Each use costs one `stat`; the file itself is read only after a change.
pub struct Reread<T> {
    /// `None` for a value that is in no file.
    path: Option<PathBuf>,
    current: RwLock<Current<T>>,
}

struct Current<T> {
    value: Arc<T>,
    /// `None` if the value must be read again.
    stamp: Option<Stamp>,
}

/// A type that can be read from a path.
pub trait FromPath: Sized {
    /// # Errors
    /// The error in the content, without a secret.
    fn from_path(path: &Path) -> Result<Self, String>;
}

impl<T> Reread<T> {
    /// A value that is in no file.
    pub fn fixed(value: T) -> Self {
        Self { path: None, current: RwLock::new(Current { value: Arc::new(value), stamp: None }) }
    }
}

impl<T: FromPath> Reread<T> {
    /// # Errors
    /// When the content is unusable.
    pub fn open(path: &Path) -> Result<Self, String> {
        let stamp = stamp(path);
        let value = Arc::new(T::from_path(path)?);
        Ok(Self { path: Some(path.to_owned()), current: RwLock::new(Current { value, stamp }) })
    }

    /// The value. If its file has become unusable, the last good one.
    pub fn get(&self) -> Arc<T> {
        let known = self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(path) = &self.path else { return known.value.clone() };
        // Before the content is read: a change in between is read at the next use.
        let found = stamp(path);
        if found.is_some() && found == known.stamp {
            return known.value.clone();
        }
        drop(known);
        let read = T::from_path(path);
        let mut known = self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        match read {
            Ok(value) => *known = Current { value: Arc::new(value), stamp: found },
            Err(why) => {
                log::warn!(file = path.display().to_string(), error = why; "keys cannot be read again")
            }
        }
        known.value.clone()
    }
}

impl FromPath for Secret {
    fn from_path(path: &Path) -> Result<Self, String> {
        Self::parse(&path.to_string_lossy())
    }
}

/// The variable is the path.
impl<T: FromPath> Variable for Reread<T> {
    fn parse(text: &str) -> Result<Self, String> {
        Self::open(Path::new(text))
    }
}

/// Differs after a change of the file. `None` if the last change is too recent, or the path cannot be read: then the
/// content may be another.
fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    let changed = found.modified().ok()?;
    // A change in the future, by a clock that was set back, is one of long ago.
    let is_settled = changed.elapsed().map_or(true, |age| age > SETTLED);
    is_settled.then_some((changed, found.ino(), found.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl FromPath for String {
        fn from_path(path: &Path) -> Result<Self, String> {
            let text = std::fs::read_to_string(path).map_err(|why| why.to_string())?;
            if text == "bad" { Err("it is bad".to_owned()) } else { Ok(text) }
        }
    }

    fn written(path: &Path, text: &str, age: Duration) {
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        let file = std::fs::File::options().write(true).open(&new).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    #[test]
    fn a_replaced_file_is_read_again_and_an_unusable_one_leaves_the_last_value() {
        let path = std::env::temp_dir().join(format!("reread-{}", uuid::Uuid::now_v7()));
        let old = Duration::from_secs(60);
        written(&path, "a", old);
        let file = Reread::<String>::open(&path).unwrap();
        assert_eq!(*file.get(), "a");
        written(&path, "b", old / 2);
        assert_eq!(*file.get(), "b");
        written(&path, "bad", old / 3);
        assert_eq!(*file.get(), "b");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*file.get(), "b");
        assert!(Reread::<String>::open(&path).is_err());
    }

    #[test]
    fn a_second_change_within_the_same_tick_is_read_too() {
        let path = std::env::temp_dir().join(format!("reread-{}", uuid::Uuid::now_v7()));
        std::fs::write(&path, "a").unwrap();
        let file = Reread::<String>::open(&path).unwrap();
        let stamp = std::fs::metadata(&path).unwrap().modified().unwrap();
        // The same inode, length and time.
        std::fs::write(&path, "b").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(stamp).unwrap();
        assert_eq!(*file.get(), "b");
        std::fs::remove_file(&path).unwrap();
    }
}
