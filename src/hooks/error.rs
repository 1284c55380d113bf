//! How a call of a hook can fail, whose fault that is, and what its author should do.

use serde::Serialize;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `unreachable`, a panic, an access out of bounds, an import that is not there for this plugin.
    Trap,
    /// The CPU budget is used up.
    Cpu,
    /// The wall-clock budget is used up: host calls included.
    Wall,
    /// The memory limit is reached.
    Memory,
    /// The call stack is exhausted.
    Stack,
    /// More bytes handed to the host in one call than allowed.
    Output,
    /// More host calls than allowed.
    HostCalls,
    /// The answer is not a valid verdict, request or judgement.
    BadAnswer,
    /// The hook asks for another try.
    Retry,
    /// The hook says that this event will never work.
    Reject,
    /// The component could not be instantiated: ours, or an upgrade's fault, never the event's.
    Link,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Later it may work.
    Transient,
    /// The same event fails again; the plugin works.
    Permanent,
    /// The plugin misbehaved: counts for its breaker.
    Fault,
    /// The host's fault: nothing may be decided about the event.
    Host,
}

impl Kind {
    pub const ALL: &'static [Self] = &[
        Self::Trap,
        Self::Cpu,
        Self::Wall,
        Self::Memory,
        Self::Stack,
        Self::Output,
        Self::HostCalls,
        Self::BadAnswer,
        Self::Retry,
        Self::Reject,
        Self::Link,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Cpu => "cpu",
            Self::Wall => "wall",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::Output => "output",
            Self::HostCalls => "host_calls",
            Self::BadAnswer => "bad_answer",
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::Link => "link",
        }
    }

    pub const fn class(self) -> Class {
        match self {
            Self::Retry => Class::Transient,
            Self::Reject | Self::BadAnswer => Class::Permanent,
            Self::Link => Class::Host,
            Self::Trap | Self::Cpu | Self::Wall | Self::Memory | Self::Stack | Self::Output | Self::HostCalls => {
                Class::Fault
            }
        }
    }

    /// What the author can do, as a sentence.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Trap => "Look at the frames above and at the plugin's log: a panic's message is there.",
            Self::Cpu => {
                "Look for a loop without an end, or raise `limits.cpu_ms` in plugin.toml up to the server's maximum."
            }
            Self::Wall => {
                "Give host calls a shorter `timeout-ms`, or raise `limits.wall_ms` in plugin.toml up to the server's maximum."
            }
            Self::Memory => {
                "Free what is not needed, or raise `limits.memory` in plugin.toml up to the server's maximum."
            }
            Self::Stack => "Look for recursion without an end.",
            Self::Output => "Answer less, or write less in one host call.",
            Self::HostCalls => "Call the host less often: read a value once and keep it.",
            Self::BadAnswer => "Compare the answer with the types in plugins/wit.",
            Self::Retry | Self::Reject => "The text above is the hook's own.",
            Self::Link => "Compile the plugin against a published folder of plugins/wit and upload it again.",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{plugin} {version}: {kind}: {detail}")]
pub struct HookError {
    pub plugin: String,
    pub version: String,
    pub kind: Kind,
    /// For the operator and the author; never holds the event's content unless the hook put it there.
    pub detail: String,
}

/// Why an artefact was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("the artefact has {bytes} bytes; at most {limit} are accepted")]
    TooLarge { bytes: usize, limit: usize },
    #[error("this is machine code compiled elsewhere; upload the WebAssembly it was made from")]
    Precompiled,
    #[error("this is not WebAssembly, and the manifest's entry does not end in .js")]
    NotWasm,
    #[error(
        "this core module has no WIT section, so what it exports is unknown; build it with wit-bindgen for world \
         `transform` or `delivery`"
    )]
    NoWitSection,
    #[error("the core module could not be made a component: {0}")]
    Componentize(String),
    #[error("not valid WebAssembly: {0}")]
    Invalid(String),
    #[error("exports {found}, which this gateway does not know; it knows {known}")]
    UnknownVersion { found: String, known: String },
    #[error("exports neither `kero:plugin/on-event` nor `kero:plugin/on-delivery`")]
    NoExport,
    #[error("imports `{import}`, which hooks do not get: {detail}")]
    UnknownImport { import: String, detail: String },
    #[error("the script is not UTF-8")]
    NotText,
    #[error("the runner for .js hooks is not there: build it with `plugins/build` (expected {path})")]
    NoRunner { path: String },
    #[error("the compiler stopped: {0}")]
    Stopped(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_word_a_class_and_advice() {
        let mut words = std::collections::HashSet::new();
        for kind in Kind::ALL {
            assert!(words.insert(kind.as_str()));
            assert!(kind.advice().ends_with('.'), "{kind}");
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
