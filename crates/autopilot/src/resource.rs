//! What a partition can run out of, and amounts of it.

use crate::words::words;
use serde::{Deserialize, Serialize};

words! {
    /// Something that a partition, a tablespace or a server has a limited amount of.
    Resource {
        /// Rows inserted, updated or deleted per second.
        WriteRows => "write_rows",
        /// Bytes written per second.
        WriteBytes => "write_bytes",
        /// Processor time, in seconds per second: 1 is one busy core.
        Cpu => "cpu",
        /// Disk I/O, in whatever unit load and capacity share: bytes or operations per second, or
        /// the busy fraction of the device.
        DiskIo => "disk_io",
        /// Bytes stored.
        Size => "size",
    }
}

/// One value for each resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PerResource<T> {
    /// Rows written per second.
    pub write_rows: T,
    /// Bytes written per second.
    pub write_bytes: T,
    /// Seconds of processor time per second.
    pub cpu: T,
    /// Disk I/O, in the unit that load and capacity share.
    pub disk_io: T,
    /// Bytes stored.
    pub size: T,
}

/// How much of each resource is used. Zero where nothing is used or nothing is known.
pub type Loads = PerResource<f64>;

/// How much of each resource there is. `None`: not limited, or not known, and never a reason.
pub type Capacities = PerResource<Option<f64>>;

impl<T> PerResource<T> {
    /// The value of one resource.
    pub fn get(&self, resource: Resource) -> &T {
        match resource {
            Resource::WriteRows => &self.write_rows,
            Resource::WriteBytes => &self.write_bytes,
            Resource::Cpu => &self.cpu,
            Resource::DiskIo => &self.disk_io,
            Resource::Size => &self.size,
        }
    }

    /// The value of one resource, to be changed.
    pub fn get_mut(&mut self, resource: Resource) -> &mut T {
        match resource {
            Resource::WriteRows => &mut self.write_rows,
            Resource::WriteBytes => &mut self.write_bytes,
            Resource::Cpu => &mut self.cpu,
            Resource::DiskIo => &mut self.disk_io,
            Resource::Size => &mut self.size,
        }
    }

    /// A value for each resource, made by a function.
    pub fn from_fn(mut f: impl FnMut(Resource) -> T) -> Self {
        PerResource {
            write_rows: f(Resource::WriteRows),
            write_bytes: f(Resource::WriteBytes),
            cpu: f(Resource::Cpu),
            disk_io: f(Resource::DiskIo),
            size: f(Resource::Size),
        }
    }

    /// Every resource with its value.
    pub fn iter(&self) -> impl Iterator<Item = (Resource, &T)> {
        Resource::ALL.iter().map(|r| (*r, self.get(*r)))
    }
}

impl Loads {
    /// A load of one resource and nothing of the others.
    pub fn of(resource: Resource, amount: f64) -> Self {
        let mut loads = Loads::default();
        *loads.get_mut(resource) = amount;
        loads
    }

    /// The sum, resource by resource.
    pub fn plus(&self, other: &Loads) -> Loads {
        Loads::from_fn(|r| known(*self.get(r)) + known(*other.get(r)))
    }

    /// What is left, resource by resource; never negative.
    pub fn minus(&self, other: &Loads) -> Loads {
        Loads::from_fn(|r| (known(*self.get(r)) - known(*other.get(r))).max(0.0))
    }

    /// The same load so many times.
    pub fn times(&self, factor: f64) -> Loads {
        Loads::from_fn(|r| known(*self.get(r) * factor))
    }

    /// The greater, resource by resource.
    pub fn max(&self, other: &Loads) -> Loads {
        Loads::from_fn(|r| known(*self.get(r)).max(known(*other.get(r))))
    }

    /// The same with every value that is no finite, positive number taken as zero.
    pub fn known(&self) -> Loads {
        Loads::from_fn(|r| known(*self.get(r)))
    }

    /// Nothing of any resource.
    pub fn is_zero(&self) -> bool {
        self.iter().all(|(_, amount)| known(*amount) == 0.0)
    }

    /// The highest fraction of a capacity that is used, and of which resource. `None` where no
    /// capacity is known.
    pub fn fullest(&self, capacity: &Capacities) -> Option<(Resource, f64)> {
        let mut fullest = None;
        for (resource, amount) in self.iter() {
            let Some(limit) = usable(*capacity.get(resource)) else {
                continue;
            };
            let fraction = known(known(*amount) / limit);
            if fullest.is_none_or(|(_, most)| fraction > most) {
                fullest = Some((resource, fraction));
            }
        }
        fullest
    }
}

/// The largest amount counted. What is above counts as this much, so that sums stay finite.
pub(crate) const AMOUNT_MAX: f64 = 1e30;

/// A number that can be counted with: zero for NaN and for what is negative, bounded above.
pub(crate) fn known(amount: f64) -> f64 {
    if amount > 0.0 {
        amount.min(AMOUNT_MAX)
    } else {
        0.0
    }
}

/// A capacity that can be divided by.
pub(crate) fn usable(capacity: Option<f64>) -> Option<f64> {
    capacity.filter(|c| *c > 0.0 && c.is_finite())
}
