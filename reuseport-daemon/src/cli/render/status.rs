//! Services, their groups and their instances.

use super::{
    style::{HEADING, WARNING, paint},
    table::{
        Column::{Left, Right},
        table,
    },
};
use crate::api::wire::{
    GroupStatus, InstanceStatus, ListenerStatus, MigrationStatus, OutcomeCounts, ParkingStatus,
    ServiceStatus, Status,
};

pub(in crate::cli) fn status(status: &Status) -> String {
    if status.services.is_empty() {
        return "no services\n".to_owned();
    }
    let services: Vec<String> = status.services.iter().map(service).collect();
    services.join("\n")
}

fn service(service: &ServiceStatus) -> String {
    let heading = heading(service);
    let groups = groups(&service.groups);
    let instances = if service.instances.is_empty() {
        "  no instances\n".to_owned()
    } else {
        instances(&service.instances)
    };
    format!("{heading}\n{groups}\n{instances}")
}

fn heading(service: &ServiceStatus) -> String {
    let name = paint(HEADING, &service.name);
    let netns = match &service.netns {
        Some(netns) => format!("  netns {netns}"),
        None => String::new(),
    };
    let units = match &service.units {
        Some(units) => format!("  units {units}"),
        None => String::new(),
    };
    let migration = match &service.migration {
        Some(migration) => {
            let MigrationStatus { from, to, phase } = migration;
            let line = format!("migrating from {} to {to}: {phase}", from.join(" and "));
            format!("  {}\n", paint(WARNING, line))
        }
        None => String::new(),
    };
    format!("{name}  owner {}{netns}{units}\n{migration}", service.owner)
}

fn groups(groups: &[GroupStatus]) -> String {
    let columns = [
        Left("GROUP"),
        Right("SELECTED"),
        Right("PROBED"),
        Right("PARKED"),
        Right("KERNEL"),
        Right("MIGRATED"),
    ];
    let rows = groups.iter().map(|group| {
        let new = &group.outcomes.new;
        [
            group.listen.clone(),
            new.selected.to_string(),
            new.probed.to_string(),
            new.parked.to_string(),
            new.kernel.to_string(),
            runs(&group.outcomes.migrating).to_string(),
        ]
    });
    let parking = groups.iter().filter_map(|group| {
        let parking = group.parking.as_ref()?;
        Some(format!(
            "  parking at {}: {}\n",
            group.listen,
            parked(parking)
        ))
    });
    table(columns, rows.collect()) + &parking.collect::<String>()
}

fn parked(parking: &ParkingStatus) -> String {
    let ParkingStatus {
        open,
        queued,
        backlog,
        unserved_ms,
        timeout_ms,
    } = parking;
    let seconds = |ms: &u64| format!("{}s", ms / 1000);
    let room = backlog.map_or_else(String::new, |backlog| format!("/{backlog}"));
    match (open, unserved_ms) {
        (true, None) => "ready".to_owned(),
        (true, Some(since)) => paint(
            WARNING,
            format!(
                "{queued}{room} wait, {} of {}",
                seconds(since),
                seconds(timeout_ms)
            ),
        ),
        (false, Some(since)) => paint(
            WARNING,
            format!("refused, nobody has served for {}", seconds(since)),
        ),
        (false, None) => paint(WARNING, "not possible, see `reuseportctl doctor`"),
    }
}

fn runs(counts: &OutcomeCounts) -> u64 {
    counts.selected + counts.probed + counts.parked + counts.kernel
}

fn instances(instances: &[InstanceStatus]) -> String {
    let columns = [
        Left("INSTANCE"),
        Left("STATE"),
        Right("GEN"),
        Right("PID"),
        Right("LISTENERS"),
        Right("SESSIONS"),
        Right("QUEUE"),
    ];
    let rows = instances.iter().map(|instance| {
        [
            instance.label.clone(),
            instance.state.clone(),
            instance.generation.to_string(),
            instance.pid.to_string(),
            instance.listeners.len().to_string(),
            instance.sessions.to_string(),
            queue(&instance.listeners),
        ]
    });
    let receivers = instances.iter().filter_map(receivers);
    table(columns, rows.collect()) + &receivers.collect::<String>()
}

/// How many receivers an instance has, where it has any, which few do: a column more would not
/// fit.
fn receivers(instance: &InstanceStatus) -> Option<String> {
    let InstanceStatus {
        label, receivers, ..
    } = instance;
    match receivers {
        0 => None,
        1 => Some(format!("  {label} has 1 receiver\n")),
        _ => Some(format!("  {label} has {receivers} receivers\n")),
    }
}

