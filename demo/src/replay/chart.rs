//! The picture: the partition that grows, the days that matter under the glass, the other partitions.

use super::Outcome;
use super::observer::Forecast;
use super::panel::{CAPACITY, FORECAST, GREY, INK, LOAD, Mark, Panel, Scale, WITHOUT};
use super::regions::{ALL, REGIONS};
use super::timetable::{DAY_US, HOT};
use crate::chart::words::thousands;
use crate::svg::{Anchor, Area, Svg, Text, text_width};

const WIDTH: f64 = 1600.0;
const HEIGHT: f64 = 1240.0;
const LEFT: f64 = 88.0;
const RIGHT: f64 = 36.0;
const ANNOUNCED: &str = "#7c3aed";
const READY: &str = "#0369a1";
const SWAP: &str = "#111827";
const MADE_UP: &str = "#a16207";

pub fn draw(outcome: &Outcome) -> String {
    let mut svg = Svg::new(WIDTH, HEIGHT);
    heading(&mut svg, outcome);
    let to_us = (outcome.table.days() * DAY_US) as f64;
    let hot = outcome.table.hot_region;
    let whole = Scale {
        area: Area {
            x: LEFT,
            y: 132.0,
            width: WIDTH - LEFT - RIGHT,
            height: 300.0,
        },
        from_us: 0.0,
        to_us,
        most: highest(outcome),
    };
    let marks = marks(outcome);
    main_panel(outcome, whole, &marks, 1, "").draw(&mut svg);
    legend(&mut svg, 478.0);

    let (from_us, until_us) = glass(outcome, to_us);
    let close = Scale {
        area: Area {
            y: 512.0,
            ..whole.area
        },
        from_us,
        to_us: until_us,
        ..whole
    };
    let told = told(outcome);
    main_panel(outcome, close, &told, 1, ", the days that matter").draw(&mut svg);

    small_panels(&mut svg, outcome, to_us, hot);
    svg.finish()
}

fn heading(svg: &mut Svg, outcome: &Outcome) {
    let style = |size: f64, colour| Text {
        size,
        colour,
        anchor: Anchor::Start,
    };
    let title = match outcome.seen.moved().as_slice() {
        [] => format!("{HOT} grows; nothing was moved"),
        all => format!(
            "{HOT} grows; the worker foresees that its partition will be full, and moves {} by itself",
            moved(all)
        ),
    };
    svg.text((LEFT, 46.0), style(26.0, INK), &title);
    let table = &outcome.table;
    let subtitle = format!(
        "{} · all {} flights of 2013, 52 weeks in {} · {} rows written · failed transactions: {} · differences: {}",
        outcome.server,
        thousands(table.real_flights),
        table.weeks,
        thousands(outcome.book.inserts + outcome.book.updates),
        outcome.book.failed.len(),
        outcome
            .checks
            .iter()
            .map(|check| check.differences.len())
            .sum::<usize>(),
    );
    svg.text((LEFT, 74.0), style(15.5, GREY), &subtitle);
    let made_up = format!(
        "Made up: {} flights of a second airline to {HOT}, from day {} on, more each day.  Rows written per second, by the hour of the replay ({:.1} s):",
        thousands(table.made_up_flights),
        table.hot_from_day + 1,
        super::timetable::SLOT_US as f64 / 1e6
    );
    svg.text((LEFT, 98.0), style(15.5, GREY), &made_up);
}

/// The top of the scale: what would have been, and the capacity with some air.
fn highest(outcome: &Outcome) -> f64 {
    let without = outcome.figures.without.iter().copied().fold(0.0, f64::max);
    (without * 1.05).max(outcome.table.capacity * 1.3)
}

