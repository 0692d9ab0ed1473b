//! What a benchmark found: tables, and what they say of each goal.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::summary::{Summary, number};

/// What is measured, and what was wanted of it.
pub(super) type Findings = (Vec<Table>, Vec<Goal>);

/// What a benchmark found.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// The benchmark.
    pub(super) name: &'static str,
    /// What was measured.
    pub(super) tables: Vec<Table>,
    /// What was wanted.
    pub(super) goals: Vec<Goal>,
}

/// A table, with units in its columns' names.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// What it shows, and how that was measured.
    pub(super) title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// What stands in a table.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    /// A word.
    Text(String),
    /// A number.
    Number(f64),
    /// Several rounds.
    Rounds(Summary),
}

/// What was wanted of a number, and what it is.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    /// What it is a number of.
    pub(super) of: &'static str,
    /// What was wanted.
    pub(super) wanted: Wanted,
    /// What it is.
    pub(super) found: f64,
    /// The unit of both, or nothing for a ratio.
    pub(super) unit: &'static str,
    /// What keeps it from being better, whatever the code does.
    pub(super) floor: String,
}

/// How a number should be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// No larger.
    AtMost(f64),
    /// No smaller.
    AtLeast(f64),
}

impl Report {
    /// As people read it, which is Markdown.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            text += &table.text();
            text.push('\n');
        }
        for goal in &self.goals {
            text += &goal.text();
            text.push('\n');
        }
        text
    }

    /// As programs read it.
    pub(super) fn json(&self) -> Value {
        json!({
            "bench": self.name,
            "tables": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
            "goals": self.goals.iter().map(Goal::json).collect::<Vec<_>>(),
        })
    }
}

impl Table {
    /// One without rows.
    pub(super) fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with a cell for each column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(Cell::text).collect())
            .collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = rows.iter().filter_map(|row| row.get(column));
                let longest = cells.map(|it| it.chars().count()).max().unwrap_or(0);
                longest.max(self.columns[column].chars().count())
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = "|".to_owned();
            for (column, cell) in cells.enumerate() {
                let width = widths[column];
                // Words begin where words begin, and numbers end where numbers end.
                let _ = if column == 0 {
                    write!(text, " {cell:<width$} |")
                } else {
                    write!(text, " {cell:>width$} |")
                };
            }
            text.push('\n');
            text
        };
        let mut text = format!("{}\n\n", self.title);
        text += &line(&mut self.columns.iter().copied());
        for (column, width) in widths.iter().enumerate() {
            let dashes = "-".repeat(width + 1);
            let end = if column == 0 { '-' } else { ':' };
            let _ = write!(text, "|{dashes}{end}");
        }
        text += "|\n";
        for row in &rows {
            text += &line(&mut row.iter().map(String::as_str));
        }
        text
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let cells = self.columns.iter().zip(row);
            cells
                .map(|(column, cell)| ((*column).to_owned(), cell.json()))
                .collect::<Map<_, _>>()
        });
        json!({"title": self.title, "rows": rows.collect::<Vec<_>>()})
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(value) => number(*value),
            Self::Rounds(summary) => summary.to_string(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Number(value) => json!(value),
            Self::Rounds(Summary { median, low, high }) => {
                json!({"median": median, "low": low, "high": high})
            }
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<Summary> for Cell {
    fn from(summary: Summary) -> Self {
        Self::Rounds(summary)
    }
}

impl Goal {
    fn is_met(&self) -> bool {
        match self.wanted {
            Wanted::AtMost(most) => self.found <= most,
            Wanted::AtLeast(least) => self.found >= least,
        }
    }

    /// How far it is off, in parts of what was wanted.
    fn missed_by(&self) -> f64 {
        match self.wanted {
            Wanted::AtMost(most) => self.found / most - 1.0,
            Wanted::AtLeast(least) => 1.0 - self.found / least,
        }
    }

    fn text(&self) -> String {
        let Self {
            of,
            wanted,
            found,
            unit,
            floor,
        } = self;
        let (how, limit) = match wanted {
            Wanted::AtMost(most) => ("at most", most),
            Wanted::AtLeast(least) => ("at least", least),
        };
        let space = if unit.is_empty() { "" } else { " " };
        let found = format!("{}{space}{unit}", number(*found));
        let limit = format!("{}{space}{unit}", number(*limit));
        if self.is_met() {
            format!("- {of}: {found}, {how} {limit} wanted: **met**")
        } else {
            let percent = number(self.missed_by() * 100.0);
            format!("- {of}: {found}, {how} {limit} wanted: **missed by {percent} %**. {floor}")
        }
    }

    fn json(&self) -> Value {
        let (how, limit) = match self.wanted {
            Wanted::AtMost(most) => ("at_most", most),
            Wanted::AtLeast(least) => ("at_least", least),
        };
        json!({
            "of": self.of,
            "found": self.found,
            how: limit,
            "unit": self.unit,
            "met": self.is_met(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(wanted: Wanted, found: f64) -> Goal {
        Goal {
            of: "a thing",
            wanted,
            found,
            unit: "µs",
            floor: "Light is no faster.".to_owned(),
        }
    }

    #[test]
    fn a_goal_is_met_or_missed_by_so_much() {
        let met = goal(Wanted::AtMost(2.0), 2.0);
        assert_eq!(met.text(), "- a thing: 2 µs, at most 2 µs wanted: **met**");
        let missed = goal(Wanted::AtMost(2.0), 3.0).text();
        assert!(missed.ends_with("**missed by 50 %**. Light is no faster."));
        let missed = goal(Wanted::AtLeast(2.0), 1.0).text();
        assert!(missed.contains("at least 2 µs wanted: **missed by 50 %**"));
        // What could not be measured has met nothing.
        assert!(!goal(Wanted::AtMost(2.0), f64::NAN).is_met());
    }

    #[test]
    fn a_table_is_markdown_with_straight_columns() {
        let mut table = Table::new("Things.", &["thing", "µs"]);
        table.row(["one".into(), 1.0.into()]);
        table.row(["another".into(), Summary::of([1.0, 2.0, 3.0]).into()]);
        let expected = "Things.\n\n\
                        | thing   |          µs |\n\
                        |---------|------------:|\n\
                        | one     |           1 |\n\
                        | another | 2 (1.50–2.50) |\n";
        let text = table.text();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|it| it.chars().count() == width), "{text}");
        assert_eq!(squeezed(&text), squeezed(expected));
        assert_eq!(table.json()["rows"][1]["µs"]["median"], 2.0);
    }

    fn squeezed(text: &str) -> String {
        text.replace([' ', '-'], "")
    }
}
