//! Instances: the WhatsApp accounts, and who owns them.

use crate::append::{self, EventRow};
use crate::endpoints::{EndpointChange, NewEndpoint};
use crate::entity::{endpoints, instances};
use crate::jobs::word;
use crate::sql::values;
use crate::writer::{Fence, Op, Tx, moving_work, work};
use crate::{Durability, Store, StoreError, device};
use kero_domain::{Cause, InstanceId, InstanceStatus, NewEvent, Timestamp};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect};
use std::sync::Arc;

/// A WhatsApp account that the gateway holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Never given twice: an instance made anew under an old id inherits nothing.
    pub pk: i64,
    pub id: InstanceId,
    pub name: Option<String>,
    /// Should be connected; resumed at start.
    pub wanted: bool,
    pub status: InstanceStatus,
    pub cause: Option<Cause>,
    /// When the status began.
    pub since: Timestamp,
    pub phone: Option<String>,
    pub lid: Option<String>,
    /// With the device part.
    pub jid: Option<String>,
    pub push_name: Option<String>,
    pub sync_history: bool,
    /// Grows whenever the instance gets a new owner.
    pub owner_epoch: i64,
    pub last_connected_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl TryFrom<instances::Model> for Instance {
    type Error = StoreError;
    fn try_from(row: instances::Model) -> Result<Self, StoreError> {
        Ok(Self {
            pk: row.pk,
            id: word("instance id", &row.id)?,
            name: row.name,
            wanted: row.wanted,
            status: word("status", &row.status)?,
            cause: row.cause.as_deref().map(|text| word("cause", text)).transpose()?,
            since: Timestamp(row.since),
            phone: row.phone,
            lid: row.lid,
            jid: row.jid,
            push_name: row.push_name,
            sync_history: row.sync_history,
            owner_epoch: row.owner_epoch,
            last_connected_at: row.last_connected_at.map(Timestamp),
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        })
    }
}

async fn by_pk(tx: &Tx, pk: i64) -> Result<Instance, StoreError> {
    instances::Entity::find_by_id(pk).one(&tx.db).await?.ok_or(StoreError::NotFound)?.try_into()
}

