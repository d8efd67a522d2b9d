//! The limits of a container, from the files of its control groups.

use std::path::{Path, PathBuf};

use crate::cgroup::{self, CpuUsage, Membership, Version};
use crate::mount::Mount;
use crate::sample::{CpuQuota, MemoryLimit};

/// What is needed to find limits. `read` gives the text of a file, or nothing.
pub(crate) struct Groups<'a> {
    pub membership: &'a Membership,
    pub mounts: &'a [Mount],
    pub read: &'a dyn Fn(&Path) -> Option<String>,
}

impl Groups<'_> {
    /// The smallest quota of CPU time, with what the group that has it used.
    pub fn cpu_quota(&self) -> Option<CpuQuota> {
        let (version, levels) = self.membership.levels("cpu", self.mounts)?;
        let quota = |level: &PathBuf| match version {
            Version::Two => cgroup::cpu_max(&(self.read)(&level.join("cpu.max"))?),
            Version::One => cgroup::cfs_quota(
                &(self.read)(&level.join("cpu.cfs_quota_us"))?,
                &(self.read)(&level.join("cpu.cfs_period_us"))?,
            ),
        };
        let (depth, level, cpus) = (levels.iter().enumerate())
            .filter_map(|(depth, level)| Some((depth, level, quota(level)?)))
            .min_by(|a, b| a.2.total_cmp(&b.2))?;
        let used = (self.read)(&level.join("cpu.stat"))
            .map_or_else(CpuUsage::default, |text| cgroup::cpu_stat(&text));
        let used = match version {
            Version::Two => used,
            Version::One => match self.accounting_directory(depth) {
                Some(directory) => used.with_cpuacct(
                    (self.read)(&directory.join("cpuacct.usage")).as_deref(),
                    (self.read)(&directory.join("cpuacct.stat")).as_deref(),
                ),
                None => used,
            },
        };
        Some(CpuQuota {
            group: level.to_string_lossy().into_owned(),
            cpus,
            used,
        })
    }

    /// The directory in the hierarchy of version 1 that accounts for CPU time, of the same group as
    /// the one `depth` above ours in the hierarchy that limits it. Usually they are one hierarchy;
    /// if they are two and the group is in one only, its usage is not known.
    fn accounting_directory(&self, depth: usize) -> Option<PathBuf> {
        if self.membership.group("cpu") != self.membership.group("cpuacct") {
            return None;
        }
        let (_, mut levels) = self.membership.levels("cpuacct", self.mounts)?;
        (depth < levels.len()).then(|| levels.swap_remove(depth))
    }

    /// The smallest limit of memory, and the least room under any.
    pub fn memory_limit(&self) -> Option<MemoryLimit> {
        let (version, levels) = self.membership.levels("memory", self.mounts)?;
        (levels.iter())
            .filter_map(|level| match version {
                Version::Two => self.memory_limit_two(level),
                Version::One => self.memory_limit_one(level),
            })
            .reduce(|inner, outer| {
                let tighter = if outer.limit_bytes < inner.limit_bytes {
                    outer
                } else {
                    inner
                };
                let room = inner.available_bytes.zip(outer.available_bytes);
                MemoryLimit {
                    available_bytes: room.map(|(a, b)| a.min(b)),
                    ..tighter
                }
            })
    }

    fn memory_limit_two(&self, level: &Path) -> Option<MemoryLimit> {
        let file = |name| (self.read)(&level.join(name));
        let limit = |name| file(name).and_then(|text| cgroup::limit(&text));
        // From `high` on the group is slowed down until it gives memory back: full, for us.
        let limits = [limit("memory.max"), limit("memory.high")];
        let limit_bytes = limits.into_iter().flatten().min()?;
        Some(MemoryLimit {
            limit_bytes,
            available_bytes: room(limit_bytes, file("memory.current"), file("memory.stat")),
            swap_used_bytes: limit("memory.swap.current"),
        })
    }

    fn memory_limit_one(&self, level: &Path) -> Option<MemoryLimit> {
        let file = |name| (self.read)(&level.join(name));
        let stat = file("memory.stat");
        let limits = [
            file("memory.limit_in_bytes").and_then(|text| cgroup::limit(&text)),
            // Knows of groups around the container, which cannot be seen from inside.
            stat.as_deref().and_then(cgroup::hierarchical_limit),
        ];
        let limit_bytes = limits.into_iter().flatten().min()?;
        Some(MemoryLimit {
            limit_bytes,
            swap_used_bytes: stat.as_deref().and_then(cgroup::swap_used),
            available_bytes: room(limit_bytes, file("memory.usage_in_bytes"), stat),
        })
    }
}

/// What a group may still take: its limit less what it holds and cannot give back; bytes.
fn room(limit_bytes: u64, usage: Option<String>, stat: Option<String>) -> Option<u64> {
    let held = usage?.trim().parse::<u64>().ok()?;
    let reclaimable = stat.as_deref().and_then(cgroup::reclaimable).unwrap_or(0);
    Some(limit_bytes.saturating_sub(held.saturating_sub(reclaimable)))
}
