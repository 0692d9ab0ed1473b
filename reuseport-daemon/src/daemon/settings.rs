//! Reading what the listeners are set to that a migration would move between. Duplicates of them
//! live as long as the reading of one process.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    os::fd::AsFd,
    sync::Arc,
};

use super::inspect::{self, InspectError};
use crate::{
    domain::{
        Address, Generation, GroupSettings, Instance, InstanceState, Key, Label, ProcessId,
        Service, Setting, Settings, SocketCookie, Value, origin,
    },
    sys::{
        listener_settings,
        netns::Netns,
        passed::Closer,
        process::{Process, unless_ended},
        sock_diag::{ListenerRow, SockDiag},
    },
};

/// Whose listeners are compared with whose. Equal as long as nobody has come or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Comparison {
    addresses: Vec<Address>,
    old: Vec<Side>,
    new: Option<Side>,
}

/// What was read.
#[derive(Clone, Debug)]
pub(super) struct Compared {
    /// Every listener on the service's ports.
    pub(super) listening: HashSet<SocketCookie>,
    /// What those of both sides are set to, by group; without any where there is only one side.
    pub(super) groups: Vec<GroupSettings>,
}

/// An instance, and its listeners with the index of their group.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Side {
    label: Label,
    process: ProcessId,
    listeners: BTreeMap<SocketCookie, usize>,
}

/// Listening sockets on a service's ports, as the kernel's list has them.
struct Listed {
    rows: Vec<ListenerRow>,
    md5_keys: HashMap<SocketCookie, Option<BTreeSet<Key>>>,
}

impl Comparison {
    /// What there is to compare before `to` serves. It is compared with nobody where nobody else
    /// serves, or where it does already and a migration only drains on.
    pub(super) fn before(service: &Service, to: Generation) -> Self {
        let serves = |it: &Instance| it.state == InstanceState::Serving;
        let old = if service.instances.get(&to).is_some_and(serves) {
            Vec::new()
        } else {
            origin(service, to)
        };
        let side = |generation| {
            let instance = service.instances.get(&generation)?;
            Some(Side {
                label: instance.label.clone(),
                process: instance.process,
                listeners: service.listeners_of(generation).collect(),
            })
        };
        Self {
            addresses: service.definition.addresses.clone(),
            old: old.into_iter().filter_map(side).collect(),
            new: side(to),
        }
    }

    /// Reads the settings of all of them, by group. An old process that has ended has nothing to
    /// compare with, and neither has a listener that has been closed. `closer` closes the duplicates
    /// that it takes.
    pub(super) fn read(
        &self,
        netns: &Netns,
        closer: &Arc<Closer>,
    ) -> Result<Compared, InspectError> {
        let listed = self.listed(netns)?;
        let mut groups = self.groups();
        if let Some(new) = self.new.as_ref().filter(|_| !self.old.is_empty()) {
            for side in &self.old {
                let read = side.read(&listed, closer, |group, settings| {
                    groups[group].old.insert(settings);
                });
                unless_ended(read)?;
            }
            new.read(&listed, closer, |group, settings| {
                groups[group].new.insert(settings);
            })?;
        }
        Ok(Compared {
            listening: listed.rows.iter().map(|row| row.cookie).collect(),
            groups,
        })
    }

    fn groups(&self) -> Vec<GroupSettings> {
        let addresses = self.addresses.iter().cloned();
        let empty = |address| GroupSettings {
            address,
            old: BTreeSet::new(),
            new: BTreeSet::new(),
        };
        addresses.map(empty).collect()
    }

    fn listed(&self, netns: &Netns) -> Result<Listed, InspectError> {
        let diag = netns.enter(SockDiag::open)??;
        let ports: BTreeSet<u16> = self.addresses.iter().map(|it| it.socket.port()).collect();
        let mut listed = Listed {
            rows: Vec::new(),
            md5_keys: HashMap::new(),
        };
        for port in ports {
            listed.rows.extend(diag.listeners(Some(port))?);
            listed.md5_keys.extend(diag.md5_keys(port)?);
        }
        Ok(listed)
    }
}

impl Side {
    /// Reads the settings of every listener that is open, with the index of its group.
    fn read(
        &self,
        listed: &Listed,
        closer: &Arc<Closer>,
        mut found: impl FnMut(usize, Settings),
    ) -> Result<(), InspectError> {
        let process = Process::reopen(self.process)?;
        let open: Vec<&ListenerRow> = listed
            .rows
            .iter()
            .filter(|row| self.listeners.contains_key(&row.cookie))
            .collect();
        let held = inspect::held(&process, open.iter().copied(), closer)?;
        for row in open {
            let mut settings = match held.get(&row.cookie) {
                Some(socket) => listener_settings::read(socket.as_fd()),
                None => self.out_of_reach(),
            };
            settings.insert(Setting::Backlog, Value::Number(row.backlog.into()));
            settings.insert(Setting::TcpMd5sig, listed.md5_keys(row.cookie));
            found(self.listeners[&row.cookie], settings);
        }
        Ok(())
    }

    /// Of a listener that is open while its process has closed it: another one holds it.
    fn out_of_reach(&self) -> Settings {
        let why = format!("{} has left the listener to another process", self.label);
        listener_settings::THROUGH_A_DUPLICATE
            .map(|setting| (setting, Value::Unreadable(why.clone())))
            .into()
    }
}

impl Listed {
    fn md5_keys(&self, cookie: SocketCookie) -> Value {
        match self.md5_keys.get(&cookie) {
            Some(Some(keys)) => Value::Keys(keys.clone()),
            Some(None) => Value::Unreadable("it takes CAP_NET_ADMIN".to_owned()),
            None => Value::Unreadable("the kernel's list of sockets left it out".to_owned()),
        }
    }
}
