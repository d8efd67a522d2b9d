//! The picture: client latency over time, phases shaded, swaps marked, and each swap under the glass.

use crate::report;
use crate::story::{Act, Outcome};
use crate::svg::{Anchor, Area, Svg, Text, text_width};
use crate::watch::Phase;
use crate::writers::{Lane, Sample};

const WIDTH: f64 = 1600.0;
const HEIGHT: f64 = 1090.0;
const LEFT: f64 = 88.0;
const RIGHT: f64 = 36.0;
const INK: &str = "#1f2937";
const GREY: &str = "#6b7280";
const GRID: &str = "#e5e7eb";
const MOVED: &str = "#c2410c";
const OTHERS: &str = "#1d4ed8";
const SWAP: &str = "#111827";
/// One after the other, so that neighbours differ.
const PHASE_COLOURS: [&str; 12] = [
    "#fbbf24", "#34d399", "#60a5fa", "#f472b6", "#a78bfa", "#2dd4bf", "#fb923c", "#a3e635",
    "#818cf8", "#f87171", "#94a3b8", "#22d3ee",
];
const BUCKET_US: u64 = 100_000;
/// p99 of a bucket's few dozen transactions would be their maximum: take it over a second.
const P99_SPAN_US: u64 = 1_000_000;
const GLASS_US: u64 = 150_000;

/// Time across, latency up (log).
struct Scale {
    area: Area,
    from_us: f64,
    to_us: f64,
    low_ms: f64,
    high_ms: f64,
}

impl Scale {
    fn x(&self, at_us: u64) -> f64 {
        let share = (at_us as f64 - self.from_us) / (self.to_us - self.from_us);
        self.area.x + share.clamp(0.0, 1.0) * self.area.width
    }

    fn y(&self, ms: f64) -> f64 {
        let share = (ms / self.low_ms).log10() / (self.high_ms / self.low_ms).log10();
        self.area.bottom() - share.clamp(0.0, 1.0) * self.area.height
    }
}

pub fn draw(outcome: &Outcome) -> String {
    let mut svg = Svg::new(WIDTH, HEIGHT);
    heading(&mut svg, outcome);

    let from_us = outcome.acts.first().map_or(0, |act| act.from_us);
    let to_us = outcome.acts.last().map_or(1, |act| act.to_us);
    let lanes = [
        (
            Lane::Moved,
            format!("clients of {}, which moves", outcome.carrier),
            MOVED,
            142.0,
        ),
        (
            Lane::Others,
            format!("clients of {}, which stay", outcome.others.join(" and ")),
            OTHERS,
            414.0,
        ),
    ]
    .map(|(lane, name, colour, y)| {
        (
            lane,
            name,
            colour,
            y,
            buckets(outcome, lane, from_us, to_us),
        )
    });
    let drawn = lanes
        .iter()
        .flat_map(|lane| &lane.4)
        .flat_map(|bucket| [bucket.median, bucket.largest]);
    let (low_ms, high_ms) = latency_range(drawn.flatten());
    let scale_at = |y: f64, height: f64| Scale {
        area: Area {
            x: LEFT,
            y,
            width: WIDTH - LEFT - RIGHT,
            height,
        },
        from_us: from_us as f64,
        to_us: to_us as f64,
        low_ms,
        high_ms,
    };

    acts_strip(&mut svg, outcome, &scale_at(104.0, 28.0));
    for (lane, name, colour, y, buckets) in &lanes {
        let scale = scale_at(*y, 250.0);
        shade_phases(&mut svg, &outcome.phases, &scale);
        grid(&mut svg, &scale, &[1.0, 2.0, 5.0]);
        calm_maximum(&mut svg, outcome, *lane, colour, &scale);
        curves(&mut svg, buckets, colour, &scale);
        swap_lines(&mut svg, &outcome.acts, &scale, *lane == Lane::Moved);
        label(&mut svg, (LEFT + 10.0, y + 22.0), 15.0, colour, name);
    }
    seconds(&mut svg, &scale_at(414.0, 250.0));
    legend(&mut svg, outcome, 712.0);
    glasses(&mut svg, outcome);
    svg.finish()
}

