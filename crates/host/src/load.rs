//! What happened between two samples.

use crate::disk::{DeviceNumber, DiskCounters, SECTOR_BYTES};
use crate::pressure::Stall;
use crate::sample::Sample;

/// How busy the machine was. Fractions are between 0 and 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Time between the samples; microseconds. Zero when they were not in order: all that compares
    /// them is `None` then.
    pub interval_us: u64,
    /// The CPUs.
    pub cpu: CpuLoad,
    /// Tasks running or waiting for CPU or disk, on the whole machine, averaged by the kernel over 1,
    /// 5 and 15 minutes; as of the later sample.
    pub load_average: Option<[f64; 3]>,
    /// Memory, as of the later sample.
    pub memory: MemoryLoad,
    /// The disks that both samples know, unless a counter went backwards.
    pub disks: Vec<DiskLoad>,
    /// Tasks that stood still for want of a CPU. Of the whole machine, as the next two.
    pub pressure_cpu: PressureLoad,
    /// Tasks that stood still for want of memory.
    pub pressure_memory: PressureLoad,
    /// Tasks that stood still waiting for I/O.
    pub pressure_io: PressureLoad,
}

impl Load {
    /// The load of one disk.
    pub fn disk(&self, device: DeviceNumber) -> Option<&DiskLoad> {
        self.disks.iter().find(|disk| disk.device == device)
    }
}

/// How busy the CPUs were.
///
/// Where a quota allows less than the CPUs that may be used, `busy`, `user` and `system` are the use
/// of that quota, by all that lives under it. Otherwise they tell of the CPUs that this process may
/// run on, by whomever they were used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuLoad {
    /// CPUs that can be used at once; a fraction under a quota.
    pub usable: Option<f64>,
    /// Fraction of them at work. Time stolen by a hypervisor is not in it: with nothing left to give,
    /// `busy` and `steal` together are 1.
    pub busy: Option<f64>,
    /// Fraction in user mode.
    pub user: Option<f64>,
    /// Fraction in the kernel, interrupts included.
    pub system: Option<f64>,
    /// Fraction of time without work but with I/O under way. Of the CPUs, even under a quota.
    pub iowait: Option<f64>,
    /// Fraction of time given to other machines. Of the CPUs, even under a quota.
    pub steal: Option<f64>,
    /// Fraction of the quota's periods in which it was used up; `None` without a quota.
    pub throttled: Option<f64>,
}

/// Memory, within the limits of the container.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemoryLoad {
    /// The machine's memory or the container's limit, whichever is less; bytes.
    pub total_bytes: Option<u64>,
    /// What could still be had without swapping; bytes.
    pub available_bytes: Option<u64>,
    /// Fraction of the total that is not available.
    pub used: Option<f64>,
    /// Swap in use, by the container if it is limited and by the machine otherwise; bytes.
    pub swap_used_bytes: Option<u64>,
}

/// How busy a disk was.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskLoad {
    /// Its number.
    pub device: DeviceNumber,
    /// The kernel's name of it.
    pub name: String,
    /// Fraction of time with at least one request under way. A disk that works on many at once can
    /// do more when this is 1.
    pub utilisation: f64,
    /// Reads completed; per second.
    pub reads_per_s: f64,
    /// Writes completed; per second.
    pub writes_per_s: f64,
    /// Bytes read; per second.
    pub read_bytes_per_s: f64,
    /// Bytes written; per second.
    pub written_bytes_per_s: f64,
    /// Bytes discarded; per second. `None` with old kernels, as the next.
    pub discarded_bytes_per_s: Option<f64>,
    /// Flushes completed; per second.
    pub flushes_per_s: Option<f64>,
    /// Requests under way, on average.
    pub queue: f64,
    /// Time that a read took, on average; milliseconds. `None` if there was none.
    pub read_ms: Option<f64>,
    /// Time that a write took, on average; milliseconds. `None` if there was none.
    pub write_ms: Option<f64>,
}

/// For which fraction of time tasks stood still.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PressureLoad {
    /// At least one task did.
    pub some: Option<f64>,
    /// All tasks that had work did.
    pub full: Option<f64>,
}

impl Sample {
    /// What happened since an earlier sample of the same host.
    pub fn since(&self, earlier: &Sample) -> Load {
        let interval_us = self.at_us.saturating_sub(earlier.at_us);
        let stall = |later: Option<Stall>, earlier: Option<Stall>| {
            let fraction = |part: fn(Stall) -> Option<u64>| {
                ratio(
                    delta(later.and_then(part), earlier.and_then(part))?,
                    interval_us,
                )
            };
            PressureLoad {
                some: fraction(|s| s.some_us),
                full: fraction(|s| s.full_us),
            }
        };
        Load {
            interval_us,
            cpu: self.cpu_since(earlier, interval_us),
            load_average: self.load_average,
            memory: self.memory_load(),
            disks: (self.disks.iter())
                .filter_map(|disk| disk_since(disk, earlier.disk(disk.device)?, interval_us))
                .collect(),
            pressure_cpu: stall(self.pressure.cpu, earlier.pressure.cpu),
            pressure_memory: stall(self.pressure.memory, earlier.pressure.memory),
            pressure_io: stall(self.pressure.io, earlier.pressure.io),
        }
    }

