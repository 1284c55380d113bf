//! The order in which a group's commands run: commands of one kind together, where their order cannot matter.
//!
//! A command that several callers submitted without waiting for each other has no order that they could rely on;
//! one that a caller waited for is not in the same group. What remains to be kept is the order of device writes
//! (a future may be dropped after its command was sent), the order of events, which are appended in it at the end, and
//! everything around a command that runs by itself.

use super::{OnConflict, Op, Pending, Tx, put};
use crate::append::{self, Appended, EventRow};
use crate::{StoreError, deliveries, jobs};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Put(&'static str, OnConflict),
    Device,
    Accept,
    Intend,
    Settle,
    Receipt,
    Append,
    Spread,
    Record,
    Run,
}

struct Step {
    kind: Kind,
    members: Vec<usize>,
}

impl Step {
    /// A command of `kind` may not move to before this step.
    fn holds(&self, kind: Kind) -> bool {
        match (self.kind, kind) {
            (Kind::Run, _) | (Kind::Device, Kind::Put(..)) => true,
            (Kind::Put(mine, _), Kind::Put(table, _)) => mine == table,
            _ => false,
        }
    }
}

fn kind(op: &Op) -> Kind {
    match op {
        Op::Put(put) => {
            let (table, conflict) = put.kind();
            Kind::Put(table, conflict)
        }
        Op::Device(_) => Kind::Device,
        Op::Accept(_) => Kind::Accept,
        Op::Intend(_) => Kind::Intend,
        Op::Settle(_) => Kind::Settle,
        Op::Receipt(_) => Kind::Receipt,
        Op::Append(_) => Kind::Append,
        Op::Spread(_) => Kind::Spread,
        Op::Record(_) => Kind::Record,
        Op::Run(_) | Op::Close(_) => Kind::Run,
    }
}

/// The steps of commands of these kinds; `None` is left out.
fn plan(kinds: impl Iterator<Item = Option<Kind>>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (n, kind) in kinds.enumerate() {
        let Some(kind) = kind else { continue };
        let joins = !matches!(kind, Kind::Run | Kind::Device);
        let mut place = None;
        for (at, step) in steps.iter().enumerate().rev() {
            if joins && step.kind == kind {
                place = Some(at);
                break;
            }
            if step.holds(kind) {
                break;
            }
        }
        match place {
            // after the results of the messages that they are about
            Some(at) if kind == Kind::Receipt => {
                let mut step = steps.remove(at);
                step.members.push(n);
                steps.push(step);
            }
            Some(at) => steps[at].members.push(n),
            None => steps.push(Step { kind, members: vec![n] }),
        }
    }
    steps
}

/// The step's commands as what they are.
macro_rules! members {
    ($group:expr, $step:expr, $variant:ident) => {
        $group.iter_mut().enumerate().filter(|(n, _)| $step.members.contains(n)).filter_map(|(_, pending)| {
            match &mut pending.op {
                Op::$variant(member) => Some(member),
                _ => None,
            }
        })
    };
}

/// Runs every command of the group that kept its epoch.
pub(super) async fn run(tx: &Tx, group: &mut [Pending], lost: &[bool]) -> Result<(), StoreError> {
    let kinds = group.iter().zip(lost).map(|(pending, lost)| (!lost).then(|| kind(&pending.op)));
    let mut reporting = Vec::new();
    for step in plan(kinds) {
        match step.kind {
            Kind::Settle | Kind::Receipt | Kind::Append => reporting.extend_from_slice(&step.members),
            // what comes after these must be behind what came before them
            Kind::Spread | Kind::Run => append_events(tx, group, std::mem::take(&mut reporting)).await?,
            _ => {}
        }
        match step.kind {
            Kind::Put(..) => put::run(tx, &mut members!(group, step, Put).collect::<Vec<_>>()).await?,
            Kind::Accept => jobs::accept(tx, members!(group, step, Accept).map(Box::as_mut).collect()).await?,
            Kind::Intend => jobs::intend(tx, members!(group, step, Intend).map(Box::as_mut).collect()).await?,
            Kind::Settle => jobs::settle(tx, members!(group, step, Settle).map(Box::as_mut).collect()).await?,
            Kind::Receipt => jobs::receipts(tx, members!(group, step, Receipt).map(Box::as_mut).collect()).await?,
            Kind::Append => {}
            Kind::Spread => {
                crate::fan_out::spread(tx, members!(group, step, Spread).map(Box::as_mut).collect()).await?
            }
            Kind::Record => deliveries::record(tx, members!(group, step, Record).map(Box::as_mut).collect()).await?,
            Kind::Device => {
                for work in members!(group, step, Device) {
                    work.run(tx).await?;
                }
            }
            Kind::Run => {
                for work in members!(group, step, Run) {
                    work.run(tx).await?;
                }
            }
        }
    }
    append_events(tx, group, reporting).await
}

/// Appends the events of commands that ran, all as one: those of results first, so that a result comes before the
/// receipts of its message.
async fn append_events(tx: &Tx, group: &mut [Pending], mut members: Vec<usize>) -> Result<(), StoreError> {
    members.sort_unstable_by_key(|n| (!matches!(group[*n].op, Op::Settle(_)), *n));
    let rows: Vec<&EventRow> = members.iter().flat_map(|n| events(&group[*n].op)).collect();
    let mut placed = append::insert(tx, &rows).await?.into_iter();
    for n in members {
        let op = &mut group[n].op;
        let count = events(op).len();
        let appended = Appended::of(placed.by_ref().take(count));
        match op {
            Op::Settle(settle) => settle.appended(appended),
            Op::Receipt(receipt) => receipt.answer.set(appended),
            Op::Append(append) => append.answer.set(appended),
            _ => {}
        }
    }
    Ok(())
}

/// The events that a command has to append.
fn events(op: &Op) -> Vec<&EventRow> {
    match op {
        Op::Settle(settle) => settle.event().into_iter().collect(),
        Op::Receipt(receipt) => vec![&receipt.event],
        Op::Append(append) => append.rows.iter().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Device, Receipt, Run, Settle};

    fn steps(kinds: &[Kind]) -> Vec<(Kind, Vec<usize>)> {
        plan(kinds.iter().copied().map(Some)).into_iter().map(|step| (step.kind, step.members)).collect()
    }

    #[test]
    fn receipts_come_together_after_the_results_that_they_are_about() {
        let group = [Receipt, Settle, Receipt, Settle, Receipt];
        assert_eq!(steps(&group), [(Settle, vec![1, 3]), (Receipt, vec![0, 2, 4])]);
        assert_eq!(steps(&[Settle, Receipt, Settle]), [(Settle, vec![0, 2]), (Receipt, vec![1])]);
    }

    #[test]
    fn nothing_passes_a_command_that_runs_by_itself() {
        let group = [Settle, Receipt, Run, Receipt, Settle];
        let expected = [(Settle, vec![0]), (Receipt, vec![1]), (Run, vec![2]), (Receipt, vec![3]), (Settle, vec![4])];
        assert_eq!(steps(&group), expected);
        let put = Kind::Put("sessions", OnConflict::Replace);
        assert_eq!(steps(&[put, Device, put]), [(put, vec![0]), (Device, vec![1]), (put, vec![2])]);
        assert_eq!(plan([Some(Settle), None, Some(Settle)].into_iter())[0].members, [0, 2], "lost ones are left out");
    }
}
