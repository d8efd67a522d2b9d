//! A machine made of files.

use std::fs;
use std::path::PathBuf;

/// A directory that looks like the root of a machine; removed at the end.
pub struct Tree {
    pub root: PathBuf,
}

impl Tree {
    pub fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("host-{}-{name}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Self { root }
    }

    pub fn file(&self, path: &str, text: impl AsRef<[u8]>) -> &Self {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
        self
    }

    /// Four CPUs that ran for no time, 8 GiB, a disk with a partition.
    pub fn machine(&self) -> &Self {
        self.file(
            "proc/self/status",
            "Name:\tpostgres\nCpus_allowed_list:\t0-127\n",
        )
        .file("proc/loadavg", "1.50 0.75 0.25 2/345 6789\n")
        .file(
            "proc/meminfo",
            "MemTotal: 8388608 kB\nMemFree: 1048576 kB\nMemAvailable: 6291456 kB\n\
                 SwapTotal: 1024 kB\nSwapFree: 1000 kB\n",
        )
        .file(
            "proc/self/mountinfo",
            "27 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
        )
        .ran(0)
    }

    /// The counters of a machine that ran for so many hundredths of a second: the first CPU was busy
    /// all the time, the disk and the tasks that waited for it a quarter of it.
    pub fn ran(&self, ticks: u64) -> &Self {
        let mut stat = format!("cpu  {ticks} 0 0 {} 0 0 0 0 0 0\n", 300 + 3 * ticks);
        stat += &format!("cpu0 {ticks} 0 0 0 0 0 0 0 0 0\n");
        for cpu in 1..4 {
            stat += &format!("cpu{cpu} 0 0 0 {} 0 0 0 0 0 0\n", 100 + ticks);
        }
        let disk = format!(
            "   8       0 sda {} 0 {} {} 0 0 0 0 0 {} {} 0 0 0 0 0 0\n",
            10 + ticks,
            80 + 16 * ticks,
            5 + 2 * ticks,
            100 + ticks * 5 / 2,
            200 + ticks * 5
        );
        let partition = "   8       1 sda1 1 0 1 1 0 0 0 0 0 1 1 0 0 0 0 0 0\n";
        self.file("proc/stat", stat + "intr 5 0 0\nctxt 9\n")
            .file("proc/diskstats", disk + partition)
            .file(
                "proc/pressure/io",
                format!("some avg10=0.00 total={}\n", ticks * 2500),
            )
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
