//! Whole commands, from their arguments to their output, against a server whose driver answers as
//! it is told.

use clap::error::ErrorKind;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::api::{
    Answer, Server,
    wire::{
        self, AddService, Changed, Doctor, Failure, Finding, MigrationResult, Progress, Reason,
        Reply, Request,
    },
};

/// What a command printed, how it ended, and what the daemon was asked.
struct Ran {
    code: u8,
    out: String,
    err: String,
    asked: Request,
}

async fn ran(arguments: &[&str], progress: Vec<Reply>, answer: Answer) -> Ran {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("control");
    let server = Server::bind(&path)
        .expect("bind")
        .with_admin_group(Some(rustix::process::getegid().as_raw()));
    let (sender, mut mailbox) = mpsc::channel(1);
    let running = tokio::spawn(server.run(sender, std::future::pending()));
    let driving = async {
        let envelope = mailbox.recv().await.expect("a call");
        for reply in progress {
            envelope.replier.progress(reply);
        }
        envelope.replier.finish(answer);
        envelope.request
    };
    let path = path.to_str().expect("UTF-8");
    let common = ["reuseportctl", "--socket", path];
    let cli = Cli::try_parse_from(common.iter().chain(arguments)).expect("arguments");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (code, asked) = tokio::join!(run(cli, Output::new(&mut out, &mut err)), driving);
    running.abort();
    Ran {
        code,
        out: plain(&out),
        err: plain(&err),
        asked,
    }
}

fn plain(bytes: &[u8]) -> String {
    let text = str::from_utf8(bytes).expect("UTF-8");
    anstream::adapter::strip_str(text).to_string()
}

fn progress(phase: &str) -> Reply {
    let progress = Progress {
        phase: phase.to_owned(),
        elapsed_ms: 3,
        handshakes: None,
        queued: None,
        sessions: None,
    };
    progress.into()
}

fn result(outcome: &str) -> Reply {
    let result = MigrationResult {
        service: "game".to_owned(),
        from: vec!["v1".to_owned()],
        to: "v2".to_owned(),
        outcome: outcome.to_owned(),
        switch_us: 412,
        drain_ms: 24,
        handshakes_waited: 3,
        accepted_while_draining: 5,
        ..MigrationResult::default()
    };
    result.into()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

#[tokio::test]
async fn a_migration_tells_its_phases_and_sums_up() {
    let phases = || vec![progress("switched"), progress("draining")];
    let command = [
        "migrate",
        "game",
        "--to",
        "v2",
        "--drain-timeout",
        "30s",
        "--wait-sessions",
        "2h",
    ];
    let text = ran(&command, phases(), Ok(result("done"))).await;
    assert_eq!(text.code, exit_code::DONE);
    assert_eq!(text.err, "switched after 3 ms\ndraining after 3 ms\n");
    assert!(text.out.starts_with("game moved from v1 to v2: done\n"));
    let expected = wire::Migrate {
        service: "game".to_owned(),
        to: Some("v2".to_owned()),
        drain: Some("owner".to_owned()),
        retire: Some("keep".to_owned()),
        drain_timeout_ms: Some(30_000),
        wait_sessions_ms: Some(7_200_000),
        ..wire::Migrate::default()
    };
    assert_eq!(text.asked, Request::Migrate(expected));

    let command = [
        "--json",
        "migrate",
        "game",
        "--to-pid",
        "17",
        "--label",
        "v2",
        "--allow-mismatch",
        "backlog",
        "--allow-mismatch",
        "tcp-ulp",
    ];
    let json = ran(&command, phases(), Ok(result("timed_out"))).await;
    let Request::Migrate(asked) = &json.asked else {
        panic!("{:?}", json.asked);
    };
    let allowed = ["backlog", "tcp-ulp"].map(str::to_owned).to_vec();
    assert_eq!(asked.allow_mismatch, Some(allowed));
    assert_eq!(json.code, exit_code::NOT_FINISHED);
    assert_eq!(json.err, "");
    let lines = json_lines(&json.out);
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["progress"]["phase"], "switched");
    assert_eq!(lines[2]["outcome"], "timed_out");
    assert_eq!(lines[2]["switch_us"], 412);
}

