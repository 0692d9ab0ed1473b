//! A world goes without a trace.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use reuseport_daemon::{
    lab::{
        link::{DEVICE, Link, LinkOptions},
        load::{Load, LoadOptions},
    },
    sys::netns::Netns,
};

use super::setup::{DEADLINE, PORT, far_away, start, v4_options};

pub(crate) fn nothing_left_behind() -> anyhow::Result<()> {
    let before = Traces::of_this_process()?;
    {
        let world = far_away()?;
        let _server = start(&world, &v4_options("v1"))?;
        let options = LoadOptions {
            sessions: 3,
            ..LoadOptions::churn(vec![world.v4(PORT)], 8)
        };
        let load = Load::start(world.client(), options)?;
        ensure!(load.advances_by(50, DEADLINE), "a load under way");
    }
    let end = Instant::now() + DEADLINE;
    // A thread that has been joined is a moment longer in /proc than in its process.
    while Traces::of_this_process()? != before {
        let now = Traces::of_this_process()?;
        ensure!(Instant::now() < end, "{before:?} became {now:?}");
        thread::sleep(Duration::from_millis(1));
    }

    let (server, client) = (Netns::create()?, Netns::create()?);
    let link = Link::between(&server, &client, LinkOptions::with_delay(Duration::ZERO))?;
    ensure!(devices_of(&server)?.contains(DEVICE) && devices_of(&client)?.contains(DEVICE));
    drop(link);
    for netns in [server, client] {
        let left = devices_of(&netns)?;
        ensure!(!left.contains(DEVICE), "{left:?}");
    }
    Ok(())
}

/// What a process can leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    threads: usize,
    descriptors: usize,
    children: String,
    devices: BTreeSet<String>,
}

impl Traces {
    fn of_this_process() -> anyhow::Result<Self> {
        let mut children = String::new();
        for thread in fs::read_dir("/proc/self/task")? {
            // A thread that ended meanwhile has no children.
            children += &fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        }
        Ok(Self {
            threads: fs::read_dir("/proc/self/task")?.count(),
            descriptors: fs::read_dir("/proc/self/fd")?.count(),
            children,
            devices: devices_of(&Netns::open(Path::new("/proc/thread-self/ns/net"))?)?,
        })
    }
}

fn devices_of(netns: &Netns) -> anyhow::Result<BTreeSet<String>> {
    let table = netns.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    let names = table.lines().filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
}
