//! The only part that opens files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use crate::cgroup::Membership;
use crate::cpu::{self, CpuList};
use crate::disk::{self, DeviceNumber, DiskCounters};
use crate::limits::Groups;
use crate::memory;
use crate::mount::{self, Mount};
use crate::pressure::{self, Stall};
use crate::sample::{CpuSample, Pressure, Sample};

/// More of a file is not read. `/proc/stat` has some 100 kB on the largest machines, the list of
/// mounts 1 MB with ten thousand containers.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A machine to look at.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// The machine this runs on.
    pub fn new() -> Self {
        Self::at("/")
    }

    /// A machine whose `/proc` and `/sys` lie below `root`: for tests, or where the host's file
    /// systems are mounted in a container.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// What can be read now, of the machine and of these disks; at the time of a clock that belongs
    /// to this process. Opens some twenty files; takes less than a millisecond.
    pub fn sample(&self, disks: &[DeviceNumber]) -> Sample {
        static START: OnceLock<Instant> = OnceLock::new();
        let at = START.get_or_init(Instant::now).elapsed().as_micros();
        self.sample_at(u64::try_from(at).unwrap_or(u64::MAX), disks)
    }

    /// The same, at a time that the caller read from a clock that never goes backwards;
    /// microseconds. Samples that are compared need the same clock: one of the machine for samples
    /// that outlive a process.
    pub fn sample_at(&self, at_us: u64, disks: &[DeviceNumber]) -> Sample {
        let mounts = self.mounts();
        let membership = self.read("/proc/self/cgroup").unwrap_or_default();
        let membership = Membership::parse(&membership);
        let read = |path: &Path| self.read(path);
        let groups = Groups {
            membership: &membership,
            mounts: &mounts,
            read: &read,
        };
        let (cpus_allowed, cpu) = self.cpus(&mounts);
        Sample {
            at_us,
            cpus_allowed,
            cpu,
            cpu_quota: groups.cpu_quota(),
            load_average: self
                .read("/proc/loadavg")
                .and_then(|text| cpu::load_average(&text)),
            memory: memory::memory(&self.read("/proc/meminfo").unwrap_or_default()),
            memory_limit: groups.memory_limit(),
            disks: self.disks(disks),
            pressure: Pressure {
                cpu: self.stall("/proc/pressure/cpu"),
                memory: self.stall("/proc/pressure/memory"),
                io: self.stall("/proc/pressure/io"),
            },
        }
    }

    /// How many CPUs may be used, and what they did.
    fn cpus(&self, mounts: &[Mount]) -> (Option<u64>, Option<CpuSample>) {
        let allowed = self
            .read("/proc/self/status")
            .and_then(|text| CpuList::allowed(&text));
        let Some(stat) = self.read("/proc/stat") else {
            let online = self.read("/sys/devices/system/cpu/online");
            let online = online.and_then(|text| CpuList::parse(&text));
            return (
                allowed
                    .or(online.clone())
                    .map(|list| list.count_in(online.as_ref())),
                None,
            );
        };
        let online = cpu::online(&stat);
        // lxcfs shows a container its own CPUs only, numbered from zero.
        let translated = (mounts.iter())
            .any(|m| m.filesystem == "fuse.lxcfs" && m.point == Path::new("/proc/stat"));
        let mut numbers = online.clone();
        if let (Some(allowed), false) = (&allowed, translated) {
            numbers.retain(|number| allowed.contains(*number));
        }
        let times = if numbers.is_empty() || numbers == online {
            numbers = online;
            cpu::all_times(&stat)
        } else {
            cpu::times_of(&stat, &numbers)
        };
        let count = match numbers.len() {
            0 => allowed.map(|list| list.count_in(None)),
            count => Some(count as u64),
        };
        (count, times.map(|times| CpuSample { numbers, times }))
    }

    fn disks(&self, devices: &[DeviceNumber]) -> Vec<DiskCounters> {
        if devices.is_empty() {
            return Vec::new();
        }
        let diskstats = self.read("/proc/diskstats").unwrap_or_default();
        let disk = |device: &DeviceNumber| {
            disk::disk(&diskstats, *device).or_else(|| self.disk_in_sys(*device))
        };
        devices.iter().filter_map(disk).collect()
    }

    /// Containers may hide `/proc/diskstats` and show `/sys`.
    fn disk_in_sys(&self, device: DeviceNumber) -> Option<DiskCounters> {
        let directory = format!("/sys/dev/block/{device}");
        let figures = self.read(format!("{directory}/stat"))?;
        let target = std::fs::read_link(self.under(&directory)).ok();
        let name = target
            .as_deref()
            .and_then(Path::file_name)
            .unwrap_or_default();
        disk::counters(device, &name.to_string_lossy(), &figures)
    }

    fn stall(&self, path: &str) -> Option<Stall> {
        pressure::stall(&self.read(path)?)
    }

    pub(crate) fn mounts(&self) -> Vec<Mount> {
        mount::mounts(&self.read("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Where a path of the machine lies for us.
    pub(crate) fn under(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a file, without an incomplete last line if it is too long; `None` when it cannot
    /// be read, for whatever reason.
    pub(crate) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let mut bytes = Vec::new();
        let file = File::open(self.under(path)).ok()?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 == FILE_BYTES_MAX {
            let complete = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            bytes.truncate(complete);
        }
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}