fn heading(svg: &mut Svg, outcome: &Outcome) {
    let moved = outcome
        .acts
        .iter()
        .find_map(|act| act.rows)
        .unwrap_or_default() as u64;
    let title = format!(
        "{} flights of {} move to another tablespace, back, and again, while clients write",
        thousands(moved),
        outcome.carrier
    );
    let note = if outcome.dry_run {
        "DRY RUN, nothing moved · "
    } else {
        ""
    };
    let total = thousands(outcome.samples.len() as u64);
    let subtitle = format!(
        "{note}{} · {total} transactions by four clients · failed: {} · differences: {} · latency as the clients saw it",
        outcome.server,
        outcome.failed.len(),
        outcome.differences(),
    );
    svg.text(
        (LEFT, 48.0),
        Text {
            size: 27.0,
            colour: INK,
            anchor: Anchor::Start,
        },
        &title,
    );
    svg.text(
        (LEFT, 78.0),
        Text {
            size: 16.0,
            colour: GREY,
            anchor: Anchor::Start,
        },
        &subtitle,
    );
}

/// What the story does, one block an act: the call itself dark, the time after it light.
fn acts_strip(svg: &mut Svg, outcome: &Outcome, scale: &Scale) {
    for act in &outcome.acts {
        let (x, end) = (scale.x(act.from_us), scale.x(act.to_us) - 2.0);
        let Area { y, height, .. } = scale.area;
        svg.rect(
            Area {
                x,
                y,
                width: end - x,
                height,
            },
            "#e5e7eb",
            1.0,
        );
        if let Some(call_us) = act.call_us {
            let width = (scale.x(act.from_us + call_us) - x).max(2.0);
            svg.rect(
                Area {
                    x,
                    y,
                    width,
                    height,
                },
                "#9ca3af",
                1.0,
            );
        }
        let text = match act.call_us {
            Some(us) => format!("{} · {}", act.name, duration(us)),
            None => act.name.to_owned(),
        };
        let style = Text {
            size: 15.0,
            colour: INK,
            anchor: Anchor::Start,
        };
        svg.text((x + 9.0, y + 19.5), style, &text);
    }
}

fn shade_phases(svg: &mut Svg, phases: &[Phase], scale: &Scale) {
    for phase in phases {
        let (x, end) = (scale.x(phase.from_us), scale.x(phase.to_us));
        let area = Area {
            x,
            width: (end - x).max(0.8),
            ..scale.area
        };
        svg.rect(area, phase_colour(phases, &phase.name), 0.30);
        if text_width(&phase.name, 13.0) + 8.0 < end - x {
            let style = Text {
                size: 13.0,
                colour: INK,
                anchor: Anchor::Middle,
            };
            svg.text(
                ((x + end) / 2.0, scale.area.bottom() - 8.0),
                style,
                &phase.name,
            );
        }
    }
}

/// `steps`: which multiples of a power of ten get a line.
fn grid(svg: &mut Svg, scale: &Scale, steps: &[f64]) {
    let Area {
        x,
        y,
        width,
        height,
    } = scale.area;
    for ms in decades(scale.low_ms, scale.high_ms) {
        for step in steps {
            let value = ms * step;
            if !(scale.low_ms * 0.999..=scale.high_ms * 1.001).contains(&value) {
                continue;
            }
            let at = scale.y(value);
            let thickness = if *step == 1.0 { 1.2 } else { 0.6 };
            svg.line((x, at), (x + width, at), GRID, thickness, "");
            let style = Text {
                size: 12.5,
                colour: GREY,
                anchor: Anchor::End,
            };
            svg.text((x - 8.0, at + 4.0), style, &format!("{value} ms"));
        }
    }
    svg.line((x, y), (x, y + height), GRID, 1.2, "");
}

