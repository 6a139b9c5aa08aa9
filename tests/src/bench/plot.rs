//! What was measured, as one picture: bars.

use anyhow::{Result, anyhow};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    report::{Cost, Report, Wire},
    targets,
};

/// Of the picture, in its units.
const WIDTH: u32 = 900;
const BAR: u32 = 18;
const TITLE: u32 = 40;
const FOOT: u32 = 40;
/// Left of the bars, for their names; right of them, for the largest one's figure.
const NAMES: u32 = 300;
const RIGHT: u32 = 70;

/// On white, in print, and for those who don't see red and green apart.
const OURS: RGBColor = RGBColor(0x0b, 0x6e, 0x99);
const PEERS: RGBColor = RGBColor(0xb8, 0xbd, 0xc4);
const TEXT: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const TARGET: RGBColor = RGBColor(0xd1, 0x5b, 0x00);

/// A bar. One that is longer than the axis is cut, and its figure told.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    name: String,
    value: f64,
    /// From where to where the measurements went.
    spread: Option<(f64, f64)>,
    target: Option<f64>,
    ours: bool,
}

/// One panel of bars.
#[derive(Clone, Debug, PartialEq)]
struct Panel {
    title: String,
    bars: Vec<Bar>,
    /// Where the axis ends.
    end: f64,
    digits: usize,
}

/// The picture, as SVG; empty where nothing was measured.
///
/// # Errors
/// The drawing library's.
pub fn svg(report: &Report) -> Result<String> {
    let panels = panels(report);
    let mut svg = String::new();
    if panels.is_empty() {
        return Ok(svg);
    }
    let height: u32 = panels.iter().map(Panel::height).sum();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&root, &panels).map_err(|error| anyhow!("drawing: {error}"))?;
    }
    Ok(svg)
}

fn panels(report: &Report) -> Vec<Panel> {
    let cost = cost(&report.cost);
    let packets = wire(&report.wire, "packets", "64-byte packets through the wire, Mpps", 2, |row| row.mpps);
    let requests = wire(&report.wire, "keep-alive", "HTTP requests a second, keep-alive", 0, |row| row.requests_per_s);
    [cost, packets, requests].into_iter().flatten().collect()
}

/// Packets that have a target, in front of one service.
fn cost(rows: &[Cost]) -> Option<Panel> {
    let mut bars = Vec::new();
    for row in rows {
        let Some(target) = targets::of(row, rows) else { continue };
        if row.services > 1 {
            continue;
        }
        let flows = if row.flows > 1 { ", 1,000,000 flows" } else { "" };
        let name = format!("{}{flows}", row.case);
        bars.push(Bar { name, value: row.ns, spread: Some((row.min, row.max)), target: Some(target.ns), ours: true });
    }
    let longest = bars
        .iter()
        .map(|bar| bar.value)
        .fold(None, |longest: Option<f64>, value| Some(longest.map_or(value, |longest| longest.max(value))))?;
    let title = "Cost of a packet over an empty XDP program, ns (stroke: target)".to_owned();
    Some(Panel { title, bars, end: longest * 1.1, digits: 0 })
}

fn wire(rows: &[Wire], load: &str, title: &str, digits: usize, value: impl Fn(&Wire) -> Option<f64>) -> Option<Panel> {
    let bars: Vec<_> = rows
        .iter()
        .filter(|row| row.load == load)
        .filter_map(|row| {
            let ours = row.path.starts_with("splitter");
            Some(Bar { name: row.path.clone(), value: value(row)?, spread: None, target: None, ours })
        })
        .collect();
    let end = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    (end > 0.0).then(|| Panel { title: title.to_owned(), bars, end, digits })
}

