//! Endpoints: which events a URL receives.

use crate::event::EventKind;
use serde::{Deserialize, Serialize};

/// The events that an endpoint wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<String>", try_from = "Vec<String>")]
pub enum EventFilter {
    /// `all` or `*`
    All,
    /// An empty list from the caller means [`EventKind::DEFAULT`].
    Only(Vec<EventKind>),
}

impl Default for EventFilter {
    fn default() -> Self {
        Self::Only(EventKind::DEFAULT.to_vec())
    }
}

impl EventFilter {
    pub fn wants(&self, kind: EventKind) -> bool {
        match self {
            Self::All => true,
            Self::Only(kinds) => kinds.contains(&kind),
        }
    }

    /// The names as the caller writes them.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::All => vec!["all".to_owned()],
            Self::Only(kinds) => kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
        }
    }
}

impl From<EventFilter> for Vec<String> {
    fn from(filter: EventFilter) -> Self {
        filter.names()
    }
}

impl TryFrom<Vec<String>> for EventFilter {
    type Error = String;
    fn try_from(names: Vec<String>) -> Result<Self, String> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        if names.iter().any(|name| name == "all" || name == "*") {
            return Ok(Self::All);
        }
        let mut kinds = Vec::with_capacity(names.len());
        for name in &names {
            let kind: EventKind = name.parse().map_err(|_| format!("unknown event {name:?}"))?;
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        Ok(Self::Only(kinds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_by_name_all_and_default() {
        let filter = |names: &[&str]| EventFilter::try_from(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert!(filter(&["*"]).unwrap().wants(EventKind::Call));
        assert!(filter(&["message"]).unwrap().wants(EventKind::Message));
        assert!(!filter(&["message"]).unwrap().wants(EventKind::MessageAck));
        assert!(filter(&[]).unwrap().wants(EventKind::MessageAck));
        assert!(filter(&["nonsense"]).is_err());
    }
}
