//! Containers: what their limits make of the same machine (four CPUs, 8 GiB).

use host::{Host, Load};

use crate::support::Tree;

const MIB: u64 = 1 << 20;

/// Two samples, two seconds apart, with what `change` does to the tree in between.
fn load(tree: &Tree, change: impl FnOnce()) -> Load {
    let host = Host::at(&tree.root);
    let earlier = host.sample_at(1_000_000, &[]);
    change();
    host.sample_at(3_000_000, &[]).since(&earlier)
}

fn cpu_stat_two(usage: u64, user: u64, periods: u64, throttled: u64) -> String {
    let system = usage - user;
    format!(
        "usage_usec {usage}\nuser_usec {user}\nsystem_usec {system}\nnr_periods {periods}\n\
         nr_throttled {throttled}\nthrottled_usec 1\n"
    )
}

fn two(name: &str) -> Tree {
    let tree = Tree::new(name);
    tree.machine()
        .file("proc/self/cgroup", "0::/pods/pod1/postgres\n")
        .file(
            "proc/self/mountinfo",
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        );
    tree
}

/// A quota of half a CPU on the group around ours, one of two CPUs on ours: the tighter one counts,
/// with what its group used.
#[test]
fn quota_of_version_2() {
    let tree = two("v2-cpu");
    let pod = "sys/fs/cgroup/pods/pod1";
    tree.file(&format!("{pod}/postgres/cpu.max"), "200000 100000\n")
        .file(
            &format!("{pod}/postgres/cpu.stat"),
            cpu_stat_two(0, 0, 0, 0),
        )
        .file(&format!("{pod}/cpu.max"), "50000 100000\n")
        .file(
            &format!("{pod}/cpu.stat"),
            cpu_stat_two(7_000_000, 5_000_000, 10, 3),
        )
        .file("sys/fs/cgroup/pods/cpu.max", "max 100000\n");
    let load = load(&tree, || {
        let stat = cpu_stat_two(7_750_000, 5_500_000, 30, 8);
        tree.ran(200).file(&format!("{pod}/cpu.stat"), stat);
    });
    assert_eq!(load.cpu.usable, Some(0.5));
    assert_eq!(load.cpu.busy, Some(0.75));
    assert_eq!((load.cpu.user, load.cpu.system), (Some(0.5), Some(0.25)));
    assert_eq!(load.cpu.throttled, Some(0.25));
    assert_eq!(load.cpu.steal, Some(0.0), "of the CPUs");

    let burst = self::load(&tree, || {
        tree.file(
            &format!("{pod}/cpu.stat"),
            cpu_stat_two(9_750_000, 6_000_000, 50, 8),
        );
    });
    assert_eq!((burst.cpu.busy, burst.cpu.user), (Some(1.0), Some(0.5)));
}

#[test]
fn a_quota_of_more_than_there_is() {
    let tree = two("v2-wide");
    tree.file("sys/fs/cgroup/pods/cpu.max", "800000 100000\n")
        .file("sys/fs/cgroup/pods/cpu.stat", cpu_stat_two(0, 0, 0, 0));
    let stat = "cpu 100 0 0 100 0 0 0 0\ncpu0 50 0 0 50 0 0 0 0\ncpu1 50 0 0 50 0 0 0 0\n";
    tree.file("proc/stat", stat.replace("00 ", "0 "));
    let load = load(&tree, || {
        tree.file("proc/stat", stat);
    });
    assert_eq!((load.cpu.usable, load.cpu.busy), (Some(2.0), Some(0.5)));
}

