//! The path of a SYN: what the kernel says that a run of the program takes, beside programs that do
//! less.

mod programs;

use std::{
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use aya::sys::{Stats, enable_stats};
use reuseport_common::FIRST_SLOT;
use reuseport_daemon::{
    domain::Slot,
    lab::{
        fixture::{Fixture, Program},
        load::{Load, LoadOptions},
        world::World,
    },
    steering::GroupMaps,
    sys::raw_program::{self, Kind},
};

use self::programs::{Runs, fixed_slot, pass, slot_by_hash};
use super::{
    progress,
    report::{Findings, Goal, Table, Wanted},
    rounds::{Effort, interleaved},
    summary::{Summary, float, number},
};
use crate::{
    sockets::listeners_of,
    stage::{DEADLINE, PORT, any_v4, listening, program},
    steered::Steered,
};

const SIZES: [u16; 4] = [1, 8, 64, 1024];
const CLIENTS: u32 = 8;

/// Who chooses the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chooser {
    /// reuseportd's program, among all listeners.
    Reuseportd,
    /// A program that always chooses the same slot.
    FixedSlot,
    /// A program that chooses a slot by the hash alone.
    SlotByHash,
    /// A program that leaves the choice to the kernel.
    Pass,
    /// The kernel, without a program.
    Hash,
}

const CHOOSERS: [Chooser; 5] = [
    Chooser::Reuseportd,
    Chooser::FixedSlot,
    Chooser::SlotByHash,
    Chooser::Pass,
    Chooser::Hash,
];

/// What one round of one chooser came to.
#[derive(Clone, Copy, Debug)]
struct Round {
    nanos: f64,
    rate: f64,
}

/// A group of many listeners, and all who may choose one.
struct Group {
    listeners: Vec<OwnedFd>,
    steered: Steered,
    fixed_slot: OwnedFd,
    slot_by_hash: OwnedFd,
    pass: OwnedFd,
    load: Load,
    // After those whose processes are in it.
    _server: Fixture,
    _world: World,
}

pub(super) fn measure(effort: Effort) -> Result<Findings> {
    let mut table = Table::new(
        "Time of one run of a program in ns (`run_time_ns / run_cnt`), and connections a second \
         beside those that the kernel's hash gives without a program. *One slot* selects always the \
         same slot of the same map and does nothing else; *by hash* selects a slot by the hash alone, \
         and so meets as many sockets as reuseportd does; `SK_PASS` returns that.",
        &[
            "listeners",
            "reuseportd",
            "one slot",
            "by hash",
            "`SK_PASS`",
            "/ one slot",
            "/ by hash",
            "connections/s",
            "/ kernel's hash",
        ],
    );
    let _counting = enable_stats(Stats::RunTime)?;
    let (mut worst, mut worst_beside_hash, mut by_hash) = (0.0_f64, 0.0_f64, 0.0_f64);
    for size in SIZES {
        progress(&format!("packet path, {size} listeners"));
        let mut group = Group::of(size)?;
        let span = Duration::from_millis(effort.of(80, 250));
        let rounds = effort.of(3, 20);
        let measured = interleaved(rounds, &CHOOSERS, |who| group.measure(*who, span))?;
        let nanos = |side: usize| measured[side].iter().map(|it| it.nanos).collect::<Vec<_>>();
        let rates = |side: usize| measured[side].iter().map(|it| it.rate).collect::<Vec<_>>();
        let ratio = Summary::of_ratios(&nanos(0), &nanos(1));
        worst = worst.max(ratio.median);
        let beside_hash = Summary::of_ratios(&nanos(0), &nanos(2));
        worst_beside_hash = worst_beside_hash.max(beside_hash.median);
        by_hash = by_hash.max(Summary::of_ratios(&nanos(2), &nanos(1)).median);
        table.row([
            f64::from(size).into(),
            Summary::of(nanos(0)).into(),
            Summary::of(nanos(1)).into(),
            Summary::of(nanos(2)).into(),
            Summary::of(nanos(3)).into(),
            ratio.into(),
            beside_hash.into(),
            Summary::of(rates(0)).into(),
            Summary::of_ratios(&rates(0), &rates(4)).into(),
        ]);
    }
    let goal = |of, found, floor| Goal {
        of,
        wanted: Wanted::AtMost(1.3),
        found,
        unit: "",
        floor,
    };
    let beside_one = goal(
        "a run of the program beside one that selects a fixed slot, at the worst size",
        worst,
        format!(
            "A program that only spreads the connections over the listeners takes {} times as long as \
             one that always selects the same one, whose socket the processor has at hand.",
            number(by_hash)
        ),
    );
    let beside_hash = goal(
        "a run of the program beside one that selects by the hash alone, at the worst size",
        worst_beside_hash,
        "A run also reads a word, a table and the packet's flags, and counts in two places."
            .to_owned(),
    );
    Ok((vec![table], vec![beside_one, beside_hash]))
}

