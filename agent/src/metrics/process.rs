//! The metrics that Prometheus' own clients expose of a process, read from `/proc`.

use std::fs;

/// Kernels for 64-bit x86 and Arm count processor time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// In OpenMetrics text. What cannot be read is left out.
pub(super) fn text() -> String {
    let files = fs::read_dir("/proc/self/fd").map(|files| files.count().saturating_sub(1));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| {
        let kib: u64 = line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some((kib * 1_024) as f64)
    });
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let boot = fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|stat| stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok()));
    let metrics = [
        ("process_cpu_seconds", "counter", "Processor time of the agent", cpu_seconds(&stat)),
        ("process_resident_memory_bytes", "gauge", "Resident memory of the agent", resident),
        (
            "process_open_fds",
            "gauge",
            "Open file descriptors of the agent",
            files.ok().map(|files| files as f64),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "When the agent started, in seconds since 1970",
            boot.zip(field(&stat, 22)).map(|(boot, ticks)| boot + ticks / TICKS_PER_SECOND),
        ),
    ];
    let known = metrics.into_iter().filter_map(|(name, kind, help, value)| {
        let suffix = if kind == "counter" { "_total" } else { "" };
        Some(format!("# HELP {name} {help}.\n# TYPE {name} {kind}\n{name}{suffix} {}\n", value?))
    });
    known.collect()
}

/// A field of `/proc/self/stat`, as proc(5) numbers them. The second one may contain blanks.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name_of_the_program() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 12345 1000 200";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(field(stat, 22), Some(12_345.0));
        assert_eq!(field("", 22), None);
    }

    #[test]
    fn this_process_has_all_of_them() {
        let text = text();
        for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"] {
            assert!(text.contains(&format!("\nprocess_{name} ")), "{text}");
        }
    }
}
