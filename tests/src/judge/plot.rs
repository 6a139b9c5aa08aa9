//! `docs/analysis.svg`: how evidence grows, and who raises false alarms.

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use splitter_user::{
    controller::{Cohorts, Comparison, Standing},
    model::{Cohort, Weight},
    simulate::Behaviour,
};

use super::{
    method::{self, FALSE_ALARM_RATE, Method},
    play::{HOUR, LOOK, Scene},
    report::{FalseAlarms, Report},
};

/// Of the picture, in its units.
const WIDTH: i32 = 900;
const HEIGHT: i32 = 620;
/// Where the panels lie, and where their contents begin.
const LEFT: i32 = 170;
const RIGHT: i32 = 870;
const CURVES: (i32, i32) = (50, 350);
const BARS: i32 = 450;
const BAR: i32 = 22;

/// On white, in print, and for those who don't see red and green apart.
const OURS: RGBColor = RGBColor(0x0b, 0x6e, 0x99);
const PEERS: RGBColor = RGBColor(0xb8, 0xbd, 0xc4);
const TEXT: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const PROOF: RGBColor = RGBColor(0xd1, 0x5b, 0x00);

/// Powers of ten that the evidence's axis has.
const DECADES: (f64, f64) = (-3.0, 5.0);

/// How the evidence of one rollout went.
#[derive(Clone, Debug, PartialEq)]
struct Curve {
    name: &'static str,
    /// One value for each look, until the canary was called worse.
    evidence: Vec<f64>,
    proof: f64,
    colour: RGBColor,
}

/// The picture, as SVG.
///
/// # Errors
/// The drawing library's.
pub fn svg(report: &Report) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
        draw(&root, &curves(), &bars(&report.false_alarms)).map_err(|error| anyhow!("drawing: {error}"))?;
    }
    Ok(svg)
}

/// Three canaries at 10% of 100 connections a second.
fn curves() -> [Curve; 3] {
    let breaks_at = |look| move |now| now >= look;
    [
        curve("as good as stable", OURS, breaks_at(HOUR)),
        curve("fails at 1% from the start", TEXT, breaks_at(0)),
        curve("fails at 1% after 45 minutes", RGBColor(0x8a, 0x3f, 0xa0), breaks_at(2_700)),
    ]
}

fn curve(name: &'static str, colour: RGBColor, fails: impl Fn(u32) -> bool) -> Curve {
    let weight = Weight::from_basis_points(1_000).expect("a literal in range");
    let mut traffic = Scene { rate: 100, weight, stable: 0.001, canary: 0.001, looks: HOUR }.traffic(1);
    let mut comparison = Comparison::new(&method::compare(120));
    let (mut evidence, mut proof) = (Vec::new(), 1.0);
    let mut seen = Cohorts::default();
    for look in 0..HOUR {
        let failures = if fails(look) { 0.01 } else { 0.001 };
        traffic.change(Cohort::Canary, Behaviour { failures, times: [None, None] });
        traffic.look_into(&mut seen, weight, LOOK);
        comparison.observe(&seen, LOOK);
        if let Some(failures) = comparison.differences().first() {
            evidence.push(failures.evidence);
            proof = failures.proof;
        }
        if matches!(comparison.standing(), Standing::Worse(_)) {
            break;
        }
    }
    Curve { name, evidence, proof, colour }
}