fn calm_maximum(svg: &mut Svg, outcome: &Outcome, lane: Lane, colour: &str, scale: &Scale) {
    let Some(calm) = outcome.acts.first() else {
        return;
    };
    let largest_ms = report::latency(outcome, calm, lane).largest_ms;
    let at = scale.y(largest_ms);
    svg.line(
        (scale.area.x, at),
        (scale.area.right(), at),
        colour,
        1.2,
        "7 5",
    );
    let text = format!("their largest in the calm: {largest_ms:.1} ms");
    label(
        svg,
        (scale.area.x + 262.0, scale.area.y + 22.0),
        13.0,
        GREY,
        &text,
    );
    let dash = scale.area.x + 262.0 + text_width(&text, 13.0) + 8.0;
    svg.line(
        (dash, scale.area.y + 18.0),
        (dash + 34.0, scale.area.y + 18.0),
        colour,
        1.2,
        "7 5",
    );
}

/// What a lane's curves are drawn from: one a bucket, microseconds, none where there was no transaction.
struct Bucket {
    middle_us: u64,
    largest: Option<u64>,
    p99: Option<u64>,
    median: Option<u64>,
}

fn buckets(outcome: &Outcome, lane: Lane, from_us: u64, to_us: u64) -> Vec<Bucket> {
    let count = ((to_us - from_us) / BUCKET_US) as usize + 1;
    let mut took: Vec<Vec<u64>> = vec![Vec::new(); count];
    for sample in outcome.samples.iter().filter(|sample| sample.lane == lane) {
        if (from_us..to_us).contains(&sample.start_us) {
            took[((sample.start_us - from_us) / BUCKET_US) as usize].push(sample.took_us);
        }
    }
    let reach = (P99_SPAN_US / BUCKET_US / 2) as usize;
    let around = |bucket: usize| {
        let mut near = took[bucket.saturating_sub(reach)..(bucket + reach).min(count)].concat();
        near.sort_unstable();
        near
    };
    (0..count)
        .map(|bucket| {
            let near = around(bucket);
            Bucket {
                middle_us: from_us + bucket as u64 * BUCKET_US + BUCKET_US / 2,
                largest: took[bucket].iter().max().copied(),
                p99: near.get(near.len() * 99 / 100).copied(),
                median: near.get(near.len() / 2).copied(),
            }
        })
        .collect()
}

fn curves(svg: &mut Svg, buckets: &[Bucket], colour: &str, scale: &Scale) {
    let curve = |pick: fn(&Bucket) -> Option<u64>| -> Vec<(f64, f64)> {
        let point = |bucket: &Bucket| {
            pick(bucket).map(|us| (scale.x(bucket.middle_us), scale.y(us as f64 / 1e3)))
        };
        buckets.iter().filter_map(point).collect()
    };
    let largest = curve(|bucket| bucket.largest);
    svg.path(&largest, colour, 1.3);
    svg.dots(&largest, colour, 1.9, 1.0);
    for (points, width) in [
        (curve(|bucket| bucket.p99), 2.6),
        (curve(|bucket| bucket.median), 1.0),
    ] {
        svg.path(&points, "#ffffff", width + 2.4);
        svg.path(&points, colour, width);
    }
}

fn swap_lines(svg: &mut Svg, acts: &[Act], scale: &Scale, labelled: bool) {
    for act in acts {
        let Some(swap) = &act.swap else { continue };
        let x = scale.x(swap.at_us);
        svg.line((x, scale.area.y), (x, scale.area.bottom()), SWAP, 1.6, "");
        if labelled {
            let text = format!("{}: {:.1} ms", swap_word(act), swap.stall_ms);
            label(svg, (x + 6.0, scale.area.y + 22.0), 14.0, SWAP, &text);
        }
    }
}

fn swap_word(act: &Act) -> &'static str {
    if act.name == "way back" {
        "revert"
    } else {
        "swap"
    }
}

