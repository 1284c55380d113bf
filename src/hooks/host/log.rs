//! Lines for the operator. What is over the limits is dropped and counted, never a trap: a log must not decide.

use crate::limits::Limits;
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    pub level: Level,
    pub text: String,
}

#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) lines: Vec<LogLine>,
    /// Bytes that were not kept.
    pub(crate) dropped: u64,
    left: usize,
    longest: usize,
    /// A begun line of standard output and of standard error.
    begun: [Vec<u8>; 2],
}

impl Log {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            lines: Vec::new(),
            dropped: 0,
            left: limits.log_call,
            longest: limits.log_line,
            begun: Default::default(),
        }
    }

    pub(crate) fn write(&mut self, level: Level, text: &str) {
        let most = self.longest.min(self.left);
        let end = if text.len() <= most {
            text.len()
        } else {
            (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
        };
        self.dropped += (text.len() - end) as u64;
        if end == 0 && !text.is_empty() {
            return;
        }
        // a line costs something even when it is empty
        self.left = self.left.saturating_sub(end.max(16));
        if self.left == 0 && end == 0 {
            return;
        }
        self.lines.push(LogLine { level, text: text[..end].to_owned() });
    }

    /// Bytes of standard output (0) or standard error (1): a line of log at each newline.
    pub(crate) fn stream(&mut self, which: usize, bytes: &[u8]) {
        let level = if which == 0 { Level::Info } else { Level::Error };
        let mut begun = std::mem::take(&mut self.begun[which]);
        for &byte in bytes {
            if byte == b'\n' || begun.len() >= self.longest {
                self.write(level, &String::from_utf8_lossy(&begun));
                begun.clear();
            }
            if byte != b'\n' {
                begun.push(byte);
            }
        }
        self.begun[which] = begun;
    }

    /// The end of the call: begun lines are lines.
    pub(crate) fn finish(&mut self) -> Vec<LogLine> {
        for (which, level) in [(0, Level::Info), (1, Level::Error)] {
            let begun = std::mem::take(&mut self.begun[which]);
            if !begun.is_empty() {
                self.write(level, &String::from_utf8_lossy(&begun));
            }
        }
        std::mem::take(&mut self.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_dropped_and_counted() {
        let mut log = Log::new(&Limits { log_call: 40, log_line: 10, ..Limits::default() });
        log.write(Level::Info, "0123456789abc");
        log.write(Level::Warn, "äääääää");
        for _ in 0..100 {
            log.write(Level::Info, "flood");
            log.write(Level::Info, "");
        }
        assert_eq!(log.lines[0].text, "0123456789");
        assert_eq!(log.lines[1].text, "äääää");
        assert!(log.lines.len() < 8, "{}", log.lines.len());
        assert!(log.dropped > 400);
    }

    #[test]
    fn streams_become_lines() {
        let mut log = Log::new(&Limits::default());
        log.stream(0, b"one\ntw");
        log.stream(1, b"oops");
        log.stream(0, b"o\n");
        let lines = log.finish();
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, vec!["one", "two", "oops"]);
        assert_eq!(lines[2].level, Level::Error);
    }
}
