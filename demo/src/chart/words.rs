//! Names, colours and numbers as the picture writes them.

use crate::story::Act;
use crate::watch::Phase;

/// One after the other, so that neighbours differ.
const PHASE_COLOURS: [&str; 12] = [
    "#fbbf24", "#34d399", "#60a5fa", "#f472b6", "#a78bfa", "#2dd4bf", "#fb923c", "#a3e635",
    "#818cf8", "#f87171", "#94a3b8", "#22d3ee",
];

pub fn phase_names(phases: &[Phase]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for phase in phases {
        if !names.contains(&phase.name.as_str()) {
            names.push(&phase.name);
        }
    }
    names
}

pub fn phase_colour(phases: &[Phase], name: &str) -> &'static str {
    let number = phase_names(phases)
        .iter()
        .position(|known| *known == name)
        .unwrap_or_default();
    PHASE_COLOURS[number % PHASE_COLOURS.len()]
}

pub fn swap_word(act: &Act) -> &'static str {
    if act.name == "way back" {
        "revert"
    } else {
        "swap"
    }
}

pub fn duration(us: u64) -> String {
    match us {
        0..100_000 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
