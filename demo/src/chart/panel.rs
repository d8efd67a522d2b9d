//! One lane over the whole time: phases shaded, latency curves, swaps as lines.

use super::scale::{Bucket, Scale, decades};
use super::words::{phase_colour, swap_word};
use super::{GREY, GRID, INK, LEFT, SWAP};
use crate::report;
use crate::story::{Act, Outcome};
use crate::svg::{Anchor, Area, Svg, Text, text_width};
use crate::watch::Phase;
use crate::writers::Lane;

pub struct Panel {
    pub lane: Lane,
    pub name: String,
    pub colour: &'static str,
    pub y: f64,
    pub buckets: Vec<Bucket>,
}

impl Panel {
    pub fn draw(&self, svg: &mut Svg, outcome: &Outcome, scale: &Scale) {
        shade_phases(svg, &outcome.phases, scale);
        grid(svg, scale, &[1.0, 2.0, 5.0]);
        calm_maximum(svg, outcome, self.lane, self.colour, scale);
        curves(svg, &self.buckets, self.colour, scale);
        swap_lines(svg, &outcome.acts, scale, self.lane == Lane::Moved);
        label(
            svg,
            (LEFT + 10.0, self.y + 22.0),
            15.0,
            self.colour,
            &self.name,
        );
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
pub fn grid(svg: &mut Svg, scale: &Scale, steps: &[f64]) {
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

/// Seconds along the bottom, from the begin of the calm.
pub fn seconds(svg: &mut Svg, scale: &Scale) {
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