/// A group made anew has smaller counters, one that the process was moved to has others.
#[test]
fn another_group() {
    let tree = two("v2-reset");
    let group = "sys/fs/cgroup/pods/pod1/postgres";
    let set = |directory: &str, usage| {
        tree.file(&format!("{directory}/cpu.max"), "100000 100000\n")
            .file(
                &format!("{directory}/cpu.stat"),
                cpu_stat_two(usage, usage, 5, 5),
            );
    };
    set(group, 500);
    let reset = load(&tree, || set(group, 499));
    assert_eq!((reset.cpu.usable, reset.cpu.busy), (Some(1.0), None));
    let moved = load(&tree, || {
        set("sys/fs/cgroup/other", 999);
        tree.file("proc/self/cgroup", "0::/other\n");
    });
    assert_eq!((moved.cpu.busy, moved.cpu.throttled), (None, None));
}

/// 1 GiB for the group, 512 MiB for the group around it, of which neighbours hold a part.
#[test]
fn memory_of_version_2() {
    let tree = two("v2-memory");
    let limited = |directory: &str, max: String, current: u64, cache: u64, swap: u64| {
        let file = |name: &str| format!("sys/fs/cgroup/{directory}/memory.{name}");
        let stat = format!("anon 1\nactive_file {cache}\ninactive_file 0\n");
        tree.file(&file("max"), max)
            .file(&file("high"), "max\n")
            .file(&file("current"), format!("{current}\n"))
            .file(&file("swap.current"), format!("{swap}\n"))
            .file(&file("stat"), stat);
    };
    limited(
        "pods/pod1/postgres",
        format!("{}\n", 1024 * MIB),
        300 * MIB,
        100 * MIB,
        1,
    );
    limited(
        "pods/pod1",
        format!("{}\n", 512 * MIB),
        484 * MIB,
        100 * MIB,
        2,
    );
    limited("pods", "max\n".to_owned(), 4000 * MIB, 0, 3);
    let memory = load(&tree, || ()).memory;
    assert_eq!(memory.total_bytes, Some(512 * MIB));
    assert_eq!(memory.available_bytes, Some(128 * MIB));
    assert_eq!(memory.used, Some(0.75));
    assert_eq!(memory.swap_used_bytes, Some(2));

    // Neighbours leave less than the limit allows.
    tree.file(
        "proc/meminfo",
        "MemTotal: 8388608 kB\nMemAvailable: 65536 kB\n",
    );
    assert_eq!(load(&tree, || ()).memory.available_bytes, Some(64 * MIB));
    tree.file(
        "proc/meminfo",
        "MemTotal: 8388608 kB\nMemAvailable: 6291456 kB\n",
    );

    // Slowed down from 300 MiB on; more is held than that.
    tree.file(
        "sys/fs/cgroup/pods/pod1/memory.high",
        format!("{}", 300 * MIB),
    );
    let memory = load(&tree, || ()).memory;
    assert_eq!(
        (memory.total_bytes, memory.available_bytes),
        (Some(300 * MIB), Some(0))
    );

    // More than the machine has.
    for directory in ["pods/pod1/postgres", "pods/pod1"] {
        limited(directory, format!("{}\n", 99_999 * MIB), MIB, 0, 0);
    }
    tree.file("sys/fs/cgroup/pods/pod1/memory.high", "max\n");
    let memory = load(&tree, || ()).memory;
    assert_eq!(
        (memory.total_bytes, memory.used),
        (Some(8192 * MIB), Some(0.25))
    );
}

