//! Notices when files have changed: `gateway.toml`, or the certificates that it names.

use std::path::PathBuf;
use std::time::Duration;

/// Compares the text, not the time of the last change: some file systems know only seconds, and a ConfigMap of
/// Kubernetes is a link that is replaced. The files are small.
pub struct Watch<F> {
    files: F,
    /// The contents that the caller has seen.
    known: Texts,
}

/// The content of each file. `None` if the file could not be read.
type Texts = Vec<(PathBuf, Option<Vec<u8>>)>;

const INTERVAL: Duration = Duration::from_secs(1);

impl<F: Fn() -> Vec<PathBuf>> Watch<F> {
    /// `files` may return others each time.
    pub fn new(files: F) -> Self {
        let known = read(&files);
        Self { files, known }
    }

    /// The caller reads the files now.
    pub fn catch_up(&mut self) {
        self.known = read(&self.files);
    }

    /// Returns when the files are others than the caller knows, and have been the same for a second: an editor may
    /// write one in parts, and a certificate is replaced before its key.
    pub async fn changed(&mut self) {
        let mut before = self.known.clone();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = read(&self.files);
            if now == before && now != self.known {
                self.known = now;
                return;
            }
            before = now;
        }
    }
}

fn read(files: impl Fn() -> Vec<PathBuf>) -> Texts {
    let files = files().into_iter();
    files.map(|file| (file.clone(), std::fs::read(&file).ok())).collect()
}
