//! Commands: what they do, who may give them, how they are answered.

use super::Put;
use crate::append::Append;
use crate::deliveries::Record;
use crate::fan_out::Spread;
use crate::jobs::{Accept, Intend, Receipt, Settle};
use crate::seal::Sealer;
use crate::sql::Db;
use crate::{Durability, StoreError};
use std::future::Future;
use std::pin::Pin;
use tokio::sync::oneshot;

/// Who may write: the holder of this epoch of this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    pub pk: i64,
    pub epoch: i64,
}

/// A command's answer: set while it runs, sent after the commit.
pub(crate) struct Answer<T> {
    to: Option<oneshot::Sender<Result<T, StoreError>>>,
    value: Option<T>,
}

impl<T> Answer<T> {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (to, wait) = oneshot::channel();
        (Self { to: Some(to), value: None }, wait)
    }

    pub(crate) fn set(&mut self, value: T) {
        self.value = Some(value);
    }

    /// The value that was set, for a command that runs inside of another.
    pub(crate) fn take(&mut self) -> Option<T> {
        self.value.take()
    }

    fn commit(&mut self) {
        let result = self.value.take().ok_or_else(|| StoreError::bug("a command ran without an answer"));
        self.send(result);
    }

    fn fail(&mut self, error: StoreError) {
        self.send(Err(error));
    }

    fn send(&mut self, result: Result<T, StoreError>) {
        if let Some(to) = self.to.take() {
            // a caller that no longer waits is none of the writer's business
            let _ = to.send(result);
        }
    }
}

/// What a command does. Those with a kind of their own are run together.
pub(crate) enum Op {
    /// Rows into a device table.
    Put(Put),
    /// Anything else on device tables; keeps its place among the puts.
    Device(Box<dyn Work>),
    Accept(Box<Accept>),
    Intend(Box<Intend>),
    Settle(Box<Settle>),
    Receipt(Box<Receipt>),
    Append(Append),
    Spread(Box<Spread>),
    Record(Box<Record>),
    /// Runs by itself, in its place.
    Run(Box<dyn Work>),
    Close(Option<oneshot::Sender<()>>),
}

impl Op {
    pub(super) fn end(&mut self, result: Result<(), StoreError>) {
        macro_rules! end {
            ($answer:expr) => {
                match result {
                    Ok(()) => $answer.commit(),
                    Err(error) => $answer.fail(error),
                }
            };
        }
        match self {
            Self::Put(put) => end!(put.answer),
            Self::Device(work) | Self::Run(work) => end!(work),
            Self::Accept(accept) => end!(accept.answer),
            Self::Intend(intend) => end!(intend.answer),
            Self::Settle(settle) => end!(settle.answer),
            Self::Receipt(receipt) => end!(receipt.answer),
            Self::Append(append) => end!(append.answer),
            Self::Spread(spread) => end!(spread.answer),
            Self::Record(record) => end!(record.answer),
            Self::Close(done) => {
                if let Some(done) = done.take() {
                    let _ = done.send(());
                }
            }
        }
    }
}

/// A command on its way.
pub(crate) struct Pending {
    pub(super) fence: Option<Fence>,
    pub(super) level: Durability,
    /// When it fails, nothing later of its fence may be written.
    pub(super) poisons: bool,
    /// The instance whose epoch or existence it changes.
    pub(super) moves: Option<i64>,
    pub(super) op: Op,
}

impl Pending {
    pub(crate) fn new(fence: Option<Fence>, level: Durability, op: Op) -> Self {
        let poisons = matches!(&op, Op::Put(put) if put.table() == "pending_inbound");
        let moves = match &op {
            Op::Run(work) => work.moves(),
            _ => None,
        };
        Self { fence, level, poisons, moves, op }
    }

    pub(crate) fn close(done: oneshot::Sender<()>) -> Self {
        Self::new(None, Durability::Process, Op::Close(Some(done)))
    }
}

/// A transaction in which commands run.
pub(crate) struct Tx {
    pub db: Db,
    pub sealer: Sealer,
    /// One command by itself, after the group failed: what is known to be rare is looked for first.
    pub alone: bool,
}

/// A command with its own statements. It may run more than once; only the last run is committed.
#[async_trait::async_trait]
pub(crate) trait Work: Send {
    async fn run(&mut self, tx: &Tx) -> Result<(), StoreError>;
    fn commit(&mut self);
    fn fail(&mut self, error: StoreError);
    fn moves(&self) -> Option<i64>;
}

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

struct Task<T, F> {
    run: F,
    answer: Answer<T>,
    moves: Option<i64>,
}

#[async_trait::async_trait]
impl<T, F> Work for Task<T, F>
where
    T: Send,
    F: for<'a> Fn(&'a Tx) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync,
{
    async fn run(&mut self, tx: &Tx) -> Result<(), StoreError> {
        let value = (self.run)(tx).await?;
        self.answer.set(value);
        Ok(())
    }

    fn commit(&mut self) {
        self.answer.commit();
    }

    fn fail(&mut self, error: StoreError) {
        self.answer.fail(error);
    }

    fn moves(&self) -> Option<i64> {
        self.moves
    }
}

/// A command from a closure.
pub(crate) fn work<T: Send + 'static>(
    answer: Answer<T>,
    run: impl for<'a> Fn(&'a Tx) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
) -> Box<dyn Work> {
    Box::new(Task { run, answer, moves: None })
}

/// The same for a command after which the epoch of instance `pk` has to be read again.
pub(crate) fn moving_work<T: Send + 'static>(
    pk: i64,
    answer: Answer<T>,
    run: impl for<'a> Fn(&'a Tx) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
) -> Box<dyn Work> {
    Box::new(Task { run, answer, moves: Some(pk) })
}
