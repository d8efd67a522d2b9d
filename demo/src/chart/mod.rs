//! The picture: client latency over time, phases shaded, swaps marked, and each swap under the glass.

mod glass;
mod panel;
mod scale;
pub mod words;

use crate::story::Outcome;
use crate::svg::{Anchor, Area, Svg, Text, text_width};
use crate::writers::Lane;
use panel::Panel;
use scale::{Scale, buckets, latency_range};
use words::{duration, phase_colour, phase_names, thousands};

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

pub fn draw(outcome: &Outcome) -> String {
    let mut svg = Svg::new(WIDTH, HEIGHT);
    heading(&mut svg, outcome);

    let from_us = outcome.acts.first().map_or(0, |act| act.from_us);
    let to_us = outcome.acts.last().map_or(1, |act| act.to_us);
    let panels = [
        Panel {
            lane: Lane::Moved,
            name: format!("clients of {}, which moves", outcome.carrier),
            colour: MOVED,
            y: 142.0,
            buckets: buckets(outcome, Lane::Moved, from_us, to_us),
        },
        Panel {
            lane: Lane::Others,
            name: format!("clients of {}, which stay", outcome.others.join(" and ")),
            colour: OTHERS,
            y: 414.0,
            buckets: buckets(outcome, Lane::Others, from_us, to_us),
        },
    ];
    let drawn = panels
        .iter()
        .flat_map(|panel| &panel.buckets)
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
    for panel in &panels {
        panel.draw(&mut svg, outcome, &scale_at(panel.y, 250.0));
    }
    panel::seconds(&mut svg, &scale_at(414.0, 250.0));
    legend(&mut svg, outcome, 712.0);
    glass::glasses(&mut svg, outcome);
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
