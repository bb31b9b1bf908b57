//! Output of containers, in files with a bound: one file and the one before it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// A file is put aside when it is larger.
const MAX_FILE: u64 = 8 << 20;

/// Copy a container's output until its last writer has gone.
pub(crate) fn keep(output: OwnedFd, path: PathBuf) -> std::io::Result<()> {
    let mut output = pipe::Receiver::from_owned_fd(output)?;
    tokio::spawn(async move {
        let mut log = Log {
            path,
            open: None,
            size: 0,
        };
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match output.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                // A full disk loses lines; it must not stop the container.
                Ok(n) => drop(log.write(&buffer[..n]).await),
            }
        }
    });
    Ok(())
}

struct Log {
    path: PathBuf,
    open: Option<File>,
    size: u64,
}

impl Log {
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.size > MAX_FILE {
            self.open = None;
            tokio::fs::rename(&self.path, previous(&self.path)).await?;
        }
        let file = match &mut self.open {
            Some(file) => file,
            closed => {
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .open(&self.path)
                    .await?;
                self.size = file.metadata().await?.len();
                closed.insert(file)
            }
        };
        file.write_all(bytes).await?;
        file.flush().await?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// Where the older half is.
pub(crate) fn previous(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}
