//! What a program can ask wrongly that `reuseportctl` never would.

use reuseport_tests::control::message;
use serde_json::{Value, json};

use super::row::{Row, bytes, call, half};

/// The longest call, in bytes (`api::server::Limits`).
const LONGEST_CALL: usize = 64 << 10;

pub(super) fn rows() -> Vec<Row<'static>> {
    let mut rows = misfits();
    rows.extend(parameters());
    rows.extend(words());
    rows.extend(messages());
    rows
}

fn parameters() -> Vec<Row<'static>> {
    const BAD: &str = "bad-parameter";
    vec![
        call(
            "pid 0, raw",
            "Register",
            &json!({"service": "game", "pid": 0}),
            "no-process",
        ),
        call(
            "the hugest pid",
            "Register",
            &json!({"service": "game", "pid": u32::MAX}),
            "no-process",
        ),
        call(
            "an empty name",
            "RemoveService",
            &json!({"service": ""}),
            BAD,
        ),
        call(
            "a name with a slash",
            "RemoveService",
            &json!({"service": "../game"}),
            BAD,
        ),
        call(
            "a name that is too long",
            "Rollback",
            &json!({"service": "x".repeat(64)}),
            BAD,
        ),
        call(
            "a label with a slash",
            "Release",
            &json!({"service": "game", "label": "a/b"}),
            BAD,
        ),
        call(
            "an address without a port",
            "AddService",
            &service(&["0.0.0.0"], None),
            BAD,
        ),
        call(
            "port 0, raw",
            "AddService",
            &service(&["0.0.0.0:0"], None),
            BAD,
        ),
        call(
            "v6only for IPv4, raw",
            "AddService",
            &service(&["0.0.0.0:7,v6only"], None),
            BAD,
        ),
        call(
            "no address, raw",
            "AddService",
            &service(&[], None),
            "addresses",
        ),
        call(
            "no slot",
            "AddService",
            &service(&["0.0.0.0:7996"], Some(0)),
            "slots",
        ),
        call(
            "one slot",
            "AddService",
            &service(&["0.0.0.0:7996"], Some(1)),
            "slots",
        ),
        call(
            "too many slots",
            "AddService",
            &service(&["0.0.0.0:7996"], Some(u32::MAX)),
            "slots",
        ),
    ]
}

/// Parameters of the wrong type, that are missing, or that nobody knows.
fn misfits() -> Vec<Row<'static>> {
    vec![
        misfit(
            "Register",
            &json!({"service": "game", "pid": u64::from(u32::MAX) + 1}),
            "pid",
        ),
        misfit("Register", &json!({"service": "game", "pid": -1}), "pid"),
        misfit("Register", &json!({"service": "game", "pid": "7"}), "pid"),
        misfit("Register", &json!({"pid": 7}), "service"),
        misfit(
            "Register",
            &json!({"service": "game", "colour": 7}),
            "colour",
        ),
        misfit(
            "AddService",
            &json!({"name": "new", "listen": "0.0.0.0:7996"}),
            "listen",
        ),
        misfit(
            "Migrate",
            &json!({"service": "game", "to": "v2", "drain_timeout_ms": -1}),
            "drain_timeout_ms",
        ),
    ]
}

fn service(listen: &[&str], slots: Option<u32>) -> Value {
    json!({"name": "new", "listen": listen, "slots": slots})
}

fn misfit(member: &str, parameters: &Value, name: &'static str) -> Row<'static> {
    let asked = reuseport_tests::control::call(member, parameters);
    bytes(name, asked, "org.varlink.service.InvalidParameter", name)
}

fn words() -> Vec<Row<'static>> {
    let row = |cause, parameters: &Value, reason| {
        let asked = message(&json!({
            "method": "io.reuseportd.Migrate",
            "parameters": parameters,
            "more": true,
        }));
        bytes(cause, asked, "io.reuseportd.Refused", reason)
    };
    vec![
        row(
            "a drain that is none",
            &json!({"service": "game", "to": "v2", "drain": "gravity"}),
            "unknown-word",
        ),
        row(
            "a retirement that is none",
            &json!({"service": "game", "to": "v2", "retire": "close"}),
            "unknown-word",
        ),
        row(
            "a setting that is none",
            &json!({"service": "game", "to": "v2", "allow_mismatch": ["tcp-window"]}),
            "unknown-setting",
        ),
        row(
            "a signal without a name",
            &json!({"service": "game", "to": "v2", "retire": "signal:"}),
            "bad-parameter",
        ),
        row(
            "neither target or both",
            &json!({"service": "game"}),
            "target",
        ),
        row(
            "neither target or both",
            &json!({"service": "game", "to": "v2", "to_pid": 7}),
            "target",
        ),
        row(
            "neither target or both",
            &json!({"service": "game", "to": "v2", "label": "v3"}),
            "target",
        ),
    ]
}

fn messages() -> Vec<Row<'static>> {
    const MALFORMED: &str = "io.reuseportd.MalformedRequest";
    let malformed = |text: &str| {
        let asked = [text.as_bytes(), b"\0"].concat();
        bytes("malformed", asked, MALFORMED, "malformed-request")
    };
    let name = |name: &str| message(&json!({ "method": name }));
    vec![
        malformed("GET / HTTP/1.1"),
        malformed("{\"method\":"),
        malformed("[]"),
        malformed("{}"),
        malformed("{\"method\":7}"),
        malformed("\u{1}"),
        malformed(""),
        bytes(
            "oversized",
            vec![b'x'; LONGEST_CALL + 1],
            "io.reuseportd.RequestTooLarge",
            "request-too-large",
        ),
        bytes(
            "unknown method",
            name("io.reuseportd.Destroy"),
            "org.varlink.service.MethodNotFound",
            "io.reuseportd.Destroy",
        ),
        bytes(
            "no method",
            name("Status"),
            "org.varlink.service.MethodNotFound",
            "Status",
        ),
        bytes(
            "unknown interface",
            name("com.example.game.Status"),
            "org.varlink.service.InterfaceNotFound",
            "com.example.game",
        ),
        bytes(
            "progress not wanted",
            reuseport_tests::control::call("Migrate", &json!({"service": "game", "to": "v2"})),
            "org.varlink.service.ExpectedMore",
            "",
        ),
        half("half a request", b"{\"method\":\"io.reuse".to_vec()),
        half("half a request", Vec::new()),
        bytes(
            "half a request, and no end of it",
            b"{\"method\":\"io.reuse".to_vec(),
            MALFORMED,
            "stalled",
        ),
    ]
}
