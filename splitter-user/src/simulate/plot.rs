//! A simulation as a picture.

use std::time::Duration;

use plotters::prelude::*;

use super::{report::Outcomes, scenario::Results};

const SIZE: (u32, u32) = (900, 480);
const POINTS: u32 = 400;
const WORSE: RGBColor = RGBColor(200, 60, 40);
const EQUAL: RGBColor = RGBColor(60, 90, 160);

/// The share of rollouts that were stopped over their time, as SVG: with the canary as described, and with one as good as stable.
///
/// # Errors
/// It can't be drawn.
pub fn svg(title: &str, results: &Results, steps: &[(Duration, String)], lasts: Duration) -> Result<String, String> {
    let mut text = String::new();
    draw(SVGBackend::with_string(&mut text, SIZE), title, results, steps, lasts).map_err(|error| error.to_string())?;
    Ok(text)
}

fn draw<B: DrawingBackend>(
    backend: B,
    title: &str,
    results: &Results,
    steps: &[(Duration, String)],
    lasts: Duration,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let area = backend.into_drawing_area();
    area.fill(&WHITE)?;
    let minutes = lasts.as_secs_f64() / 60.0;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..minutes, 0.0..100.0)?;
    chart.configure_mesh().x_desc("minutes since the start").y_desc("rollouts stopped, %").light_line_style(WHITE).draw()?;
    for (begins, label) in steps {
        let at = begins.as_secs_f64() / 60.0;
        chart.draw_series(LineSeries::new([(at, 0.0), (at, 100.0)], BLACK.mix(0.25)))?;
        chart.draw_series([Text::new(label.clone(), (at, 97.0), ("sans-serif", 12).into_font().color(&BLACK.mix(0.6)))])?;
    }
    for (played, colour, name) in
        [(&results.canary, WORSE, "the canary as described"), (&results.equal, EQUAL, "a canary as good as stable: false alarms")]
    {
        let points = (0..=POINTS).map(|point| {
            let time = lasts * point / POINTS;
            (time.as_secs_f64() / 60.0, 100.0 * Outcomes::caught_within(played, time))
        });
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::MiddleRight).background_style(WHITE.mix(0.8)).draw()?;
    area.present()
}
