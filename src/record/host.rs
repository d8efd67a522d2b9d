//! How busy the machine is: its history, and the view of the moment.

use super::{STRETCH_MAX_US, retention_us, time};
use crate::pg::error::{Error, Result};
use crate::pg::{latch, sql};
use ::host::{DeviceNumber, DiskLoad, Host, Load, Sample};
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What lies on one disk; on none that is known, for file systems without a block device.
struct Disk {
    device: Option<DeviceNumber>,
    tablespaces: Vec<String>,
}

/// The disks that the tablespaces lie on.
fn disks(host: &Host) -> Result<Vec<Disk>> {
    let spaces = sql::query(
        "SELECT s.oid, s.spcname::text FROM pg_catalog.pg_tablespace s
          WHERE s.spcname <> 'pg_global' ORDER BY s.spcname",
        &[],
        |row| Ok((row.get::<pg_sys::Oid>(1)?, row.get::<String>(2)?)),
    )?;
    let mut disks: Vec<Disk> = Vec::new();
    for (oid, name) in spaces {
        let (Some(oid), Some(name)) = (oid, name) else {
            continue;
        };
        // Every server process works in the data directory.
        let directory = if oid == pg_sys::DEFAULTTABLESPACE_OID {
            PathBuf::from("base")
        } else {
            PathBuf::from(format!("pg_tblspc/{}", oid.to_u32()))
        };
        let device = host.storage(&directory).disk;
        match disks.iter_mut().find(|disk| disk.device == device) {
            Some(disk) => disk.tablespaces.push(name),
            None => disks.push(Disk {
                device,
                tablespaces: vec![name],
            }),
        }
    }
    Ok(disks)
}

fn devices(disks: &[Disk]) -> Vec<DeviceNumber> {
    disks.iter().filter_map(|disk| disk.device).collect()
}

thread_local! {
    /// The scheduler's look before, with its time.
    static BEFORE: RefCell<Option<(i64, Sample)>> = const { RefCell::new(None) };
    /// The look of this session's last question.
    static ASKED: RefCell<Option<Sample>> = const { RefCell::new(None) };
}

pub fn record(now_us: i64) -> Result<()> {
    if retention_us() == 0 {
        BEFORE.take();
        return Ok(());
    }
    let host = Host::new();
    let disks = disks(&host)?;
    let sample = host.sample(&devices(&disks));
    let Some((from_us, before)) = BEFORE.replace(Some((now_us, sample.clone()))) else {
        return Ok(());
    };
    if from_us >= now_us || now_us - from_us > STRETCH_MAX_US {
        return Ok(());
    }
    insert(from_us, now_us, &sample.since(&before), &disks)
}

/// Bytes as PostgreSQL's bigint.
fn bigint(bytes: Option<u64>) -> Option<i64> {
    bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn insert(from_us: i64, to_us: i64, load: &Load, disks: &[Disk]) -> Result<()> {
    let covered_ms = (to_us - from_us + 500) / 1000;
    sql::execute(
        &format!(
            "INSERT INTO shadowpart.host_history (level, at, covered_ms, cpus, cpu_busy, cpu_iowait, cpu_steal,
                    cpu_throttled, load1, memory_total_bytes, memory_used, swap_used_bytes, pressure_cpu,
                    pressure_memory, pressure_io)
             VALUES (1, {}, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            time("$1")
        ),
        &[
            from_us.into(),
            covered_ms.into(),
            load.cpu.usable.into(),
            load.cpu.busy.into(),
            load.cpu.iowait.into(),
            load.cpu.steal.into(),
            load.cpu.throttled.into(),
            load.load_average.map(|[one, _, _]| one).into(),
            bigint(load.memory.total_bytes).into(),
            load.memory.used.into(),
            bigint(load.memory.swap_used_bytes).into(),
            load.pressure_cpu.some.into(),
            load.pressure_memory.some.into(),
            load.pressure_io.some.into(),
        ],
    )?;
    for disk in disks {
        let Some(figures) = disk.device.and_then(|device| load.disk(device)) else {
            continue;
        };
        let args: [DatumWithOid<'_>; 12] = [
            from_us.into(),
            covered_ms.into(),
            figures.name.clone().into(),
            disk.tablespaces.clone().into(),
            figures.utilisation.into(),
            figures.reads_per_s.into(),
            figures.writes_per_s.into(),
            figures.read_bytes_per_s.into(),
            figures.written_bytes_per_s.into(),
            figures.queue.into(),
            figures.read_ms.into(),
            figures.write_ms.into(),
        ];
        sql::execute(
            &format!(
                "INSERT INTO shadowpart.disk_history (level, at, covered_ms, device, tablespaces, utilisation,
                        reads_s, writes_s, read_bytes_s, written_bytes_s, queue, read_ms, write_ms)
                 VALUES (1, {}, $2, $3, $4::text[]::name[], $5, $6, $7, $8, $9, $10, $11, $12)",
                time("$1")
            ),
            &args,
        )?;
    }
    Ok(())
}

