//! Text with a meaning to its colours, and what a terminal makes of it.

use std::io::{self, IsTerminal, Write};

/// What a piece of text wants to say by its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Nothing.
    #[default]
    Plain,
    /// Less important.
    Dim,
    /// A heading.
    Bold,
    /// The stable version, or something that is as it should be.
    Stable,
    /// The canary.
    Canary,
    /// Something that is not as it should be.
    Bad,
}

impl Style {
    const fn ansi(self) -> anstyle::Style {
        let style = anstyle::Style::new();
        match self {
            Self::Plain => style,
            Self::Dim => style.dimmed(),
            Self::Bold => style.bold(),
            Self::Stable => style.fg_color(Some(anstyle::Color::Ansi(anstyle::AnsiColor::Green))),
            Self::Canary => style.fg_color(Some(anstyle::Color::Ansi(anstyle::AnsiColor::Yellow))),
            Self::Bad => style.bold().fg_color(Some(anstyle::Color::Ansi(anstyle::AnsiColor::Red))),
        }
    }
}

/// A line of text in pieces of one style each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// With one piece.
    pub fn new(style: Style, text: impl Into<String>) -> Self {
        Self::default().and(style, text)
    }

    /// An empty one.
    pub fn empty() -> Self {
        Self::default()
    }

    /// With one more piece.
    pub fn and(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// With more text without a style.
    pub fn text(self, text: impl Into<String>) -> Self {
        self.and(Style::Plain, text)
    }

    /// Its pieces.
    pub fn pieces(&self) -> impl Iterator<Item = (Style, &str)> {
        self.0.iter().map(|(style, text)| (*style, text.as_str()))
    }

    /// Without styles.
    #[must_use]
    pub fn plain(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// With the escape sequences of ECMA-48.
    #[must_use]
    pub fn ansi(&self) -> String {
        let piece = |(style, text): &(Style, String)| {
            let style = style.ansi();
            format!("{style}{text}{style:#}")
        };
        self.0.iter().map(piece).collect()
    }
}

/// Breaks a text into lines of at most `width` characters, at spaces.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Standard output, as a terminal whose last lines are drawn over again, or as a file that lines are added to.
#[derive(Debug)]
pub struct Display {
    terminal: bool,
    colours: bool,
    /// How many lines were drawn last, and will be drawn over.
    drawn: usize,
}

impl Display {
    /// As standard output and the environment (`TERM`, `NO_COLOR`) have it.
    #[must_use]
    pub fn stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stdout().is_terminal() && !dumb;
        Self { terminal, colours: terminal && !set("NO_COLOR"), drawn: 0 }
    }

    /// Whether lines can be drawn over.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Draws these lines in the place of those that were drawn before.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn redraw(&mut self, lines: &[Line]) -> io::Result<()> {
        // A line that is too long for the window is cut, not broken: the way up is counted in lines.
        let mut frame = String::from("\x1b[?7l");
        if self.drawn > 0 {
            frame.push_str(&format!("\x1b[{}A\r", self.drawn));
        }
        for line in lines {
            frame.push_str(&self.render(line));
            frame.push_str("\x1b[K\n");
        }
        frame.push_str("\x1b[J\x1b[?7h");
        self.drawn = lines.len();
        write(&frame)
    }

    /// Adds lines for good, below what was drawn.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print(&mut self, lines: &[Line]) -> io::Result<()> {
        self.drawn = 0;
        write(&lines.iter().map(|line| self.render(line) + "\n").collect::<String>())
    }

    fn render(&self, line: &Line) -> String {
        if self.colours { line.ansi() } else { line.plain() }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_broken_at_spaces_and_nowhere_else() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a-word-longer-than-the-line it is", 8), ["a-word-longer-than-the-line", "it is"]);
        assert_eq!(wrap("  ", 8), Vec::<String>::new());
    }

    #[test]
    fn a_style_ends_where_its_piece_ends() {
        let line = Line::new(Style::Bad, "no").text(" and ").and(Style::Stable, "yes");
        assert_eq!(line.plain(), "no and yes");
        assert_eq!(line.ansi(), "\x1b[1m\x1b[31mno\x1b[0m and \x1b[32myes\x1b[0m");
    }
}
