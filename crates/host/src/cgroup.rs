//! Control groups, version 1 and 2: which files hold the limits, and what they say.

use std::path::{Component, Path, PathBuf};

use crate::mount::Mount;
use crate::text::{keyed, number};

/// Deeper hierarchies are looked at from below, up to here.
const LEVELS_MAX: usize = 64;

/// Microseconds in a clock tick of `cpuacct.stat`: USER_HZ is 100 wherever PostgreSQL runs.
const TICK_US: u64 = 10_000;

/// Limits from here on are how version 1 says that there is none (the largest number, less a page).
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// The interface of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller, or for a few.
    One,
    /// The unified hierarchy.
    Two,
}

/// The groups that a process is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    unified: Option<String>,
    /// Controllers, separated by commas, and the group.
    single: Vec<(String, String)>,
}

impl Membership {
    /// `/proc/self/cgroup`.
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(hierarchy), Some(controllers), Some(group)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if !controllers.is_empty() {
                found
                    .single
                    .push((controllers.to_owned(), group.to_owned()));
            } else if hierarchy == "0" {
                found.unified = Some(group.to_owned());
            }
        }
        found
    }

    /// The group for a controller. A controller is in one hierarchy only: where version 1 has it,
    /// version 2 has not.
    pub fn group(&self, controller: &str) -> Option<(Version, &str)> {
        let single = (self.single.iter())
            .find(|(controllers, _)| controllers.split(',').any(|name| name == controller));
        match single {
            Some((_, group)) => Some((Version::One, group)),
            None => self.unified.as_deref().map(|group| (Version::Two, group)),
        }
    }

    /// The directories of the group for a controller and of all groups around it that can be seen,
    /// the innermost first. A limit of any of them is a limit of all inside. Empty when the hierarchy
    /// is not mounted.
    pub fn levels(&self, controller: &str, mounts: &[Mount]) -> Option<(Version, Vec<PathBuf>)> {
        let (version, group) = self.group(controller)?;
        let fits = |mount: &&Mount| match version {
            Version::One => {
                mount.filesystem == "cgroup" && mount.options.split(',').any(|o| o == controller)
            }
            Version::Two => mount.filesystem == "cgroup2",
        };
        // In a container the mount shows the container's group, whose name outside is its root.
        let inside = |mount: &Mount| {
            let relative = Path::new(group).strip_prefix(&mount.root).ok()?;
            let plain = relative
                .components()
                .all(|c| matches!(c, Component::Normal(_)));
            // Not joined: that would leave a slash at the end of the outermost.
            plain.then(|| {
                mount
                    .point
                    .components()
                    .chain(relative.components())
                    .collect()
            })
        };
        let candidates = || mounts.iter().filter(fits);
        let (point, innermost) = candidates()
            .find_map(|mount| Some((&mount.point, inside(mount)?)))
            .or_else(|| {
                candidates()
                    .map(|mount| (&mount.point, mount.point.clone()))
                    .next()
            })?;
        let levels = (innermost.ancestors())
            .take_while(|directory| directory.starts_with(point))
            .take(LEVELS_MAX)
            .map(Path::to_owned)
            .collect();
        Some((version, levels))
    }
}

fn quota(quota_us: u64, period_us: u64) -> Option<f64> {
    (quota_us > 0 && period_us > 0).then(|| quota_us as f64 / period_us as f64)
}

/// `cpu.max` of version 2: how many CPUs' time may be used; `None` without a quota.
pub fn cpu_max(text: &str) -> Option<f64> {
    let mut words = text.split_ascii_whitespace();
    let quota_us = number(words.next()?)?;
    // The kernel's default, should the second number ever be left out.
    quota(quota_us, words.next().map_or(Some(100_000), number)?)
}

/// `cpu.cfs_quota_us` and `cpu.cfs_period_us` of version 1: how many CPUs' time may be used; `None`
/// without a quota (which is written as -1).
pub fn cfs_quota(quota_text: &str, period_text: &str) -> Option<f64> {
    quota(number(quota_text)?, number(period_text)?)
}

/// What a group has used of the CPUs since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// CPU time, of all CPUs together; microseconds.
    pub usage_us: Option<u64>,
    /// Of that, in user mode; microseconds.
    pub user_us: Option<u64>,
    /// Of that, in the kernel; microseconds.
    pub system_us: Option<u64>,
    /// Periods of the quota in which the group ran.
    pub periods: Option<u64>,
    /// Of those, periods in which it was stopped because the quota was used up.
    pub periods_throttled: Option<u64>,
}

/// `cpu.stat`. In version 1 it has the periods only.
pub fn cpu_stat(text: &str) -> CpuUsage {
    CpuUsage {
        usage_us: keyed(text, "usage_usec"),
        user_us: keyed(text, "user_usec"),
        system_us: keyed(text, "system_usec"),
        periods: keyed(text, "nr_periods"),
        periods_throttled: keyed(text, "nr_throttled"),
    }
}

impl CpuUsage {
    /// Completed with `cpuacct.usage` and `cpuacct.stat` of version 1.
    pub fn with_cpuacct(self, usage: Option<&str>, stat: Option<&str>) -> Self {
        let ticks = |key| keyed(stat?, key)?.checked_mul(TICK_US);
        Self {
            // Nanoseconds there.
            usage_us: usage.and_then(number).map(|ns| ns / 1000),
            user_us: ticks("user"),
            system_us: ticks("system"),
            ..self
        }
    }
}

