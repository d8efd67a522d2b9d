//! How busy the machine is: CPU, memory, and the disks that tablespaces lie on.
//!
//! A [`Host`] reads `/proc`, `/sys` and the cgroup it runs in, and returns a [`Sample`]: raw
//! counters with the time they were read at. Two samples make a [`Load`]: fractions and rates over
//! the time between them. [`Host::storage`] says which disk a directory lies on.
//!
//! Limits of a container count as the size of the machine: with a quota of two CPUs and 4 GiB, two
//! CPUs are usable and 4 GiB are the total, whatever `/proc/stat` and `/proc/meminfo` say.
//!
//! Nothing here fails. What the kernel does not tell, or tells in a form not known here, is `None`,
//! for that figure alone; a counter that went backwards (wrapped around, reset, another device under
//! the same number) makes the figures of that interval `None`. Missing is never zero.
//!
//! The parsers ([`cpu`], [`memory`], [`disk`], [`pressure`], [`cgroup`], [`mount`]) take text and
//! return values; only `reader` opens files, and only below the root directory it was given, so that
//! tests show it trees of their own.

pub mod cgroup;
pub mod cpu;
pub mod disk;
mod limits;
mod load;
pub mod memory;
pub mod mount;
pub mod pressure;
mod reader;
mod sample;
mod storage;
mod text;

pub use disk::DeviceNumber;
pub use load::{CpuLoad, DiskLoad, Load, MemoryLoad, PressureLoad};
pub use reader::Host;
pub use sample::{CpuQuota, CpuSample, MemoryLimit, Pressure, Sample};
pub use storage::Storage;
