//! The master key, which encrypts message contents and secrets in the database: configured, or a file in the data
//! folder that only its owner can read.

use crate::config::Config;
use anyhow::Context;
use kero_store::MasterKey;
use secrecy::ExposeSecret;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A key and where it came from.
pub struct Found {
    pub key: MasterKey,
    /// The file that was made for it just now.
    pub made: Option<PathBuf>,
}

/// The configured key, else the file's, else a new one in a new file.
pub fn find(config: &Config) -> anyhow::Result<Found> {
    if let Some(text) = &config.master_key {
        let key = parse(text.expose_secret()).context("KERO_MASTER_KEY")?;
        return Ok(Found { key, made: None });
    }
    let path = file(config);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            warn_when_open(&path);
            let key = parse(&text).with_context(|| format!("the master key file {}", path.display()))?;
            Ok(Found { key, made: None })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = make(&path).with_context(|| format!("the master key file {} cannot be made", path.display()))?;
            Ok(Found { key, made: Some(path) })
        }
        Err(error) => Err(error).with_context(|| format!("the master key file {} cannot be read", path.display())),
    }
}

/// Where the generated key lies.
pub fn file(config: &Config) -> PathBuf {
    config.data_dir.join("master.key")
}

fn parse(text: &str) -> anyhow::Result<MasterKey> {
    let text = text.trim();
    let parsed = if text.len() == 64 { MasterKey::from_hex(text) } else { MasterKey::from_base64(text) };
    parsed.context("not a master key: 64 hexadecimal digits, or 32 bytes in base64")
}

/// Writes a new key so that it is either there whole, and on the disk, or not at all.
fn make(path: &Path) -> anyhow::Result<MasterKey> {
    let key = MasterKey::generate();
    let unfinished = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    writeln!(file, "{}", key.to_hex().as_str())?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(key)
}

fn warn_when_open(path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "others can read the master key; run: chmod 600 on it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_once_with_mode_0600() {
        let place = tempfile::tempdir().unwrap();
        let config = Config { data_dir: place.path().to_owned(), ..Config::defaults().unwrap() };
        assert!(find(&config).unwrap().made.is_some());
        let mode = std::fs::metadata(file(&config)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(file(&config)).unwrap();
        assert!(find(&config).unwrap().made.is_none());
        assert_eq!(std::fs::read_to_string(file(&config)).unwrap(), text);
    }

    #[test]
    fn refuses_what_is_not_a_key() {
        let place = tempfile::tempdir().unwrap();
        let config = |text: &str| Config {
            data_dir: place.path().to_owned(),
            master_key: Some(text.to_owned().into()),
            ..Config::defaults().unwrap()
        };
        assert!(find(&config(&"ab".repeat(32))).is_ok());
        for wrong in ["short", &"zz".repeat(32)] {
            let Err(error) = find(&config(wrong)) else { panic!("{wrong} was taken") };
            assert!(!format!("{error:#}").contains(wrong));
        }
    }
}
