//! A machine without containers: what two samples tell, and what does not make sense.

use std::fs;
use std::path::Path;

use host::{DeviceNumber, Host, Load, MemoryLoad, Storage};

use crate::support::Tree;

const SDA: DeviceNumber = DeviceNumber { major: 8, minor: 0 };
const SDA1: DeviceNumber = DeviceNumber { major: 8, minor: 1 };

/// Two seconds in which one of four CPUs was busy.
#[test]
fn a_machine() {
    let tree = Tree::new("machine");
    let host = Host::at(&tree.root);
    tree.machine();
    let earlier = host.sample_at(1_000_000, &[SDA]);
    tree.ran(200);
    let load = host.sample_at(3_000_000, &[SDA]).since(&earlier);

    assert_eq!(load.interval_us, 2_000_000);
    assert_eq!(load.cpu.usable, Some(4.0));
    assert_eq!(
        (load.cpu.busy, load.cpu.user, load.cpu.system),
        (Some(0.25), Some(0.25), Some(0.0))
    );
    assert_eq!((load.cpu.iowait, load.cpu.steal), (Some(0.0), Some(0.0)));
    assert_eq!(load.cpu.throttled, None);
    assert_eq!(load.load_average, Some([1.5, 0.75, 0.25]));
    assert_eq!(load.memory.total_bytes, Some(8 << 30));
    assert_eq!(load.memory.used, Some(0.25));
    assert_eq!(load.memory.swap_used_bytes, Some(24 << 10));
    let disk = load.disk(SDA).unwrap();
    assert_eq!((disk.reads_per_s, disk.writes_per_s), (100.0, 0.0));
    assert_eq!(disk.read_bytes_per_s, 100.0 * 8192.0);
    assert_eq!((disk.read_ms, disk.write_ms), (Some(2.0), None));
    assert_eq!((disk.utilisation, disk.queue), (0.25, 0.5));
    assert_eq!(
        (disk.discarded_bytes_per_s, disk.flushes_per_s),
        (Some(0.0), Some(0.0))
    );
    assert_eq!(load.pressure_io.some, Some(0.25));
    assert_eq!(load.pressure_io.full, None);
    assert_eq!(load.pressure_cpu.some, None);
}

#[test]
fn fractions_are_of_the_cpus_that_may_be_used() {
    let stat = |user: u64, idle: u64| {
        format!(
            "cpu {user} 0 0 {} 0 0 0 0\ncpu0 {user} 0 0 0 0 0 0 0\ncpu1 0 0 0 {idle} 0 0 0 0\n",
            idle
        )
    };
    let tree = Tree::new("allowed");
    let host = Host::at(&tree.root);
    let busy = |list: &str| {
        tree.file("proc/self/status", format!("Cpus_allowed_list:\t{list}\n"));
        tree.file("proc/stat", stat(100, 100));
        let earlier = host.sample_at(0, &[]);
        tree.file("proc/stat", stat(200, 200));
        let cpu = host.sample_at(1_000_000, &[]).since(&earlier).cpu;
        (cpu.usable, cpu.busy)
    };
    assert_eq!(busy("0-1"), (Some(2.0), Some(0.5)));
    assert_eq!(busy("0"), (Some(1.0), Some(1.0)));
    assert_eq!(busy("1"), (Some(1.0), Some(0.0)));
    // None of ours is there: CPUs renumbered for us.
    assert_eq!(busy("6-7"), (Some(2.0), Some(0.5)));
    tree.file(
        "proc/self/mountinfo",
        "9 8 0:9 / /proc/stat rw - fuse.lxcfs lxcfs rw\n",
    );
    assert_eq!(busy("1-2"), (Some(2.0), Some(0.5)));
}

/// A disk taken away, one that came, one that was replaced; a reboot; CPUs taken away.
#[test]
fn counters_that_went_backwards() {
    let tree = Tree::new("backwards");
    let host = Host::at(&tree.root);
    let diskstats = tree.machine().ran(200).root.join("proc/diskstats");
    let earlier = host.sample_at(1_000_000, &[SDA]);

    tree.ran(100);
    let load = host.sample_at(2_000_000, &[SDA]).since(&earlier);
    assert_eq!((load.cpu.busy, load.cpu.steal), (None, None));
    assert_eq!(load.disks, []);
    assert_eq!(load.pressure_io.some, None);
    assert_eq!(load.memory.used, Some(0.25), "no counter");

    tree.ran(300);
    fs::remove_file(diskstats).unwrap();
    assert_eq!(host.sample_at(2_000_000, &[SDA]).since(&earlier).disks, []);
    tree.file(
        "proc/diskstats",
        "8 0 sdz 999999 0 999999 999999 0 0 0 0 0 999999 999999\n",
    );
    assert_eq!(host.sample_at(2_000_000, &[SDA]).since(&earlier).disks, []);

    tree.ran(300)
        .file("proc/self/status", "Cpus_allowed_list:\t0-1\n");
    let load = host.sample_at(2_000_000, &[SDA]).since(&earlier);
    assert_eq!((load.cpu.usable, load.cpu.busy), (Some(2.0), None));

    // And CPUs that came: their sums hold all the time since boot.
    let fewer = host.sample_at(2_000_000, &[]);
    tree.ran(400)
        .file("proc/self/status", "Cpus_allowed_list:\t0-3\n");
    let load = host.sample_at(3_000_000, &[]).since(&fewer);
    assert_eq!((load.cpu.usable, load.cpu.busy), (Some(4.0), None));
}

