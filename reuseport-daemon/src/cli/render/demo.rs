//! The demo's table, and its cells while they grow.

use super::{
    style::{ERROR, GOOD, paint},
    table::{Column, table},
};
use crate::demo::{Cell, Distance, Recipe};

/// A cell under way, without a newline.
pub(in crate::cli) fn cell(cell: &Cell) -> String {
    format!(
        "{}, {}: {} migrations, {} connections, {} lost",
        distance(cell.distance),
        recipe(cell.recipe),
        cell.migrations,
        cell.connections,
        cell.lost
    )
}

/// The table, and the verdict on the last row.
pub(in crate::cli) fn cells(cells: &[Cell]) -> String {
    let columns = [
        Column::Left("CLIENTS"),
        Column::Left("HAND-OVER"),
        Column::Right("MIGRATIONS"),
        Column::Right("CONNECTIONS"),
        Column::Right("LOST"),
    ];
    let mut rows = Vec::new();
    for far in Distance::ALL {
        for cell in cells.iter().filter(|it| it.distance == far) {
            rows.push([
                distance(cell.distance).to_owned(),
                recipe(cell.recipe).to_owned(),
                cell.migrations.to_string(),
                cell.connections.to_string(),
                cell.lost.to_string(),
            ]);
        }
    }
    format!("{}\n{}\n", table(columns, rows), verdict(cells))
}

fn verdict(cells: &[Cell]) -> String {
    let ours = cells.iter().filter(|it| it.recipe == Recipe::Reuseportd);
    let (count, migrations, lost) = ours.fold((0, 0, 0), |(count, migrations, lost), it| {
        (count + 1, migrations + it.migrations, lost + it.lost)
    });
    if lost > 0 {
        paint(ERROR, format!("  reuseportd lost {lost} connections"))
    } else if count < Distance::ALL.len() {
        "  stopped before it was over".to_owned()
    } else {
        paint(
            GOOD,
            format!("  reuseportd: {migrations} migrations, nothing lost"),
        )
    }
}

fn distance(distance: Distance) -> &'static str {
    match distance {
        Distance::Loopback => "loopback",
        Distance::Link20Ms => "20 ms away",
    }
}

fn recipe(recipe: Recipe) -> &'static str {
    match recipe {
        Recipe::Close => "close the old listener",
        Recipe::DrainClose => "drain it, then close",
        Recipe::MigrateReq => "tcp_migrate_req=1, close",
        Recipe::Reuseportd => "reuseportd",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::style::plain, *};

    fn cell(recipe: Recipe, distance: Distance, lost: u64) -> Cell {
        Cell {
            recipe,
            distance,
            migrations: 20,
            connections: 123_456,
            lost,
        }
    }

    #[test]
    fn the_table_fits_a_terminal_and_ends_with_a_verdict() {
        let all = [
            cell(Recipe::Close, Distance::Loopback, 17),
            cell(Recipe::MigrateReq, Distance::Link20Ms, 0),
            cell(Recipe::Reuseportd, Distance::Loopback, 0),
            cell(Recipe::Reuseportd, Distance::Link20Ms, 0),
        ];
        let text = plain(&cells(&all));
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(text.contains("close the old listener"), "{text}");
        assert!(
            text.ends_with("reuseportd: 40 migrations, nothing lost\n"),
            "{text}"
        );
        assert!(plain(&cells(&all[..3])).contains("stopped before"));
        let lost = cell(Recipe::Reuseportd, Distance::Loopback, 2);
        assert!(plain(&cells(&[lost])).contains("reuseportd lost 2"));
    }
}
