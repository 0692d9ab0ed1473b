//! Nothing is lost in any state of the handshake: a table of every state that a connection can be in
//! when its service moves, under every way to move it.
//!
//! A part of the table that covers every pair of values is played by default; `REUSEPORTD_CELLS=all`
//! plays all of it. The name of a cell is its place in the table, so that a filter finds it.

mod handshakes {
    pub(super) mod books;
    pub(super) mod plan;
    pub(super) mod play;
    pub(super) mod scene;
    pub(super) mod selftest;
    pub(super) mod sieve;
    pub(super) mod verdict;
    pub(super) mod without;

    /// How many clients a cell has, each with one connection.
    pub(super) const CLIENTS: u32 = 25;
}

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Result;
use handshakes::{
    books::Books,
    play::{play, play_without},
    scene::Crew,
    selftest, without,
};
use libtest_mimic::{Arguments, Failed, Trial};
use reuseport_tests::cells;

/// Which part of the table is played.
const CELLS: &str = "REUSEPORTD_CELLS";

/// Cells that are played at once. They mostly wait, each in namespaces of its own.
const AT_ONCE: usize = 12;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let books = Arc::new(Books::default());
    let cells = match env::var(CELLS).as_deref() {
        Ok("all") => cells::all(),
        Ok(_) | Err(_) => cells::covering(),
    };
    let mut trials = Vec::new();
    for (name, cell) in without::cases() {
        trials.push(trial(name, move || play_without(cell)));
    }
    let table = cells.into_iter();
    let table = table.map(|cell| (cell.to_string(), cell, Crew::of(cell)));
    let selftest = selftest::cases().into_iter();
    let selftest = selftest.map(|(name, cell)| (name, cell, selftest::CREW));
    for (name, cell, crew) in selftest.chain(table) {
        let books = Arc::clone(&books);
        trials.push(trial(name, move || play(cell, crew, &books)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The verdict stands without it.
    let _ = writeln!(io::stderr(), "{books}");
    conclusion.exit_code()
}

fn trial(name: String, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| Failed::from(format!("{error:#}")))
    })
}