/// Seconds along the bottom, from the begin of the calm.
fn seconds(svg: &mut Svg, scale: &Scale) {
    let span_s = ((scale.to_us - scale.from_us) / 1e6) as u64;
    let step = if span_s > 90 { 10 } else { 5 };
    for second in (0..=span_s).step_by(step) {
        let x = scale.x(scale.from_us as u64 + second * 1_000_000);
        let bottom = scale.area.bottom();
        svg.line((x, bottom), (x, bottom + 5.0), GREY, 1.0, "");
        let style = Text {
            size: 13.0,
            colour: GREY,
            anchor: Anchor::Middle,
        };
        svg.text((x, bottom + 20.0), style, &format!("{second} s"));
    }
}

/// How to read the curves, and each phase with its colour and how long it took.
fn legend(svg: &mut Svg, outcome: &Outcome, y: f64) {
    let style = Text {
        size: 14.0,
        colour: GREY,
        anchor: Anchor::Start,
    };
    svg.line((LEFT, y - 5.0), (LEFT + 26.0, y - 5.0), INK, 1.3, "");
    svg.dots(&[(LEFT + 13.0, y - 5.0)], INK, 2.2, 1.0);
    svg.text((LEFT + 34.0, y), style, "largest in 100 ms");
    svg.line(
        (LEFT + 178.0, y - 5.0),
        (LEFT + 204.0, y - 5.0),
        INK,
        3.0,
        "",
    );
    svg.text((LEFT + 212.0, y), style, "p99 and");
    svg.line(
        (LEFT + 272.0, y - 5.0),
        (LEFT + 298.0, y - 5.0),
        INK,
        1.0,
        "",
    );
    svg.text((LEFT + 306.0, y), style, "median of a second");

    let mut x = LEFT + 470.0;
    let mut y = y;
    svg.text((x, y), style, "phases:");
    x += 60.0;
    for name in phase_names(&outcome.phases) {
        let long_us: u64 = outcome
            .phases
            .iter()
            .filter(|phase| phase.name == name)
            .map(|phase| phase.to_us - phase.from_us)
            .sum();
        let text = format!("{name} {}", duration(long_us));
        if x + text_width(&text, 14.0) + 40.0 > WIDTH - RIGHT {
            x = LEFT + 530.0;
            y += 22.0;
        }
        let chip = Area {
            x,
            y: y - 12.0,
            width: 14.0,
            height: 14.0,
        };
        svg.rect(chip, phase_colour(&outcome.phases, name), 0.55);
        svg.text((x + 20.0, y), style, &text);
        x += text_width(&text, 14.0) + 44.0;
    }
}

/// Each swap under the glass: every transaction a stroke as long as it took.
fn glasses(svg: &mut Svg, outcome: &Outcome) {
    let (low_ms, high_ms) = latency_range(outcome.samples.iter().map(|sample| sample.took_us));
    let swaps: Vec<&Act> = outcome
        .acts
        .iter()
        .filter(|act| act.swap.is_some())
        .collect();
    let gap = 56.0;
    let width = (WIDTH - LEFT - RIGHT - gap * (swaps.len() - 1) as f64) / swaps.len() as f64;
    for (index, act) in swaps.iter().enumerate() {
        let Some(swap) = &act.swap else { continue };
        let x = LEFT + index as f64 * (width + gap);
        let scale = Scale {
            area: Area {
                x,
                y: 802.0,
                width,
                height: 226.0,
            },
            from_us: swap.at_us.saturating_sub(GLASS_US) as f64,
            to_us: (swap.at_us + GLASS_US) as f64,
            low_ms,
            high_ms,
        };
        let style = Text {
            size: 15.0,
            colour: INK,
            anchor: Anchor::Start,
        };
        let text = format!(
            "{}: {} of {:.2} ms, every transaction",
            act.name,
            swap_word(act),
            swap.stall_ms
        );
        svg.text((x, 788.0), style, &text);

        let stall_us = (swap.stall_ms * 1e3) as u64;
        let (from, to) = (
            scale.x(swap.at_us.saturating_sub(stall_us)),
            scale.x(swap.at_us),
        );
        let band = Area {
            x: from,
            width: (to - from).max(1.5),
            ..scale.area
        };
        svg.rect(band, SWAP, 0.25);
        grid(svg, &scale, &[1.0]);
        for (lane, colour) in [(Lane::Others, OTHERS), (Lane::Moved, MOVED)] {
            strokes(svg, &outcome.samples, lane, colour, &scale);
        }
        for offset_ms in [-100i64, 0, 100] {
            let at = scale.x((swap.at_us as i64 + offset_ms * 1_000).max(0) as u64);
            let style = Text {
                size: 12.5,
                colour: GREY,
                anchor: Anchor::Middle,
            };
            let text = if offset_ms == 0 {
                swap_word(act).to_owned()
            } else {
                format!("{offset_ms:+} ms")
            };
            svg.text((at, scale.area.bottom() + 19.0), style, &text);
        }
    }
    let style = Text {
        size: 13.0,
        colour: GREY,
        anchor: Anchor::Start,
    };
    let text = "A stroke is one transaction, as long as it took. The grey band is the swap: lock wait and exchange.";
    svg.text((LEFT, HEIGHT - 18.0), style, text);
}

