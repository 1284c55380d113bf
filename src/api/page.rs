//! Paging: newest first, by an opaque cursor that points behind the last row of the page before.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kero_domain::{DeliveryId, Fault, FaultCode, JobId};
use std::fmt::Display;
use std::str::FromStr;

/// Rows in a page when the caller names no number.
pub(crate) const DEFAULT_LIMIT: u64 = 100;
/// The most rows in a page.
pub(crate) const MAX_LIMIT: u64 = 1000;

/// What a cursor points at. The letter keeps cursors of different lists apart.
pub(crate) trait Position: Display + FromStr {
    const MARK: &'static str;
}

impl Position for i64 {
    const MARK: &'static str = "i";
}

impl Position for JobId {
    const MARK: &'static str = "j";
}

impl Position for uuid::Uuid {
    const MARK: &'static str = "u";
}

impl Position for DeliveryId {
    const MARK: &'static str = "d";
}

pub(crate) fn encode<P: Position>(position: &P) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}{position}", P::MARK))
}

pub(crate) fn decode<P: Position>(cursor: Option<&str>) -> Result<Option<P>, Fault> {
    let Some(cursor) = cursor.filter(|text| !text.is_empty()) else { return Ok(None) };
    let position = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| {
        let text = String::from_utf8(bytes).ok()?;
        text.strip_prefix(P::MARK)?.parse().ok()
    });
    position.map(Some).ok_or_else(|| parameter("cursor", "is not a next_cursor of this list."))
}

/// A parameter with a value that is not allowed.
pub(crate) fn parameter(name: &str, why: &str) -> Fault {
    Fault::new(FaultCode::ValidationFailed).with_detail(format!("{name} {why}")).with("parameter", name)
}

/// The cursor behind a page that is full.
pub(crate) fn next<T, P: Position>(rows: &[T], limit: u64, position: impl Fn(&T) -> P) -> Option<String> {
    let full = u64::try_from(rows.len()).is_ok_and(|count| count >= limit);
    rows.last().filter(|_| full).map(|last| encode(&position(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_and_foreign_ones_are_refused() {
        let cursor = encode(&42_i64);
        assert_eq!(decode::<i64>(Some(&cursor)).unwrap(), Some(42));
        assert_eq!(decode::<i64>(None).unwrap(), None);
        for bad in ["x", "aTQy!", &encode(&JobId::new())] {
            assert_eq!(decode::<i64>(Some(bad)).unwrap_err().code, FaultCode::ValidationFailed, "{bad}");
        }
    }

    #[test]
    fn only_a_full_page_has_a_next_one() {
        assert!(next(&[1_i64, 2], 2, |n| *n).is_some());
        assert!(next(&[1_i64], 2, |n| *n).is_none());
        assert!(next(&[] as &[i64], 0, |n| *n).is_none());
    }
}
