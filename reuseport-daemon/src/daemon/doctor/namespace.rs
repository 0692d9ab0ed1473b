//! The settings of a network namespace that matter to the services in it.

use super::finding::Finding;
use crate::{
    chain::chain,
    daemon::MigrateReq,
    sys::{migrate_req, netns::Netns, sysctl},
};

/// What a network namespace is set to.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Its path, as the services name it; nothing for the daemon's own.
    path: Option<String>,
    settings: Result<Settings, String>,
}

/// Nothing where the kernel does not have a setting, or does not show it.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    migrate_req: Option<u64>,
    /// Whether the kernel migrates at all.
    migrates: bool,
    syncookies: Option<u64>,
    abort_on_overflow: Option<u64>,
}

/// Reads the settings of `netns`, which services call `path`.
pub(super) fn examine(netns: &Netns, path: Option<&str>) -> Facts {
    Facts {
        path: path.map(str::to_owned),
        settings: netns.enter(read).map_err(|it| chain(&it)),
    }
}

/// Those of the calling thread's.
pub(super) fn examine_own() -> Facts {
    Facts {
        path: None,
        settings: Ok(read()),
    }
}

fn read() -> Settings {
    let number = |key| sysctl::number(key).ok().flatten();
    Settings {
        migrate_req: number("net.ipv4.tcp_migrate_req"),
        migrates: migrate_req::supported().unwrap_or_default(),
        syncookies: number("net.ipv4.tcp_syncookies"),
        abort_on_overflow: number("net.ipv4.tcp_abort_on_overflow"),
    }
}

/// Findings from facts: pure.
/// <https://elixir.bootlin.com/linux/v6.18/source/Documentation/networking/ip-sysctl.rst>
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let subject = |name: &str| match &facts.path {
        None => name.to_owned(),
        Some(path) => format!("{name} in {path}"),
    };
    let settings = match &facts.settings {
        Ok(settings) => settings,
        Err(why) => {
            let finding = Finding::error(subject("network namespace"), why.clone());
            return vec![finding];
        }
    };
    let mut findings = Vec::new();
    let migrate_req = subject("net.ipv4.tcp_migrate_req");
    findings.extend(match (settings.migrate_req, settings.migrates) {
        (None, _) => None,
        (Some(0), _) => Some(Finding::ok(
            migrate_req,
            "off: only steering programs say where connections of a closing listener go",
        )),
        (Some(_), true) => Some(Finding::note(
            migrate_req,
            "on: in groups without a steering program, the kernel moves connections of a closing \
             listener to any live one",
        )),
        (Some(_), false) => Some(Finding::warning(
            migrate_req,
            "on, and this kernel has no such feature: connections of a closing listener are reset",
        )),
    });
    if settings.syncookies == Some(2) {
        findings.push(Finding::note(
            subject("net.ipv4.tcp_syncookies"),
            "2: every handshake is a cookie, so none is ever seen half-open, and the listener is \
             chosen by the packet that ends it",
        ));
    }
    findings.extend(settings.abort_on_overflow.map(|value| {
        let subject = subject("net.ipv4.tcp_abort_on_overflow");
        if value == 0 {
            Finding::ok(subject, "0: a client that meets a full queue tries again")
        } else {
            Finding::warning(
                subject,
                format!("{value}: a client that meets a full accept queue is reset"),
            )
            .hint("set it to 0, so that the client tries again")
        }
    }));
    findings
}

/// A setting of the daemon's that this kernel gives no effect.
pub(super) fn judge_setting(configured: MigrateReq, supported: bool) -> Option<Finding> {
    let ignored = match configured {
        MigrateReq::Leave => false,
        MigrateReq::On | MigrateReq::DuringMigration => !supported,
    };
    ignored.then(|| {
        Finding::warning(
            "migrate-req",
            "configured, and ignored: this kernel does not have the feature (Linux 5.14+)",
        )
        .hint("take it out of the daemon's configuration; services work without it")
    })
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    fn levels(settings: Settings) -> Vec<Level> {
        let facts = Facts {
            path: Some("/run/netns/a".to_owned()),
            settings: Ok(settings),
        };
        let findings = judge(&facts);
        assert!(
            findings
                .iter()
                .all(|it| it.subject.ends_with(" in /run/netns/a"))
        );
        findings.into_iter().map(|it| it.level).collect()
    }

    #[test]
    fn the_usual_settings_are_in_order() {
        let usual = Settings {
            migrate_req: Some(0),
            migrates: true,
            syncookies: Some(1),
            abort_on_overflow: Some(0),
        };
        assert_eq!(levels(usual), [Level::Ok, Level::Ok]);
        assert_eq!(levels(Settings::default()), []);
    }

    #[test]
    fn a_switch_without_its_feature_is_a_warning() {
        let on = |migrates| Settings {
            migrate_req: Some(1),
            migrates,
            ..Settings::default()
        };
        assert_eq!(levels(on(true)), [Level::Note]);
        assert_eq!(levels(on(false)), [Level::Warning]);
    }

    #[test]
    fn a_setting_without_effect_is_a_warning() {
        for (configured, supported, ignored) in [
            (MigrateReq::Leave, false, false),
            (MigrateReq::On, true, false),
            (MigrateReq::On, false, true),
            (MigrateReq::DuringMigration, true, false),
            (MigrateReq::DuringMigration, false, true),
        ] {
            let finding = judge_setting(configured, supported);
            assert_eq!(finding.is_some(), ignored, "{configured:?}");
        }
    }

    #[test]
    fn cookies_are_noted_and_resets_warned_of() {
        let cookies = Settings {
            syncookies: Some(2),
            ..Settings::default()
        };
        assert_eq!(levels(cookies), [Level::Note]);
        let resets = Settings {
            abort_on_overflow: Some(1),
            ..Settings::default()
        };
        assert_eq!(levels(resets), [Level::Warning]);
    }

    #[test]
    fn a_namespace_that_is_gone_is_an_error() {
        let facts = Facts {
            path: Some("/run/netns/a".to_owned()),
            settings: Err("enter the network namespace".to_owned()),
        };
        assert_eq!(judge(&facts)[0].level, Level::Error);
    }

    #[test]
    fn this_namespace_can_be_read() {
        assert!(examine_own().settings.is_ok());
    }
}