fn main_panel<'a>(
    outcome: &'a Outcome,
    scale: Scale,
    marks: &'a [Mark],
    label_days: u64,
    more: &str,
) -> Panel<'a> {
    let hot = outcome.table.hot_region;
    Panel {
        scale,
        name: format!("{} ({}){more}", ALL[hot].name, ALL[hot].partition),
        loads: &outcome.figures.loads[hot],
        without: &outcome.figures.without,
        forecasts: forecasts_of(outcome, ALL[hot].partition),
        begin_us: outcome.begin_us,
        capacity: Some(outcome.table.capacity),
        marks,
        label_days,
    }
}

fn forecasts_of<'a>(outcome: &'a Outcome, partition: &str) -> Vec<&'a Forecast> {
    (outcome.seen.forecasts.iter())
        .filter(|one| one.partition == partition)
        .collect()
}

/// Microseconds since the replay began.
fn since_begin(outcome: &Outcome, at_us: u64) -> f64 {
    at_us as f64 - outcome.begin_us as f64
}

/// For the whole time: few words.
fn marks(outcome: &Outcome) -> Vec<Mark> {
    let mut marks = vec![Mark {
        at_us: (outcome.table.hot_from_day * DAY_US) as f64,
        colour: MADE_UP,
        text: format!("a second airline to {HOT} (made up)"),
    }];
    if let Some(trusted_us) = outcome.seen.trusted_us {
        marks.push(Mark {
            at_us: since_begin(outcome, trusted_us),
            colour: ANNOUNCED,
            text: "full for the first time the day before; from here on the autopilot may act"
                .to_owned(),
        });
    }
    if let Some(swap) = outcome.seen.swaps.first() {
        marks.push(Mark {
            at_us: since_begin(outcome, swap.at_us),
            colour: SWAP,
            text: format!("{} moved", moved(&outcome.seen.moved())),
        });
    }
    marks
}

/// For the days that matter: each moment.
fn told(outcome: &Outcome) -> Vec<Mark> {
    let figures = &outcome.figures;
    let mut marks = Vec::new();
    let hours = |us: f64| us * 24.0 / DAY_US as f64;
    let announced = figures.announced_us.map(|at| since_begin(outcome, at));
    if let Some(at_us) = announced {
        let confidence = (outcome.seen.decisions.iter())
            .find(|one| Some(one.at_us) == figures.announced_us)
            .map_or(0.0, |one| one.confidence);
        marks.push(Mark {
            at_us,
            colour: ANNOUNCED,
            text: format!("saturation announced, probability {confidence:.2}"),
        });
    }
    if let Some(ready_us) = outcome.seen.ready_us {
        marks.push(Mark {
            at_us: since_begin(outcome, ready_us),
            colour: READY,
            text: "shadow ready".to_owned(),
        });
    }
    if let Some(swap) = outcome.seen.swaps.first() {
        let stall_ms = (outcome.seen.swaps.iter())
            .map(|swap| swap.stall_ms)
            .fold(0.0, f64::max);
        marks.push(Mark {
            at_us: since_begin(outcome, swap.at_us),
            colour: SWAP,
            text: format!("swap, writers waited {stall_ms:.1} ms at most"),
        });
    }
    if let Some(crossing_us) = figures.would_cross_us {
        let at_us = since_begin(outcome, crossing_us);
        let lead = announced.map_or(String::new(), |announced| {
            format!(
                ", {:.1} s ({:.0} h) after the announcement",
                (at_us - announced) / 1e6,
                hours(at_us - announced)
            )
        });
        marks.push(Mark {
            at_us,
            colour: CAPACITY,
            text: format!("would be full here{lead}"),
        });
    }
    marks
}

/// From a day before the announcement to a day after what would have come.
fn glass(outcome: &Outcome, to_us: f64) -> (f64, f64) {
    let day_us = DAY_US as f64;
    let middle_us = (outcome.table.hot_from_day + 2) as f64 * day_us;
    let figures = &outcome.figures;
    let at = |at: Option<u64>| at.map(|at| since_begin(outcome, at));
    let first = at(figures.announced_us).unwrap_or(middle_us);
    let last = at(figures.would_cross_us).unwrap_or(first).max(first);
    let from_us = ((first / day_us).floor() * day_us - 0.5 * day_us).max(0.0);
    let until_us = ((last / day_us).ceil() * day_us + day_us).min(to_us);
    (from_us, until_us.max(from_us + day_us))
}

