//! What the audience sees: the frame that is drawn again and again, and the figures at the end. Pure.

use std::time::Duration;

use splitter_user::model::Cohort;

use super::{
    figures::{ByCohort, Report},
    screen::{Line, Style, wrap},
};

/// The width of everything, in characters.
pub const COLUMNS: usize = 80;
/// The width of the bar, which stands between two spaces.
const BAR: usize = COLUMNS - 2;

/// A moment of the demo.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Mode, family and service, in words.
    pub title: String,
    /// Since the load began.
    pub at: Duration,
    /// What is asked, in words: a weight, or nothing any more.
    pub asked: String,
    /// New connections since it is asked,
    pub connections: u64,
    /// and the canary's among them.
    pub canary: u64,
    /// The servers.
    pub rows: Vec<Row>,
    /// What has happened until now.
    pub story: Vec<Event>,
}

/// A server, as the client sees it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its cohort.
    pub cohort: Cohort,
    /// Its name and address.
    pub name: String,
    /// New connections that it got.
    pub connections: u64,
    /// Of these, in the last second.
    pub rate: u64,
    /// Of these, without an answer.
    pub failed: u64,
    /// Long-lived connections that it has.
    pub long_lived: u64,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// When, since the load began.
    pub at: Duration,
    /// How it is to be shown.
    pub style: Style,
    /// What.
    pub text: String,
}

impl Frame {
    /// Drawn.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let Self { title, at, asked, connections, canary, rows, story } = self;
        let clock = format!("{:.1} s", at.as_secs_f64());
        let gap = COLUMNS.saturating_sub(" splitter   ".len() + title.chars().count() + clock.len() + 1);
        let mut lines = vec![
            Line::new(Style::Bold, " splitter   ").text(title.clone()).and(Style::Dim, " ".repeat(gap) + &clock),
            Line::empty(),
            Line::new(Style::Bold, format!(" {asked:<15}"))
                .text("measured ")
                .and(Style::Canary, format!("{:<8}", percent(part(*canary, *connections))))
                .and(Style::Dim, format!("{} of {} new connections", grouped(*canary), grouped(*connections))),
            bar(part(*canary, *connections)),
            Line::empty(),
            Line::new(
                Style::Dim,
                format!(" {:<8}{:<32}{:>9}{:>7}{:>10}{:>12}", "cohort", "backend", "new", "per s", "failed", "long-lived"),
            ),
        ];
        lines.extend(rows.iter().map(Row::line));
        lines.push(Line::empty());
        lines.extend(story.iter().flat_map(Event::lines));
        lines
    }

    /// On one line, for where nothing can be drawn over.
    #[must_use]
    pub fn line(&self) -> String {
        let sum = |number: fn(&Row) -> u64| self.rows.iter().map(number).sum::<u64>();
        format!(
            " {:>6.1} s   {}, got {}: {} new/s, {} failed, {} long-lived",
            self.at.as_secs_f64(),
            self.asked,
            percent(part(self.canary, self.connections)),
            sum(|row| row.rate),
            sum(|row| row.failed),
            sum(|row| row.long_lived),
        )
    }
}

impl Row {
    fn line(&self) -> Line {
        let Self { cohort, name, connections, rate, failed, long_lived } = self;
        Line::new(style(*cohort), format!(" {cohort:<8}"))
            .text(format!("{name:<32}{:>9}{rate:>7}", grouped(*connections)))
            .and(if *failed > 0 { Style::Bad } else { Style::Plain }, format!("{:>10}", grouped(*failed)))
            .text(format!("{long_lived:>12}"))
    }
}

impl Event {
    /// Drawn, on as many lines as it takes.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        let clock = format!(" {:>6.1} s   ", self.at.as_secs_f64());
        let indent = clock.len();
        wrap(&self.text, COLUMNS - indent - 1).into_iter().enumerate().map(move |(number, text)| {
            let begin = if number == 0 { clock.clone() } else { " ".repeat(indent) };
            Line::new(Style::Dim, begin).and(self.style, text)
        })
    }
}

