//! `tcp_migrate_req`, the kernel's own switch.

use std::{path::Path, sync::Arc};

use crate::{
    api::{
        Answer, Replier,
        wire::{Failure, MigrateReq, MigrateReqState, Reason, Reply},
    },
    chain::chain,
    daemon::{
        driver::Driver,
        failure::{bad_parameter, failed},
    },
    sys::{migrate_req, netns::Netns},
};

impl Driver {
    pub(super) fn migrate_req(&self, parameters: MigrateReq, replier: Replier) {
        let home = Arc::clone(&self.home);
        self.beside
            .run(move || replier.finish(show_or_set(&home, &parameters)));
    }
}

fn show_or_set(home: &Netns, parameters: &MigrateReq) -> Answer {
    let opened;
    let netns = match &parameters.netns {
        None => home,
        Some(path) => {
            opened = Netns::open(Path::new(path)).map_err(|it| bad_parameter("netns", &it))?;
            &opened
        }
    };
    netns
        .enter(|| in_netns(parameters.set))
        .map_err(|error| failed("netns", &chain(&error), None))?
}

fn in_netns(set: Option<bool>) -> Answer {
    let broken = |error: &dyn std::error::Error| failed("migrate-req", &chain(error), None);
    let before = migrate_req::read().map_err(|it| broken(&it))?;
    let supported = migrate_req::supported().map_err(|it| broken(&it))?;
    let changed = match set {
        Some(true) if !supported => return Err(does_nothing(before.is_some())),
        Some(on) if before.is_some_and(|before| before != on) => {
            migrate_req::set(on).map_err(|it| broken(&it))?;
            true
        }
        Some(_) | None => false,
    };
    Ok(Reply::MigrateReq(MigrateReqState {
        enabled: if changed { set } else { before },
        supported,
        changed,
    }))
}

fn does_nothing(has_file: bool) -> Failure {
    let message = if has_file {
        "tcp_migrate_req: this kernel has the switch and not the feature behind it (Linux 5.10.188 \
         and later 5.10 kernels)"
    } else {
        "tcp_migrate_req: this kernel does not have it (Linux 5.14+)"
    };
    Failure::Unsupported(Reason {
        reason: "migrate-req".to_owned(),
        message: message.to_owned(),
        hint: None,
    })
}