/// `memory.max`, `memory.high` and `memory.limit_in_bytes`, and the like: bytes; `None` when there is
/// no limit.
pub fn limit(text: &str) -> Option<u64> {
    number(text).and_then(limited)
}

/// `memory.stat` of version 1, the smallest limit of this group and those around it; bytes.
pub fn hierarchical_limit(stat: &str) -> Option<u64> {
    keyed(stat, "hierarchical_memory_limit").and_then(limited)
}

fn limited(bytes: u64) -> Option<u64> {
    (bytes < NO_LIMIT_BYTES).then_some(bytes)
}

/// `memory.stat`, what the kernel would give back before it ran out of memory: pages of files, and
/// caches of its own; bytes. What `MemAvailable` is for a machine. Shared memory is not in it.
pub fn reclaimable(stat: &str) -> Option<u64> {
    // Version 1 gives the group's own pages first, then those of the groups inside as well.
    let either = |total, own| keyed(stat, total).or_else(|| keyed(stat, own));
    let active = either("total_active_file", "active_file")?;
    let inactive = either("total_inactive_file", "inactive_file")?;
    let slab = keyed(stat, "slab_reclaimable").unwrap_or(0);
    Some(active.saturating_add(inactive).saturating_add(slab))
}

/// `memory.stat` of version 1, swap in use by the group; bytes.
pub fn swap_used(stat: &str) -> Option<u64> {
    keyed(stat, "total_swap").or_else(|| keyed(stat, "swap"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::mounts;

    fn levels(membership: &str, mountinfo: &str, controller: &str) -> String {
        let membership = Membership::parse(membership);
        match membership.levels(controller, &mounts(mountinfo)) {
            Some((_, levels)) => levels
                .iter()
                .map(|l| l.to_str().unwrap())
                .collect::<Vec<_>>()
                .join(" "),
            None => "none".to_owned(),
        }
    }

    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn unified() {
        assert_eq!(
            levels("0::/system.slice/pg.service\n", UNIFIED, "cpu"),
            "/sys/fs/cgroup/system.slice/pg.service /sys/fs/cgroup/system.slice /sys/fs/cgroup"
        );
        // A container with a namespace of its own, and a process that lies outside of it.
        assert_eq!(levels("0::/\n", UNIFIED, "memory"), "/sys/fs/cgroup");
        assert_eq!(
            levels("0::/../other\n", UNIFIED, "memory"),
            "/sys/fs/cgroup"
        );
        assert_eq!(levels("0::/\n", "", "memory"), "none");
        assert_eq!(levels("", UNIFIED, "memory"), "none");
    }

    #[test]
    fn single() {
        let mountinfo = "\
33 32 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct
36 32 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
41 32 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
        let membership = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc/x\n0::/\nbad\n";
        assert_eq!(
            levels(membership, mountinfo, "cpuacct"),
            "/sys/fs/cgroup/cpu,cpuacct/x /sys/fs/cgroup/cpu,cpuacct"
        );
        assert_eq!(
            levels(membership, mountinfo, "memory"),
            "/sys/fs/cgroup/memory"
        );
        assert_eq!(
            levels(membership, mountinfo, "io"),
            "/sys/fs/cgroup/unified"
        );
    }

    #[test]
    fn quotas() {
        assert_eq!(cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(cpu_max("max 100000\n"), None);
        assert_eq!(cpu_max("0 0"), None);
        assert_eq!(cfs_quota("50000\n", "100000\n"), Some(0.5));
        assert_eq!(cfs_quota("-1\n", "100000\n"), None);
    }

    #[test]
    fn usage() {
        let v2 = "usage_usec 90\nuser_usec 60\nsystem_usec 30\nnr_periods 8\nnr_throttled 2\n\
                  throttled_usec 77\n";
        let found = cpu_stat(v2);
        assert_eq!(
            (found.usage_us, found.user_us, found.system_us),
            (Some(90), Some(60), Some(30))
        );
        assert_eq!((found.periods, found.periods_throttled), (Some(8), Some(2)));
        let v1 = cpu_stat("nr_periods 8\nnr_throttled 2\nthrottled_time 77000\n")
            .with_cpuacct(Some("90500\n"), Some("user 3\nsystem 4\n"));
        assert_eq!(
            (v1.usage_us, v1.user_us, v1.system_us),
            (Some(90), Some(30_000), Some(40_000))
        );
        assert_eq!(v1.periods, Some(8));
    }

    #[test]
    fn memory() {
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("9223372036854771712\n"), None);
        assert_eq!(limit("1073741824\n"), Some(1 << 30));
        let v2 = "anon 5\nfile 9\nactive_file 3\ninactive_file 4\nslab_reclaimable 2\n";
        assert_eq!(reclaimable(v2), Some(9));
        let v1 = "active_file 1\ninactive_file 1\nhierarchical_memory_limit 4096\n\
                  total_swap 6\ntotal_active_file 30\ntotal_inactive_file 40\n";
        assert_eq!(reclaimable(v1), Some(70));
        assert_eq!(hierarchical_limit(v1), Some(4096));
        assert_eq!(swap_used(v1), Some(6));
        assert_eq!(reclaimable("anon 5\n"), None);
    }
}
