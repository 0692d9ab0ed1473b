//! Columns of text, without borders.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets::NOTHING};

/// How a column stands.
#[derive(Clone, Copy)]
pub(super) enum Column {
    /// Words.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// The rows under their headings, indented by two.
pub(super) fn table<const N: usize>(columns: [Column; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.map(|column| match column {
            Column::Left(name) => Cell::new(name),
            Column::Right(name) => Cell::new(name).set_alignment(CellAlignment::Right),
        }))
        .add_rows(rows);
    for (index, column) in columns.iter().enumerate() {
        if let Some(styled) = table.column_mut(index) {
            styled.set_padding((0, 2));
            styled.set_cell_alignment(match column {
                Column::Left(_) => CellAlignment::Left,
                Column::Right(_) => CellAlignment::Right,
            });
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
