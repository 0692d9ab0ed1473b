//! What an operator can ask wrongly of `reuseportctl`.

use reuseport_tests::people::NOBODY;

use super::{
    cast::Cast,
    row::{Row, fails, forbidden, refused, usage},
};

/// Rows of root's.
pub(super) fn rows(cast: &Cast) -> Vec<Row<'static>> {
    let mut rows = processes(cast);
    rows.extend(services());
    rows.extend(migrations(cast));
    rows.extend(command_lines());
    rows.extend([
        fails(
            "another's directory on the bpffs",
            "service add clash --listen 0.0.0.0:7995",
            1,
            "steering",
        ),
        fails(
            "nobody's socket",
            "--socket /nonexistent/control status",
            6,
            "no-socket",
        ),
        fails(
            "another program's socket",
            format!("--socket {} status", cast.nonsense.display()),
            1,
            "answer",
        ),
    ]);
    rows
}

fn processes(cast: &Cast) -> Vec<Row<'static>> {
    const THERE: &str = "not-listening-there";
    let register = |service: &str, pid: u32| format!("register {service} --pid {pid}");
    vec![
        refused("dead pid", register("game", cast.dead), "no-process"),
        refused(
            "huge pid",
            register("game", i32::MAX.unsigned_abs()),
            "no-process",
        ),
        refused("other port", register("game", cast.other_port.pid()), THERE),
        refused(
            "other address",
            register("game", cast.other_address.pid()),
            THERE,
        ),
        refused("other netns", register("game", cast.elsewhere.pid()), THERE),
        refused("IPv4 for IPv6", register("six", cast.four.pid()), THERE),
        refused(
            "dual stack for v6only",
            register("six", cast.both.pid()),
            THERE,
        ),
        refused(
            "v6only for dual stack",
            register("dual", cast.six_only.pid()),
            THERE,
        ),
        refused(
            "no SO_REUSEPORT",
            register("alone", cast.alone.pid()),
            "no-reuseport",
        ),
        refused(
            "server of another user",
            register("foreign", cast.foreign.pid()),
            "other-owner",
        ),
        refused(
            "service of another user",
            register("owned", cast.owned.pid()),
            "other-owner",
        ),
        refused(
            "full slots",
            register("small", cast.too_many.pid()),
            "slots-full",
        ),
        refused(
            "somebody's listener",
            register("shared", cast.sharer.pid()),
            "shared-listener",
        ),
        refused(
            "label taken",
            format!("register game --pid {} --label v1", cast.new.pid()),
            "label-taken",
        ),
        refused(
            "label differs",
            format!("register game --pid {} --label v9", cast.serving),
            "label-differs",
        ),
    ]
}

fn services() -> Vec<Row<'static>> {
    vec![
        refused(
            "unknown service",
            "register nosuch --pid 1",
            "unknown-service",
        ),
        refused(
            "unknown service",
            "migrate nosuch --to v1",
            "unknown-service",
        ),
        refused("unknown service", "rollback nosuch", "unknown-service"),
        refused("unknown service", "release nosuch v1", "unknown-service"),
        refused("unknown service", "doctor nosuch", "unknown-service"),
        refused("unknown service", "status nosuch", "unknown-service"),
        refused(
            "another address for a service",
            "service add game --listen 0.0.0.0:7999",
            "service-differs",
        ),
        refused(
            "another user for a service",
            "service add game --listen 0.0.0.0:7777 --user 65534",
            "service-differs",
        ),
        refused(
            "other slots for a service",
            "service add game --listen 0.0.0.0:7777 --slots 3",
            "service-differs",
        ),
        refused(
            "another netns for a service",
            "service add game --listen 0.0.0.0:7777 --netns /proc/self/ns/net",
            "service-differs",
        ),
        refused(
            "address of another service",
            "service add thief --listen 0.0.0.0:7998 --listen 0.0.0.0:7777",
            "address-taken",
        ),
        refused(
            "an address twice",
            "service add twice --listen 0.0.0.0:7997 --listen 0.0.0.0:7997",
            "addresses",
        ),
        refused(
            "unknown user",
            "service add new --listen 0.0.0.0:7996 --user nosuchuser",
            "bad-parameter",
        ),
        refused(
            "netns that is not there",
            "service add new --listen 0.0.0.0:7996 --netns /nonexistent/netns",
            "bad-parameter",
        ),
        refused(
            "netns that is none",
            "service add new --listen 0.0.0.0:7996 --netns /dev/null",
            "bad-parameter",
        ),
        refused(
            "netns for migrate-req that is none",
            "migrate-req show --netns /proc/self/ns/uts",
            "bad-parameter",
        ),
    ]
}

