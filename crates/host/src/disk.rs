//! `/proc/diskstats`, and the numbers of devices.

use std::fmt;
use std::str::FromStr;

use crate::text::number;

/// Bytes in a sector of these files, whatever the disk's own sectors are.
pub const SECTOR_BYTES: u64 = 512;

/// The number of a block device, as in `8:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// The driver's number; zero for file systems without a block device of their own.
    pub major: u32,
    /// The device's number with this driver.
    pub minor: u32,
}

impl DeviceNumber {
    /// From `st_dev` of stat(2), as Linux puts the two numbers together: the low 12 bits of the major
    /// number lie between the low 8 bits of the minor number and its rest.
    pub fn from_dev(dev: u64) -> Self {
        // Masked to 32 bits each, nothing is lost by the casts.
        let major = ((dev >> 8) & 0xfff) | ((dev >> 32) & 0xffff_f000);
        let minor = (dev & 0xff) | ((dev >> 12) & 0xffff_ff00);
        Self {
            major: major as u32,
            minor: minor as u32,
        }
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// A text that is no device number.
#[derive(Debug, PartialEq, Eq)]
pub struct NotADeviceNumber;

impl fmt::Display for NotADeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a device number has the form major:minor")
    }
}

impl std::error::Error for NotADeviceNumber {}

impl FromStr for DeviceNumber {
    type Err = NotADeviceNumber;

    fn from_str(text: &str) -> Result<Self, NotADeviceNumber> {
        let (major, minor) = text.trim().split_once(':').ok_or(NotADeviceNumber)?;
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => Ok(Self { major, minor }),
            _ => Err(NotADeviceNumber),
        }
    }
}

/// What a disk has done since it came. The kernel keeps the times in 32 bits: they wrap around after
/// 49 days of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskCounters {
    /// Its number.
    pub device: DeviceNumber,
    /// The kernel's name of it, without `/dev/`.
    pub name: String,
    /// Reads completed.
    pub reads: u64,
    /// Sectors of 512 bytes read.
    pub sectors_read: u64,
    /// Time from issue to completion, summed over reads; milliseconds.
    pub read_ms: u64,
    /// Writes completed.
    pub writes: u64,
    /// Sectors of 512 bytes written.
    pub sectors_written: u64,
    /// Time from issue to completion, summed over writes; milliseconds.
    pub write_ms: u64,
    /// Time in which at least one request was under way; milliseconds.
    pub busy_ms: u64,
    /// That time, weighted with the number of requests; milliseconds.
    pub queue_ms: u64,
    /// Sectors of 512 bytes discarded (Linux 4.18 and later).
    pub sectors_discarded: Option<u64>,
    /// Flushes completed (Linux 5.5 and later).
    pub flushes: Option<u64>,
}

/// The figures of `/sys/block/*/stat`, and of a line of `/proc/diskstats` behind the name.
pub fn counters(device: DeviceNumber, name: &str, figures: &str) -> Option<DiskCounters> {
    let figures: Vec<Option<u64>> = figures
        .split_ascii_whitespace()
        .map(number)
        .take(32)
        .collect();
    let at = |index: usize| figures.get(index).copied().flatten();
    Some(DiskCounters {
        device,
        name: name.to_owned(),
        reads: at(0)?,
        sectors_read: at(2)?,
        read_ms: at(3)?,
        writes: at(4)?,
        sectors_written: at(6)?,
        write_ms: at(7)?,
        // 8 is how many are under way right now.
        busy_ms: at(9)?,
        queue_ms: at(10)?,
        sectors_discarded: at(13),
        flushes: at(15),
    })
}

fn named(line: &str) -> Option<(DeviceNumber, &str, &str)> {
    let (major, rest) = line.trim_start().split_once(char::is_whitespace)?;
    let (minor, rest) = rest.trim_start().split_once(char::is_whitespace)?;
    let (name, figures) = rest.trim_start().split_once(char::is_whitespace)?;
    let device = DeviceNumber {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    };
    Some((device, name, figures))
}

/// `/proc/diskstats`, the line of one device.
pub fn disk(text: &str, device: DeviceNumber) -> Option<DiskCounters> {
    let (_, name, figures) = text
        .lines()
        .filter_map(named)
        .find(|(found, _, _)| *found == device)?;
    counters(device, name, figures)
}

