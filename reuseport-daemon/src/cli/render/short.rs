//! Replies that are a line or two.

use super::style::{ERROR, NOTE, count, paint};
use crate::{
    api::wire::{Changed, MigrateReqState, Registered},
    cli::error::Explained,
};

pub(in crate::cli) fn changed(reply: &Changed) -> String {
    format!("{}\n", reply.message)
}

pub(in crate::cli) fn registered(reply: &Registered) -> String {
    let already = if reply.changed { "" } else { " already" };
    format!(
        "{} is registered{already}: {}, generation {}, {}\n",
        reply.label,
        reply.state,
        reply.generation,
        count(reply.listeners.into(), "listener"),
    )
}

pub(in crate::cli) fn migrate_req(reply: &MigrateReqState) -> String {
    let state = match reply.enabled {
        Some(true) => "on",
        Some(false) => "off",
        None => "absent",
    };
    let now = if reply.changed { "now " } else { "" };
    let kernel = if reply.supported {
        "this kernel migrates"
    } else {
        "this kernel does not migrate, whatever it says"
    };
    format!("tcp_migrate_req is {now}{state}; {kernel}\n")
}

pub(in crate::cli) fn error(explained: &Explained) -> String {
    let error = format!("{} {}\n", paint(ERROR, "error:"), explained.message);
    match &explained.hint {
        Some(hint) => format!("{error}{} {hint}\n", paint(NOTE, "hint:")),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::style::plain, *};

    #[test]
    fn an_error_is_a_sentence_and_a_hint() {
        let mut explained = Explained {
            kind: "refused",
            reason: "instance-serves".to_owned(),
            message: "instance v1 serves".to_owned(),
            hint: Some("migrate the service first".to_owned()),
        };
        assert_eq!(
            plain(&error(&explained)),
            "error: instance v1 serves\nhint: migrate the service first\n"
        );
        explained.hint = None;
        assert_eq!(plain(&error(&explained)), "error: instance v1 serves\n");
    }

    #[test]
    fn what_was_that_way_already_says_so() {
        let mut reply = Registered {
            changed: true,
            label: "v2".to_owned(),
            generation: 2,
            state: "standby".to_owned(),
            listeners: 1,
        };
        assert_eq!(
            registered(&reply),
            "v2 is registered: standby, generation 2, 1 listener\n"
        );
        reply.changed = false;
        reply.listeners = 4;
        assert_eq!(
            registered(&reply),
            "v2 is registered already: standby, generation 2, 4 listeners\n"
        );
    }

    #[test]
    fn the_sysctls_presence_is_not_its_effect() {
        let state = |enabled, supported, changed| MigrateReqState {
            enabled,
            supported,
            changed,
        };
        assert_eq!(
            migrate_req(&state(Some(true), true, true)),
            "tcp_migrate_req is now on; this kernel migrates\n"
        );
        assert_eq!(
            migrate_req(&state(Some(false), false, false)),
            "tcp_migrate_req is off; this kernel does not migrate, whatever it says\n"
        );
    }
}
