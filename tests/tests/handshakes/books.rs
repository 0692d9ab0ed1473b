//! What came of all cells together.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use reuseport_daemon::{api::wire::MigrationResult, lab::ledger::Ledger};
use reuseport_tests::cells::{Cell, Factor};

/// The sums over all cells that were played.
#[derive(Debug, Default)]
pub(crate) struct Books(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    cells: u64,
    connections: u64,
    lost: u64,
    waited: u64,
    moved_by_kernel: u64,
    handed_off: u64,
    /// What no migration could bring along, by state and drain.
    exceptions: BTreeMap<(&'static str, &'static str, Exception), u64>,
}

/// Why connections stayed with the old server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Exception {
    /// The migration was refused: this kernel cannot drain like that.
    Refused,
    /// They were left behind at the deadline, and reported as such.
    LeftBehind,
}

impl Books {
    /// Enters a cell.
    pub(crate) fn enter(&self, cell: Cell, ledger: &Ledger, result: &MigrationResult) {
        self.change(|sums| {
            sums.add(ledger);
            sums.waited += result.handshakes_waited;
            sums.moved_by_kernel += result.moved_by_kernel;
            sums.handed_off += result.handed_off;
            if result.left_behind > 0 {
                sums.except(cell, Exception::LeftBehind);
            }
        });
    }

    /// Enters a cell whose migration was refused.
    pub(crate) fn refuse(&self, cell: Cell, ledger: &Ledger) {
        self.change(|sums| {
            sums.add(ledger);
            sums.except(cell, Exception::Refused);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Sums)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Sums {
    fn add(&mut self, ledger: &Ledger) {
        self.cells += 1;
        self.connections += ledger.begun();
        self.lost += ledger.begun() - ledger.answered();
    }

    fn except(&mut self, cell: Cell, exception: Exception) {
        let key = (cell.state.name(), cell.drain.name(), exception);
        *self.exceptions.entry(key).or_default() += 1;
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(
            f,
            "{} cells, {} connections, {} lost; {} handshakes waited for, {} connections moved by \
             the kernel, {} handed off",
            sums.cells,
            sums.connections,
            sums.lost,
            sums.waited,
            sums.moved_by_kernel,
            sums.handed_off
        )?;
        for ((state, drain, exception), cells) in &sums.exceptions {
            let what = match exception {
                Exception::Refused => "refused, since this kernel cannot",
                Exception::LeftBehind => "left behind at the deadline, and reported",
            };
            write!(f, "\n{state}/{drain}: {what}, in {cells} cells")?;
        }
        Ok(())
    }
}