/// `/proc/diskstats`, the whole disk that a device is a partition of, judged by names, or the device
/// itself; `None` when it is not there. For machines whose `/sys` does not say.
pub fn whole_disk(text: &str, device: DeviceNumber) -> Option<DeviceNumber> {
    let (_, name, _) = text
        .lines()
        .filter_map(named)
        .find(|(found, _, _)| *found == device)?;
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
    // sda1 is a partition of sda; where the disk's name ends in a digit, it is nvme0n1p1 of nvme0n1.
    let base = match base.strip_suffix('p') {
        Some(disk) if disk.ends_with(|c: char| c.is_ascii_digit()) => disk,
        _ => base,
    };
    let parent = text
        .lines()
        .filter_map(named)
        .find(|(_, name, _)| *name == base);
    Some(parent.map_or(device, |(parent, _, _)| parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 14 columns (3.10), 18 (4.18) and 20 (5.5); no kernel mixes them.
    const DISKSTATS: &str = "\
   8       0 sda 40 3 1000 20 50 4 2000 30 1 45 50
   8       1 sda1 39 3 990 19 50 4 2000 30 0 44 49
 259       0 nvme0n1 100 0 800 10 200 0 1600 40 0 50 60 7 0 70 2
 259       1 nvme0n1p1 90 0 720 9 190 0 1520 38 0 47 57 7 0 70 2
 254       0 vda 1353489 95492 112747682 2306775 2835348 378748 169663464 683745 0 282812 3078136 270207 39 89348776 33927 1261899 53688
 253       0 dm-0 1 0 8 1 1 0 8 1 0 2 2
   8      16 sdb 1 2 3 4
";

    fn number(text: &str) -> DeviceNumber {
        text.parse().unwrap()
    }

    #[test]
    fn columns_of_three_kernels() {
        let sda = disk(DISKSTATS, number("8:0")).unwrap();
        assert_eq!(
            (sda.name.as_str(), sda.reads, sda.sectors_read),
            ("sda", 40, 1000)
        );
        assert_eq!(
            (sda.read_ms, sda.writes, sda.sectors_written),
            (20, 50, 2000)
        );
        assert_eq!((sda.write_ms, sda.busy_ms, sda.queue_ms), (30, 45, 50));
        assert_eq!((sda.sectors_discarded, sda.flushes), (None, None));
        let nvme = disk(DISKSTATS, number("259:0")).unwrap();
        assert_eq!((nvme.sectors_discarded, nvme.flushes), (Some(70), None));
        let vda = disk(DISKSTATS, number("254:0")).unwrap();
        assert_eq!(
            (vda.sectors_discarded, vda.flushes),
            (Some(89348776), Some(1261899))
        );
        assert_eq!((vda.busy_ms, vda.queue_ms), (282812, 3078136));
    }

    #[test]
    fn lines_too_short_or_absent() {
        assert_eq!(disk(DISKSTATS, number("8:16")), None);
        assert_eq!(disk(DISKSTATS, number("9:9")), None);
        assert_eq!(
            counters(number("8:0"), "sda", "1 2 3 4 5 6 7 8 9 ten 11"),
            None
        );
    }

    #[test]
    fn partitions_by_name() {
        let whole = |device| whole_disk(DISKSTATS, number(device)).map(|d| d.to_string());
        assert_eq!(whole("8:1").as_deref(), Some("8:0"));
        assert_eq!(whole("8:0").as_deref(), Some("8:0"));
        assert_eq!(whole("259:1").as_deref(), Some("259:0"));
        assert_eq!(whole("259:0").as_deref(), Some("259:0"));
        assert_eq!(whole("253:0").as_deref(), Some("253:0"));
        assert_eq!(whole("9:9"), None);
    }

    #[test]
    fn device_numbers() {
        assert_eq!(DeviceNumber::from_dev(0x801), number("8:1"));
        assert_eq!(DeviceNumber::from_dev(0xfe00), number("254:0"));
        // A minor number of more than eight bits, and one of each beyond 32.
        assert_eq!(DeviceNumber::from_dev(0x10_0302), number("3:258"));
        let large = DeviceNumber::from_dev(u64::MAX);
        assert_eq!((large.major, large.minor), (u32::MAX, u32::MAX));
        for bad in ["", "8", "8:", "a:b", "8:-1"] {
            assert!(bad.parse::<DeviceNumber>().is_err(), "{bad}");
        }
    }
}
