//! A world with three servers, a daemon and clients, and what happens in it.

use std::time::Duration;

use anyhow::{Context, Result};
use reuseport_daemon::{
    api::wire::{InstanceStatus, ServiceStatus},
    lab::{
        fixture::Fixture,
        load::{Load, LoadOptions},
        world::World,
    },
    sys::process::Process,
};
use reuseport_tests::{
    held::{Held, PATIENCE, stand_still, until_queued},
    kill_points::{Point, Seen, Trace},
    stage::{DEADLINE, PORT, SERVICE, Stage, listening},
    wait::until,
};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    super::parking::shapes::shut_down_one_of_two,
    operation::{Operation, end_the_old, is_parking, until_rotated},
};

/// Clients that connect all the time, half of them to each address.
pub(super) const CLIENTS: u32 = 4;

/// `FileDescriptorStoreMax=`: as many daemons as there may be in one scene leave one listener for each
/// address, beside the two of a rotation and the probe.
const ROOM: usize = 9;

/// How many of its two listeners at each address `v1` has when it has closed one.
const LEFT: usize = 3;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Daemon,
    Old,
    New,
    DaemonAndOld,
    DaemonAndNew,
}

impl Victim {
    pub(super) fn has_daemon(self) -> bool {
        match self {
            Self::Daemon | Self::DaemonAndOld | Self::DaemonAndNew => true,
            Self::Old | Self::New => false,
        }
    }

    pub(super) fn has_server(self) -> bool {
        self != Self::Daemon
    }

    fn server(self, scene: &Scene) -> Option<u32> {
        match self {
            Self::Daemon => None,
            Self::Old | Self::DaemonAndOld => Some(scene.old.pid()),
            Self::New | Self::DaemonAndNew => Some(scene.new.pid()),
        }
    }
}

/// Where the service listens: two groups.
pub(super) fn addresses() -> [String; 2] {
    [format!("0.0.0.0:{PORT}"), format!("[::]:{PORT},v6only")]
}

/// Everything that an operation needs, just before it.
pub(super) struct Scene {
    pub(super) operation: Operation,
    pub(super) load: Load,
    /// A migration that is under way already.
    held: Option<Held>,
    /// `v1`, which serves where anybody does.
    pub(super) old: Fixture,
    /// `v2`, to which a migration goes.
    pub(super) new: Fixture,
    /// `v3`, so that there is always somebody left to connect to.
    _spare: Fixture,
    pub(super) stage: Stage,
}

impl Scene {
    pub(super) fn set(operation: Operation) -> Result<Self> {
        // So that the effects on it are among those of a migration.
        let stage = Stage::configured(
            World::loopback()?,
            "log = \"info\"\nmigrate-req = \"during-migration\"\n",
        )?;
        let addresses = addresses();
        let listen = addresses.each_ref().map(String::as_str);
        let start = |label| stage.server(&listening(label, &listen));
        let (mut old, new, spare) = (start("v1")?, start("v2")?, start("v3")?);
        let daemon = stage.daemon();
        if operation.parks() {
            stage.home().manager().keep_at_most(ROOM);
        }
        if !operation.adds() {
            operation.add(daemon)?;
        }
        if operation == Operation::RegisterFewer {
            old.listen_more()?;
        }
        if !operation.adds() && operation != Operation::RegisterFirst {
            daemon.register(SERVICE, old.pid(), "v1")?;
        }
        if !operation.parks() && !matches!(operation, Operation::Add | Operation::RegisterFirst) {
            daemon.register(SERVICE, spare.pid(), "v3")?;
            if operation != Operation::RegisterStandby {
                daemon.register(SERVICE, new.pid(), "v2")?;
            }
        }
        if operation.parks() && !operation.adds() {
            until_rotated(&stage)?;
        }
        if operation.finds_nobody() {
            end_the_old(daemon, &old)?;
        }
        if operation == Operation::RegisterMore {
            old.listen_more()?;
        }
        if operation == Operation::RegisterFewer {
            shut_down_one_of_two(&stage, &old, "v1")?;
        }
        let targets = vec![stage.world.v4(PORT), stage.world.v6(PORT)];
        let options = LoadOptions {
            pause: Duration::from_millis(1),
            step_timeout: PATIENCE,
            ..LoadOptions::churn(targets, CLIENTS)
        };
        let held = operation == Operation::RollBack;
        if held {
            // A drain does not end while connections wait for it; `settle` lets it go on.
            stand_still(&old)?;
        }
        let load = Load::start(stage.world.client(), options)?;
        let held = if held {
            until_queued(&stage, SERVICE, "v1", CLIENTS)?;
            Some(Held::begin(&stage, SERVICE, "--to v2")?)
        } else {
            None
        };
        let scene = Self {
            operation,
            load,
            held,
            old,
            new,
            _spare: spare,
            stage,
        };
        if operation.finds_nobody() {
            scene.until_all_wait()?;
        } else if operation != Operation::RollBack {
            scene.advance(5)?;
        }
        Ok(scene)
    }

