//! Plugins: uploaded versions, which of them is active, and what the operator gave and set.

use crate::seal::place;
use crate::sql::values;
use crate::writer::{Op, Tx, work};
use crate::{Store, StoreError};
use kero_domain::Timestamp;
use sea_orm::{QueryResult, Value};
use serde_json::Value as Json;
use std::sync::Arc;

/// A plugin: what holds for all of its versions.
#[derive(Debug, Clone)]
pub struct Plugin {
    pub name: String,
    /// The version that is called.
    pub active: Option<String>,
    /// The one that was active before.
    pub previous: Option<String>,
    pub suspended: bool,
    /// What the operator gave; `None` before anybody decided.
    pub grants: Option<Json>,
    /// Settings, secrets included.
    pub config: Option<Json>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// An uploaded version. Never changes.
#[derive(Debug, Clone)]
pub struct PluginVersion {
    pub plugin: String,
    pub version: String,
    /// Of the artefact.
    pub hash: String,
    pub manifest: Json,
    /// What the upload was answered.
    pub report: Json,
    pub bytes: u64,
    pub created_at: Timestamp,
}

/// A version to keep.
#[derive(Debug, Clone)]
pub struct NewPluginVersion {
    pub plugin: String,
    pub version: String,
    pub hash: String,
    pub manifest: Json,
    pub report: Json,
    pub artefact: Vec<u8>,
}

/// What to change of a plugin; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct PluginChange {
    pub active: Option<Option<String>>,
    pub previous: Option<Option<String>>,
    pub suspended: Option<bool>,
    pub grants: Option<Json>,
    pub config: Option<Json>,
}

fn config_place(name: &str) -> String {
    place("plugins.config", 0, name)
}

impl Store {
    /// Keeps a version, and its plugin when it is the first. False when there is one of that name and version.
    pub async fn add_plugin_version(&self, new: NewPluginVersion) -> Result<bool, StoreError> {
        let new = Arc::new(new);
        self.submit(0, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let new = Arc::clone(&new);
                Box::pin(async move { add(tx, &new).await })
            }))
        })
        .await
    }

    /// By name.
    pub async fn plugins(&self) -> Result<Vec<Plugin>, StoreError> {
        let rows = self.reader().all("SELECT * FROM plugins ORDER BY name", Vec::new()).await?;
        rows.iter().map(|row| self.read_plugin(row)).collect()
    }

    pub async fn plugin(&self, name: &str) -> Result<Option<Plugin>, StoreError> {
        let row = self.reader().one("SELECT * FROM plugins WHERE name = $1", values![name]).await?;
        row.as_ref().map(|row| self.read_plugin(row)).transpose()
    }

    /// Newest first.
    pub async fn plugin_versions(&self, name: &str) -> Result<Vec<PluginVersion>, StoreError> {
        let sql = "SELECT plugin, version, hash, manifest, report, bytes, created_at FROM plugin_versions
                   WHERE plugin = $1 ORDER BY created_at DESC, version DESC";
        self.reader().all(sql, values![name]).await?.iter().map(read_version).collect()
    }

    pub async fn plugin_version(&self, name: &str, version: &str) -> Result<Option<PluginVersion>, StoreError> {
        let sql = "SELECT plugin, version, hash, manifest, report, bytes, created_at FROM plugin_versions
                   WHERE plugin = $1 AND version = $2";
        self.reader().one(sql, values![name, version]).await?.as_ref().map(read_version).transpose()
    }

    /// The uploaded bytes.
    pub async fn plugin_artefact(&self, name: &str, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT artefact FROM plugin_versions WHERE plugin = $1 AND version = $2";
        let row = self.reader().one(sql, values![name, version]).await?;
        Ok(row.map(|row| row.try_get("", "artefact")).transpose()?)
    }

    /// False when there is no such plugin.
    pub async fn update_plugin(&self, name: &str, change: PluginChange) -> Result<bool, StoreError> {
        let config = match &change.config {
            Some(config) => {
                let bytes = serde_json::to_vec(config).map_err(|_| StoreError::bug("settings do not serialise"))?;
                Some(self.sealer().seal(&config_place(name), &bytes)?)
            }
            None => None,
        };
        let (name, change) = (name.to_owned(), Arc::new(change));
        self.submit(0, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let (name, change, config) = (name.clone(), Arc::clone(&change), config.clone());
                Box::pin(async move { update(tx, &name, &change, config).await })
            }))
        })
        .await
    }

    /// With its versions, storage and calls. False when there is no such plugin.
    pub async fn delete_plugin(&self, name: &str) -> Result<bool, StoreError> {
        // there may be millions of calls: no transaction holds up the others for all of them
        while self.take_calls(name).await? > 0 {}
        let name = name.to_owned();
        self.submit(0, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let name = name.clone();
                Box::pin(async move {
                    tx.db.run("DELETE FROM hook_kv WHERE plugin = $1", values![name.clone()]).await?;
                    Ok(tx.db.run("DELETE FROM plugins WHERE name = $1", values![name]).await? > 0)
                })
            }))
        })
        .await
    }

    fn read_plugin(&self, row: &QueryResult) -> Result<Plugin, StoreError> {
        let name: String = row.try_get("", "name")?;
        let config = match row.try_get::<Option<Vec<u8>>>("", "config")? {
            Some(sealed) => {
                let bytes = self.sealer().open("plugin's settings", &config_place(&name), &sealed)?;
                Some(serde_json::from_slice(&bytes).map_err(|_| StoreError::Corrupt("plugin's settings"))?)
            }
            None => None,
        };
        Ok(Plugin {
            active: row.try_get("", "active")?,
            previous: row.try_get("", "previous")?,
            suspended: row.try_get("", "suspended")?,
            grants: row
                .try_get::<Option<String>>("", "grants")?
                .map(|text| json("plugin's grants", &text))
                .transpose()?,
            config,
            created_at: Timestamp(row.try_get("", "created_at")?),
            updated_at: Timestamp(row.try_get("", "updated_at")?),
            name,
        })
    }
}

