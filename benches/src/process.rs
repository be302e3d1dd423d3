//! What the kernel says about this process and its memory.

use std::fs::read_to_string;

use crate::report::field;

/// Bytes of this process that are in memory now (`VmRSS` of proc_pid_status(5)).
pub fn resident() -> Option<u64> {
    kilobytes("/proc/self/status", "VmRSS")
}

/// The same of another process.
pub fn resident_of(pid: u32) -> Option<u64> {
    kilobytes(&format!("/proc/{pid}/status"), "VmRSS")
}

/// Bytes that a new program could have (`MemAvailable` of proc_meminfo(5)).
pub fn available() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable")
}

fn kilobytes(path: &str, name: &str) -> Option<u64> {
    let value = field(&read_to_string(path).ok()?, name)?;
    let number: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    Some(number << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_written_to_becomes_resident() {
        let memory = vec![1u8; 64 << 20];
        assert!(resident().unwrap() >= memory.len() as u64);
        assert!(memory.iter().all(|byte| *byte == 1));
        assert!(available().unwrap() > 0);
    }
}
