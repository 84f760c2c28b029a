//! Rows under headings, in columns. On a terminal the last column is wrapped to what is left of the line, and colour
//! repeats what the words say; elsewhere lines are as long as they are, and plain.

use console::{Style, measure_text_width};
use nixfleet_sys::text::one_line;

/// Between two columns.
const GAP: usize = 2;
/// A last column is not wrapped into less than this; its cell stands below then.
const WRAPPED_MIN: usize = 24;
/// How far in a cell stands that is below its line.
const BELOW: usize = 4;

/// A cell: one line, whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// What colour repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing.
    Plain,
    /// It is as it should be.
    Good,
    /// It is on its way, or waits.
    Busy,
    /// A person should look.
    Bad,
}

/// Where a table is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    /// How wide a line may be; `None` if it may be as long as it is.
    pub(crate) width: Option<usize>,
    /// Whether there is colour.
    pub(crate) colour: bool,
}

impl Page {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        let term = console::Term::stdout();
        let width = term.is_term().then(|| usize::from(term.size().1)).filter(|width| *width > 0);
        Self { width, colour: console::colors_enabled() }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Cell {
    /// A text with a tone.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: one_line(&text.into(), usize::MAX), tone }
    }

    fn painted(&self, text: &str, page: Page) -> String {
        let style = match self.tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => Style::new().green(),
            Tone::Busy => Style::new().yellow(),
            Tone::Bad => Style::new().red().bold(),
        };
        if page.colour { style.force_styling(true).apply_to(text).to_string() } else { text.to_owned() }
    }
}

/// The lines of a table.
pub(crate) fn lines(headings: &[&str], rows: &[Vec<Cell>], page: Page) -> Vec<String> {
    let headings: Vec<Cell> = headings.iter().map(|heading| Cell::from(*heading)).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).chain([&headings[column]]);
        cells.map(|cell| measure_text_width(&cell.text)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    std::iter::once(&headings).chain(rows).flat_map(|row| row_lines(row, &widths, page)).collect()
}

fn row_lines(row: &[Cell], widths: &[usize], page: Page) -> Vec<String> {
    let Some((last, others)) = row.split_last() else { return vec![String::new()] };
    let mut start = String::new();
    for (cell, width) in others.iter().zip(widths) {
        let pad = width + GAP - measure_text_width(&cell.text);
        start.push_str(&cell.painted(&cell.text, page));
        start.push_str(&" ".repeat(pad));
    }
    let beside: usize = widths.iter().take(others.len()).map(|width| width + GAP).sum();
    let room = page.width.map_or(usize::MAX, |width| width.saturating_sub(beside));
    let is_below = room < WRAPPED_MIN.min(measure_text_width(&last.text));
    let (indent, room) =
        if is_below { (BELOW, page.width.unwrap_or(0).saturating_sub(BELOW)) } else { (beside, room) };
    let mut lines = if is_below { vec![start.trim_end().to_owned()] } else { Vec::new() };
    for text in wrap(&last.text, room) {
        let text = if text.is_empty() { text } else { last.painted(&text, page) };
        let start = if lines.is_empty() { start.clone() } else { " ".repeat(indent) };
        lines.push(format!("{start}{text}").trim_end().to_owned());
    }
    lines
}

/// `text` in lines of at most `room` columns; a word that is longer is left whole.
pub(crate) fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let width = measure_text_width(word);
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
            used = width;
        } else if used + 1 + width <= room {
            line.push(' ');
            line.push_str(word);
            used += 1 + width;
        } else {
            lines.push(word.to_owned());
            used = width;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Page = Page { width: None, colour: false };

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec!["web-1".into(), Cell::toned("failed", Tone::Bad), "wave 1 must be done before it".into()],
            vec!["größe".into(), "ok".into(), "".into()],
        ]
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_cell_and_nothing_follows_a_line() {
        let wanted =
            ["HOST   STATE   WAITS FOR", "web-1  failed  wave 1 must be done before it", "größe  ok"];
        assert_eq!(lines(&["HOST", "STATE", "WAITS FOR"], &rows(), PLAIN), wanted);
    }

    #[test]
    fn a_foreign_text_in_a_cell_moves_no_cursor_and_begins_no_line() {
        let rows = vec![vec!["web-1".into(), Cell::toned("ok\nweb-2\u{1b}[1A", Tone::Bad)]];
        assert_eq!(lines(&["HOST", "STATE"], &rows, PLAIN), ["HOST   STATE", "web-1  ok web-2[1A"]);
    }

    #[test]
    fn the_last_column_is_wrapped_to_the_terminal() {
        let page = Page { width: Some(40), colour: false };
        let wanted = [
            "HOST   STATE   WAITS FOR",
            "web-1  failed  wave 1 must be done",
            "               before it",
            "größe  ok",
        ];
        assert_eq!(lines(&["HOST", "STATE", "WAITS FOR"], &rows(), page), wanted);
    }

    #[test]
    fn what_has_no_room_beside_stands_below() {
        let page = Page { width: Some(28), colour: false };
        let wanted = [
            "HOST   STATE   WAITS FOR",
            "web-1  failed",
            "    wave 1 must be done",
            "    before it",
            "größe  ok",
        ];
        assert_eq!(lines(&["HOST", "STATE", "WAITS FOR"], &rows(), page), wanted);
    }

    #[test]
    fn colour_changes_no_width_and_is_not_there_unless_asked_for() {
        let page = Page { width: None, colour: true };
        let painted = lines(&["HOST", "STATE", "WAITS FOR"], &rows(), page);
        assert!(painted[1].contains("\u{1b}["));
        let bare: Vec<_> = painted.iter().map(|line| console::strip_ansi_codes(line).into_owned()).collect();
        assert_eq!(bare, lines(&["HOST", "STATE", "WAITS FOR"], &rows(), PLAIN));
    }
}
