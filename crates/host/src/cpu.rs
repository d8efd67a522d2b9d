//! `/proc/stat`, `/proc/loadavg`, and lists of CPUs.

use crate::text::{decimal, number};

/// CPU time since boot, in clock ticks (a hundredth of a second on the usual architectures; only
/// their ratios are used here).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// In user mode, guests included; ticks.
    pub user: u64,
    /// In user mode at low priority, guests included; ticks.
    pub nice: u64,
    /// In the kernel; ticks.
    pub system: u64,
    /// With nothing to do; ticks.
    pub idle: u64,
    /// With nothing to do but an I/O under way; ticks. The kernel lets it go backwards at times.
    pub iowait: u64,
    /// Serving interrupts; ticks.
    pub irq: u64,
    /// Serving soft interrupts; ticks.
    pub softirq: u64,
    /// Wanted, and given to another machine by the hypervisor; ticks.
    pub steal: u64,
}

impl CpuTimes {
    fn plus(self, other: Self) -> Self {
        Self {
            user: self.user.saturating_add(other.user),
            nice: self.nice.saturating_add(other.nice),
            system: self.system.saturating_add(other.system),
            idle: self.idle.saturating_add(other.idle),
            iowait: self.iowait.saturating_add(other.iowait),
            irq: self.irq.saturating_add(other.irq),
            softirq: self.softirq.saturating_add(other.softirq),
            steal: self.steal.saturating_add(other.steal),
        }
    }

    /// What passed since `earlier`; `None` when a counter went backwards. Waiting for I/O may go
    /// backwards by itself (proc(5)) and counts as none then.
    pub fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            user: self.user.checked_sub(earlier.user)?,
            nice: self.nice.checked_sub(earlier.nice)?,
            system: self.system.checked_sub(earlier.system)?,
            idle: self.idle.checked_sub(earlier.idle)?,
            iowait: self.iowait.saturating_sub(earlier.iowait),
            irq: self.irq.checked_sub(earlier.irq)?,
            softirq: self.softirq.checked_sub(earlier.softirq)?,
            steal: self.steal.checked_sub(earlier.steal)?,
        })
    }

    /// Sum of all; ticks.
    pub fn total(self) -> u64 {
        [
            self.user,
            self.nice,
            self.system,
            self.idle,
            self.iowait,
            self.irq,
            self.softirq,
            self.steal,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

/// Numbers of CPUs, as ranges with both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(Vec<(u32, u32)>);

impl CpuList {
    /// The form `0-3,8`; `None` unless all of it is understood and it names a CPU.
    pub fn parse(text: &str) -> Option<Self> {
        let range = |part: &str| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            (low <= high).then_some((low, high))
        };
        let ranges: Option<Vec<_>> = text.trim().split(',').map(range).collect();
        ranges.map(Self)
    }

    /// The line `Cpus_allowed_list` of `/proc/self/status`: what this process may run on, by its
    /// cpuset and its affinity. It may name CPUs that the machine has no more, or not yet.
    pub fn allowed(status: &str) -> Option<Self> {
        let line = |line: &str| Some(line.strip_prefix("Cpus_allowed_list:")?.to_owned());
        Self::parse(&status.lines().find_map(line)?)
    }

    /// Whether the CPU `number` is in the list.
    pub fn contains(&self, number: u32) -> bool {
        (self.0.iter()).any(|(low, high)| (*low..=*high).contains(&number))
    }

    /// How many CPUs are in this list and, when it is given, in the other.
    pub fn count_in(&self, other: Option<&CpuList>) -> u64 {
        let overlap = |(low, high): &(u32, u32), (low2, high2): &(u32, u32)| {
            let (low, high) = (*low.max(low2), *high.min(high2));
            if low <= high {
                u64::from(high - low) + 1
            } else {
                0
            }
        };
        let everything = [(0, u32::MAX)];
        let others = other.map_or(&everything[..], |list| &list.0);
        (self.0.iter())
            .flat_map(|range| others.iter().map(move |other| overlap(range, other)))
            .fold(0, u64::saturating_add)
    }
}

fn times(line: &str) -> Option<(&str, CpuTimes)> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?.strip_prefix("cpu")?;
    let mut field = || words.next().map(number);
    // The first four are as old as the file, the others came later.
    let mut old = || field().flatten();
    let (user, nice, system, idle) = (old()?, old()?, old()?, old()?);
    let mut new = || field().unwrap_or(Some(0));
    let (iowait, irq, softirq, steal) = (new()?, new()?, new()?, new()?);
    let times = CpuTimes {
        user,
        nice,
        system,
        idle,
        iowait,
        irq,
        softirq,
        steal,
    };
    Some((name, times))
}