    pub(super) fn advance(&self, more: u64) -> Result<()> {
        let advanced = self.load.advances_by(more, DEADLINE);
        advanced.then_some(()).context("a load that goes on")
    }

    /// Waits until every client has a connection that waits for an instance.
    pub(super) fn until_all_wait(&self) -> Result<()> {
        until("every client waits", || {
            let groups = self.service()?.context("the service")?.groups;
            let parking = groups.iter().filter_map(|it| it.parking.as_ref());
            Ok(parking.map(|it| it.queued).sum::<u32>() == CLIENTS)
        })
    }

    /// Performs the operation, and kills the victim at the point; what was seen, and what came of the
    /// operation. A daemon that was killed has been followed by another one.
    pub(super) fn perform(&mut self, who: Option<(Point, Victim)>) -> Result<(Seen, Result<()>)> {
        let at = who.map(|(point, victim)| {
            let daemon = victim.has_daemon().then(|| self.stage.daemon().pid());
            let server = victim.server(self);
            let strike = move || {
                // The daemon stands: the server's end comes at exactly this point to it.
                if let Some(server) = server {
                    kill(server, Signal::KILL)?;
                    until("the server is dead", || Ok(!lives(server)))?;
                }
                // It is not gone before it is traced no more.
                if let Some(daemon) = daemon {
                    kill(daemon, Signal::KILL)?;
                }
                Ok(daemon.is_some())
            };
            (point, Box::new(strike) as _)
        });
        let daemon = self.stage.daemon();
        let trace = Trace::begin(daemon, at)?;
        let answer = self.operation.perform(&self.stage, &self.old, &self.new);
        let seen = trace.end(|| {
            // It may have been killed.
            let _ = daemon.status();
        })?;
        if seen.struck && who.is_some_and(|(_, victim)| victim.has_daemon()) {
            self.stage.replace_killed_daemon()?;
        }
        Ok((seen, answer))
    }

    /// Waits until nothing is under way any more.
    pub(super) fn settle(&mut self) -> Result<()> {
        if self.operation == Operation::RollBack {
            // It fails where the server has been killed.
            let _ = self.old.signal(Signal::CONT);
            self.held = None;
        }
        if self.operation == Operation::RegisterFewer {
            // A daemon looks for closed listeners a moment after its start.
            until("no closed listener has a slot", || {
                let service = self.service()?.context("the service")?;
                let old = service.instances.iter().find(|it| it.label == "v1");
                Ok(old.is_none_or(|it| it.listeners.len() <= LEFT))
            })?;
        }
        if self.operation == Operation::ParkTimeout {
            // A daemon counts the time from when it starts.
            until("the time is up", || is_parking(self.stage.daemon(), false))?;
        }
        until("nothing is under way", || {
            Ok(self.service()?.is_none_or(|service| {
                let done = |it: &InstanceStatus| match it.state.as_str() {
                    "gone" => true,
                    // It has been told to end, and is about to.
                    "retired" => lives(it.pid) && !self.operation.signals(),
                    _ => lives(it.pid),
                };
                service.migration.is_none() && service.instances.iter().all(done)
            }))
        })
    }

    /// The service, if there is one.
    pub(super) fn service(&self) -> Result<Option<ServiceStatus>> {
        let services = self.stage.daemon().status()?;
        Ok(services.into_iter().find(|it| it.name == SERVICE))
    }

    /// Who is there, in what state and with how many listeners, if the service is.
    pub(super) fn signature(&self) -> Result<Option<Vec<String>>> {
        let one = |it: InstanceStatus| format!("{} {} {}", it.label, it.state, it.listeners.len());
        Ok(self
            .service()?
            .map(|it| it.instances.into_iter().map(one).collect()))
    }
}

/// Whether a process runs. One that does not has closed all that it had open.
pub(super) fn lives(pid: u32) -> bool {
    Process::open(pid).is_ok()
}

/// Sends a signal to a child of this process, which has not been waited for: the number is its own.
fn kill(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a pid")?;
    Ok(kill_process(pid, signal)?)
}
