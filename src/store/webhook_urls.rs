//! Where the events of many instances go, in one look-up.

use crate::sql::placeholders;
use crate::{Store, StoreError};
use sea_orm::Value;
use std::collections::HashMap;

impl Store {
    /// The URLs of the webhooks (first endpoints) of these instances, by the instance's pk.
    pub async fn webhook_urls(&self, instances: &[i64]) -> Result<HashMap<i64, String>, StoreError> {
        let mut urls = HashMap::new();
        for part in instances.chunks(crate::sql::MAX_BINDS) {
            let sql = format!(
                "SELECT instance_pk, url FROM endpoints WHERE instance_pk IN ({}) ORDER BY id",
                placeholders(0, part.len())
            );
            for row in self.reader().all(sql, part.iter().map(|pk| Value::from(*pk)).collect()).await? {
                urls.entry(row.try_get("", "instance_pk")?).or_insert(row.try_get("", "url")?);
            }
        }
        Ok(urls)
    }
}
