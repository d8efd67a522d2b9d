//! Just enough SVG.

use std::fmt::Write as _;

pub struct Svg {
    body: String,
    width: f64,
    height: f64,
}

#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Clone, Copy)]
pub struct Text<'a> {
    pub size: f64,
    pub colour: &'a str,
    pub anchor: Anchor,
}

#[derive(Clone, Copy)]
pub struct Area {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    pub fn right(&self) -> f64 {
        self.x + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.y + self.height
    }
}

/// The PNG is drawn with the first family; a browser without it takes the next.
const FONTS: &str = "Ubuntu, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif";

impl Svg {
    pub fn new(width: f64, height: f64) -> Self {
        Self {
            body: String::new(),
            width,
            height,
        }
    }

    pub fn rect(&mut self, area: Area, fill: &str, opacity: f64) {
        let Area {
            x,
            y,
            width,
            height,
        } = area;
        self.put(format_args!(
            r#"<rect x="{x:.2}" y="{y:.2}" width="{width:.2}" height="{height:.2}" fill="{fill}" fill-opacity="{opacity}"/>"#
        ));
    }

    /// `dash` as in stroke-dasharray, empty for a whole line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64, dash: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let dash = dash_of(dash);
        self.put(format_args!(
            r#"<line x1="{x1:.2}" y1="{y1:.2}" x2="{x2:.2}" y2="{y2:.2}" stroke="{colour}" stroke-width="{width}"{dash}/>"#
        ));
    }

    pub fn path(&mut self, points: &[(f64, f64)], colour: &str, width: f64) {
        self.dashed_path(points, colour, width, "");
    }

    pub fn dashed_path(&mut self, points: &[(f64, f64)], colour: &str, width: f64, dash: &str) {
        let path = path_of(points);
        let dash = dash_of(dash);
        self.put(format_args!(
            r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"{dash}/>"#
        ));
    }

    /// What the points enclose.
    pub fn polygon(&mut self, points: &[(f64, f64)], fill: &str, opacity: f64) {
        let path = path_of(points);
        self.put(format_args!(
            r#"<path d="{path}Z" fill="{fill}" fill-opacity="{opacity}"/>"#
        ));
    }

    /// Many dots in one element.
    pub fn dots(&mut self, points: &[(f64, f64)], colour: &str, radius: f64, opacity: f64) {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(path, "M{x:.1} {y:.1}h0");
        }
        let width = radius * 2.0;
        self.put(format_args!(
            r#"<path d="{path}" stroke="{colour}" stroke-width="{width}" stroke-linecap="round" stroke-opacity="{opacity}"/>"#
        ));
    }

    pub fn text(&mut self, at: (f64, f64), style: Text, text: &str) {
        let (x, y) = at;
        let Text {
            size,
            colour,
            anchor,
        } = style;
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.put(format_args!(
            r#"<text x="{x:.2}" y="{y:.2}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    pub fn finish(self) -> String {
        let Self {
            body,
            width,
            height,
        } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"{FONTS}\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }

    fn put(&mut self, element: std::fmt::Arguments) {
        let _ = writeln!(self.body, "{element}");
    }
}

fn path_of(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (index, (x, y)) in points.iter().enumerate() {
        let verb = if index == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{verb}{x:.1} {y:.1}");
    }
    path
}

fn dash_of(dash: &str) -> String {
    if dash.is_empty() {
        return String::new();
    }
    format!(r#" stroke-dasharray="{dash}""#)
}

/// About how wide a text is: good enough to see whether a label fits.
pub fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.47
}
