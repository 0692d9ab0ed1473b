use super::*;
use crate::daemon::doctor::finding::Level;

fn sound() -> Facts {
    Facts {
        program: Ok(ProgramKind::SelectOrMigrate),
        pinned: Some(Ok(())),
        group: GroupTrial {
            no_namespace: None,
            listed: Ok(true),
            steered: Some(Ok(Steered::Exactly)),
            moved: Some(Ok(Moved::Noticed)),
        },
        counts_migrations: Ok(true),
        migrate_req: Some(false),
        grace: Ok(Duration::from_millis(12)),
        duplicates: Duplicates {
            own: Ok(()),
            of_first: Some(Ok(())),
        },
        yama: Some(1),
        missing: Ok(Vec::new()),
        bpffs: Bpffs {
            path: "/sys/fs/bpf".into(),
            is_one: Ok(true),
        },
        descriptors: Descriptors {
            open: 30,
            limit: Some(4096),
        },
        store: Some(Keeping::Kept),
        confinement: Confinement::default(),
    }
}

/// The findings that are not as they should be.
fn amiss(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = sound();
    change(&mut facts);
    let findings = judge(&facts).into_iter();
    findings.filter(|it| it.level > Level::Ok).collect()
}

fn only(change: impl FnOnce(&mut Facts)) -> Finding {
    let mut findings = amiss(change);
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

fn refused(facts: &mut Facts) {
    facts.pinned = None;
    facts.group.steered = None;
    facts.group.moved = None;
    facts.program = Err(Refusal {
        message: "Operation not permitted (os error 1)".to_owned(),
        not_permitted: true,
    });
}

#[test]
fn a_sound_machine_is_in_order() {
    assert_eq!(amiss(|_| {}), []);
    let subjects: Vec<String> = judge(&sound()).into_iter().map(|it| it.subject).collect();
    assert_eq!(
        subjects,
        [
            "program",
            "sock_diag",
            "reuseport group",
            "queue migration",
            "listener migration",
            "grace period",
            "pidfd_getfd",
            "kernel.yama.ptrace_scope",
            "capabilities",
            "bpffs",
            "file descriptors",
            "descriptor store",
        ]
    );
}

#[test]
fn a_kernel_of_5_10_has_the_file_and_not_the_feature() {
    let found = amiss(|facts| {
        facts.program = Ok(ProgramKind::Select);
        facts.group.moved = None;
        facts.counts_migrations = Ok(false);
        facts.migrate_req = Some(true);
    });
    let levels: Vec<_> = found
        .iter()
        .map(|it| (it.subject.as_str(), it.level))
        .collect();
    assert_eq!(
        levels,
        [
            ("program", Level::Note),
            ("listener migration", Level::Note)
        ]
    );
    assert!(found[1].message.contains("5.10.188"), "{found:?}");

    let without = only(|facts| {
        facts.counts_migrations = Ok(false);
        facts.migrate_req = None;
    });
    assert!(!without.message.contains("5.10.188"), "{without:?}");
}

#[test]
fn a_sleeper_that_is_not_woken_is_a_warning_and_a_loss_an_error() {
    let moved = |moved| only(move |facts| facts.group.moved = Some(Ok(moved)));
    assert_eq!(moved(Moved::Silently).level, Level::Warning);
    assert_eq!(moved(Moved::Lost).level, Level::Error);
}

#[test]
fn steering_that_does_not_steer_is_an_error() {
    for steered in [
        Ok(Steered::Astray),
        Ok(Steered::Miscounted(0)),
        Err("attach failed".to_owned()),
    ] {
        let found = only(|facts| facts.group.steered = Some(steered));
        assert_eq!(
            (found.subject.as_str(), found.level),
            ("reuseport group", Level::Error)
        );
    }
}

#[test]
fn sockets_that_are_not_listed_are_an_error_even_without_a_program() {
    for listed in [Ok(false), Err("no module".to_owned())] {
        let found = amiss(|facts| {
            refused(facts);
            facts.group.listed = listed;
        });
        let listing = found.iter().find(|it| it.subject == "sock_diag");
        assert_eq!(listing.expect("a finding").level, Level::Error);
    }
}

#[test]
fn without_a_namespace_for_it_a_trial_that_fails_proves_nothing() {
    let found = only(|facts| {
        facts.group.no_namespace = Some("EPERM".to_owned());
        facts.group.steered = Some(Err("connect failed".to_owned()));
    });
    assert_eq!(found.level, Level::Warning);
    let astray = only(|facts| {
        facts.group.no_namespace = Some("EPERM".to_owned());
        facts.group.steered = Some(Ok(Steered::Astray));
    });
    assert_eq!(astray.level, Level::Error);
}

#[test]
fn a_refusal_names_what_is_seen_to_refuse() {
    let without = amiss(|facts| {
        refused(facts);
        facts.missing = Ok(vec![Capability::Bpf]);
    });
    assert_eq!(without.len(), 2, "{without:?}");
    assert!(without.iter().all(|it| it.level == Level::Error));
    assert!(
        without[0]
            .hint
            .as_deref()
            .is_some_and(|it| it.contains("CAP_BPF"))
    );

    let hint = |confinement: Confinement| {
        let found = only(|facts| {
            refused(facts);
            facts.confinement = confinement;
        });
        found.hint.expect("a hint")
    };
    assert!(hint(Confinement::default()).contains("kernel's log"));
    let confined = hint(Confinement {
        user_namespace: true,
        filtered: true,
        modules: Some("capability,apparmor".to_owned()),
    });
    for suspect in ["user namespace", "seccomp", "apparmor"] {
        assert!(confined.contains(suspect), "{confined}");
    }

    let other = only(|facts| {
        refused(facts);
        facts.program = Err(Refusal {
            message: "Invalid argument".to_owned(),
            not_permitted: false,
        });
    });
    assert_eq!(other.hint, None);
}

#[test]
fn a_missing_capability_says_what_it_is_for() {
    for capability in Capability::ALL {
        let found = only(|facts| {
            facts.missing = Ok(vec![capability]);
            // Which matters elsewhere only where it is missing.
            facts.yama = None;
        });
        assert_eq!(found.level, Level::Note, "{found:?}");
        assert!(found.message.contains(capability.name()));
        assert!(found.message.contains("needed"));
    }
}

#[test]
fn getting_at_descriptors_depends_on_yama_and_a_capability() {
    let yama = |scope, missing: &[Capability]| {
        let found = amiss(|facts| {
            facts.yama = Some(scope);
            facts.missing = Ok(missing.to_vec());
        });
        found.into_iter().find(|it| it.subject.contains("yama"))
    };
    let without = &[Capability::SysPtrace];
    assert_eq!(yama(0, without), None);
    assert_eq!(yama(2, &[]), None);
    assert_eq!(yama(1, without).expect("a finding").level, Level::Warning);
    assert_eq!(yama(3, &[]).expect("a finding").level, Level::Warning);

    let denied = only(|facts| facts.duplicates.of_first = Some(Err("EPERM".to_owned())));
    assert_eq!(denied.level, Level::Warning);
    let expected = amiss(|facts| {
        facts.duplicates.of_first = Some(Err("EPERM".to_owned()));
        facts.missing = Ok(without.to_vec());
        facts.yama = None;
    });
    assert!(expected.iter().all(|it| it.level == Level::Note));
    let broken = only(|facts| facts.duplicates.own = Err("ENOSYS".to_owned()));
    assert_eq!(broken.level, Level::Error);
}

#[test]
fn what_is_no_bpffs_says_what_to_run() {
    let found = only(|facts| facts.bpffs.is_one = Ok(false));
    assert_eq!(found.level, Level::Warning);
    assert_eq!(
        found.hint.as_deref(),
        Some("run: mount -t bpf bpf /sys/fs/bpf")
    );
    let full = only(|facts| facts.pinned = Some(Err("no space".to_owned())));
    assert_eq!((full.subject.as_str(), full.level), ("bpffs", Level::Error));
}

#[test]
fn no_grace_period_is_an_error_and_a_long_one_a_warning() {
    assert_eq!(
        only(|facts| facts.grace = Err("not offered".to_owned())).level,
        Level::Error
    );
    assert_eq!(
        only(|facts| facts.grace = Ok(Duration::from_secs(1))).level,
        Level::Warning
    );
}

#[test]
fn descriptors_run_out_with_a_warning() {
    let found = only(|facts| facts.descriptors.open = 4000);
    assert_eq!(
        (found.subject.as_str(), found.level),
        ("file descriptors", Level::Warning)
    );
    assert_eq!(amiss(|facts| facts.descriptors.limit = None), []);
}

#[test]
fn who_does_not_keep_listeners_is_named() {
    for (store, why, hint) in [
        (Keeping::Nobody, "NOTIFY_SOCKET", None),
        (
            Keeping::Refused,
            "no more",
            Some("FileDescriptorStoreMax= of the daemon's unit"),
        ),
        (Keeping::Unanswered, "not answered", None),
        (Keeping::Failed("gone".to_owned()), "told: gone", None),
    ] {
        let finding = only(|facts| facts.store = Some(store.clone()));
        assert_eq!(finding.level, Level::Note);
        assert!(finding.message.contains(why), "{finding:?}");
        let begins = finding.hint.as_deref().and_then(|it| it.split(':').next());
        assert_eq!(begins, hint);
    }
    // A process that is no daemon has nothing kept.
    let facts = Facts {
        store: None,
        ..sound()
    };
    let mut findings = judge(&facts).into_iter();
    assert!(findings.all(|it| it.subject != "descriptor store"));
}
