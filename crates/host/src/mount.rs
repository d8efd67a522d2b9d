//! `/proc/self/mountinfo`.

use std::path::{Path, PathBuf};

use crate::disk::DeviceNumber;

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The device number that stat(2) reports there; major zero without a block device.
    pub device: DeviceNumber,
    /// Which directory of the file system is mounted, `/` for all of it.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Type of the file system: `ext4`, `overlay`, `cgroup2`.
    pub filesystem: String,
    /// What is mounted: often a path in `/dev`, otherwise any word.
    pub source: String,
    /// Options of the file system, separated by commas: for cgroups of version 1, the controllers.
    pub options: String,
}

/// All lines that are understood, in their order: later ones lie on top of earlier ones.
pub fn mounts(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    // The number of fields in front of the dash varies.
    let (place, what) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(2);
    let mut what = what.split(' ');
    Some(Mount {
        device: place.next()?.parse().ok()?,
        root: unescape(place.next()?).into(),
        point: unescape(place.next()?).into(),
        filesystem: unescape(what.next()?),
        source: unescape(what.next().unwrap_or_default()),
        options: what.next().unwrap_or_default().to_owned(),
    })
}

/// Blanks, tabs, line feeds and backslashes are written as `\` and three octal digits.
fn unescape(word: &str) -> String {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match tail {
            [
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] if *first == b'\\' => {
                bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The mount that a path lies on: of those with this device number, and if there are none of all, the
/// one whose mount point is the longest beginning of the path; of equals the last.
///
/// Some file systems (btrfs) report device numbers that are not in the list.
pub fn mount_of<'a>(mounts: &'a [Mount], device: DeviceNumber, path: &Path) -> Option<&'a Mount> {
    let longest = |of_device: bool| {
        (mounts.iter())
            .filter(|mount| !of_device || mount.device == device)
            .filter(|mount| path.starts_with(&mount.point))
            .max_by_key(|mount| mount.point.components().count())
    };
    longest(true).or_else(|| longest(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
28 27 0:45 /@data /srv/my\\040data rw master:2 propagate_from:1 - btrfs /dev/sdb2 rw,subvol=/@data
29 27 0:23 / /dev/shm rw - tmpfs tmpfs rw,size=24684084k
garbage
30 27 0:99 / /srv/nfs rw - nfs4 server:/export rw,vers=4.2
31 29 0:31 / /dev/shm rw - tmpfs second rw
";

    fn found(device: &str, path: &str) -> Option<String> {
        let mounts = mounts(MOUNTINFO);
        let mount = mount_of(&mounts, device.parse().unwrap(), Path::new(path))?;
        Some(format!("{} {}", mount.filesystem, mount.source))
    }

    #[test]
    fn lines() {
        let mounts = mounts(MOUNTINFO);
        assert_eq!(mounts.len(), 6);
        assert_eq!(mounts[2].point, Path::new("/srv/my data"));
        assert_eq!(mounts[2].root, Path::new("/@data"));
        assert_eq!(mounts[2].options, "rw,subvol=/@data");
    }

    #[test]
    fn the_mount_of_a_path() {
        assert_eq!(
            found("254:0", "/var/lib/postgresql").as_deref(),
            Some("ext4 /dev/vda")
        );
        // A subvolume has a number of its own.
        assert_eq!(
            found("0:46", "/srv/my data/fast").as_deref(),
            Some("btrfs /dev/sdb2")
        );
        assert_eq!(
            found("0:99", "/srv/nfs/x").as_deref(),
            Some("nfs4 server:/export")
        );
        // Mounted over another, and a name that only begins the same.
        assert_eq!(found("9:9", "/dev/shm/x").as_deref(), Some("tmpfs second"));
        assert_eq!(
            found("254:0", "/dev/shmx").as_deref(),
            Some("ext4 /dev/vda")
        );
        // The device number knows better than the path.
        assert_eq!(
            found("254:0", "/dev/shm/x").as_deref(),
            Some("ext4 /dev/vda")
        );
        assert_eq!(found("254:0", "relative"), None);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(r"a\040b\134c"), r"a b\c");
        assert_eq!(unescape(r"a\04"), r"a\04");
        assert_eq!(unescape(r"\777\"), r"\777\");
    }
}