impl Group {
    fn of(size: u16) -> Result<Self> {
        let world = World::loopback()?;
        let address = any_v4();
        let server = Program {
            path: program("fixture")?,
            arguments: Vec::new(),
        };
        let options = listening("v1", &vec![&*address; size.into()]);
        let server = Fixture::start(world.server(), &server, &options)?;
        let listeners = listeners_of(&server)?;
        let first = Slot(u16::try_from(FIRST_SLOT)?);
        let mut steered = Steered::load_best(FIRST_SLOT + u32::from(size))?;
        let slots: Vec<Slot> = (first.0..).take(listeners.len()).map(Slot).collect();
        ensure!(slots.len() == usize::from(size), "not every listener");
        for (slot, listener) in slots.iter().zip(&listeners) {
            steered.take_in(*slot, listener.as_fd())?;
        }
        steered.share_among(&slots)?;
        let fixed_slot =
            raw_program::load(Kind::Reuseport, &fixed_slot(steered.sockets()?, first))?;
        let slot_by_hash = slot_by_hash(steered.sockets()?, first, size);
        let slot_by_hash = raw_program::load(Kind::Reuseport, &slot_by_hash)?;
        let pass = raw_program::load(Kind::Reuseport, &pass())?;
        let churn = LoadOptions::churn(vec![world.v4(PORT)], CLIENTS);
        Ok(Self {
            listeners,
            steered,
            fixed_slot,
            slot_by_hash,
            pass,
            load: Load::start(world.client(), churn)?,
            _server: server,
            _world: world,
        })
    }

    /// Lets one of them choose for a while, under a load that never stops.
    fn measure(&mut self, who: Chooser, span: Duration) -> Result<Round> {
        let member = self.listeners[0].as_fd();
        match who {
            Chooser::Reuseportd => self.steered.attach(member)?,
            Chooser::FixedSlot => raw_program::attach(self.fixed_slot.as_fd(), member)?,
            Chooser::SlotByHash => raw_program::attach(self.slot_by_hash.as_fd(), member)?,
            Chooser::Pass => raw_program::attach(self.pass.as_fd(), member)?,
            Chooser::Hash => GroupMaps::detach(member)?,
        }
        // Whoever chose before has no connection under way any more.
        let enough = u64::from(CLIENTS) * 4;
        ensure!(self.load.advances_by(enough, DEADLINE), "no load");
        let runs = self.runs(who)?;
        let (answered, begun) = (self.load.progress().answered, Instant::now());
        // What is measured is this time itself.
        thread::sleep(span);
        let answered = self.load.progress().answered - answered;
        let elapsed = begun.elapsed();
        let runs = self.runs(who)?.since(runs);
        ensure!(self.load.progress().lost == 0, "connections were lost");
        Ok(Round {
            nanos: runs.nanos_each(),
            rate: float(answered) / elapsed.as_secs_f64(),
        })
    }

    fn runs(&mut self, who: Chooser) -> Result<Runs> {
        match who {
            Chooser::Reuseportd => Runs::of(self.steered.program()?),
            Chooser::FixedSlot => Runs::of(self.fixed_slot.as_fd()),
            Chooser::SlotByHash => Runs::of(self.slot_by_hash.as_fd()),
            Chooser::Pass => Runs::of(self.pass.as_fd()),
            Chooser::Hash => Ok(Runs::default()),
        }
    }
}
