//! Which disk a directory lies on.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::disk::{self, DeviceNumber};
use crate::mount;
use crate::reader::Host;

/// What a directory lies on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// The whole disk, not the partition; a mapped device (LVM, LUKS, RAID) is a disk of its own.
    /// `None` where the file system has no block device (overlay, tmpfs, NFS), or it is not known.
    pub disk: Option<DeviceNumber>,
    /// Type of the file system, as `ext4`; `None` where it is not known.
    pub filesystem: Option<String>,
}

impl Host {
    /// What the directory `path` lies on. Symbolic links are followed; a relative path starts at the
    /// working directory of this process. To be asked once for a tablespace, not for every sample.
    pub fn storage(&self, path: &Path) -> Storage {
        let path = if path.is_absolute() {
            self.under(path)
        } else {
            path.to_owned()
        };
        let Ok(real) = path.canonicalize() else {
            return Storage::default();
        };
        let Ok(metadata) = real.metadata() else {
            return Storage::default();
        };
        // By the name it has on the machine, whose root is ours.
        let root = self.under("/").canonicalize().unwrap_or_default();
        let real = real
            .strip_prefix(root)
            .map_or(real.clone(), |path| Path::new("/").join(path));
        self.storage_at(DeviceNumber::from_dev(metadata.dev()), &real)
    }

    /// The same, of a path without symbolic links whose device number is known from stat(2).
    pub fn storage_at(&self, device: DeviceNumber, path: &Path) -> Storage {
        let mounts = self.mounts();
        let mount = mount::mount_of(&mounts, device, path);
        let own = (device.major != 0).then_some(device);
        // btrfs lies on block devices and has a number without one. Of several, the first.
        let device = own.or_else(|| self.device_of_source(&mount?.source));
        Storage {
            disk: device.and_then(|device| self.whole_disk(device)),
            filesystem: mount.map(|mount| mount.filesystem.clone()),
        }
    }

    /// The device that a mount names as its source.
    fn device_of_source(&self, source: &str) -> Option<DeviceNumber> {
        let name = source.strip_prefix("/dev/")?;
        if Path::new(name).components().count() == 1
            && let Some(number) = self.read(format!("/sys/class/block/{name}/dev"))
        {
            return number.parse().ok();
        }
        // Names as in /dev/mapper are symbolic links to the device.
        let number = std::fs::metadata(self.under(source)).ok()?.rdev();
        Some(DeviceNumber::from_dev(number)).filter(|device| device.major != 0)
    }

    fn whole_disk(&self, device: DeviceNumber) -> Option<DeviceNumber> {
        let directory = format!("/sys/dev/block/{device}");
        if self.read(format!("{directory}/partition")).is_some() {
            // The entry is a symbolic link into the directory of the disk.
            if let Some(number) = self.read(format!("{directory}/../dev")) {
                return number.parse().ok();
            }
        } else if self.read(format!("{directory}/dev")).is_some() {
            return Some(device);
        }
        disk::whole_disk(&self.read("/proc/diskstats")?, device)
    }
}