impl Store {
    /// Creates an instance, and its webhook, in one transaction. [`StoreError::Conflict`] when the id exists.
    pub async fn create_instance(
        &self,
        id: &InstanceId,
        name: Option<&str>,
        sync_history: bool,
        webhook: Option<NewEndpoint>,
    ) -> Result<Instance, StoreError> {
        let (id, name, webhook) =
            (id.clone(), name.map(str::to_owned), webhook.map(EndpointChange::from).map(Arc::new));
        let instance: Instance = self
            .submit(0, None, Durability::Power, |answer| {
                Op::Run(work(answer, move |tx| {
                    let (id, name, webhook) = (id.clone(), name.clone(), webhook.clone());
                    Box::pin(async move {
                        let now = Timestamp::now().0;
                        let row = tx
                            .db
                            .one(
                                "INSERT INTO instances (id, name, wanted, status, cause, since, sync_history, owner_epoch,
                                 next_seq, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 1, $6, $6)
                                 ON CONFLICT (id) DO NOTHING RETURNING pk",
                                values![
                                    id.as_str(),
                                    name,
                                    false,
                                    InstanceStatus::Disconnected.as_str(),
                                    Cause::NotPaired.as_str(),
                                    now,
                                    sync_history
                                ],
                            )
                            .await?
                            .ok_or(StoreError::Conflict("instance"))?;
                        let pk: i64 = row.try_get("", "pk")?;
                        if let Some(webhook) = webhook {
                            crate::endpoints::write(tx, Some(pk), None, &webhook).await?;
                        }
                        by_pk(tx, pk).await
                    })
                }))
            })
            .await?;
        self.remember(instance.pk, &instance.id);
        Ok(instance)
    }

    pub async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, StoreError> {
        let row = instances::Entity::find().filter(instances::Column::Id.eq(id.as_str())).one(self.reader()).await?;
        row.map(Instance::try_from).transpose()
    }

    /// The instance of a `pk`; `None` when it was deleted.
    pub async fn instance_by_pk(&self, pk: i64) -> Result<Option<Instance>, StoreError> {
        instances::Entity::find_by_id(pk).one(self.reader()).await?.map(Instance::try_from).transpose()
    }

    /// All instances, newest first.
    pub async fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        let rows = instances::Entity::find().order_by_desc(instances::Column::Pk).all(self.reader()).await?;
        rows.into_iter().map(Instance::try_from).collect()
    }

    /// Instances older than `after`, newest first, and how many there are in all.
    pub async fn list_instances(&self, after: Option<i64>, limit: u64) -> Result<(Vec<Instance>, u64), StoreError> {
        let total = instances::Entity::find().count(self.reader()).await?;
        let mut find = instances::Entity::find().order_by_desc(instances::Column::Pk).limit(limit);
        if let Some(after) = after {
            find = find.filter(instances::Column::Pk.lt(after));
        }
        let rows = find.all(self.reader()).await?;
        Ok((rows.into_iter().map(Instance::try_from).collect::<Result<_, _>>()?, total))
    }

    /// Changes what is given. [`StoreError::NotFound`] when the instance was deleted.
    pub async fn update_instance(
        &self,
        pk: i64,
        name: Option<Option<String>>,
        sync_history: Option<bool>,
    ) -> Result<Instance, StoreError> {
        self.submit(pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let name = name.clone();
                Box::pin(async move {
                    let now = Timestamp::now().0;
                    if let Some(name) = name {
                        let sql = "UPDATE instances SET name = $1, updated_at = $2 WHERE pk = $3";
                        tx.db.run(sql, values![name, now, pk]).await?;
                    }
                    if let Some(sync_history) = sync_history {
                        let sql = "UPDATE instances SET sync_history = $1, updated_at = $2 WHERE pk = $3";
                        tx.db.run(sql, values![sync_history, now, pk]).await?;
                    }
                    by_pk(tx, pk).await
                })
            }))
        })
        .await
    }

    /// Whether the instance should be connected. [`StoreError::NotFound`] when it was deleted.
    pub async fn set_wanted(&self, pk: i64, wanted: bool) -> Result<(), StoreError> {
        self.submit(pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                Box::pin(async move {
                    let sql = "UPDATE instances SET wanted = $1, updated_at = $2 WHERE pk = $3";
                    match tx.db.run(sql, values![wanted, Timestamp::now().0, pk]).await? {
                        0 => Err(StoreError::NotFound),
                        _ => Ok(()),
                    }
                })
            }))
        })
        .await
    }

    /// Stores a status and, in the same transaction, its event. Fenced.
    pub async fn set_status(
        &self,
        pk: i64,
        epoch: i64,
        status: InstanceStatus,
        cause: Option<Cause>,
        at: Timestamp,
        event: Option<NewEvent>,
    ) -> Result<(), StoreError> {
        let event = event.map(|event| EventRow::new(self.sealer(), pk, event)).transpose()?.map(Arc::new);
        let connected = (status == InstanceStatus::Connected).then_some(at.0);
        self.submit(pk, Some(Fence { pk, epoch }), self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let event = event.clone();
                Box::pin(async move {
                    let cause = cause.map(Cause::as_str);
                    tx.db
                        .run(
                            "UPDATE instances SET status = $1, cause = $2, since = $3, updated_at = $3,
                             last_connected_at = COALESCE($4, last_connected_at) WHERE pk = $5",
                            values![status.as_str(), cause, at.0, connected, pk],
                        )
                        .await?;
                    if let Some(event) = &event {
                        append::insert(tx, &[event]).await?;
                    }
                    Ok(())
                })
            }))
        })
        .await
    }

    /// Stores who the instance is at WhatsApp; all four are replaced. Fenced.
    pub async fn set_identity(
        &self,
        pk: i64,
        epoch: i64,
        phone: Option<String>,
        lid: Option<String>,
        jid: Option<String>,
        push_name: Option<String>,
    ) -> Result<(), StoreError> {
        let values = values![phone, lid, jid, push_name, Timestamp::now().0, pk];
        self.submit(pk, Some(Fence { pk, epoch }), self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let values = values.clone();
                Box::pin(async move {
                    let sql = "UPDATE instances SET phone = $1, lid = $2, jid = $3, push_name = $4, updated_at = $5 WHERE pk = $6";
                    tx.db.run(sql, values).await.map(drop)
                })
            }))
        })
        .await
    }

    /// Deletes the instance and every row that belongs to it; its owner's writes are refused from then on. Nothing
    /// happens when it is gone already.
    pub async fn delete_instance(&self, pk: i64) -> Result<(), StoreError> {
        self.submit(pk, None, Durability::Power, |answer| {
            Op::Run(moving_work(pk, answer, move |tx| {
                Box::pin(async move { tx.db.run("DELETE FROM instances WHERE pk = $1", values![pk]).await.map(drop) })
            }))
        })
        .await?;
        self.forget(pk);
        Ok(())
    }

    /// Makes the caller the owner: writes with an older epoch are refused from then on. The new epoch;
    /// [`StoreError::NotFound`] when the instance was deleted.
    pub async fn take_ownership(&self, pk: i64) -> Result<i64, StoreError> {
        self.submit(pk, None, Durability::Power, |answer| {
            Op::Run(moving_work(pk, answer, move |tx| {
                Box::pin(async move {
                    let sql = "UPDATE instances SET owner_epoch = owner_epoch + 1 WHERE pk = $1 RETURNING owner_epoch";
                    let row = tx.db.one(sql, values![pk]).await?.ok_or(StoreError::NotFound)?;
                    Ok(row.try_get("", "owner_epoch")?)
                })
            }))
        })
        .await
    }

    /// Deletes what the WhatsApp client keeps for the instance, and its identity: it has to be paired again. Fenced.
    pub async fn forget_device(&self, pk: i64, epoch: i64) -> Result<(), StoreError> {
        self.submit(pk, Some(Fence { pk, epoch }), Durability::Power, |answer| {
            Op::Run(work(answer, move |tx| {
                Box::pin(async move {
                    for table in device::TABLES {
                        tx.db.run(format!("DELETE FROM {table} WHERE instance_pk = $1"), values![pk]).await?;
                    }
                    let sql = "UPDATE instances SET phone = NULL, lid = NULL, jid = NULL, push_name = NULL, updated_at = $1 WHERE pk = $2";
                    tx.db.run(sql, values![Timestamp::now().0, pk]).await.map(drop)
                })
            }))
        })
        .await
    }

    /// The instance's own endpoints, oldest first: the first is its webhook.
    pub(crate) async fn own_endpoints(&self, pk: i64) -> Result<Vec<endpoints::Model>, StoreError> {
        let find =
            endpoints::Entity::find().filter(endpoints::Column::InstancePk.eq(pk)).order_by_asc(endpoints::Column::Id);
        Ok(find.all(self.reader()).await?)
    }
}
