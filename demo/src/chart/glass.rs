//! Each swap under the glass: the transactions around it, one by one.

use super::panel::grid;
use super::scale::{Scale, latency_range};
use super::words::swap_word;
use super::{GREY, HEIGHT, INK, LEFT, MOVED, OTHERS, RIGHT, SWAP, WIDTH};
use crate::story::{Act, Outcome};
use crate::svg::{Anchor, Area, Svg, Text};
use crate::writers::{Lane, Sample};

const GLASS_US: u64 = 150_000;

/// Each swap under the glass: every transaction a stroke as long as it took.
pub fn glasses(svg: &mut Svg, outcome: &Outcome) {
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