/// `/proc/stat`, the sum over all CPUs since boot.
pub fn all_times(text: &str) -> Option<CpuTimes> {
    (text.lines().filter_map(times)).find_map(|(name, times)| name.is_empty().then_some(times))
}

/// `/proc/stat`, the CPUs that are online, in ascending order.
pub fn online(text: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = text
        .lines()
        .filter_map(times)
        .filter_map(|(name, _)| name.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// `/proc/stat`, the sum over the CPUs with these numbers; `None` when one of them is missing.
pub fn times_of(text: &str, numbers: &[u32]) -> Option<CpuTimes> {
    let mut found = 0;
    let mut sum = CpuTimes::default();
    for (name, times) in text.lines().filter_map(times) {
        if name.parse().is_ok_and(|number| numbers.contains(&number)) {
            found += 1;
            sum = sum.plus(times);
        }
    }
    (found > 0 && found == numbers.len()).then_some(sum)
}

/// `/proc/loadavg`: tasks that ran, were ready to, or waited for a disk, averaged over 1, 5 and 15
/// minutes. Of the whole machine, a container's neighbours included.
pub fn load_average(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_ascii_whitespace();
    let mut next = || decimal(words.next()?);
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "\
cpu  651085 260055 302348 1901317 9986 1 3237 712 0 0
cpu0 316778 130286 138429 976214 2305 0 204 353 0 0
cpu1 334307 129769 163919 925103 7681 1 3033 359 0 0
intr 16067473 0 0 0 1 1 14
ctxt 50211284
btime 1795382553
";

    #[test]
    fn all_and_some() {
        let all = all_times(STAT).unwrap();
        assert_eq!(
            (all.user, all.idle, all.iowait, all.steal),
            (651085, 1901317, 9986, 712)
        );
        assert_eq!(online(STAT), [0, 1]);
        assert_eq!(times_of(STAT, &[0, 1]), Some(all));
        assert_eq!(times_of(STAT, &[1]).unwrap().system, 163919);
        assert_eq!(times_of(STAT, &[1, 2]), None);
        assert_eq!(times_of(STAT, &[]), None);
    }

    #[test]
    fn a_kernel_of_2_4_and_one_of_tomorrow() {
        let old = all_times("cpu 1 2 3 4\n").unwrap();
        assert_eq!((old.idle, old.total()), (4, 10));
        let new = all_times("cpu 1 2 3 4 5 6 7 8 9 10 11 12\n").unwrap();
        assert_eq!(new.total(), 36);
        assert_eq!(all_times("cpu 1 2 3\n"), None);
        assert_eq!(all_times("cpu 1 2 3 4 x\n"), None);
        assert_eq!(all_times("cpu0 1 2 3 4\n"), None);
    }

    #[test]
    fn lists() {
        let list = CpuList::parse("0-3,8\n").unwrap();
        assert!(list.contains(3) && list.contains(8) && !list.contains(4));
        assert_eq!(list.count_in(None), 5);
        assert_eq!(list.count_in(CpuList::parse("2-100").as_ref()), 3);
        assert_eq!(
            CpuList::parse("0-4294967295").unwrap().count_in(None),
            1 << 32
        );
        for bad in ["", "3-1", "a", "0-3,", "-1", "0-4294967296"] {
            assert_eq!(CpuList::parse(bad), None, "{bad}");
        }
        let status = "Name:\tcat\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\nMems_allowed:\t1\n";
        assert_eq!(CpuList::allowed(status), CpuList::parse("0-1"));
    }

    #[test]
    fn load_averages() {
        assert_eq!(
            load_average("4.03 3.52 2.61 7/183 3696\n"),
            Some([4.03, 3.52, 2.61])
        );
        assert_eq!(load_average("4.03 3.52"), None);
        assert_eq!(load_average("4.03 nan 1"), None);
    }

    #[test]
    fn going_backwards() {
        let earlier = CpuTimes {
            user: 5,
            iowait: 9,
            ..CpuTimes::default()
        };
        let later = CpuTimes {
            user: 7,
            iowait: 8,
            ..CpuTimes::default()
        };
        assert_eq!(later.since(earlier).unwrap().total(), 2);
        assert_eq!(earlier.since(later), None);
    }
}