/// Connections that wait to be accepted, of how many may; nothing where every listener is closed.
fn queue(listeners: &[ListenerStatus]) -> String {
    let open = listeners
        .iter()
        .filter_map(|listener| listener.accept_queue.zip(listener.backlog));
    let sum = open
        .map(|(queued, backlog)| (u64::from(queued), u64::from(backlog)))
        .reduce(|(queued, backlog), (q, b)| (queued + q, backlog + b));
    sum.map_or_else(
        || "-".to_owned(),
        |(queued, backlog)| format!("{queued}/{backlog}"),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::style::plain, *};
    use crate::api::wire::Outcomes;

    fn instance(label: &str, state: &str, queue: Option<u32>) -> InstanceStatus {
        InstanceStatus {
            label: label.to_owned(),
            generation: 1,
            pid: 4711,
            state: state.to_owned(),
            sessions: 98,
            receivers: 0,
            listeners: vec![ListenerStatus {
                listen: "0.0.0.0:7777".to_owned(),
                cookie: 1,
                slot: 1,
                accept_queue: queue,
                backlog: queue.map(|_| 4096),
                selected: 3,
            }],
        }
    }

    fn game() -> ServiceStatus {
        ServiceStatus {
            name: "game".to_owned(),
            owner: 1000,
            units: None,
            netns: None,
            generation: 2,
            groups: vec![GroupStatus {
                listen: "0.0.0.0:7777".to_owned(),
                protocol: "tcp".to_owned(),
                program: "select_or_migrate".to_owned(),
                outcomes: Outcomes {
                    new: OutcomeCounts {
                        selected: 1_234_567,
                        probed: 1,
                        parked: 0,
                        kernel: 0,
                    },
                    migrating: OutcomeCounts {
                        selected: 2,
                        probed: 1,
                        parked: 0,
                        kernel: 0,
                    },
                    stray: OutcomeCounts::default(),
                },
                slots: 1024,
                parking: None,
            }],
            instances: vec![
                instance("v1", "retired", None),
                instance("v2", "serving", Some(3)),
            ],
            migration: None,
        }
    }

    #[test]
    fn a_service_is_two_tables() {
        let mut game = game();
        let text = plain(&service(&game));
        assert_eq!(
            text,
            "game  owner 1000\n\
             \n  \
               GROUP         SELECTED  PROBED  PARKED  KERNEL  MIGRATED\n  \
               0.0.0.0:7777   1234567       1       0       0         3\n\
             \n  \
               INSTANCE  STATE    GEN   PID  LISTENERS  SESSIONS   QUEUE\n  \
               v1        retired    1  4711          1        98       -\n  \
               v2        serving    1  4711          1        98  3/4096\n"
        );
        game.instances[0].receivers = 1;
        game.instances[1].receivers = 2;
        let text = plain(&service(&game));
        assert!(text.ends_with("\n  v1 has 1 receiver\n  v2 has 2 receivers\n"));
        game.instances.clear();
        game.netns = Some("/run/netns/a".to_owned());
        game.migration = Some(MigrationStatus {
            from: vec!["v1".to_owned()],
            to: "v2".to_owned(),
            phase: "draining".to_owned(),
        });
        let text = plain(&service(&game));
        assert!(text.starts_with(
            "game  owner 1000  netns /run/netns/a\n  migrating from v1 to v2: draining\n"
        ));
        assert!(text.ends_with("\n  no instances\n"));
    }

    #[test]
    fn what_waits_is_said_below_the_groups() {
        let told = |open, unserved_ms| {
            let mut game = game();
            game.groups[0].parking = Some(ParkingStatus {
                open,
                queued: 12,
                backlog: open.then_some(4096),
                unserved_ms,
                timeout_ms: 30_000,
            });
            let text = plain(&groups(&game.groups));
            text.lines().last().unwrap_or_default().to_owned()
        };
        let at = "  parking at 0.0.0.0:7777:";
        assert_eq!(told(true, None), format!("{at} ready"));
        let waits = told(true, Some(3_999));
        assert_eq!(waits, format!("{at} 12/4096 wait, 3s of 30s"));
        let refused = told(false, Some(31_000));
        assert_eq!(refused, format!("{at} refused, nobody has served for 31s"));
        assert!(told(false, None).ends_with("see `reuseportctl doctor`"));
    }

    #[test]
    fn it_fits_eighty_columns() {
        let mut wide = game();
        wide.groups[0].listen = "[2001:db8:aaaa:bbbb::1]:7777".to_owned();
        wide.groups[0].outcomes.new.selected = 9_999_999_999;
        wide.groups[0].parking = Some(ParkingStatus {
            open: true,
            queued: 65_536,
            backlog: Some(65_535),
            unserved_ms: Some(86_399_000),
            timeout_ms: 86_400_000,
        });
        wide.instances[0].label = "release-2026.11.22".to_owned();
        wide.instances[0].pid = 4_194_304;
        let status = plain(&status(&Status {
            services: vec![wide.clone(), wide],
        }));
        for line in status.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn no_services_is_said() {
        assert_eq!(status(&Status::default()), "no services\n");
    }
}