fn strokes(svg: &mut Svg, samples: &[Sample], lane: Lane, colour: &str, scale: &Scale) {
    let (from_us, to_us) = (scale.from_us as u64, scale.to_us as u64);
    for sample in samples.iter().filter(|sample| sample.lane == lane) {
        let end_us = sample.start_us + sample.took_us;
        if end_us < from_us || sample.start_us > to_us {
            continue;
        }
        let y = scale.y(sample.took_us as f64 / 1e3);
        svg.line(
            (scale.x(sample.start_us), y),
            (scale.x(end_us), y),
            colour,
            1.2,
            "",
        );
        svg.dots(&[(scale.x(sample.start_us), y)], colour, 2.0, 0.9);
    }
}

/// Text on a white ground, over whatever is drawn below.
fn label(svg: &mut Svg, at: (f64, f64), size: f64, colour: &str, text: &str) {
    let ground = Area {
        x: at.0 - 4.0,
        y: at.1 - size,
        width: text_width(text, size) + 8.0,
        height: size * 1.4,
    };
    svg.rect(ground, "#ffffff", 0.85);
    svg.text(
        at,
        Text {
            size,
            colour,
            anchor: Anchor::Start,
        },
        text,
    );
}

fn phase_names(phases: &[Phase]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for phase in phases {
        if !names.contains(&phase.name.as_str()) {
            names.push(&phase.name);
        }
    }
    names
}

fn phase_colour(phases: &[Phase], name: &str) -> &'static str {
    let number = phase_names(phases)
        .iter()
        .position(|known| *known == name)
        .unwrap_or_default();
    PHASE_COLOURS[number % PHASE_COLOURS.len()]
}

/// Round bounds around latencies in microseconds.
fn latency_range(took_us: impl Iterator<Item = u64>) -> (f64, f64) {
    let (least_us, largest_us) = took_us
        .map(|us| us.max(1))
        .fold((u64::MAX, 1), |(least, largest), us| {
            (least.min(us), largest.max(us))
        });
    let steps = [1.0, 2.0, 5.0, 10.0];
    let split = |us: u64| {
        let ms = us as f64 / 1e3;
        (ms, 10f64.powf(ms.log10().floor()))
    };
    let (least_ms, decade) = split(least_us.min(largest_us));
    let low_ms = steps
        .map(|step| step * decade)
        .into_iter()
        .rfind(|bound| *bound <= least_ms);
    // Room for the labels above the highest point.
    let (largest_ms, decade) = split(largest_us * 2);
    let high_ms = steps
        .map(|step| step * decade)
        .into_iter()
        .find(|bound| *bound >= largest_ms);
    let low_ms = low_ms.unwrap_or(least_ms);
    (low_ms, high_ms.unwrap_or(largest_ms).max(low_ms * 10.0))
}

fn decades(low_ms: f64, high_ms: f64) -> impl Iterator<Item = f64> {
    let first = low_ms.log10().floor() as i32;
    let last = high_ms.log10().floor() as i32;
    (first..=last).map(|power| 10f64.powi(power))
}

fn duration(us: u64) -> String {
    match us {
        0..100_000 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