/// The figures at the end.
#[must_use]
pub fn summary(report: &Report) -> Vec<Line> {
    let mut lines = vec![
        Line::empty(),
        Line::new(Style::Dim, format!("{:62}{:>8}{:>8}", "", "failed", "failed")),
        Line::new(
            Style::Dim,
            format!(
                " {:<8}{:>12}{:>9}{:>10}   {:<19}{:>8}{:>8}",
                "asked", "connections", "canary", "measured", "chance allows", "stable", "canary"
            ),
        ),
    ];
    lines.extend(report.steps.iter().map(|step| {
        let bounds = step
            .bounds
            .map_or_else(|| "-".into(), |[least, most]| format!("{} to {}", percent(Some(least)), percent(Some(most))));
        row(
            &format!("{}%", f64::from(step.weight_bp) / 100.0),
            step.connections,
            step.canary,
            (percent(step.share), if step.is_within_bounds() { Style::Stable } else { Style::Bad }),
            &bounds,
            step.failed,
        )
    }));
    if let Some((flip, after)) = report.flip.as_ref().zip(report.after_flip) {
        let measured = percent(part(after.canary, after.connections));
        let style = if after.canary == 0 { Style::Stable } else { Style::Bad };
        lines.push(row("flipped", after.connections, after.canary, (measured, style), "0.00%", after.failed));
        lines.push(Line::empty());
        let ms = |ms: Option<f64>| ms.map_or_else(|| "-".into(), |ms| format!("{ms:.0} ms"));
        lines.push(
            Line::new(Style::Plain, " The canary got its last connection ")
                .and(Style::Bold, ms(flip.first_failure_to_last_canary_ms))
                .text(format!(" after the first failed; {} failed.", grouped(flip.failed_connections))),
        );
    }
    let long = &report.long_lived;
    lines.push(
        Line::new(Style::Plain, format!(" Of {} long-lived connections ", long.opened))
            .and(if long.broken == 0 { Style::Bold } else { Style::Bad }, format!("{} broke", long.broken))
            .text(format!("; {} on the canary were reset by the flip,", long.reset_by_flip)),
    );
    lines.push(Line::new(
        Style::Plain,
        format!(
            " and {} are back on stable. {} answers, {} bytes wrong.",
            long.back_on_stable,
            grouped(long.exchanges),
            grouped(long.bytes_wrong)
        ),
    ));
    lines.push(Line::empty());
    match report.not_held.as_slice() {
        [] => lines.push(Line::new(Style::Stable, " Everything held.")),
        not_held => {
            lines.push(Line::new(Style::Bad, " This did not hold:"));
            let sentences = not_held.iter().flat_map(|sentence| wrap(sentence, COLUMNS - 4));
            lines.extend(sentences.map(|sentence| Line::new(Style::Bad, format!("   {sentence}"))));
        }
    }
    lines
}

fn row(asked: &str, connections: u64, canary: u64, (measured, style): (String, Style), bounds: &str, fails: ByCohort) -> Line {
    let failed = |count: u64| if count > 0 { Style::Bad } else { Style::Plain };
    Line::new(Style::Bold, format!(" {asked:<8}"))
        .text(format!("{:>12}{:>9}", grouped(connections), grouped(canary)))
        .and(style, format!("{measured:>10}"))
        .and(Style::Dim, format!("   {bounds:<19}"))
        .and(failed(fails.stable), format!("{:>8}", grouped(fails.stable)))
        .and(failed(fails.canary), format!("{:>8}", grouped(fails.canary)))
}

/// The canary's part in its colour, the rest in stable's.
fn bar(share: Option<f64>) -> Line {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
    let canary = share.map_or(0, |share| (share * BAR as f64).round() as usize).min(BAR);
    Line::new(Style::Canary, " ".to_owned() + &"█".repeat(canary)).and(Style::Stable, "░".repeat(BAR - canary))
}

const fn style(cohort: Cohort) -> Style {
    match cohort {
        Cohort::Stable => Style::Stable,
        Cohort::Canary => Style::Canary,
    }
}

/// A part of a whole; none of nothing.
fn part(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |share| format!("{:.2}%", share * 100.0))
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_comma_between_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn no_line_is_wider_than_a_terminal_whatever_the_numbers() {
        let row = |cohort, name: &str| Row {
            cohort,
            name: name.into(),
            connections: 12_345_678,
            rate: 999,
            failed: 999,
            long_lived: 999,
        };
        let text = "flipped to stable, by the agent: refused 21 of 390 (5.38%) on canary, above the limit of 5% within 2s";
        let frame = Frame {
            title: "dsr, IPv6, service web [fd79::1]:80".into(),
            at: Duration::from_secs(59),
            asked: "weight 0.01%".into(),
            connections: 12_345_678,
            canary: 12_345_678,
            rows: vec![row(Cohort::Stable, "stable1 [fd72::64:1]:8080"), row(Cohort::Canary, "canary1 [fd74::64:1]:8080")],
            story: vec![Event { at: Duration::from_secs(58), style: Style::Bad, text: text.into() }],
        };
        for line in frame.lines() {
            assert!(line.plain().chars().count() <= COLUMNS, "{:?}", line.plain());
        }
        assert!(frame.line().chars().count() <= COLUMNS, "{:?}", frame.line());
        assert_eq!(frame.story[0].lines().count(), 2);
    }

    #[test]
    fn the_bar_is_as_long_as_the_share() {
        let canary = |share| bar(share).plain().chars().filter(|c| *c == '█').count();
        assert_eq!((canary(None), canary(Some(0.0)), canary(Some(0.5)), canary(Some(1.0))), (0, 0, BAR / 2, BAR));
        assert_eq!(bar(Some(0.3)).plain().chars().count(), BAR + 1);
    }
}