fn migrations(cast: &Cast) -> Vec<Row<'static>> {
    vec![
        refused(
            "release of what serves",
            "release game v1",
            "instance-serves",
        ),
        refused(
            "unknown label",
            "migrate game --to nosuch",
            "unknown-instance",
        ),
        refused(
            "migration to what is gone",
            "migrate gone --to g1",
            "instance-gone",
        ),
        refused(
            "handoff to an instance that receives nothing",
            "migrate game --to v2 --drain handoff",
            "no-receiver",
        ),
        refused(
            "handoff to a process that receives nothing",
            format!("migrate game --to-pid {} --drain handoff", cast.new.pid()),
            "no-receiver",
        ),
        refused(
            "huge pid",
            format!("migrate game --to-pid {}", i32::MAX),
            "no-process",
        ),
        refused(
            "other netns",
            format!("migrate game --to-pid {} --dry-run", cast.elsewhere.pid()),
            "not-listening-there",
        ),
        refused(
            "no migration to go back from",
            "rollback game",
            "nothing-to-roll-back",
        ),
        refused(
            "unknown signal",
            "migrate game --to v2 --retire signal:NOSUCH",
            "bad-parameter",
        ),
    ]
}

fn command_lines() -> Vec<Row<'static>> {
    vec![
        usage("pid 0", "register game --pid 0"),
        usage("no number for a pid", "register game --pid one"),
        usage("no service", "register --pid 1"),
        usage(
            "a service's bad name",
            "service add a.b --listen 0.0.0.0:7996",
        ),
        usage("a label with a bad character", "release game v/1"),
        usage("no address", "service add new"),
        usage(
            "an address without a port",
            "service add new --listen 0.0.0.0",
        ),
        usage("port 0", "service add new --listen 0.0.0.0:0"),
        usage(
            "v6only for IPv4",
            "service add new --listen 0.0.0.0:7996,v6only",
        ),
        usage(
            "too few slots",
            "service add new --listen 0.0.0.0:7996 --slots 1",
        ),
        usage(
            "too many slots",
            "service add new --listen 0.0.0.0:7996 --slots 4294967296",
        ),
        usage("unknown drain", "migrate game --to v2 --drain gravity"),
        usage("unknown retirement", "migrate game --to v2 --retire close"),
        usage(
            "a bad duration",
            "migrate game --to v2 --drain-timeout soon",
        ),
        usage(
            "unknown setting",
            "migrate game --to v2 --allow-mismatch TCP_SAVE_SYN",
        ),
        usage("no target", "migrate game"),
        usage("two targets", "migrate game --to v2 --to-pid 1"),
        usage("a label for a label", "migrate game --to v2 --label v3"),
        usage("unknown command", "destroy game"),
        usage("no command", ""),
    ]
}

/// Rows of a user who owns one service, and no other.
pub(super) fn rows_of_others(cast: &Cast) -> Vec<Row<'static>> {
    const CHANGE: &str = "a change by another user";
    let row = |cause, line: &str| forbidden(cause, NOBODY, line);
    vec![
        row(CHANGE, "service add new --listen 0.0.0.0:7996"),
        row(CHANGE, "service remove game"),
        row(CHANGE, "service remove owned"),
        row(CHANGE, "migrate game --to v2"),
        row(CHANGE, "rollback game"),
        row(CHANGE, "release game v2"),
        row(CHANGE, "migrate-req on"),
        row("somebody else's service", "status game"),
        row("somebody else's service", "doctor game"),
        row(
            "somebody else's service",
            &format!("register game --pid {}", cast.foreign.pid()),
        ),
        row(
            "somebody else's process",
            &format!("register owned --pid {}", cast.owned.pid()),
        ),
    ]
}

/// Rows while service `held` moves from `h1` to `h2`.
pub(super) fn rows_while_held(cast: &Cast) -> Vec<Row<'static>> {
    const UNDER_WAY: &str = "migration under way";
    let row = |line: &str| refused(UNDER_WAY, line, "migration-under-way");
    vec![
        row("migrate held --to h2"),
        row("migrate held --to h1"),
        row(&format!("migrate held --to-pid {}", cast.late.pid())),
        row("migrate held --to h1 --dry-run"),
        row(&format!("register held --pid {}", cast.late.pid())),
        row("service remove held"),
        refused(
            "release of what is drained",
            "release held h1",
            "instance-drains",
        ),
        refused(
            "release of what is moved to",
            "release held h2",
            "instance-serves",
        ),
    ]
}

/// Rows after that.
pub(super) fn rows_afterwards() -> Vec<Row<'static>> {
    vec![refused(
        "the migration is over",
        "rollback held",
        "nothing-to-roll-back",
    )]
}
