//! No text makes a parser panic, and no pair of samples the comparison.

use std::path::Path;

use host::cgroup::{self, Membership};
use host::cpu::CpuList;
use host::{DeviceNumber, Host, cpu, disk, memory, mount, pressure};
use proptest::prelude::*;

use crate::support::Tree;

/// Text that looks like these files: their words, numbers at the edges, and noise.
fn text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "cpu",
            "cpu0",
            "MemTotal:",
            "MemAvailable:",
            "SwapTotal:",
            "SwapFree:",
            "kB",
            "some",
            "full",
            "total=",
            "total=18446744073709551615",
            "sda",
            "sda1",
            "nvme0n1p1",
            "8:0",
            "0::/",
            "0::/a",
            "1:cpu,cpuacct:/a",
            "2:memory:/../a",
            "cgroup",
            "cgroup2",
            "rw,cpu",
            "/",
            "/a",
            "-",
            "\\040",
            "Cpus_allowed_list:",
            "0-3,7",
            "0-4294967295",
            "usage_usec",
            "nr_periods",
            "max",
            "hierarchical_memory_limit",
            "active_file",
            "inactive_file",
            "slab_reclaimable",
            "user",
        ])
        .prop_map(str::to_owned),
        prop::sample::select(vec![0, 1, 7, 8, u64::MAX / 1024, u64::MAX - 1, u64::MAX])
            .prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        "\\PC{0,6}",
    ];
    let gap = prop::sample::select(vec![
        " ", " ", " ", "  ", "\t", "\n", "\n", ":", "", "\\", "\0",
    ]);
    prop::collection::vec((word, gap), 0..80)
        .prop_map(|parts| parts.into_iter().map(|(word, gap)| word + gap).collect())
}

const SDA: DeviceNumber = DeviceNumber { major: 8, minor: 0 };

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsers(text in text(), other in text(), dev in any::<u64>()) {
        let numbers = cpu::online(&text);
        let _ = (cpu::all_times(&text), cpu::times_of(&text, &numbers), cpu::load_average(&text));
        let _ = cpu::all_times(&text).zip(cpu::all_times(&other)).map(|(a, b)| a.since(b));
        let list = CpuList::parse(&text).or(CpuList::allowed(&text));
        let _ = list.map(|list| list.count_in(CpuList::parse(&other).as_ref()));
        let _ = (memory::memory(&text), pressure::stall(&text));
        let _ = (disk::disk(&text, SDA), disk::whole_disk(&text, SDA), disk::counters(SDA, "", &text));
        let mounts = mount::mounts(&text);
        let device = DeviceNumber::from_dev(dev);
        prop_assert_eq!(device.to_string().parse(), Ok(device));
        let _ = mount::mount_of(&mounts, device, Path::new(&other));
        let membership = Membership::parse(&other);
        for controller in ["cpu", "memory", ""] {
            let _ = membership.levels(controller, &mounts);
        }
        let _ = (cgroup::cpu_max(&text), cgroup::cfs_quota(&text, &other), cgroup::limit(&text));
        let _ = cgroup::cpu_stat(&text).with_cpuacct(Some(&text), Some(&other));
        let _ = (cgroup::reclaimable(&text), cgroup::hierarchical_limit(&text));
        let _ = cgroup::swap_used(&text);
    }

    /// Lines that are well-formed with any numbers: sums and differences stay in range.
    #[test]
    fn any_numbers(rows in prop::collection::vec(prop::array::uniform20(edge()), 4)) {
        let line = |row: usize, count: usize| {
            rows[row][..count].iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
        };
        let a = cpu::all_times(&format!("cpu {}", line(0, 10))).unwrap();
        let b = cpu::all_times(&format!("cpu {}", line(1, 10))).unwrap();
        let _ = a.total();
        let _ = a.since(b).map(|passed| passed.total());
        let both = format!("cpu0 {}\ncpu1 {}\n", line(0, 10), line(1, 10));
        prop_assert!(cpu::times_of(&both, &[0, 1]).is_some());
        let disk = disk::disk(&format!("8 0 sda {}", line(2, 17)), SDA);
        prop_assert!(disk.is_some());
        let stat = format!("active_file {}\ninactive_file {}\nslab_reclaimable {}\n",
            rows[3][0], rows[3][1], rows[3][2]);
        prop_assert!(cgroup::reclaimable(&stat).is_some());
    }
}

fn edge() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), 0..1000u64, any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whole trees of such files; fractions stay fractions.
    #[test]
    fn samples(files in prop::collection::vec(text(), 14), times in any::<[u64; 2]>()) {
        let tree = Tree::new("no-panic");
        let names = ["proc/stat", "proc/loadavg", "proc/meminfo", "proc/diskstats",
            "proc/self/status", "proc/pressure/io", "cg/cpu.stat"];
        let host = Host::at(&tree.root);
        tree.file("proc/self/cgroup", "0::/\n")
            .file("proc/self/mountinfo", "1 0 0:1 / /cg rw - cgroup2 x rw\n")
            .file("cg/cpu.max", "1 1000000\n");
        let mut samples = files.chunks(names.len()).zip(times).map(|(texts, at_us)| {
            for (name, text) in names.iter().zip(texts) {
                tree.file(name, text);
            }
            host.sample_at(at_us, &[SDA])
        });
        let (a, b) = (samples.next().unwrap(), samples.next().unwrap());
        for load in [a.since(&b), b.since(&a)] {
            let cpu = load.cpu;
            let found = [cpu.busy, cpu.user, cpu.system, cpu.iowait, cpu.steal, cpu.throttled,
                load.memory.used, load.pressure_io.some, load.pressure_io.full];
            prop_assert!(found.into_iter().flatten().all(|f| (0.0..=1.0).contains(&f)));
        }
        let _ = host.storage_at(SDA, Path::new("/x"));
    }
}
