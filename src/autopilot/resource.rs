//! What a partition can run out of, as SQL calls it. Loads are per second, but for the size.

pub use ::autopilot::resource::Resource;

/// The name of a resource's load and capacity in SQL, with its unit.
pub fn name(resource: Resource) -> &'static str {
    match resource {
        Resource::WriteRows => "write_rows_s",
        Resource::WriteBytes => "write_bytes_s",
        Resource::Cpu => "cpu_ms_s",
        Resource::DiskIo => "read_blocks_s",
        Resource::Size => "size_bytes",
    }
}

pub fn of(name: &str) -> Option<Resource> {
    Resource::ALL
        .iter()
        .copied()
        .find(|resource| self::name(*resource) == name)
}

/// Resources that flow, in the order of their series; the size does not.
pub const FLOWS: [Resource; 4] = [
    Resource::WriteRows,
    Resource::WriteBytes,
    Resource::Cpu,
    Resource::DiskIo,
];

/// The one whose capacity is learned where none is configured.
pub const LEARNED: &Resource = &Resource::WriteRows;
