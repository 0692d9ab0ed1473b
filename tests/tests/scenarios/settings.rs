//! Old and new servers whose listeners are set to different things: what a migration is refused
//! over, what it is warned of, and that neither leaves a trace or costs a connection.

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::MigrationResult,
    lab::{
        fixture::Fixture,
        load::{Load, LoadOptions},
        server::{Options, SocketOption},
        world::World,
    },
};
use reuseport_tests::{
    ctl::Ctl,
    outcomes::all_selected,
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, listening, v4},
    traces::Traces,
    wait::until,
};

const SOCKET: i32 = 1;
const IP: i32 = 0;
const TCP: i32 = 6;
const IPV6: i32 = 41;

/// There and back again under churn, for each setting that a listener can have on this kernel. One
/// that has `TCP_ULP` cannot listen; TCP-AO is refused by kernels that are built without it.
pub(crate) fn refused() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let mut serving = stage.instance(&v4("v0"))?;
    let churn = LoadOptions::churn(vec![stage.world.v4(PORT)], 4);
    let load = Load::start(stage.world.client(), churn)?;
    ensure!(load.advances_by(100, DEADLINE), "a load under way");

    let number = SocketOption::number;
    let settings = [
        ("tcp-save-syn", number(TCP, 27, 1)),
        ("tcp-defer-accept", number(TCP, 9, 3)),
        ("tcp-fastopen", number(TCP, 23, 16)),
        ("ip-transparent", number(IP, 19, 1)),
        ("ip-freebind", number(IP, 15, 1)),
        ("so-mark", number(SOCKET, 36, 7)),
        ("tcp-md5sig", signed([10, 9, 8, 7])),
    ];
    for (plain, (name, option)) in (1..).zip(settings) {
        let set = with(&v4(&format!("{name}.")), option);
        let other = stage.server(&set)?;
        serving = moves_if_allowed(&stage, &load, serving, other, name, set.label.as_str())?;
        // Back to a server that does not have it.
        let label = format!("v{plain}");
        let other = stage.server(&v4(&label))?;
        serving = moves_if_allowed(&stage, &load, serving, other, name, &label)?;
    }

    let ledger = load.stop()?.connections;
    ledger.check_complete()?;
    all_selected(&stage.status()?.groups[0].outcomes, ledger.begun())
}

/// The same names go with the options of IPv6.
pub(crate) fn refused_v6() -> Result<()> {
    let address = format!("[::]:{PORT}");
    let stage = Stage::set(World::loopback()?, std::slice::from_ref(&address))?;
    let _serving = stage.instance(&listening("v1", &[&address]))?;
    let number = SocketOption::number;
    for (name, option) in [
        ("ip-transparent", number(IPV6, 75, 1)),
        ("ip-freebind", number(IPV6, 78, 1)),
    ] {
        let other = stage.server(&with(&listening("v2", &[&address]), option))?;
        refuses(&stage, &format!("--to-pid {}", other.pid()), name)?;
    }
    Ok(())
}

/// Each of the lesser settings: told beforehand, at the end, and in the log; left out on request.
pub(crate) fn warned() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let ctl = Ctl::of(stage.home())?;
    let _serving = stage.instance(&v4("v0"))?;
    let number = SocketOption::number;
    let reno = SocketOption {
        level: TCP,
        option: 13,
        value: b"reno".to_vec(),
    };
    let mut settings: Vec<(&str, Options)> = [
        ("so-rcvbuf", number(SOCKET, 8, 20_000)),
        ("so-sndbuf", number(SOCKET, 7, 50_000)),
        ("tcp-maxseg", number(TCP, 2, 1_000)),
        ("tcp-congestion", reno),
        ("so-incoming-cpu", number(SOCKET, 49, 0)),
    ]
    .map(|(name, option)| (name, with(&v4(name), option)))
    .into();
    let short = Options {
        backlog: 64,
        ..v4("backlog")
    };
    settings.push(("backlog", short));

    for (name, options) in settings {
        let other = stage.server(&options)?;
        let to = format!("--to-pid {} --label {name}", other.pid());
        let before = Traces::of(&stage)?;
        let rehearsed = migrates(&ctl, &format!("{to} --dry-run"))?;
        let [warning] = rehearsed.warnings.as_slice() else {
            anyhow::bail!("{rehearsed:?}");
        };
        ensure!(warning.starts_with(&format!("{name} ")), "{warning}");
        let silent = migrates(&ctl, &format!("{to} --dry-run --allow-mismatch {name}"))?;
        ensure!(silent.warnings.is_empty(), "{silent:?}");
        let text = ctl.done(&format!("migrate {SERVICE} {to} --dry-run"))?;
        ensure!(text.contains(&format!("warning: {warning}")), "{text}");
        unchanged(&stage, &before)?;

        let moved = migrates(&ctl, &to)?;
        ensure!(moved.warnings == [warning.clone()], "{moved:?}");
        ensure!(stage.daemon().log().contains(warning), "not in the log");
        // The next one is compared with the first, which differs in nothing else.
        let back = migrates(&ctl, "--to v0")?;
        ensure!(back.warnings.len() == 1, "{back:?}");
        ctl.done(&format!("release {SERVICE} {name}"))?;
    }
    Ok(())
}

