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

    /// How many clients a cell has, each with one connection.
    pub(super) const CLIENTS: u32 = 25;
}

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use handshakes::{books::Books, play::play, scene::Crew, selftest};
use libtest_mimic::{Arguments, Failed, Trial};
use reuseport_tests::cells::{self, Cell};

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
    let table = cells
        .into_iter()
        .map(|cell| trial(cell.to_string(), cell, Crew::of(cell), &books));
    let selftest = selftest::cases()
        .into_iter()
        .map(|(name, cell)| trial(name, cell, selftest::CREW, &books));
    let trials = selftest.chain(table).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The verdict stands without it.
    let _ = writeln!(io::stderr(), "{books}");
    conclusion.exit_code()
}

fn trial(name: String, cell: Cell, crew: Crew, books: &Arc<Books>) -> Trial {
    let books = Arc::clone(books);
    Trial::test(name, move || {
        play(cell, crew, &books).map_err(|error| Failed::from(format!("{error:#}")))
    })
}