    fn cpu_since(&self, earlier: &Sample, interval_us: u64) -> CpuLoad {
        let mut load = CpuLoad::default();
        let (now, then) = (self.cpu.as_ref(), earlier.cpu.as_ref());
        // With CPUs gone or come, the sums tell of different things.
        let same = now
            .zip(then)
            .filter(|(now, then)| now.numbers == then.numbers);
        let passed = same.and_then(|(now, then)| now.times.since(then.times));
        if let Some(times) = passed.filter(|_| interval_us > 0) {
            let part = |ticks: u64| ratio(ticks, times.total());
            let user = times.user.saturating_add(times.nice);
            let system = times
                .system
                .saturating_add(times.irq)
                .saturating_add(times.softirq);
            load.user = part(user);
            load.system = part(system);
            load.busy = part(user.saturating_add(system));
            load.iowait = part(times.iowait);
            load.steal = part(times.steal);
        }
        let cpus = self.cpus_allowed.map(|count| count as f64);
        load.usable = cpus;
        let Some(quota) = &self.cpu_quota else {
            return load;
        };
        // A group that the process was moved to has counters of its own.
        let used = |part: fn(&crate::cgroup::CpuUsage) -> Option<u64>| {
            let then = earlier
                .cpu_quota
                .as_ref()
                .filter(|then| then.group == quota.group)?;
            delta(part(&quota.used), part(&then.used))
        };
        load.throttled = used(|u| u.periods_throttled)
            .zip(used(|u| u.periods))
            .and_then(|(throttled, periods)| ratio(throttled, periods));
        if cpus.is_none_or(|cpus| quota.cpus < cpus) {
            let part = |used_us: Option<u64>| {
                let fraction = used_us? as f64 / (interval_us as f64 * quota.cpus);
                // A burst, or the edges of a period, may exceed the quota for a short while.
                fraction.is_finite().then(|| fraction.clamp(0.0, 1.0))
            };
            load.usable = Some(quota.cpus);
            load.busy = part(used(|u| u.usage_us));
            load.user = part(used(|u| u.user_us));
            load.system = part(used(|u| u.system_us));
        }
        load
    }

    fn memory_load(&self) -> MemoryLoad {
        let machine = self.memory;
        // A limit above what the machine has limits nothing.
        let limit = (self.memory_limit.as_ref()).filter(|limit| {
            machine
                .total_bytes
                .is_none_or(|total| limit.limit_bytes < total)
        });
        let (total, available, swap) = match limit {
            None => (
                machine.total_bytes,
                machine.available_bytes,
                machine.swap_used_bytes,
            ),
            Some(limit) => {
                // Neighbours may leave less than the limit allows.
                let machine_bytes = machine.available_bytes.unwrap_or(u64::MAX);
                let available = limit.available_bytes.map(|bytes| bytes.min(machine_bytes));
                (Some(limit.limit_bytes), available, limit.swap_used_bytes)
            }
        };
        MemoryLoad {
            total_bytes: total,
            available_bytes: available,
            used: total
                .zip(available)
                .and_then(|(t, a)| ratio(t.saturating_sub(a), t)),
            swap_used_bytes: swap,
        }
    }
}

/// What a counter grew by; `None` if it is not known at both times or went backwards.
fn delta(later: Option<u64>, earlier: Option<u64>) -> Option<u64> {
    later?.checked_sub(earlier?)
}

/// A fraction between 0 and 1; `None` of nothing.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64).min(1.0))
}

/// `None` as a whole when any counter went backwards: the others are then not to be trusted.
fn disk_since(now: &DiskCounters, then: &DiskCounters, interval_us: u64) -> Option<DiskLoad> {
    if interval_us == 0 || now.name != then.name {
        return None;
    }
    let seconds = interval_us as f64 / 1e6;
    let grew = |part: fn(&DiskCounters) -> u64| part(now).checked_sub(part(then));
    let per_s = |amount: u64| amount as f64 / seconds;
    let bytes_per_s = |sectors: u64| per_s(sectors) * SECTOR_BYTES as f64;
    let mean = |total_ms: u64, count: u64| (count > 0).then(|| total_ms as f64 / count as f64);
    let optional = |now: Option<u64>, then: Option<u64>| match now.zip(then) {
        Some((now, then)) => now.checked_sub(then).map(Some),
        None => Some(None),
    };
    let (reads, writes) = (grew(|d| d.reads)?, grew(|d| d.writes)?);
    Some(DiskLoad {
        device: now.device,
        name: now.name.clone(),
        utilisation: (grew(|d| d.busy_ms)? as f64 / 1e3 / seconds).min(1.0),
        reads_per_s: per_s(reads),
        writes_per_s: per_s(writes),
        read_bytes_per_s: bytes_per_s(grew(|d| d.sectors_read)?),
        written_bytes_per_s: bytes_per_s(grew(|d| d.sectors_written)?),
        discarded_bytes_per_s: optional(now.sectors_discarded, then.sectors_discarded)?
            .map(bytes_per_s),
        flushes_per_s: optional(now.flushes, then.flushes)?.map(per_s),
        queue: grew(|d| d.queue_ms)? as f64 / 1e3 / seconds,
        read_ms: mean(grew(|d| d.read_ms)?, reads),
        write_ms: mean(grew(|d| d.write_ms)?, writes),
    })
}