/// Each method's largest share of false alarms, of all rates and weights.
fn bars(rows: &[FalseAlarms]) -> Vec<(Method, f64)> {
    #[expect(clippy::cast_precision_loss, reason = "counts of rollouts are far below 2^52")]
    let share = |row: &FalseAlarms| row.alarms as f64 / row.rollouts.max(1) as f64;
    let largest = |method| rows.iter().filter(|row| row.method == method).map(share).reduce(f64::max);
    Method::ALL.into_iter().filter_map(|method| Some((method, largest(method)?))).collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(root: &Area<'_>, curves: &[Curve], bars: &[(Method, f64)]) -> Drawn {
    root.fill(&WHITE)?;
    draw_curves(root, curves)?;
    draw_bars(root, bars)?;
    root.present()?;
    Ok(())
}

fn draw_curves(root: &Area<'_>, curves: &[Curve]) -> Drawn {
    title(root, CURVES.0 - 26, "Evidence against a canary with 10% of 100 connections a second; stable fails at 0.1%")?;
    let along = |look: f64| LEFT + (look / f64::from(HOUR) * f64::from(RIGHT - LEFT)).round() as i32;
    let up = |evidence: f64| {
        let part = (evidence.max(f64::MIN_POSITIVE).log10().clamp(DECADES.0, DECADES.1) - DECADES.0) / (DECADES.1 - DECADES.0);
        CURVES.1 - (part * f64::from(CURVES.1 - CURVES.0)).round() as i32
    };
    for decade in DECADES.0 as i32..=DECADES.1 as i32 {
        let y = up(10_f64.powi(decade));
        root.draw(&PathElement::new([(LEFT, y), (RIGHT, y)], PEERS.mix(0.5).stroke_width(1)))?;
        let name = if decade < 0 {
            format!("1/{}", 10_i32.pow(decade.unsigned_abs()))
        } else {
            10_i32.pow(decade.unsigned_abs()).to_string()
        };
        label(root, (LEFT - 8, y), HPos::Right, &name, &TEXT)?;
    }
    for minutes in (0..=60).step_by(10) {
        let x = along(f64::from(minutes * 60));
        root.draw(&PathElement::new([(x, CURVES.1), (x, CURVES.1 + 5)], TEXT.stroke_width(1)))?;
        label(root, (x, CURVES.1 + 16), HPos::Center, &format!("{minutes} min"), &TEXT)?;
    }
    if let Some(curve) = curves.first() {
        let y = up(curve.proof);
        root.draw(&PathElement::new([(LEFT, y), (RIGHT, y)], PROOF.stroke_width(2)))?;
        label(root, (RIGHT, y - 10), HPos::Right, &format!("proof: {:.0}", curve.proof), &PROOF)?;
    }
    for curve in curves {
        let points: Vec<_> = curve.evidence.iter().enumerate().map(|(look, value)| (along(look as f64), up(*value))).collect();
        let Some(last) = points.last().copied() else { continue };
        root.draw(&PathElement::new(points, curve.colour.stroke_width(2)))?;
        root.draw(&Circle::new(last, 4, curve.colour.filled()))?;
        // Above where it came from below, and below where it came down to.
        let y = if last.1 < up(1.0) { last.1 - 12 } else { last.1 + 16 };
        let (x, side) = if last.0 > (LEFT + RIGHT) / 2 { (last.0 - 10, HPos::Right) } else { (last.0 + 10, HPos::Left) };
        label(root, (x, y), side, curve.name, &curve.colour)?;
    }
    Ok(())
}

fn draw_bars(root: &Area<'_>, bars: &[(Method, f64)]) -> Drawn {
    title(
        root,
        BARS - 40,
        "False alarms in an hour with a look every second, canary as good as stable: worst of all rates and weights",
    )?;
    let end = bars.iter().map(|(_, share)| *share).fold(FALSE_ALARM_RATE * 2.0, f64::max);
    let right = RIGHT - 60;
    let along = |share: f64| LEFT + (share / end * f64::from(right - LEFT)).round() as i32;
    for (number, (method, share)) in bars.iter().enumerate() {
        let top = BARS + BAR * number as i32;
        let middle = top + BAR / 2;
        label(root, (LEFT - 8, middle), HPos::Right, method.as_str(), &TEXT)?;
        let colour = if method.is_ours() { OURS } else { PEERS };
        root.draw(&Rectangle::new([(LEFT, top + 3), (along(*share), top + BAR - 3)], colour.filled()))?;
        label(root, (along(*share) + 6, middle), HPos::Left, &format!("{:.2}%", share * 100.0), &TEXT)?;
    }
    let (top, foot) = (BARS - 4, BARS + BAR * bars.len() as i32 + 4);
    let x = along(FALSE_ALARM_RATE);
    root.draw(&PathElement::new([(x, top), (x, foot)], PROOF.stroke_width(2)))?;
    label(root, (x, foot + 12), HPos::Center, &format!("promised: {}%", FALSE_ALARM_RATE * 100.0), &PROOF)
}

fn title(root: &Area<'_>, y: i32, text: &str) -> Drawn {
    let bold = ("sans-serif", 15).into_font().style(FontStyle::Bold).color(&TEXT);
    root.draw(&Text::new(text.to_owned(), (12, y), bold))?;
    Ok(())
}

fn label(root: &Area<'_>, at: (i32, i32), side: HPos, text: &str, colour: &RGBColor) -> Drawn {
    let style = ("sans-serif", 13).into_font().color(colour).pos(Pos::new(side, VPos::Center));
    root.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curves_are_what_their_names_say() {
        let [good, bad, late] = curves();
        let ends = |curve: &Curve| curve.evidence.last().copied().expect("there was a look");
        assert!(good.evidence.len() == HOUR as usize && ends(&good) < good.proof, "{}", ends(&good));
        assert!(bad.evidence.len() < 600 && ends(&bad) >= bad.proof, "{} looks", bad.evidence.len());
        assert!((2_700..3_600).contains(&late.evidence.len()) && ends(&late) >= late.proof, "{} looks", late.evidence.len());
    }

    #[test]
    fn each_method_has_a_bar_with_its_worst_figure() {
        let row = |method, alarms| FalseAlarms { method, rate: 10, weight_bp: 100, rollouts: 100, alarms, upper99: 1.0 };
        let rows = [row(Method::Splitter, 0), row(Method::Thresholds, 3), row(Method::Thresholds, 50)];
        assert_eq!(bars(&rows), [(Method::Splitter, 0.0), (Method::Thresholds, 0.5)]);
        let svg = svg(&Report { false_alarms: rows.to_vec(), ..Report::default() }).expect("it can be drawn");
        assert!(svg.contains("50.00%") && svg.contains("thresholds") && !svg.contains("mann-whitney"), "{svg}");
    }
}
