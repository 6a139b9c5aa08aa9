//! Columns, wrapping, short numbers, colours.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, tz::TimeZone};

/// How wide a line may be.
pub const WIDTH: usize = 80;

pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
pub const GOOD: Style = AnsiColor::Green.on_default();
pub const WARN: Style = AnsiColor::Yellow.on_default();
pub const BAD: Style = AnsiColor::Red.on_default().bold();
pub const PLAIN: Style = Style::new();

/// Text in a style; the same without escapes if the style is plain or the text empty.
pub fn paint(style: Style, text: &str) -> String {
    if style.is_plain() || text.is_empty() { text.to_owned() } else { format!("{style}{text}{style:#}") }
}

/// One cell of a row.
pub struct Cell {
    text: String,
    style: Style,
    width: usize,
    right: bool,
}

/// A cell of text, padded behind.
pub fn left(text: impl Into<String>, width: usize, style: Style) -> Cell {
    Cell { text: text.into(), style, width, right: false }
}

/// A number, padded before.
pub fn right(text: impl Into<String>, width: usize) -> Cell {
    Cell { text: text.into(), style: PLAIN, width, right: true }
}

/// A row of cells with a space between them. A first cell that is too long gets a line of its own, so that the
/// columns stay where they are.
pub fn row(indent: usize, cells: &[Cell]) -> String {
    let mut line = " ".repeat(indent);
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            line.push(' ');
        }
        let padding = " ".repeat(cell.width.saturating_sub(length(&cell.text)));
        let text = paint(cell.style, &cell.text);
        line += &if cell.right { format!("{padding}{text}") } else { format!("{text}{padding}") };
        if index == 0 && length(&cell.text) > cell.width && cells.len() > 1 {
            line.push('\n');
            line += &" ".repeat(indent + cell.width);
        }
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// A name and what is behind it, wrapped behind the name.
pub fn field(indent: usize, name: &str, width: usize, style: Style, text: &str) -> String {
    let hang = indent + width;
    let padding = " ".repeat(width.saturating_sub(length(name)));
    format!("{}{}{padding}{}", " ".repeat(indent), paint(style, name), wrap(text, hang))
}

/// Text in lines; all but the first are indented, the first begins at that column already. A word that is longer than a line stays whole.
pub fn wrap(text: &str, hang: usize) -> String {
    let (mut lines, mut column) = (String::new(), hang);
    for word in text.split_whitespace() {
        if column > hang && column + 1 + length(word) > WIDTH {
            lines.push('\n');
            lines += &" ".repeat(hang);
            column = hang;
        } else if column > hang {
            lines.push(' ');
            column += 1;
        }
        lines += word;
        column += length(word);
    }
    lines.push('\n');
    lines
}

/// A count in at most 6 characters.
pub fn count(number: u64) -> String {
    if number < 100_000 { number.to_string() } else { scaled(number as f64) }
}

/// A rate or a measured amount in at most 6 characters.
pub fn rate(number: f64) -> String {
    if number < 9.95 && number.fract() != 0.0 {
        format!("{number:.1}")
    } else if number < 99_999.5 {
        format!("{number:.0}")
    } else {
        scaled(number)
    }
}

/// Microseconds in at most 6 characters.
pub fn span(microseconds: u64) -> String {
    let us = microseconds as f64;
    if microseconds < 1_000 {
        format!("{microseconds}us")
    } else if us < 9_995.0 {
        format!("{:.2}ms", us / 1e3)
    } else if us < 999_500.0 {
        format!("{:.0}ms", us / 1e3)
    } else {
        format!("{:.1}s", us / 1e6)
    }
}

/// A number that may not be known.
pub fn known<T>(number: Option<T>, write: impl FnOnce(T) -> String) -> String {
    number.map_or_else(|| "-".to_owned(), write)
}

/// In UTC, to the second.
pub fn time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%F %TZ").to_string()
}

/// The time of day in UTC, to the millisecond.
pub fn time_of_day(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%T%.3fZ").to_string()
}

fn scaled(number: f64) -> String {
    let mut scaled = number;
    let mut unit = "";
    for next in ["K", "M", "G", "T", "P", "E"] {
        if scaled < 999.5 {
            break;
        }
        scaled /= 1_000.0;
        unit = next;
    }
    let mut text = String::new();
    let decimals = usize::from(scaled < 99.95);
    // Writing to a string can't fail.
    write!(text, "{scaled:.decimals$}{unit}").expect("a string takes everything");
    text
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        for (number, text) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100K"),
            (999_499, "999K"),
            (999_500, "1.0M"),
            (1_903_800, "1.9M"),
            (99_949_999, "99.9M"),
            (99_950_000, "100M"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(count(number), text);
        }
        for (number, text) in
            [(0.0, "0"), (0.04, "0.0"), (0.5, "0.5"), (9.96, "10"), (17.0, "17"), (99_999.4, "99999"), (1.25e9, "1.2G")]
        {
            assert_eq!(rate(number), text, "{number}");
        }
    }

    #[test]
    fn times_stay_short() {
        for (microseconds, text) in [
            (0, "0us"),
            (999, "999us"),
            (1_000, "1.00ms"),
            (9_994, "9.99ms"),
            (9_995, "10ms"),
            (999_499, "999ms"),
            (999_500, "1.0s"),
            (68_719_476, "68.7s"),
        ] {
            assert_eq!(span(microseconds), text);
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_word_is_lost() {
        let text = "a limit was crossed: the canary refused 12 of 80 attempts in 10 s, and stable 1 of 1520; limit 5%".repeat(3);
        for hang in [0, 2, 13, 40] {
            let wrapped = wrap(&text, hang);
            assert!(
                wrapped.lines().enumerate().all(|(n, line)| line.len() + if n == 0 { hang } else { 0 } <= WIDTH),
                "{wrapped}"
            );
            assert!(wrapped.split_whitespace().eq(text.split_whitespace()));
        }
    }

    #[test]
    fn a_first_cell_that_is_too_long_does_not_move_the_columns() {
        let short = row(2, &[left("ab", 4, PLAIN), right("7", 3)]);
        let long = row(2, &[left("abcdefgh", 4, PLAIN), right("7", 3)]);
        assert_eq!((short.as_str(), long.as_str()), ("  ab     7\n", "  abcdefgh\n         7\n"));
    }
}
