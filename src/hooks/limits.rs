//! What one call may use. The server has defaults and maxima; a manifest moves within them.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The limits of one call of one hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All linear memories of the instance together, in bytes. All measured guests run in 64 MiB.
    pub memory: usize,
    /// Guest code's own time. Counted in ticks of the engine's clock, so the overshoot is at most one tick.
    pub cpu: Duration,
    /// From the first instruction to the answer, waiting in host calls included.
    pub wall: Duration,
    /// Bytes that the guest may hand to the host in one call or answer (hostcall fuel).
    pub output: usize,
    /// Bytes of a `data` object and of a shaped body.
    pub data: usize,
    /// Bytes of log per call; what is over is dropped and counted.
    pub log_call: usize,
    /// Bytes of one log line; the rest of it is cut.
    pub log_line: usize,
    /// Host calls of any kind.
    pub host_calls: u32,
    pub http_calls: u32,
    /// Per request; a request may ask for less.
    pub http_timeout: Duration,
    /// Bytes of an answer's body.
    pub http_response: usize,
    /// Messages queued per event.
    pub sends: u32,
    /// Bytes of a key and of a value, and writes per call.
    pub kv_key: usize,
    pub kv_value: usize,
    pub kv_writes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            cpu: Duration::from_millis(100),
            wall: Duration::from_millis(500),
            output: 1 << 20,
            data: 256 << 10,
            log_call: 64 << 10,
            log_line: 8 << 10,
            host_calls: 10_000,
            http_calls: 5,
            http_timeout: Duration::from_secs(2),
            http_response: 1 << 20,
            sends: 3,
            kv_key: 256,
            kv_value: 64 << 10,
            kv_writes: 64,
        }
    }
}

/// How far a manifest may raise the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maxima {
    pub memory: usize,
    pub cpu: Duration,
    pub wall: Duration,
}

impl Default for Maxima {
    fn default() -> Self {
        Self { memory: 128 << 20, cpu: Duration::from_secs(1), wall: Duration::from_secs(10) }
    }
}

/// A manifest's `[limits]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wishes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<crate::manifest::Bytes>,
}

impl Limits {
    /// The defaults with a manifest's wishes, cut at the maxima.
    pub fn with(mut self, wishes: Wishes, maxima: Maxima) -> Self {
        if let Some(wall) = wishes.wall_ms {
            self.wall = Duration::from_millis(wall).min(maxima.wall);
        }
        if let Some(cpu) = wishes.cpu_ms {
            self.cpu = Duration::from_millis(cpu).min(maxima.cpu);
        }
        if let Some(memory) = wishes.memory {
            self.memory = usize::try_from(memory.0).unwrap_or(usize::MAX).min(maxima.memory);
        }
        self
    }
}

/// Counts an instance's memory and refuses what is over. A refusal is a trap with a reason, not a failed
/// `memory.grow` that the guest turns into a bare `unreachable`.
#[derive(Debug)]
pub(crate) struct Meter {
    limit: usize,
    used: usize,
    /// The most that was in use at once, in bytes.
    pub(crate) peak: usize,
    pub(crate) refused: bool,
}

impl Meter {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, used: 0, peak: 0, refused: false }
    }
}

/// Elements of one table; QuickJS uses some thousand.
pub(crate) const TABLE_ELEMENTS: usize = 60_000;
/// Core instances, memories and tables of one component instance.
pub(crate) const CORE_INSTANCES: usize = 64;
pub(crate) const MEMORIES: usize = 4;
pub(crate) const TABLES: usize = 32;

impl wasmtime::ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_sub(current).saturating_add(desired);
        if used > self.limit {
            self.refused = true;
            return Err(wasmtime::Error::msg(format!("memory limit of {} bytes", self.limit)));
        }
        self.used = used;
        self.peak = self.peak.max(used);
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            self.refused = true;
            return Err(wasmtime::Error::msg(format!("table limit of {TABLE_ELEMENTS} elements")));
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }

    fn tables(&self) -> usize {
        TABLES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Bytes;
    use wasmtime::ResourceLimiter;

    #[test]
    fn a_manifest_moves_within_the_maxima() {
        let with = |wall_ms, cpu_ms, memory| {
            let wishes = Wishes { wall_ms: Some(wall_ms), cpu_ms: Some(cpu_ms), memory: Some(Bytes(memory)) };
            let limits = Limits::default().with(wishes, Maxima::default());
            (limits.wall.as_millis(), limits.cpu.as_millis(), limits.memory)
        };
        assert_eq!(with(10_000, 1_000, 128 << 20), (10_000, 1_000, 128 << 20), "to the last");
        assert_eq!(with(10_001, 1_001, (128 << 20) + 1), (10_000, 1_000, 128 << 20), "and no further");
        assert_eq!(with(u64::MAX, u64::MAX, u64::MAX), (10_000, 1_000, 128 << 20));
        assert_eq!(with(1, 2, 3), (1, 2, 3), "less is possible");
        assert_eq!(Limits::default().with(Wishes::default(), Maxima::default()), Limits::default());
    }

    #[test]
    fn memories_count_together_and_tables_each() {
        let mut meter = Meter::new(100);
        assert!(meter.memory_growing(0, 60, None).unwrap());
        assert!(meter.memory_growing(0, 40, None).unwrap(), "a second memory");
        assert!(!meter.refused);
        assert!(meter.memory_growing(40, 41, None).is_err(), "both are 101");
        assert!(meter.refused);
        assert_eq!(meter.peak, 100);
        let mut meter = Meter::new(0);
        assert!(meter.table_growing(0, TABLE_ELEMENTS, None).unwrap());
        assert!(!meter.refused);
        assert!(meter.table_growing(0, TABLE_ELEMENTS + 1, None).is_err() && meter.refused);
        assert_eq!((meter.memories(), meter.tables(), meter.instances()), (4, 32, 64));
    }
}
