//! What came of all cells together.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use reuseport_daemon::{api::wire::MigrationResult, lab::ledger::Ledger};

/// The sums over all cells that were played.
#[derive(Debug, Default)]
pub(crate) struct Books(Mutex<Sums>);

#[derive(Clone, Debug, Default)]
struct Sums {
    cells: u64,
    connections: u64,
    lost: u64,
    waited: u64,
    left_behind: u64,
    moved_by_kernel: u64,
    handed_off: u64,
}

impl Books {
    /// Enters a cell.
    pub(crate) fn enter(&self, ledger: &Ledger, result: &MigrationResult) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.cells += 1;
        sums.connections += ledger.begun();
        sums.lost += ledger.begun() - ledger.answered();
        sums.waited += result.handshakes_waited;
        sums.left_behind += result.left_behind;
        sums.moved_by_kernel += result.moved_by_kernel;
        sums.handed_off += result.handed_off;
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(
            f,
            "{} cells, {} connections, {} lost; {} handshakes waited for, {} connections left to \
             their owner at the deadline, {} moved by the kernel, {} handed off",
            sums.cells,
            sums.connections,
            sums.lost,
            sums.waited,
            sums.left_behind,
            sums.moved_by_kernel,
            sums.handed_off
        )
    }
}
