//! The exclusive lock on the data folder: two processes with one folder would hold the same WhatsApp accounts twice.
//!
//! The kernel drops the lock when the process ends, however it ends; nothing stale is left to clean up.

use anyhow::{Context, bail};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Locks `folder` (made when missing), or says who holds it and what to do.
pub fn folder(folder: &Path) -> anyhow::Result<Lock> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("the data folder {} cannot be made; set KERO_DATA_DIR", folder.display()))?;
    file(&folder.join("kero.lock"), &format!("the data folder {}", folder.display()), "KERO_DATA_DIR")
}

/// Locks an SQLite file that lies outside of the data folder: another process with another data folder could open it.
pub fn database(path: &Path) -> anyhow::Result<Lock> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    file(&PathBuf::from(beside), &format!("the database {}", path.display()), "KERO_DATABASE_URL")
}

fn file(path: &Path, what: &str, setting: &str) -> anyhow::Result<Lock> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("the lock file {} cannot be opened", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                pid => format!("process {pid}"),
            };
            bail!("{what} is locked by {holder}: stop that process, or set {setting} to another place");
        }
        Err(TryLockError::Error(why)) => {
            return Err(why).with_context(|| format!("{what} cannot be locked; does its file system support locks?"));
        }
    }
    // For the message above; the lock itself does not depend on the content.
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("the lock file {} cannot be written", path.display()))?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_second_lock_names_the_process_and_the_setting() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        let held = super::folder(&data).unwrap();
        let refused = super::folder(&data).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(refused.contains("KERO_DATA_DIR"), "{refused}");
        drop(held);
        super::folder(&data).unwrap();
    }

    #[test]
    fn an_outside_database_has_its_own_lock() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.db");
        let _held = super::database(&path).unwrap();
        assert!(super::database(&path).unwrap_err().to_string().contains("KERO_DATABASE_URL"));
    }
}