fn json(what: &'static str, text: &str) -> Result<Json, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(what))
}

fn read_version(row: &QueryResult) -> Result<PluginVersion, StoreError> {
    Ok(PluginVersion {
        plugin: row.try_get("", "plugin")?,
        version: row.try_get("", "version")?,
        hash: row.try_get("", "hash")?,
        manifest: json("plugin's manifest", &row.try_get::<String>("", "manifest")?)?,
        report: json("plugin's report", &row.try_get::<String>("", "report")?)?,
        bytes: u64::try_from(row.try_get::<i64>("", "bytes")?).unwrap_or(0),
        created_at: Timestamp(row.try_get("", "created_at")?),
    })
}

async fn add(tx: &Tx, new: &NewPluginVersion) -> Result<bool, StoreError> {
    let now = Timestamp::now().0;
    let sql = "INSERT INTO plugins (name, suspended, created_at, updated_at) VALUES ($1, $2, $3, $4)
               ON CONFLICT DO NOTHING";
    tx.db.run(sql, values![new.plugin.clone(), false, now, now]).await?;
    let sql = "INSERT INTO plugin_versions (plugin, version, hash, manifest, report, bytes, artefact, created_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";
    let values = values![
        new.plugin.clone(),
        new.version.clone(),
        new.hash.clone(),
        new.manifest.to_string(),
        new.report.to_string(),
        i64::try_from(new.artefact.len()).unwrap_or(i64::MAX),
        new.artefact.clone(),
        now
    ];
    Ok(tx.db.run(sql, values).await? > 0)
}

async fn update(tx: &Tx, name: &str, change: &PluginChange, config: Option<Vec<u8>>) -> Result<bool, StoreError> {
    let mut columns = vec!["updated_at = $2".to_owned()];
    let mut values = values![name, Timestamp::now().0];
    let mut set = |column: &str, value: Value| {
        values.push(value);
        columns.push(format!("{column} = ${}", values.len()));
    };
    if let Some(active) = &change.active {
        set("active", Value::from(active.clone()));
    }
    if let Some(previous) = &change.previous {
        set("previous", Value::from(previous.clone()));
    }
    if let Some(suspended) = change.suspended {
        set("suspended", Value::from(suspended));
    }
    if let Some(grants) = &change.grants {
        set("grants", Value::from(grants.to_string()));
    }
    if let Some(config) = config {
        set("config", Value::from(config));
    }
    let sql = format!("UPDATE plugins SET {} WHERE name = $1", columns.join(", "));
    Ok(tx.db.run(sql, values).await? > 0)
}
