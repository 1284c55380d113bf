//! API keys: the first one, and `kero key`. Only hashes are stored; a key is shown when it is made and never again.

use crate::cli;
use crate::config::Config;
use crate::{boot, lock};
use anyhow::{Context, bail};
use kero_store::Store;
use secrecy::{ExposeSecret, SecretString};

/// A new key: 32 random bytes, with a prefix that secret scanners can look for.
pub fn generate() -> SecretString {
    let bytes: [u8; 32] = rand::random();
    let mut text = String::from("kero_");
    for byte in bytes {
        text.push_str(&format!("{byte:02x}"));
    }
    SecretString::from(text)
}

/// Makes the admin key of the first start: when none is configured and none was ever made.
pub async fn first(store: &Store, config: &Config) -> anyhow::Result<Option<SecretString>> {
    if config.api_key.is_some() || !store.keys().await.context("the API keys cannot be read")?.is_empty() {
        return Ok(None);
    }
    let key = generate();
    let hash = kero_api::hash_key(key.expose_secret());
    store.create_key(hash, Some("first start"), None).await.context("the admin key cannot be stored")?;
    Ok(Some(key))
}

/// Runs `kero key …`, also beside a running gateway.
pub async fn run(config: &Config, command: &cli::Key) -> anyhow::Result<()> {
    // When no gateway runs, none may start while the database is perhaps being migrated.
    let _lock = lock::folder(&config.data_dir).ok();
    let store = boot::open_store(config).await?;
    let result = execute(&store, command).await;
    store.close().await;
    result
}

async fn execute(store: &Store, command: &cli::Key) -> anyhow::Result<()> {
    match command {
        cli::Key::New { instance, name } => {
            let pk = match instance {
                None => None,
                Some(id) => Some(store.instance(id).await?.with_context(|| format!("there is no instance {id}"))?.pk),
            };
            let key = generate();
            let made = store.create_key(kero_api::hash_key(key.expose_secret()), name.as_deref(), pk).await?;
            println!("{}", key.expose_secret());
            eprintln!("key {} was made; it is shown this once, only its hash is stored", made.id);
        }
        cli::Key::List => {
            println!("{:<36}  {:<24}  {:<20}  {:<24}  name", "id", "made", "instance", "revoked");
            for key in store.keys().await? {
                println!(
                    "{:<36}  {:<24}  {:<20}  {:<24}  {}",
                    key.id.to_string(),
                    key.created_at.rfc3339(),
                    key.instance_id.map_or_else(|| "all".to_owned(), |id| id.to_string()),
                    key.revoked_at.map_or_else(|| "-".to_owned(), |at| at.rfc3339()),
                    key.name.unwrap_or_default(),
                );
            }
        }
        cli::Key::Revoke { id } => {
            if !store.revoke_key(*id).await? {
                bail!("there is no such key, or it was revoked before");
            }
            println!("key {id} is revoked");
        }
    }
    Ok(())
}
