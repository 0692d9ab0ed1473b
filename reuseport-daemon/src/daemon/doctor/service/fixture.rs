//! A service for the tests: `game` at 0.0.0.0:7777, instance `vN` of pid 100 + N with the listener
//! of cookie 1000 + N in slot N.

use std::collections::BTreeMap;

use reuseport_common::{Cause, Outcome};

use super::{Access, Facts, Program, Sockets};
use crate::{
    domain::{
        Definition, Drain, Generation, Instance, InstanceState, Listener, Migration, Options,
        Phase, ProcessId, Retire, Service, SocketCookie, Uid,
    },
    steering::{ProgramKind, Runs},
    sys::sock_diag::ListenerRow,
};

const ADDRESS: &str = "0.0.0.0:7777";

pub(super) fn empty() -> Facts {
    let definition = Definition::checked(
        "game".parse().expect("a name"),
        vec![ADDRESS.parse().expect("an address")],
        Uid(0),
        None,
        None,
    );
    Facts {
        state: Service::new(definition.expect("a definition")),
        programs: vec![Program {
            kind: ProgramKind::SelectOrMigrate,
            runs: Runs::default(),
        }],
        parking: vec![None],
        sockets: Ok(Sockets {
            somaxconn: Some(4_096),
            ..Sockets::default()
        }),
        access: BTreeMap::new(),
        mismatches: BTreeMap::new(),
    }
}

/// With `v1` serving.
pub(super) fn serving() -> Facts {
    let mut facts = empty();
    register(&mut facts, 1, InstanceState::Serving);
    facts
}

pub(super) fn register(facts: &mut Facts, number: u32, state: InstanceState) {
    let instance = Instance {
        label: format!("v{number}").parse().expect("a label"),
        process: ProcessId {
            pid: 100 + number,
            start_time: 1,
        },
        state,
    };
    let generation = Generation(number);
    facts.state.instances.insert(generation, instance);
    facts.access.insert(generation, Access::Granted);
    add_listener(facts, number, 1_000 + u64::from(number));
}

pub(super) fn add_listener(facts: &mut Facts, number: u32, cookie: u64) {
    let group = &mut facts.state.groups[0];
    let slot = group.free_slots(64).next().expect("a free slot");
    let listener = Listener {
        cookie: SocketCookie(cookie),
        generation: Generation(number),
    };
    group.slots.insert(slot, listener);
    rows(facts).push(row(ADDRESS, cookie, number));
}

pub(super) fn instance(facts: &mut Facts, number: u32) -> &mut Instance {
    let instance = facts.state.instances.get_mut(&Generation(number));
    instance.expect("an instance")
}

pub(super) fn rows(facts: &mut Facts) -> &mut Vec<ListenerRow> {
    &mut facts.sockets.as_mut().expect("sockets").rows
}

/// A listener that nobody registered.
pub(super) fn stranger<'a>(
    facts: &'a mut Facts,
    address: &str,
    inode: u32,
    pids: &[u32],
) -> &'a mut ListenerRow {
    if !pids.is_empty() {
        let holders = &mut facts.sockets.as_mut().expect("sockets").holders;
        holders.insert(inode, pids.to_vec());
    }
    let rows = rows(facts);
    rows.push(row(address, u64::from(inode), inode));
    rows.last_mut().expect("a row")
}

fn row(address: &str, cookie: u64, inode: u32) -> ListenerRow {
    ListenerRow {
        address: address.parse().expect("an address"),
        inode,
        uid: 0,
        cookie: SocketCookie(cookie),
        accept_queue: 0,
        backlog: 128,
    }
}

/// One that has just begun.
pub(super) fn migration(to: u32) -> Migration {
    Migration {
        from: vec![Generation(1)],
        to: Generation(to),
        options: Options {
            drain: Drain::Owner,
            retire: Retire::Keep,
            deadline_ms: 0,
            migrate_req: None,
        },
        phase: Phase::Staged,
        tally: None,
    }
}

pub(super) fn runs(counts: &[(Outcome, Cause, u64)]) -> Runs {
    let mut runs = Runs::default();
    for (outcome, cause, count) in counts {
        runs = runs.plus(&Runs::once(*outcome, *cause, *count));
    }
    runs
}