impl Panel {
    fn height(&self) -> u32 {
        TITLE + FOOT + BAR * u32::try_from(self.bars.len()).unwrap_or(0)
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(root: &Area<'_>, panels: &[Panel]) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    let mut top = 0;
    for panel in panels {
        draw_panel(root, panel, i32::try_from(top)?)?;
        top += panel.height();
    }
    root.present()?;
    Ok(())
}

fn draw_panel(root: &Area<'_>, panel: &Panel, top: i32) -> Result<(), Box<dyn std::error::Error>> {
    let font = ("sans-serif", 13).into_font().color(&TEXT);
    let (left, right) = (NAMES as i32, (WIDTH - RIGHT) as i32);
    let at = |value: f64| left + (value.clamp(0.0, panel.end) / panel.end * f64::from(right - left)).round() as i32;
    let bold = ("sans-serif", 15).into_font().style(FontStyle::Bold).color(&TEXT);
    root.draw(&Text::new(panel.title.clone(), (12, top + 12), bold))?;
    for (number, bar) in panel.bars.iter().enumerate() {
        let y = top + (TITLE + BAR * u32::try_from(number)?) as i32;
        let (upper, lower, middle) = (y + 2, y + BAR as i32 - 2, y + BAR as i32 / 2);
        let name = font.pos(Pos::new(HPos::Right, VPos::Center));
        root.draw(&Text::new(bar.name.clone(), (left - 8, middle), name))?;
        let colour = if bar.ours { OURS } else { PEERS };
        root.draw(&Rectangle::new([(left, upper), (at(bar.value), lower)], colour.filled()))?;
        if let Some((min, max)) = bar.spread {
            root.draw(&PathElement::new([(at(min), middle), (at(max), middle)], TEXT.mix(0.6).stroke_width(1)))?;
        }
        if let Some(target) = bar.target {
            root.draw(&PathElement::new([(at(target), upper - 1), (at(target), lower + 1)], TARGET.stroke_width(2)))?;
        }
        let reach = bar.spread.map_or(bar.value, |(_, max)| max.max(bar.value)).max(bar.target.unwrap_or(0.0));
        // A bar that the axis doesn't reach ends in an arrow.
        let arrow = if bar.value > panel.end { "→ " } else { "" };
        let figure = format!("{arrow}{:.*}", panel.digits, bar.value);
        let style = font.pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(figure, (at(reach) + 6, middle), style))?;
    }
    let foot = top + (panel.height() - FOOT) as i32 + 4;
    root.draw(&PathElement::new([(left, foot), (right, foot)], TEXT.stroke_width(1)))?;
    let mark = font.pos(Pos::new(HPos::Center, VPos::Top));
    let step = step(panel.end);
    let steps = (panel.end / step).floor() as u32;
    for value in (0..=steps).map(|number| f64::from(number) * step) {
        root.draw(&PathElement::new([(at(value), foot), (at(value), foot + 4)], TEXT.stroke_width(1)))?;
        root.draw(&Text::new(
            format!("{value:.*}", usize::from(step.fract() != 0.0) * panel.digits),
            (at(value), foot + 8),
            mark.clone(),
        ))?;
    }
    Ok(())
}

/// A round number that an axis of this length has four to ten of.
fn step(end: f64) -> f64 {
    let power = 10_f64.powf(end.log10().floor());
    let steps = [0.1, 0.2, 0.25].map(|part| part * power);
    steps.into_iter().find(|step| end / step <= 10.0).unwrap_or(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_a_bar_for_each_row_with_a_target_and_for_each_peer() {
        let cost = |case: &str, ns: f64, flows| Cost {
            case: case.to_owned(),
            ns,
            min: ns - 1.0,
            max: ns + 1.0,
            raw_ns: ns,
            empty_ns: 0.0,
            rounds: 15,
            flows,
            services: 1,
        };
        let wire = |path: &str, mpps| Wire { path: path.to_owned(), load: "packets".to_owned(), mpps, ..Wire::default() };
        let report = Report {
            cost: vec![
                cost("dsr-v4-tcp-established", 9.0, 1),
                cost("dsr-v4-tcp-established", 35.0, 1_000_000),
                cost("nat-v4-tcp-refused", 80.0, 1),
            ],
            wire: vec![wire("splitter-dsr", Some(3.9)), wire("haproxy-tcp", None)],
            ..Report::default()
        };
        let svg = svg(&report).expect("it can be drawn");
        for text in ["dsr-v4-tcp-established", "dsr-v4-tcp-established, 1,000,000 flows", "splitter-dsr"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert!(!svg.contains("refused") && !svg.contains("haproxy"), "no target, and no figure");
        // The background, two rows, one path.
        assert_eq!(svg.matches("<rect").count(), 1 + 2 + 1);
    }

    #[test]
    fn an_axis_has_round_numbers() {
        for (end, expected) in [(130.0, 20.0), (178.0, 20.0), (100.0, 10.0), (720.0, 100.0), (4.2, 1.0), (135_000.0, 20_000.0)] {
            let step = step(end);
            assert!((step - expected).abs() < expected * 1e-9, "{end}: {step}");
        }
    }

    #[test]
    fn of_nothing_there_is_no_picture() {
        assert_eq!(super::svg(&Report::default()).expect("nothing to draw"), "");
    }
}
