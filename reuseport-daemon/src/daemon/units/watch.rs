//! Noticing that a unit is started, without asking again and again.
//!
//! systemd puts units into slices, and a user's units into those of the user's manager. Each of these
//! is watched for groups that are made in it; of users only the one whose the service is, since the
//! others' listeners would not be fit, and each of them can make groups of any name and number. A unit
//! of the pattern is watched itself as well: where systemd restarts one by itself (`Restart=`), its
//! group stays, is emptied and gets a process.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
};
use tracing::warn;

use crate::{
    chain::chain,
    daemon::event::{Cause, Event, UnitEvent},
    domain::{ServiceName, Uid, UnitName, UnitPattern},
    sys::{
        cgroup::{Cgroup, CgroupError, Cgroups},
        inotify::{Change, Inotify, WatchId},
    },
};

/// The pause after control groups could not be watched.
const PAUSE: Duration = Duration::from_secs(60);

/// How many slices one service has watched.
const MOST: usize = 4096;

/// Watches for units of a service, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    task: AbortHandle,
    again: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(
        "cannot watch control groups, of which fs.inotify.max_user_instances and max_user_watches say \
         how many"
    )]
    Inotify(#[from] io::Error),
    #[error("there are more than {MOST} slices to watch")]
    TooMany,
}

impl Watch {
    pub(super) fn start(
        service: ServiceName,
        pattern: UnitPattern,
        owner: Uid,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let again = Arc::new(Notify::new());
        let asked = Arc::clone(&again);
        let report = move |group: &Cgroup, unit: &UnitName| {
            let event = UnitEvent {
                service: service.clone(),
                unit: unit.clone(),
                group: group.clone(),
                cause: Cause::Stirred,
            };
            // An error means that the daemon is stopping.
            let _ = events.send(Event::Unit(event));
        };
        let task = tokio::spawn(async move {
            loop {
                let Err(error) = watch(&pattern, owner, &report, &asked).await;
                warn!(error = chain(&error), %pattern, "units are not noticed; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self {
            task: task.abort_handle(),
            again,
        }
    }

    /// Has every unit that runs reported.
    pub(super) fn look_again(&self) {
        self.again.notify_one();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reports every unit that is there, and then each that something happens to.
async fn watch(
    pattern: &UnitPattern,
    owner: Uid,
    report: &impl Fn(&Cgroup, &UnitName),
    again: &Notify,
) -> Result<std::convert::Infallible, WatchError> {
    let root = Cgroups::find()?.root();
    loop {
        let mut tree = Tree {
            inotify: Inotify::new()?,
            pattern,
            owner,
            report,
            slices: BTreeMap::new(),
            units: BTreeMap::new(),
        };
        tree.enter(root.clone())?;
        while let Next::Goes = tree.next(again).await? {}
    }
}

/// What is watched.
struct Tree<'a, R> {
    inotify: Inotify,
    pattern: &'a UnitPattern,
    owner: Uid,
    report: &'a R,
    slices: BTreeMap<WatchId, Cgroup>,
    units: BTreeMap<WatchId, (Cgroup, UnitName)>,
}

/// Whether what is known is still whole.
enum Next {
    Goes,
    StartsOver,
}

impl<R: Fn(&Cgroup, &UnitName)> Tree<'_, R> {
    async fn next(&mut self, again: &Notify) -> Result<Next, WatchError> {
        let changes = tokio::select! {
            changes = self.inotify.changes() => changes?,
            () = again.notified() => {
                forget(&self.inotify, &mut self.slices, |_, slice| !slice.path().is_dir());
                forget(&self.inotify, &mut self.units, |_, (group, _)| !group.path().is_dir());
                for (group, unit) in self.units.values() {
                    (self.report)(group, unit);
                }
                return Ok(Next::Goes);
            }
        };
        for change in changes {
            match change {
                Change::Made(slice, name) => {
                    if let Some(slice) = self.slices.get(&slice) {
                        let made = slice.child(&name);
                        self.meet(made)?;
                    }
                }
                Change::Changed(unit) => {
                    if let Some((group, unit)) = self.units.get(&unit) {
                        (self.report)(group, unit);
                    }
                }
                Change::Gone(watch) => {
                    self.slices.remove(&watch);
                    self.units.remove(&watch);
                }
                Change::Overflow => return Ok(Next::StartsOver),
            }
        }
        Ok(Next::Goes)
    }

    /// Watches a slice before it looks what is in it, so that nothing is missed in between.
    fn enter(&mut self, slice: Cgroup) -> Result<(), WatchError> {
        let mut pending = vec![slice];
        while let Some(slice) = pending.pop() {
            if self.slices.len() >= MOST {
                return Err(WatchError::TooMany);
            }
            let Some(watch) = unless_gone(self.inotify.directory(slice.path()))? else {
                continue;
            };
            for child in slice.children()? {
                if self.holds_units(&child.name) {
                    pending.push(child);
                } else {
                    self.note(child)?;
                }
            }
            // One of that name may have been there before, which is another one.
            forget(&self.inotify, &mut self.slices, |id, it| {
                id != watch && *it == slice
            });
            self.slices.insert(watch, slice);
        }
        Ok(())
    }

    fn meet(&mut self, group: Cgroup) -> Result<(), WatchError> {
        if self.holds_units(&group.name) {
            self.enter(group)
        } else {
            self.note(group)
        }
    }

    /// Slices, and the manager of the service's user.
    fn holds_units(&self, name: &str) -> bool {
        let is_owner = |uid: &str| uid == self.owner.to_string();
        match name.rsplit_once('.') {
            Some((stem, "slice")) => stem.strip_prefix("user-").is_none_or(is_owner),
            Some((stem, "service")) => stem.strip_prefix("user@").is_some_and(is_owner),
            Some(_) | None => false,
        }
    }

    /// Watches a group and reports it, if it is a unit of the pattern.
    fn note(&mut self, group: Cgroup) -> Result<(), WatchError> {
        let Ok(unit) = group.name.parse::<UnitName>() else {
            return Ok(());
        };
        // A name without a kind is no unit's, though a person may leave it out.
        if unit.as_str() == group.name
            && self.pattern.matches(&unit)
            && let Some(watch) = unless_gone(self.inotify.file(&group.events()))?
        {
            (self.report)(&group, &unit);
            // One of that name may have been there before, which is another one.
            forget(&self.inotify, &mut self.units, |id, (it, _)| {
                id != watch && *it == group
            });
            self.units.insert(watch, (group, unit));
        }
        Ok(())
    }
}

/// Watches those no longer that `gone` says it of.
fn forget<T>(
    inotify: &Inotify,
    watched: &mut BTreeMap<WatchId, T>,
    gone: impl Fn(WatchId, &T) -> bool,
) {
    watched.retain(|watch, it| {
        let gone = gone(*watch, it);
        if gone {
            inotify.forget(*watch);
        }
        !gone
    });
}

fn unless_gone(result: io::Result<WatchId>) -> io::Result<Option<WatchId>> {
    match result {
        Ok(watch) => Ok(Some(watch)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
