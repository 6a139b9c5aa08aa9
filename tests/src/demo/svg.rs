//! A terminal's lines as a picture that needs nothing but a monospaced font.

use std::fmt::Write;

use super::screen::{Line, Style};

/// Of one character and one line, in the picture's units. The text is stretched to it, whatever the font.
const CHARACTER: f64 = 8.4;
const LINE: usize = 19;
const FONT: usize = 14;
/// Around the text.
const MARGIN: usize = 18;
/// The window's title bar.
const BAR: usize = 34;
/// The least width, in characters.
const COLUMNS: usize = 80;

/// The colour of text: readable on the window's own background, which hides the page's.
const fn colour(style: Style) -> &'static str {
    match style {
        Style::Plain => "#d0d7de",
        Style::Dim => "#8b949e",
        Style::Bold => "#ffffff",
        Style::Stable => "#56d364",
        Style::Canary => "#e3b341",
        Style::Bad => "#ff7b72",
    }
}

const fn is_bold(style: Style) -> bool {
    match style {
        Style::Bold | Style::Bad => true,
        Style::Plain | Style::Dim | Style::Stable | Style::Canary => false,
    }
}

/// The picture, with a title that is also its description for those who don't see it.
#[must_use]
pub fn render(title: &str, lines: &[Line]) -> String {
    let columns = lines.iter().map(|line| line.plain().chars().count()).max().unwrap_or(0).max(COLUMNS);
    let width = advance(columns) + 2.0 * MARGIN as f64;
    let height = BAR + lines.len() * LINE + MARGIN;
    let title = escape(title);
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{title}">
<title>{title}</title>
<rect x="0.5" y="0.5" width="{}" height="{}" rx="8" fill="#0d1117" stroke="#57606a"/>
<circle cx="20" cy="17" r="5.5" fill="#ff5f57"/><circle cx="39" cy="17" r="5.5" fill="#febc2e"/><circle cx="58" cy="17" r="5.5" fill="#28c840"/>
<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="{FONT}">
<text x="{}" y="22" fill="#8b949e" text-anchor="middle">{title}</text>
"##,
        width - 1.0,
        height - 1,
        width / 2.0,
    );
    for (number, line) in lines.iter().enumerate() {
        let y = BAR + number * LINE + FONT;
        let mut column = 0;
        for (style, text) in line.pieces() {
            piece(&mut svg, column, y, style, text);
            column += text.chars().count();
        }
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

/// One piece, placed by itself word group by word group: runs of spaces are left out, and every group gets the width
/// that its characters have in a terminal.
fn piece(svg: &mut String, column: usize, y: usize, style: Style, text: &str) {
    let mut at = column;
    for group in groups(text) {
        let (length, shown) = (group.chars().count(), group.trim());
        if !shown.is_empty() {
            // A picture drops spaces at the ends, so the first of them moves the text instead.
            let leading = length - group.trim_start().chars().count();
            let (x, stretched) = (MARGIN as f64 + advance(at + leading), advance(shown.chars().count()));
            let bold = if is_bold(style) { r#" font-weight="bold""# } else { "" };
            writeln!(
                svg,
                r#"<text x="{x:.1}" y="{y}" fill="{}"{bold} textLength="{stretched:.1}" lengthAdjust="spacingAndGlyphs">{}</text>"#,
                colour(style),
                escape(shown)
            )
            .expect("a string can be written to");
        }
        at += length;
    }
}

/// Splits where two or more spaces follow each other, which are groups of their own.
fn groups(text: &str) -> Vec<&str> {
    let mut groups = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("  ") {
        let spaces = rest[start..].len() - rest[start..].trim_start_matches(' ').len();
        groups.extend([&rest[..start], &rest[start..start + spaces]]);
        rest = &rest[start + spaces..];
    }
    groups.push(rest);
    groups
}

fn advance(characters: usize) -> f64 {
    characters as f64 * CHARACTER
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_every_word_in_its_column_and_its_colour() {
        let line = Line::new(Style::Stable, " ok").text("   a <b> & c");
        let svg = render("demo", &[line]);
        // One space within a piece is kept, longer gaps are left out.
        assert!(
            svg.contains(r##"<text x="26.4" y="48" fill="#56d364" textLength="16.8" lengthAdjust="spacingAndGlyphs">ok</text>"##),
            "{svg}"
        );
        assert!(svg.contains(r##"<text x="68.4" y="48" fill="#d0d7de" textLength="75.6" lengthAdjust="spacingAndGlyphs">a &lt;b&gt; &amp; c</text>"##), "{svg}");
        assert_eq!(svg.matches("<text").count(), 3);
        assert!(svg.contains(r#"viewBox="0 0 708 "#));
    }

    #[test]
    fn groups_are_split_at_wide_gaps_only() {
        assert_eq!(groups("a b  c"), ["a b", "  ", "c"]);
        assert_eq!(groups("   x"), ["", "   ", "x"]);
        assert_eq!(groups("x"), ["x"]);
    }
}
