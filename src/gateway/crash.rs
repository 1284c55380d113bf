//! Named points at which a build for tests can be told to die: `KERO_CRASH_AT=after_intent:17` ends the process without
//! a word when it passes that point for the 17th time. Only a build with the feature `simulator`, which talks to no
//! WhatsApp but a simulated one, listens to it; in every other build a point is nothing.

#[cfg(feature = "simulator")]
pub(crate) use told::point;

/// A point of a build that cannot be told to die.
#[cfg(not(feature = "simulator"))]
#[inline(always)]
pub(crate) fn point(_name: &str) {}

#[cfg(feature = "simulator")]
mod told {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Plan {
        name: String,
        left: AtomicU64,
    }

    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

    fn plan() -> Option<Plan> {
        let text = std::env::var("KERO_CRASH_AT").ok()?;
        // a name may have a colon of its own
        let numbered = text.rsplit_once(':').and_then(|(name, times)| Some((name, times.parse().ok()?)));
        let (name, times) = numbered.unwrap_or((&text, 1));
        Some(Plan { name: name.to_owned(), left: AtomicU64::new(times) })
    }

    pub(crate) fn point(name: &str) {
        let Some(plan) = PLAN.get_or_init(plan) else { return };
        if plan.name == name && plan.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }
}
