//! `/proc/meminfo`.

use crate::text::number;

/// The machine's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that the kernel manages; bytes.
    pub total_bytes: Option<u64>,
    /// What could be had without swapping, page cache that can be dropped included; bytes. The
    /// kernel's own estimate, or before Linux 3.14 free + buffers + cache - shared memory.
    pub available_bytes: Option<u64>,
    /// Swap in use; bytes. Zero on a machine without swap.
    pub swap_used_bytes: Option<u64>,
}

/// `/proc/meminfo`.
pub fn memory(text: &str) -> Memory {
    let bytes = |key: &str| {
        let line = |line: &str| {
            let (found, value) = line.split_once(':')?;
            (found == key).then(|| value.to_owned())
        };
        let value = text.lines().find_map(line)?;
        let kib = number(value.trim().strip_suffix("kB")?)?;
        kib.checked_mul(1024)
    };
    let estimate = || {
        let reclaimable = bytes("MemFree")?
            .checked_add(bytes("Buffers")?)?
            .checked_add(bytes("Cached")?)?;
        Some(reclaimable.saturating_sub(bytes("Shmem").unwrap_or(0)))
    };
    let swap_used = || bytes("SwapTotal")?.checked_sub(bytes("SwapFree")?);
    Memory {
        total_bytes: bytes("MemTotal"),
        available_bytes: bytes("MemAvailable").or_else(estimate),
        swap_used_bytes: swap_used(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_of_today() {
        let text = "MemTotal:       24684084 kB\nMemFree:        21874064 kB\n\
                    MemAvailable:   23659504 kB\nBuffers:           11992 kB\n\
                    SwapTotal:       2097148 kB\nSwapFree:        2000000 kB\n\
                    HugePages_Total:       0\n";
        let found = memory(text);
        assert_eq!(found.total_bytes, Some(24684084 * 1024));
        assert_eq!(found.available_bytes, Some(23659504 * 1024));
        assert_eq!(found.swap_used_bytes, Some(97148 * 1024));
    }

    #[test]
    fn a_kernel_of_3_10() {
        let text = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 10 kB\nCached: 500 kB\n\
                    SwapCached: 9 kB\nShmem: 200 kB\n";
        let found = memory(text);
        assert_eq!(found.available_bytes, Some(410 * 1024));
        assert_eq!(found.swap_used_bytes, None);
    }

    #[test]
    fn what_is_not_understood_is_missing() {
        let text = "MemTotal: many kB\nMemAvailable: 18446744073709551615 kB\nSwapTotal: 1 kB\n\
                    SwapFree: 2 kB\n";
        assert_eq!(memory(text), Memory::default());
        assert_eq!(memory(""), Memory::default());
    }
}