#[test]
fn samples_in_the_wrong_order() {
    let tree = Tree::new("order");
    let host = Host::at(&tree.root);
    tree.machine();
    let sample = |at_us, ticks| {
        tree.ran(ticks);
        host.sample_at(at_us, &[SDA])
    };
    let (first, second) = (sample(5, 10), sample(5, 20));
    for load in [
        second.since(&first),
        first.since(&second),
        first.since(&sample(9, 0)),
    ] {
        assert_eq!((load.interval_us, load.cpu.busy), (0, None));
        assert_eq!((load.disks.len(), load.pressure_io.some), (0, None));
        assert_eq!(load.cpu.usable, Some(4.0));
    }
}

#[test]
fn nothing_to_read() {
    let tree = Tree::new("nothing");
    for root in [tree.root.clone(), tree.root.join("absent")] {
        let host = Host::at(root);
        let earlier = host.sample_at(1, &[SDA]);
        let load = host.sample_at(2, &[SDA]).since(&earlier);
        assert_eq!(
            load,
            Load {
                interval_us: 1,
                ..Load::default()
            }
        );
        assert_eq!(host.storage(Path::new("/data")), Storage::default());
    }
    // Only the number of CPUs is to be had.
    tree.file("sys/devices/system/cpu/online", "0-5\n");
    assert_eq!(Host::at(&tree.root).sample_at(1, &[]).cpus_allowed, Some(6));
}

#[test]
fn garbage_everywhere() {
    let tree = Tree::new("garbage");
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let files = [
        "stat",
        "loadavg",
        "meminfo",
        "diskstats",
        "pressure/io",
        "self/status",
    ];
    for name in files.into_iter().chain(["self/mountinfo", "self/cgroup"]) {
        tree.file(&format!("proc/{name}"), &bytes);
    }
    let host = Host::at(&tree.root);
    let load = host.sample_at(2, &[SDA]).since(&host.sample_at(1, &[SDA]));
    assert_eq!(
        (load.cpu.usable, load.memory),
        (None, MemoryLoad::default())
    );
    assert_eq!(host.storage_at(SDA, Path::new("/")), Storage::default());
}

#[test]
fn disks_of_directories() {
    let tree = Tree::new("disks");
    tree.machine();
    let host = Host::at(&tree.root);
    let storage = |device: &str, path: &str| {
        let found = host.storage_at(device.parse().unwrap(), Path::new(path));
        let disk = found.disk.map_or("-".to_owned(), |disk| disk.to_string());
        format!("{disk} {}", found.filesystem.as_deref().unwrap_or("-"))
    };
    // By names, without /sys.
    assert_eq!(storage("8:1", "/var"), "8:0 ext4");
    assert_eq!(storage("8:9", "/var"), "- ext4");

    tree.file("sys/devices/x/sdb/dev", "8:16\n")
        .file("sys/devices/x/sdb/stat", "1 0 8 1 2 0 16 2 0 3 4\n")
        .file("sys/devices/x/sdb/sdb7/dev", "8:23\n")
        .file("sys/devices/x/sdb/sdb7/partition", "7\n")
        .link("sys/dev/block/8:16", "../../devices/x/sdb")
        .link("sys/dev/block/8:23", "../../devices/x/sdb/sdb7")
        .link("sys/class/block/sdb7", "../../devices/x/sdb/sdb7")
        .file(
            "proc/self/mountinfo",
            "1 0 8:23 / / rw - xfs /dev/sdb7 rw\n2 1 0:40 / /pool rw - btrfs /dev/sdb7 rw\n\
             3 1 0:50 / /tmp rw - tmpfs tmpfs rw\n4 1 0:51 / /c rw - overlay overlay rw\n\
             5 1 0:52 / /nfs rw - nfs4 server:/x rw\n",
        );
    assert_eq!(storage("8:23", "/var"), "8:16 xfs");
    assert_eq!(storage("8:16", "/var"), "8:16 xfs");
    assert_eq!(storage("0:41", "/pool/sub"), "8:16 btrfs");
    assert_eq!(storage("0:50", "/tmp/x"), "- tmpfs");
    assert_eq!(storage("0:51", "/c"), "- overlay");
    assert_eq!(storage("0:52", "/nfs/y"), "- nfs4");

    // The figures of a disk that /proc/diskstats does not list.
    let sdb = "8:16".parse().unwrap();
    let sample = host.sample_at(1, &[SDA1, sdb]);
    assert_eq!(sample.disks.len(), 2);
    assert_eq!(
        (
            sample.disk(sdb).unwrap().name.as_str(),
            sample.disk(sdb).unwrap().writes
        ),
        ("sdb", 2)
    );
}

/// Whatever it lies on here; nothing may be known, but asking is safe.
#[test]
fn this_machine() {
    let host = Host::new();
    let storage = host.storage(&std::env::temp_dir());
    assert_eq!(
        host.storage(Path::new(".")).disk,
        host.storage(&std::env::current_dir().unwrap()).disk
    );
    let disks: Vec<_> = storage.disk.into_iter().collect();
    let earlier = host.sample(&disks);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let load = host.sample(&disks).since(&earlier);
    println!("{storage:?}\n{load:#?}");
    assert!(load.interval_us >= 100_000);
    let (cpu, memory) = (load.cpu, load.memory);
    let fractions = [
        cpu.busy,
        cpu.user,
        cpu.system,
        cpu.iowait,
        cpu.steal,
        cpu.throttled,
        memory.used,
    ];
    assert!(
        fractions
            .into_iter()
            .flatten()
            .all(|f| (0.0..=1.0).contains(&f))
    );
    assert!(cpu.usable.is_none_or(|cpus| cpus > 0.0));
    assert!(
        load.disks
            .iter()
            .all(|disk| (0.0..=1.0).contains(&disk.utilisation))
    );
}