fn legend(svg: &mut Svg, y: f64) {
    let style = Text {
        size: 14.0,
        colour: GREY,
        anchor: Anchor::Start,
    };
    let forecast = format!(
        "forecast when it was made: the highest hour of the next {}, with its band",
        super::HORIZON_HOURS
    );
    let mut x = LEFT;
    for (colour, dash, width, text) in [
        (LOAD, "", 2.2, "load, as the clients counted it"),
        (FORECAST, "", 1.6, forecast.as_str()),
        (CAPACITY, "", 1.8, "capacity"),
        (WITHOUT, "5 4", 1.8, "load if nothing had moved"),
    ] {
        if colour == FORECAST {
            let band = Area {
                x,
                y: y - 11.0,
                width: 28.0,
                height: 12.0,
            };
            svg.rect(band, FORECAST, 0.2);
        }
        svg.line((x, y - 5.0), (x + 28.0, y - 5.0), colour, width, dash);
        svg.text((x + 35.0, y), style, text);
        x += 35.0 + text_width(text, 14.0) + 26.0;
    }
    svg.rect(
        Area {
            x,
            y: y - 11.0,
            width: 14.0,
            height: 12.0,
        },
        "#e5e7eb",
        1.0,
    );
    svg.text((x + 20.0, y), style, "Saturday");
}

/// Who was moved, in few words: the hot airport first.
fn moved(entities: &[String]) -> String {
    match (entities, entities.iter().any(|entity| entity == HOT)) {
        ([one], _) => one.clone(),
        (all, _) if all.len() <= 4 => all.join(", "),
        (all, true) => format!("{HOT} and {} more airports", all.len() - 1),
        (all, false) => format!("{} airports", all.len()),
    }
}

/// The other partitions, and where the hot airport went.
fn small_panels(svg: &mut Svg, outcome: &Outcome, to_us: f64, hot: usize) {
    const COLUMNS: usize = 3;
    let gap = 62.0;
    let width = (WIDTH - LEFT - RIGHT - gap * (COLUMNS as f64 - 1.0)) / COLUMNS as f64;
    let moved_to = (outcome.seen.forecasts.iter())
        .map(|one| one.partition.as_str())
        .find(|name| ALL.iter().all(|region| region.partition != *name));
    let mut cells: Vec<(String, &[f64], &str)> = (0..REGIONS)
        .filter(|region| *region != hot)
        .filter_map(|region| {
            let loads = outcome.figures.loads.get(region)?;
            Some((
                ALL[region].name.to_owned(),
                loads.as_slice(),
                ALL[region].partition,
            ))
        })
        .collect();
    let all = outcome.seen.moved();
    if !all.is_empty() {
        let name = format!(
            "{}, on tablespace {}",
            moved(&all),
            crate::story::TABLESPACE
        );
        // Of several shadows each has a forecast of its own, and the curve is their sum.
        let one = outcome.seen.swaps.len() == 1;
        cells.push((
            name,
            &outcome.figures.moved,
            moved_to.filter(|_| one).unwrap_or_default(),
        ));
    }
    for (number, (name, loads, partition)) in cells.into_iter().enumerate() {
        let (column, row) = (number % COLUMNS, number / COLUMNS);
        let area = Area {
            x: LEFT + column as f64 * (width + gap),
            y: 866.0 + row as f64 * 182.0,
            width,
            height: 140.0,
        };
        Panel {
            scale: Scale {
                area,
                from_us: 0.0,
                to_us,
                most: outcome.table.capacity * 1.25,
            },
            name,
            loads,
            without: &[],
            forecasts: forecasts_of(outcome, partition),
            begin_us: outcome.begin_us,
            capacity: Some(outcome.table.capacity),
            marks: &[],
            label_days: 7,
        }
        .draw(svg);
    }
}