#[tokio::test]
async fn a_refusal_has_its_code_and_its_hint() {
    let refused = || {
        Err(Failure::Refused(Reason {
            reason: "unknown-service".to_owned(),
            message: "there is no service game".to_owned(),
            hint: Some("add it".to_owned()),
        }))
    };
    let text = ran(&["rollback", "game"], Vec::new(), refused()).await;
    assert_eq!(text.code, exit_code::REFUSED);
    assert_eq!(text.out, "");
    assert_eq!(text.err, "error: there is no service game\nhint: add it\n");
    let json = ran(&["--json", "rollback", "game"], Vec::new(), refused()).await;
    assert_eq!(json.code, exit_code::REFUSED);
    assert_eq!(json.err, "");
    assert_eq!(
        json_lines(&json.out),
        [json!({"error": {
            "kind": "refused",
            "reason": "unknown-service",
            "message": "there is no service game",
            "hint": "add it",
        }})]
    );
}

#[tokio::test]
async fn a_service_is_added_as_it_was_asked() {
    let command = [
        "service",
        "add",
        "game",
        "--listen",
        "0.0.0.0:7777",
        "--listen",
        "[::]:7777,v6only",
        "--user",
        "game",
        "--netns",
        "/run/netns/a",
        "--slots",
        "64",
        "--park",
        "--park-timeout",
        "1m 30s",
    ];
    let changed = Changed {
        changed: true,
        message: "game is steered".to_owned(),
    };
    let ran = ran(&command, Vec::new(), Ok(Reply::Changed(changed))).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "game is steered\n"));
    let expected = AddService {
        name: "game".to_owned(),
        listen: vec!["0.0.0.0:7777".to_owned(), "[::]:7777,v6only".to_owned()],
        user: Some("game".to_owned()),
        netns: Some("/run/netns/a".to_owned()),
        slots: Some(64),
        park: true,
        park_timeout_ms: Some(90_000),
        instances: None,
    };
    assert_eq!(ran.asked, Request::AddService(expected));
}

#[tokio::test]
async fn an_examination_with_errors_fails() {
    let doctor = Doctor {
        findings: vec![Finding {
            subject: "kernel".to_owned(),
            level: "error".to_owned(),
            message: "too old".to_owned(),
            hint: None,
        }],
    };
    let ran = ran(&["doctor"], Vec::new(), Ok(Reply::Doctor(doctor))).await;
    assert_eq!(ran.code, exit_code::FAILED);
    assert_eq!(ran.out, "errors\n  kernel: too old\n\n1 error\n");
}

#[tokio::test]
async fn a_daemon_that_is_not_there_has_its_code() {
    let command = ["reuseportctl", "--socket", "/nonexistent/control", "status"];
    let cli = Cli::try_parse_from(command).expect("arguments");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(cli, Output::new(&mut out, &mut err)).await;
    assert_eq!(code, exit_code::UNREACHABLE);
    assert!(plain(&err).starts_with("error: cannot talk to reuseportd: there is no socket"));
    assert!(plain(&err).contains("\nhint: start reuseportd"));
}

#[test]
fn what_makes_no_sense_is_clap_s_to_say() {
    let usage = |arguments: &str| {
        let arguments = arguments.split_whitespace();
        let error = Cli::try_parse_from(["reuseportctl"].into_iter().chain(arguments));
        let error = error.expect_err("no sense");
        assert_eq!(error.exit_code(), i32::from(exit_code::USAGE));
        error.kind()
    };
    let invalid = ErrorKind::ValueValidation;
    let missing = ErrorKind::MissingRequiredArgument;
    assert_eq!(usage("service add game"), missing);
    assert_eq!(usage("service add a.b --listen 0.0.0.0:1"), invalid);
    assert_eq!(usage("service add game --listen localhost:1"), invalid);
    assert_eq!(
        usage("service add game --listen 0.0.0.0:1 --slots 1"),
        invalid
    );
    assert_eq!(usage("register game"), missing);
    assert_eq!(usage("register game --pid 0"), invalid);
    assert_eq!(usage("migrate game"), missing);
    assert_eq!(
        usage("migrate game --to v2 --to-pid 3"),
        ErrorKind::ArgumentConflict
    );
    assert_eq!(
        usage("migrate game --to v2 --label v3"),
        ErrorKind::ArgumentConflict
    );
    assert_eq!(usage("migrate game --to v2 --retire close"), invalid);
    assert_eq!(usage("migrate game --to v2 --drain-timeout soon"), invalid);
    assert_eq!(
        usage("migrate game --to v2 --drain gravity"),
        ErrorKind::InvalidValue
    );
    assert_eq!(
        usage("migrate game --to v2 --allow-mismatch TCP_SAVE_SYN"),
        invalid
    );
    assert_eq!(usage("migrate-req maybe"), ErrorKind::InvalidSubcommand);
}

#[test]
fn the_command_line_is_sound() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}