/// Docker with version 1: the mounts show the container's group as their root.
#[test]
fn version_1() {
    let tree = Tree::new("v1");
    let cpu = "sys/fs/cgroup/cpu,cpuacct";
    let memory = "sys/fs/cgroup/memory";
    tree.machine()
        .file(
            "proc/self/cgroup",
            "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n0::/docker/a\n",
        )
        .file(
            "proc/self/mountinfo",
            "33 32 0:29 /docker/a /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
             36 32 0:32 /docker/a /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
        )
        .file(&format!("{cpu}/cpu.cfs_quota_us"), "100000\n")
        .file(&format!("{cpu}/cpu.cfs_period_us"), "100000\n")
        .file(
            &format!("{cpu}/cpu.stat"),
            "nr_periods 10\nnr_throttled 0\nthrottled_time 0\n",
        )
        .file(&format!("{cpu}/cpuacct.usage"), "5000000000\n")
        .file(&format!("{cpu}/cpuacct.stat"), "user 100\nsystem 200\n")
        .file(
            &format!("{memory}/memory.limit_in_bytes"),
            "9223372036854771712\n",
        )
        .file(
            &format!("{memory}/memory.usage_in_bytes"),
            format!("{}\n", 200 * MIB),
        )
        .file(
            &format!("{memory}/memory.stat"),
            format!(
                "active_file 1\ninactive_file 1\nhierarchical_memory_limit {}\n\
                 total_swap 77\ntotal_active_file {}\ntotal_inactive_file 0\n",
                256 * MIB,
                8 * MIB
            ),
        );
    let load = load(&tree, || {
        tree.file(
            &format!("{cpu}/cpu.stat"),
            "nr_periods 30\nnr_throttled 10\n",
        )
        .file(&format!("{cpu}/cpuacct.usage"), "6000000999\n")
        .file(&format!("{cpu}/cpuacct.stat"), "user 150\nsystem 250\n");
    });
    assert_eq!((load.cpu.usable, load.cpu.busy), (Some(1.0), Some(0.5)));
    assert_eq!((load.cpu.user, load.cpu.system), (Some(0.25), Some(0.25)));
    assert_eq!(load.cpu.throttled, Some(0.5));
    assert_eq!(load.memory.total_bytes, Some(256 * MIB));
    assert_eq!(load.memory.used, Some(0.75));
    assert_eq!(load.memory.swap_used_bytes, Some(77));

    // In a group inside: the quota is still that of the container, and so is what counts.
    tree.file("proc/self/cgroup", "4:cpu,cpuacct:/docker/a/x\n")
        .file(&format!("{cpu}/x/cpuacct.usage"), "1\n");
    let inside = self::load(&tree, || {
        tree.file(&format!("{cpu}/cpuacct.usage"), "7000000999\n");
    });
    assert_eq!((inside.cpu.usable, inside.cpu.busy), (Some(1.0), Some(0.5)));
}

/// Accounted for in a hierarchy in which the process is in another group: its use is not known.
#[test]
fn version_1_with_two_hierarchies() {
    let tree = Tree::new("v1-two");
    tree.machine()
        .file("proc/self/cgroup", "2:cpuacct:/\n1:cpu:/a\n")
        .file(
            "proc/self/mountinfo",
            "1 0 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu\n\
             2 0 0:30 / /cg/acct rw - cgroup cgroup rw,cpuacct\n",
        )
        .file("cg/cpu/a/cpu.cfs_quota_us", "100000\n")
        .file("cg/cpu/a/cpu.cfs_period_us", "100000\n")
        .file("cg/acct/cpuacct.usage", "1\n");
    let unknown = load(&tree, || ()).cpu;
    assert_eq!((unknown.usable, unknown.busy), (Some(1.0), None));
    tree.file("proc/self/cgroup", "2:cpuacct:/a\n1:cpu:/a\n")
        .file("cg/acct/a/cpuacct.usage", "1000000000\n");
    let known = load(&tree, || {
        tree.file("cg/acct/a/cpuacct.usage", "3000000000\n");
    });
    assert_eq!(known.cpu.busy, Some(1.0));
}

#[test]
fn limits_alone() {
    let tree = Tree::new("limits");
    tree.file("proc/self/cgroup", "0::/\n")
        .file(
            "proc/self/mountinfo",
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        )
        .file("sys/fs/cgroup/cpu.max", "150000 100000\n")
        .file("sys/fs/cgroup/memory.max", "1048576\n");
    let load = load(&tree, || ());
    assert_eq!((load.cpu.usable, load.cpu.busy), (Some(1.5), None));
    assert_eq!(load.memory.total_bytes, Some(MIB));
    assert_eq!(
        (load.memory.available_bytes, load.memory.used),
        (None, None)
    );
}
