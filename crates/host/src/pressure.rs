//! `/proc/pressure/*`: pressure stall information (Linux 4.20 and later, when switched on).

use crate::text::number;

/// For how long tasks stood still for want of a resource, since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Time in which at least one task stood still; microseconds.
    pub some_us: Option<u64>,
    /// Time in which all tasks that had work stood still; microseconds. Absent for CPUs before
    /// Linux 5.13, and zero there since.
    pub full_us: Option<u64>,
}

/// One of the files in `/proc/pressure`; `None` when it has neither of the two lines.
pub fn stall(text: &str) -> Option<Stall> {
    let total = |kind: &str| {
        let line = text
            .lines()
            .find(|line| line.split_ascii_whitespace().next() == Some(kind))?;
        let total = line
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix("total="))?;
        number(total)
    };
    let stall = Stall {
        some_us: total("some"),
        full_us: total("full"),
    };
    (stall != Stall::default()).then_some(stall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_and_one() {
        let both = "some avg10=1.66 avg60=0.56 avg300=0.48 total=131457983\n\
                    full avg10=0.12 avg60=0.18 avg300=0.21 total=70710882\n";
        let expected = Stall {
            some_us: Some(131457983),
            full_us: Some(70710882),
        };
        assert_eq!(stall(both), Some(expected));
        let one = stall("some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n").unwrap();
        assert_eq!((one.some_us, one.full_us), (Some(5), None));
    }

    #[test]
    fn garbage() {
        assert_eq!(stall(""), None);
        assert_eq!(stall("some total=x\nfull\n"), None);
    }
}