/// One that stands by and is set otherwise: what the doctor says of it, and what comes of it.
pub(crate) fn examined() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let ctl = Ctl::of(stage.home())?;
    let serving = stage.instance(&v4("v1"))?;
    let _like_it = stage.instance(&v4("v2"))?;
    let option = SocketOption::number(TCP, 27, 1);
    let _unlike_it = stage.instance(&with(&v4("v3"), option))?;

    let notes = notes(&ctl)?;
    let about = |label: &str| notes.iter().any(|it| it.contains(label));
    ensure!(
        about("a migration to v3 (pid") && !about("a migration to v2"),
        "{notes:?}"
    );
    refuses(&stage, "--to v3", "tcp-save-syn")?;
    let rehearsed = migrates(&ctl, "--to v2 --dry-run")?;
    ensure!(rehearsed.warnings.is_empty(), "{rehearsed:?}");
    // Nobody is left to compare it with.
    ctl.done(&format!("migrate {SERVICE} --to v2"))?;
    serving.exit()?;
    let allowed = migrates(&ctl, "--to v3 --allow-mismatch tcp-save-syn")?;
    ensure!(allowed.warnings.len() == 1, "{allowed:?}");
    // Draining on is no new migration.
    let again = migrates(&ctl, "--to v3")?;
    ensure!(again.outcome == "unchanged" && again.warnings.is_empty());
    Ok(())
}

/// A migration that is refused over one setting goes ahead where that is allowed, and says so.
fn moves_if_allowed(
    stage: &Stage,
    load: &Load,
    old: Fixture,
    new: Fixture,
    name: &str,
    label: &str,
) -> Result<Fixture> {
    let to = format!("--to-pid {} --label {label}", new.pid());
    refuses(stage, &to, name)?;
    let ctl = Ctl::of(stage.home())?;
    let moved = migrates(&ctl, &format!("{to} --allow-mismatch {name}"))
        .with_context(|| format!("allow {name}"))?;
    ensure!(
        moved.outcome == "done" && moved.left_behind == 0,
        "{moved:?}"
    );
    let [warning] = moved.warnings.as_slice() else {
        anyhow::bail!("{moved:?}");
    };
    ensure!(warning.starts_with(&format!("{name} ")), "{warning}");
    old.exit()?;
    ensure!(load.advances_by(50, DEADLINE), "a load that goes on");
    Ok(new)
}

/// A migration is refused over that setting alone, also when it is only rehearsed or when another
/// one is allowed, and leaves no trace.
fn refuses(stage: &Stage, to: &str, name: &str) -> Result<()> {
    let ctl = Ctl::of(stage.home())?;
    let before = Traces::of(stage)?;
    let mut told = Vec::new();
    for more in ["", "--dry-run", "--allow-mismatch tcp-ulp"] {
        let ran = ctl.run(&format!("--json migrate {SERVICE} {to} {more}"))?;
        let error = &ran.result()?["error"];
        ensure!(
            ran.code == 3 && error["reason"] == "settings-differ",
            "{name}: {ran:?}"
        );
        let message = error["message"].as_str().context("a message")?;
        ensure!(message.starts_with(&format!("{name} ")), "{message}");
        let hint = error["hint"].as_str().context("a hint")?;
        let way_out = format!("`--allow-mismatch {name}`");
        ensure!(hint.ends_with(&way_out), "{hint}");
        told.push(message.to_owned());
        unchanged(stage, &before)?;
    }
    told.dedup();
    ensure!(told.len() == 1, "{told:?}");
    Ok(())
}

fn unchanged(stage: &Stage, before: &Traces) -> Result<()> {
    let mut after = before.clone();
    // The connection is closed a moment after the answer.
    until("the same descriptors", || {
        after = Traces::of(stage)?;
        Ok(after.descriptors == before.descriptors)
    })?;
    ensure!(after == *before, "{before:?} became {after:?}");
    Ok(())
}

fn migrates(ctl: &Ctl, arguments: &str) -> Result<MigrationResult> {
    let ran = ctl.run(&format!("--json migrate {SERVICE} {arguments}"))?;
    ensure!(ran.code == 0, "{arguments}: {ran:?}");
    Ok(serde_json::from_value(ran.result()?)?)
}

fn notes(ctl: &Ctl) -> Result<Vec<String>> {
    let doctor = ctl.run(&format!("--json doctor {SERVICE}"))?.result()?;
    let findings = doctor["findings"].as_array().context("findings")?;
    let notes = findings.iter().filter(|it| it["level"] == "note");
    let messages = notes.filter_map(|it| it["message"].as_str());
    Ok(messages.map(str::to_owned).collect())
}

fn with(options: &Options, option: SocketOption) -> Options {
    Options {
        set: vec![option],
        ..options.clone()
    }
}

/// `TCP_MD5SIG`: a key for a client that is none of ours.
fn signed(client: [u8; 4]) -> SocketOption {
    const FAMILY: u16 = 2;
    const SECRET: &[u8; 6] = b"secret";
    const LENGTH: u16 = 6;
    // `struct tcp_md5sig`: an address, two bytes, the length of the key, an interface, the key.
    let mut value = vec![0; 128 + 8 + 80];
    value[..2].copy_from_slice(&FAMILY.to_ne_bytes());
    value[4..8].copy_from_slice(&client);
    value[130..132].copy_from_slice(&LENGTH.to_ne_bytes());
    value[136..136 + SECRET.len()].copy_from_slice(SECRET);
    SocketOption {
        level: TCP,
        option: 14,
        value,
    }
}
