//! The costs of processes, as reported by Linux; other systems report nothing.

use std::{fs, time::Duration};

use serde_json::{Value, json};

/// The unit of times in `/proc`: a hundredth of a second on every architecture, by Linux's interface to programs.
const TICKS_PER_SECOND: u64 = 100;

/// The usage of a process at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time since its start.
    pub(super) cpu: Duration,
    /// Memory now, in bytes.
    pub(super) resident: u64,
    /// The highest value of its memory.
    pub(super) peak: u64,
}

impl Usage {
    /// The usage of a running process.
    pub(super) fn of(process: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        Self::parse(&stat, &status)
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name, in parentheses, may contain any character; user and system time are the 12th and 13th field after it.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut times = fields.split_whitespace().skip(11).map(|ticks| ticks.parse::<u64>().ok());
        let ticks = times.next()?? + times.next()??;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
        };
        Some(Self {
            cpu: Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND),
            resident: kib("VmRSS:")? * 1_024,
            peak: kib("VmHWM:")? * 1_024,
        })
    }
}

/// The cost of a process during the measured time.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    pub(super) name: String,
    pub(super) cpu: Duration,
    pub(super) resident: u64,
    pub(super) peak: u64,
}

impl Cost {
    /// The cost between two readings.
    pub(super) fn between(name: String, before: Usage, after: Usage) -> Self {
        Self { name, cpu: after.cpu.saturating_sub(before.cpu), resident: after.resident, peak: after.peak }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name, "cpu_seconds": self.cpu.as_secs_f64(), "resident_bytes": self.resident,
            "peak_resident_bytes": self.peak,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "17 (a) b) S 1 17 17 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 4 0 100 1 2";

    #[test]
    fn proc_is_read() {
        let status = "Name:\ta) b\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n";
        let usage = Usage { cpu: Duration::from_secs(3), resident: 1 << 20, peak: 2 << 20 };
        assert_eq!(Usage::parse(STAT, status), Some(usage));
        assert_eq!(Usage::parse(STAT, "Name:\tzombie\n"), None);
        assert_eq!(Usage::parse("", status), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_memory() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident > 100_000 && usage.peak >= usage.resident, "{usage:?}");
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
