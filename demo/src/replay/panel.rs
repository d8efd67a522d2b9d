//! One partition over time: its load, what was forecast, what it can bear.

use super::observer::Forecast;
use super::timetable::{DAY_US, SLOT_US, weekday};
use crate::svg::{Anchor, Area, Svg, Text, text_width};

pub const INK: &str = "#1f2937";
pub const GREY: &str = "#6b7280";
const GRID: &str = "#e5e7eb";
const SATURDAY: &str = "#f3f4f6";
pub const LOAD: &str = "#1d4ed8";
pub const FORECAST: &str = "#0f766e";
pub const CAPACITY: &str = "#dc2626";
pub const WITHOUT: &str = "#c2410c";

/// Time across, rows per second up. Times are microseconds since the replay began.
#[derive(Clone, Copy)]
pub struct Scale {
    pub area: Area,
    pub from_us: f64,
    pub to_us: f64,
    pub most: f64,
}

impl Scale {
    pub fn x(&self, at_us: f64) -> f64 {
        let share = (at_us - self.from_us) / (self.to_us - self.from_us);
        self.area.x + share.clamp(0.0, 1.0) * self.area.width
    }

    pub fn y(&self, load: f64) -> f64 {
        self.area.bottom() - (load / self.most).clamp(0.0, 1.0) * self.area.height
    }

    fn shows(&self, at_us: f64) -> bool {
        (self.from_us..=self.to_us).contains(&at_us)
    }

    /// A curve of slots from one of them on, each in its middle.
    fn curve(&self, loads: &[f64], from: usize) -> Vec<(f64, f64)> {
        (loads.iter().enumerate().skip(from))
            .map(|(slot, load)| ((slot as f64 + 0.5) * SLOT_US as f64, *load))
            .filter(|(at_us, _)| self.shows(*at_us))
            .map(|(at_us, load)| (self.x(at_us), self.y(load)))
            .collect()
    }
}

/// A moment that has a name.
pub struct Mark {
    pub at_us: f64,
    pub colour: &'static str,
    pub text: String,
}

pub struct Panel<'a> {
    pub scale: Scale,
    pub name: String,
    pub loads: &'a [f64],
    /// Drawn where it differs from the load.
    pub without: &'a [f64],
    pub forecasts: Vec<&'a Forecast>,
    pub begin_us: u64,
    /// None: nothing is said of it.
    pub capacity: Option<f64>,
    pub marks: &'a [Mark],
    /// Days between two labels.
    pub label_days: u64,
}

impl Panel<'_> {
    pub fn draw(&self, svg: &mut Svg) {
        self.days(svg);
        self.grid(svg);
        self.forecast(svg);
        if let Some(capacity) = self.capacity {
            let y = self.scale.y(capacity);
            svg.line(
                (self.scale.area.x, y),
                (self.scale.area.right(), y),
                CAPACITY,
                1.6,
                "",
            );
        }
        self.without(svg);
        let points = self.scale.curve(self.loads, 0);
        svg.path(&points, LOAD, 1.8);
        self.marks(svg);
        let at = (self.scale.area.x + 8.0, self.scale.area.y + 19.0);
        label(svg, at, 15.0, INK, &self.name);
    }

    /// Saturdays are shaded: fewer fly.
    fn days(&self, svg: &mut Svg) {
        let Scale {
            area,
            from_us,
            to_us,
            ..
        } = self.scale;
        let day_us = DAY_US as f64;
        let (first, last) = (
            (from_us / day_us).floor() as u64,
            (to_us / day_us).ceil() as u64,
        );
        for day in first..last {
            let begin_us = day as f64 * day_us;
            let (x, end) = (self.scale.x(begin_us), self.scale.x(begin_us + day_us));
            if weekday(day) == "Sat" {
                let shade = Area {
                    x,
                    width: end - x,
                    ..area
                };
                svg.rect(shade, SATURDAY, 1.0);
            }
            if self.scale.shows(begin_us) {
                svg.line((x, area.y), (x, area.bottom()), GRID, 0.8, "");
            }
            if day.is_multiple_of(self.label_days) {
                let text = format!("{} {}", weekday(day), day + 1);
                let style = Text {
                    size: 12.5,
                    colour: GREY,
                    anchor: Anchor::Middle,
                };
                svg.text(((x + end) / 2.0, area.bottom() + 16.0), style, &text);
            }
        }
    }

    fn grid(&self, svg: &mut Svg) {
        let Scale { area, most, .. } = self.scale;
        let step = [50.0, 100.0, 200.0, 250.0, 500.0, 1000.0, 2000.0, 5000.0]
            .into_iter()
            .find(|step| most / step * 17.0 < area.height)
            .unwrap_or(10_000.0);
        let mut load = 0.0;
        while load <= most {
            let y = self.scale.y(load);
            svg.line(
                (area.x, y),
                (area.right(), y),
                GRID,
                if load == 0.0 { 1.4 } else { 0.7 },
                "",
            );
            let style = Text {
                size: 12.0,
                colour: GREY,
                anchor: Anchor::End,
            };
            svg.text((area.x - 7.0, y + 4.0), style, &format!("{load:.0}"));
            load += step;
        }
    }

    fn forecast(&self, svg: &mut Svg) {
        let at = |one: &Forecast| one.at_us.saturating_sub(self.begin_us) as f64;
        let shown: Vec<&&Forecast> = (self.forecasts.iter())
            .filter(|one| one.at_us >= self.begin_us && self.scale.shows(at(one)))
            .collect();
        let line = |of: fn(&Forecast) -> f64| -> Vec<(f64, f64)> {
            (shown.iter())
                .map(|one| (self.scale.x(at(one)), self.scale.y(of(one))))
                .collect()
        };
        let mut band = line(|one| one.high);
        band.extend(line(|one| one.low).into_iter().rev());
        svg.polygon(&band, FORECAST, 0.20);
        svg.path(&line(|one| one.forecast), FORECAST, 1.2);
    }

    fn without(&self, svg: &mut Svg) {
        let from = (self.without.iter().zip(self.loads)).position(|(without, load)| without > load);
        let Some(from) = from else { return };
        let points = self.scale.curve(self.without, from.saturating_sub(1));
        svg.dashed_path(&points, WITHOUT, 1.7, "5 4");
    }

    fn marks(&self, svg: &mut Svg) {
        let Scale { area, .. } = self.scale;
        let shown: Vec<&Mark> = (self.marks.iter())
            .filter(|mark| self.scale.shows(mark.at_us))
            .collect();
        for (row, mark) in shown.iter().enumerate() {
            let x = self.scale.x(mark.at_us);
            svg.line((x, area.y), (x, area.bottom()), mark.colour, 1.8, "");
            // Below the panel's name.
            let y = area.y + 40.0 + row as f64 * 20.0;
            let width = text_width(&mark.text, 13.5);
            // To the left where it would leave the panel.
            let left = x + 8.0 + width > area.right();
            let at = if left { x - 8.0 - width } else { x + 7.0 };
            label(svg, (at, y), 13.5, mark.colour, &mark.text);
        }
    }
}

/// Text on a white ground, over whatever is drawn below.
pub fn label(svg: &mut Svg, at: (f64, f64), size: f64, colour: &str, text: &str) {
    let ground = Area {
        x: at.0 - 3.0,
        y: at.1 - size,
        width: text_width(text, size) + 6.0,
        height: size * 1.35,
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
