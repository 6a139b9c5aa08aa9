//! A report as tables, for a terminal and for a page.

use comfy_table::{CellAlignment, Table, presets};

use super::{
    cost::Row,
    report::{Cost, Scale, Step, Wire},
    targets,
};

/// Where a table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A terminal.
    Terminal,
    /// A page of Markdown.
    Page,
}

/// What a packet costs; with another build's figures, where there are any.
#[must_use]
pub fn cost(rows: &[Row], medium: Medium) -> String {
    let other = rows.iter().any(|row| row.other.is_some());
    let costs: Vec<Cost> = rows.iter().map(|row| row.cost.clone()).collect();
    let mut header = vec!["case", "services", "flows", "ns", "min–max", "raw", "empty", "target", ""];
    if other {
        header.extend(["other build", "min–max"]);
    }
    let lines = rows.iter().map(|row| {
        let cost = &row.cost;
        let (target, reached) = targets::of(cost, &costs)
            .map_or_else(Default::default, |target| (format!("≤ {}", short(target.ns)), verdict(target.reached)));
        let mut line = vec![
            cost.case.clone(),
            grouped(cost.services),
            grouped(cost.flows),
            short(cost.ns),
            format!("{}–{}", short(cost.min), short(cost.max)),
            short(cost.raw_ns),
            short(cost.empty_ns),
            target,
            reached.to_owned(),
        ];
        if let Some(spread) = row.other {
            line.extend([short(spread.median), format!("{}–{}", short(spread.min), short(spread.max))]);
        }
        line
    });
    render(&header, lines, medium)
}

/// What goes through the wire.
#[must_use]
pub fn wire(rows: &[Wire], medium: Medium) -> String {
    let header = ["path", "load", "Mpps", "Mpps, ≤ 3% lost", "requests/s", "p50 µs", "p99 µs", "CPU µs/request", "Gbit/s", ""];
    let figure = |value: Option<f64>, digits: usize| value.map(|value| format!("{value:.digits$}")).unwrap_or_default();
    let lines = rows.iter().map(|row| {
        vec![
            row.path.clone(),
            row.load.clone(),
            figure(row.mpps, 2),
            figure(row.mpps_3_percent_loss, 2),
            figure(row.requests_per_s, 0),
            figure(row.p50_us, 0),
            figure(row.p99_us, 0),
            figure(row.cpu_us_per_request, 1),
            figure(row.gbit_per_s, 1),
            row.absent.clone().unwrap_or_default(),
        ]
    });
    let ratios = targets::wire(rows);
    let compared = ratios.iter().map(|ratio| {
        vec![ratio.what.to_owned(), format!("{:.2}", ratio.ratio), ratio.target.to_owned(), verdict(ratio.reached).to_owned()]
    });
    let mut tables = render(&header, lines, medium);
    if !ratios.is_empty() {
        tables += "\n";
        tables += &render(&["splitter-dsr's", "ratio", "target", ""], compared, medium);
    }
    tables
}

/// What grows with what.
#[must_use]
pub fn scale(rows: &[Scale], medium: Medium) -> String {
    let lines = rows.iter().map(|row| {
        vec![row.what.clone(), row.by.clone(), grouped(row.size as usize), format!("{:.2}", row.value), row.unit.clone()]
    });
    render(&["what", "by", "size", "value", "unit"], lines, medium)
}

/// Where a packet's cost lies.
#[must_use]
pub fn steps(rows: &[Step], medium: Medium) -> String {
    let lines = rows.iter().map(|row| {
        vec![
            row.case.clone(),
            grouped(row.flows),
            row.step.clone(),
            format!("{:.1}", row.ns),
            format!("{}–{}", short(row.min), short(row.max)),
            format!("{:.1}", row.of_it_ns),
        ]
    });
    render(&["case", "flows", "up to", "ns", "middle half", "of it"], lines, medium)
}

const fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "not reached" }
}

/// Whole where it is whole.
fn short(ns: f64) -> String {
    if ns.fract() == 0.0 { format!("{ns:.0}") } else { format!("{ns:.1}") }
}

/// A number with its thousands set apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Every column that begins with a figure is aligned at its right.
fn render(header: &[&str], lines: impl Iterator<Item = Vec<String>>, medium: Medium) -> String {
    let lines: Vec<Vec<String>> = lines.collect();
    let mut table = Table::new();
    table.load_preset(match medium {
        Medium::Terminal => presets::NOTHING,
        Medium::Page => presets::ASCII_MARKDOWN,
    });
    table.set_header(header);
    let is_figure = |text: &str| text.starts_with(|c: char| c.is_ascii_digit() || c == '≤' || c == '-');
    for column in 0..header.len() {
        let mut texts = lines.iter().filter_map(|line| line.get(column)).filter(|text| !text.is_empty()).peekable();
        if texts.peek().is_some()
            && texts.all(|text| is_figure(text))
            && let Some(column) = table.column_mut(column)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.add_rows(lines);
    // A cell ends with blanks where its column goes on.
    let text: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    text.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([1, 999, 1_000, 16_000, 1_000_000].map(grouped), ["1", "999", "1,000", "16,000", "1,000,000"]);
    }

    #[test]
    fn a_row_stands_beside_its_target() {
        let cost = |case: &str, ns| Cost {
            case: case.to_owned(),
            ns,
            min: ns - 1.0,
            max: ns + 1.5,
            raw_ns: ns + 12.0,
            empty_ns: 12.0,
            rounds: 15,
            flows: 1,
            services: 1,
        };
        let rows = [cost("not-ours", 4.0), cost("dsr-v4-tcp-established", 12.5), cost("nat-v4-tcp-refused", 90.0)]
            .map(|cost| Row { cost, other: None });
        let page = cost_page(&rows);
        let lines: Vec<_> = page.lines().collect();
        assert!(lines[0].starts_with("| case") && lines[1].starts_with("|--"), "{page}");
        assert!(lines[2].contains("≤ 5") && lines[2].contains("| reached"), "{page}");
        assert!(lines[3].contains("12.5") && lines[3].contains("11.5–14") && lines[3].contains("not reached"), "{page}");
        assert!(!lines[4].contains("reached"), "{page}");
        assert!(!cost_page(&rows).contains("other build"));
    }

    fn cost_page(rows: &[Row]) -> String {
        super::cost(rows, Medium::Page)
    }
}
