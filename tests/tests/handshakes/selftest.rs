//! The kernel's own selftest of listener migration, with the daemon doing the migrating: several old
//! listeners close at once, and one new one gets all that they had.
//! <https://elixir.bootlin.com/linux/v6.18/source/tools/testing/selftests/bpf/prog_tests/migrate_reuseport.c>

use reuseport_tests::cells::{Acceptor, Cell, Drain, Family, Path, Retire, State, Workers};

use super::scene::Crew;

/// Four listeners for one.
pub(crate) const CREW: Crew = Crew { old: 4, new: 1 };

/// Its cases: a name, and the cell that each is, with another crew.
pub(crate) fn cases() -> Vec<(String, Cell)> {
    let states = [
        ("queued", State::AcceptQueue),
        ("fast_open", State::FastOpen),
        ("until_timer", State::SynAckTimer),
        ("until_ack", State::AckDropped),
    ];
    let mut cases = Vec::new();
    for (name, state) in states {
        for (family, version) in [(Family::V4, "v4"), (Family::V6, "v6")] {
            let cell = Cell {
                state,
                drain: Drain::Kernel,
                retire: Retire::Shutdown,
                family,
                workers: Workers::One,
                acceptor: Acceptor::Level,
                path: Path::Near,
            };
            cases.push((format!("selftest/{name}/{version}"), cell));
        }
    }
    cases
}
