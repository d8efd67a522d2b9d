//! What is read at one moment.

use crate::cgroup::CpuUsage;
use crate::cpu::CpuTimes;
use crate::disk::{DeviceNumber, DiskCounters};
use crate::memory::Memory;
use crate::pressure::Stall;

/// Counters and gauges of the machine at one moment.
///
/// Counters count from boot, or from when the thing counted came to be: they mean something only in
/// comparison, see [`Sample::since`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// When; microseconds of a clock that never goes backwards. Which clock is the caller's choice
    /// with [`Host::sample_at`](crate::Host::sample_at); with [`Host::sample`](crate::Host::sample) it
    /// began with the first sample of this process and means nothing in another.
    pub at_us: u64,
    /// How many CPUs this process may run on, by the machine, its cpuset and its affinity.
    pub cpus_allowed: Option<u64>,
    /// What these CPUs did.
    pub cpu: Option<CpuSample>,
    /// The tightest quota of the CPUs' time on the groups that this process is in.
    pub cpu_quota: Option<CpuQuota>,
    /// Tasks running or waiting for CPU or disk, averaged over 1, 5 and 15 minutes.
    pub load_average: Option<[f64; 3]>,
    /// The machine's memory.
    pub memory: Memory,
    /// The limit of memory on the groups that this process is in.
    pub memory_limit: Option<MemoryLimit>,
    /// The disks asked for, without those that are not there.
    pub disks: Vec<DiskCounters>,
    /// For how long tasks stood still.
    pub pressure: Pressure,
}

impl Sample {
    /// The counters of one disk.
    pub fn disk(&self, device: DeviceNumber) -> Option<&DiskCounters> {
        self.disks.iter().find(|disk| disk.device == device)
    }
}

/// CPU time since boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuSample {
    /// The numbers of the CPUs counted, ascending.
    pub numbers: Vec<u32>,
    /// Their time; ticks.
    pub times: CpuTimes,
}

/// A quota of the CPUs' time, and what the group that has it used.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuQuota {
    /// The directory of the group.
    pub group: String,
    /// How many CPUs' time the group may use; may be a fraction.
    pub cpus: f64,
    /// What it used. Its neighbours under the same quota are included.
    pub used: CpuUsage,
}

/// A limit of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The smallest limit on the way to the outermost group; bytes. May be more than the machine has.
    pub limit_bytes: u64,
    /// What could still be had under all limits on that way, page cache of the group that can be
    /// dropped included; bytes.
    pub available_bytes: Option<u64>,
    /// Swap in use by the group with the smallest limit; bytes.
    pub swap_used_bytes: Option<u64>,
}

/// Pressure stall information of the whole machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Waiting for a CPU.
    pub cpu: Option<Stall>,
    /// Waiting for memory to become free.
    pub memory: Option<Stall>,
    /// Waiting for I/O.
    pub io: Option<Stall>,
}
