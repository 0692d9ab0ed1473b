//! One full sample of every type that a reply is made of.

use crate::api::wire::{
    Finding, GroupStatus, InstanceStatus, ListenerStatus, MigrationResult, MigrationStatus,
    NetCounters, OutcomeCounts, Outcomes, ParkingStatus, Progress, Reason, ServiceStatus,
};

pub(super) fn text(text: &str) -> String {
    text.to_owned()
}

pub(super) fn progress() -> Progress {
    Progress {
        phase: text("draining"),
        elapsed_ms: 1,
        handshakes: Some(2),
        queued: Some(3),
        sessions: Some(4),
    }
}

pub(super) fn counts() -> OutcomeCounts {
    OutcomeCounts {
        selected: 1,
        probed: 2,
        parked: 3,
        kernel: 4,
    }
}

pub(super) fn outcomes() -> Outcomes {
    Outcomes {
        new: counts(),
        migrating: counts(),
        stray: counts(),
    }
}

pub(super) fn counters() -> NetCounters {
    NetCounters {
        migrate_req_success: Some(1),
        migrate_req_failure: Some(2),
        listen_overflows: 3,
        listen_drops: 4,
    }
}

pub(super) fn result() -> MigrationResult {
    MigrationResult {
        service: text("game"),
        from: vec![text("v1")],
        to: text("v2"),
        outcome: text("done"),
        switch_us: 1,
        drain_ms: 2,
        handshakes_waited: 3,
        accepted_while_draining: 4,
        moved_by_kernel: 5,
        handed_off: 6,
        woken: 9,
        left_behind: 7,
        sessions_left: Some(8),
        counters: counters(),
        outcomes: outcomes(),
        warnings: vec![text("backlog")],
    }
}

pub(super) fn group() -> GroupStatus {
    GroupStatus {
        listen: text("0.0.0.0:7777"),
        protocol: text("tcp"),
        program: text("select_or_migrate"),
        outcomes: outcomes(),
        slots: 1024,
        parking: Some(parking()),
    }
}

pub(super) fn parking() -> ParkingStatus {
    ParkingStatus {
        open: true,
        queued: 1,
        backlog: Some(4096),
        unserved_ms: Some(1),
        timeout_ms: 30_000,
    }
}

pub(super) fn listener() -> ListenerStatus {
    ListenerStatus {
        listen: text("0.0.0.0:7777"),
        cookie: 1,
        slot: 2,
        accept_queue: Some(3),
        backlog: Some(4),
        selected: 5,
    }
}

pub(super) fn instance() -> InstanceStatus {
    InstanceStatus {
        label: text("v1"),
        generation: 1,
        pid: 2,
        state: text("serving"),
        sessions: 3,
        receivers: 4,
        listeners: vec![listener()],
    }
}

pub(super) fn migration() -> MigrationStatus {
    MigrationStatus {
        from: vec![text("v1")],
        to: text("v2"),
        phase: text("draining"),
    }
}

pub(super) fn service() -> ServiceStatus {
    ServiceStatus {
        name: text("game"),
        owner: 1000,
        units: Some(text("game@*.service")),
        netns: Some(text("/run/netns/a")),
        generation: 1,
        groups: vec![group()],
        instances: vec![instance()],
        migration: Some(migration()),
    }
}

pub(super) fn finding() -> Finding {
    Finding {
        subject: text("kernel"),
        level: text("ok"),
        message: text("fine"),
        hint: Some(text("none")),
    }
}

pub(super) fn reason() -> Reason {
    Reason {
        reason: text("no"),
        message: text("because"),
        hint: Some(text("ask again")),
    }
}
