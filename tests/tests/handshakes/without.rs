//! The states in which a connection needs somebody to look after it: with nobody, it is lost.

use reuseport_tests::cells::{Acceptor, Cell, Drain, Factor, Family, Path, Retire, State, Workers};

/// A cell in each of these states, with a name.
///
/// The others need nobody. A SYN goes to whoever listens when it arrives, and so does the ACK that
/// brings a cookie back; what has been accepted is its server's; and where a queue is full, some wait
/// outside.
pub(crate) fn cases() -> Vec<(String, Cell)> {
    let states = [
        State::AckDelayed,
        State::AckDropped,
        State::AcceptQueue,
        State::FastOpen,
        State::DeferAccept,
    ];
    let case = |state: State| {
        let cell = Cell {
            state,
            drain: Drain::Owner,
            retire: Retire::Keep,
            family: Family::V4,
            workers: Workers::One,
            acceptor: Acceptor::Level,
            path: Path::Near,
        };
        (format!("without/{}", state.name()), cell)
    };
    states.into_iter().map(case).collect()
}