/// The question before this one is compared with if it was asked this long ago.
const ASKED_AGO_US: std::ops::RangeInclusive<u64> = 1_000_000..=300_000_000;
/// Otherwise the answer is about so long.
const LOOK: Duration = Duration::from_millis(100);

/// What happens now.
fn measure(host: &Host, devices: &[DeviceNumber]) -> Load {
    let mut sample = host.sample(devices);
    let recent = ASKED.take().filter(|before| {
        ASKED_AGO_US.contains(&sample.at_us.saturating_sub(before.at_us))
            && devices.iter().all(|device| before.disk(*device).is_some())
    });
    let before = recent.unwrap_or_else(|| {
        let begin = Instant::now();
        while let Some(rest) = LOOK.checked_sub(begin.elapsed()) {
            latch::nap(rest.max(Duration::from_millis(1)));
        }
        std::mem::replace(&mut sample, host.sample(devices))
    });
    let load = sample.since(&before);
    ASKED.replace(Some(sample));
    load
}

/// A row of `shadowpart.host_now()`.
#[derive(Default)]
struct Resource {
    resource: &'static str,
    name: Option<String>,
    tablespaces: Option<Vec<String>>,
    used: Option<f64>,
    capacity: Option<f64>,
    read_bytes_s: Option<f64>,
    written_bytes_s: Option<f64>,
    queue: Option<f64>,
    wait_ms: Option<f64>,
    steal: Option<f64>,
    stalled: Option<f64>,
}

/// How long a request took, on average, whether it read or wrote; none if there was none.
fn wait_ms(disk: &DiskLoad) -> Option<f64> {
    let parts = [
        (disk.reads_per_s, disk.read_ms),
        (disk.writes_per_s, disk.write_ms),
    ];
    let known = || parts.iter().filter_map(|(count, ms)| Some((count, (*ms)?)));
    let count: f64 = known().map(|(count, _)| count).sum();
    (count > 0.0).then(|| known().map(|(count, ms)| count * ms).sum::<f64>() / count)
}

fn resources() -> Result<Vec<Resource>> {
    let host = Host::new();
    let disks = disks(&host)?;
    let load = measure(&host, &devices(&disks));
    let mut rows = vec![
        Resource {
            resource: "cpu",
            used: load.cpu.busy,
            capacity: load.cpu.usable,
            steal: load.cpu.steal,
            stalled: load.pressure_cpu.some,
            ..Resource::default()
        },
        Resource {
            resource: "memory",
            used: load.memory.used,
            capacity: load.memory.total_bytes.map(|bytes| bytes as f64),
            stalled: load.pressure_memory.some,
            ..Resource::default()
        },
    ];
    rows.extend(disks.into_iter().map(|disk| {
        let figures = disk.device.and_then(|device| load.disk(device));
        Resource {
            resource: "disk",
            name: figures.map(|f| f.name.clone()),
            tablespaces: Some(disk.tablespaces),
            used: figures.map(|f| f.utilisation),
            read_bytes_s: figures.map(|f| f.read_bytes_per_s),
            written_bytes_s: figures.map(|f| f.written_bytes_per_s),
            queue: figures.map(|f| f.queue),
            wait_ms: figures.and_then(wait_ms),
            stalled: load.pressure_io.some,
            ..Resource::default()
        }
    }));
    Ok(rows)
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn host_now() -> TableIterator<
    'static,
    (
        name!(resource, String),
        name!(name, Option<String>),
        name!(tablespaces, Option<Vec<String>>),
        name!(used, Option<f64>),
        name!(capacity, Option<f64>),
        name!(read_bytes_s, Option<f64>),
        name!(written_bytes_s, Option<f64>),
        name!(queue, Option<f64>),
        name!(wait_ms, Option<f64>),
        name!(steal, Option<f64>),
        name!(stalled, Option<f64>),
    ),
> {
    let rows = resources().unwrap_or_else(|error: Error| error.raise());
    TableIterator::new(rows.into_iter().map(|r| {
        (
            r.resource.to_owned(),
            r.name,
            r.tablespaces,
            r.used,
            r.capacity,
            r.read_bytes_s,
            r.written_bytes_s,
            r.queue,
            r.wait_ms,
            r.steal,
            r.stalled,
        )
    }))
}
