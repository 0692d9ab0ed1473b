//! What is thrown at the control socket. None of it is a call that would change something if it were
//! understood, but nearly all of it looks like one.

use std::fmt;

use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any, prop_oneof},
    sample::select,
};
use serde_json::{Value, json};

/// A connection's worth.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) writes: Vec<Write>,
    pub(super) ending: Ending,
}

/// Bytes that are written at once, and descriptors that come with them.
#[derive(Clone)]
pub(super) struct Write {
    pub(super) bytes: Vec<u8>,
    /// Which of the descriptors that are at hand.
    pub(super) descriptors: Vec<usize>,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 300;
        let shown = &self.bytes[..self.bytes.len().min(SHOWN)];
        let (bytes, length) = (shown.escape_ascii(), self.bytes.len());
        let fds = self.descriptors.len();
        write!(f, "{length} bytes, {fds} descriptors: {bytes}")
    }
}

/// What comes afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client says that there is no more, and reads every answer.
    Read,
    /// It goes away without reading.
    Leave,
    /// It says nothing and does nothing for as long as the batch lasts.
    Stay,
}

/// Any input, with descriptors of so many kinds.
pub(super) fn inputs(kinds: usize) -> impl Strategy<Value = Input> {
    let write = (piece(), descriptors(kinds));
    let write = write.prop_map(|(bytes, descriptors)| Write { bytes, descriptors });
    let ending = prop_oneof![
        200 => Just(Ending::Read),
        50 => Just(Ending::Leave),
        1 => Just(Ending::Stay),
    ];
    (vec(write, 1..5), ending).prop_map(|(writes, ending)| Input { writes, ending })
}

fn descriptors(kinds: usize) -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        6 => Just(Vec::new()),
        2 => vec(0..kinds, 1..4),
        // About as many as a call may bring.
        1 => (0..kinds, 120..140_usize).prop_map(|(kind, count)| vec![kind; count]),
    ]
}

/// A call, several at once, part of one, or nothing like one.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let calls = || vec(call(), 1..8).prop_map(|calls| calls.concat());
    prop_oneof![
        40 => call(),
        15 => calls(),
        40 => (calls(), vec(damage(), 1..4)).prop_map(|(mut bytes, all)| {
            for damage in all {
                damage.apply(&mut bytes);
            }
            bytes
        }),
        5 => vec(any::<u8>(), 0..300),
        2 => nested(),
        1 => (1..200_000_usize).prop_map(|length| vec![b'x'; length]),
    ]
}

/// What goes wrong with bytes on their way. Places are fractions of the length, in 1/65,536.
#[derive(Clone, Debug)]
enum Damage {
    Truncate(u16),
    Insert(u16, Vec<u8>),
    Flip(u16, u8),
    Remove(u16, u16),
    Repeat(u16, u16),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<u16>;
    prop_oneof![
        at().prop_map(Damage::Truncate),
        (at(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        at().prop_map(|at| Damage::Insert(at, vec![0])),
        (at(), 1..=255_u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (at(), 0..2000_u16).prop_map(|(at, length)| Damage::Remove(at, length)),
        (at(), 0..2000_u16).prop_map(|(at, length)| Damage::Repeat(at, length)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let place = |at: u16| length * usize::from(at) / (usize::from(u16::MAX) + 1);
        let range = |at, more| place(at)..(place(at) + place(more)).min(length);
        match self {
            Self::Truncate(at) => bytes.truncate(place(*at)),
            Self::Insert(at, more) => {
                let at = place(*at);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Flip(at, bits) => {
                if let Some(byte) = bytes.get_mut(place(*at)) {
                    *byte ^= bits;
                }
            }
            Self::Remove(at, more) => drop(bytes.drain(range(*at, *more))),
            Self::Repeat(at, more) => {
                let again = bytes[range(*at, *more)].to_vec();
                let at = place(*at);
                bytes.splice(at..at, again);
            }
        }
    }
}

/// A call as it travels, with parameters that are refused or change nothing.
fn call() -> impl Strategy<Value = Vec<u8>> {
    let flag = || option::weighted(0.2, value());
    let wrong = option::weighted(0.5, (key(), value()));
    let parts = (select(templates()), wrong, flag(), flag(), flag());
    parts.prop_map(|((method, mut parameters), wrong, oneway, more, upgrade)| {
        if let (Some((key, value)), Value::Object(fields)) = (wrong, &mut parameters) {
            fields.insert(key, value);
        }
        let mut call = json!({"method": method, "parameters": parameters});
        for (name, flag) in [("oneway", oneway), ("more", more), ("upgrade", upgrade)] {
            if let Some(flag) = flag {
                call[name] = flag;
            }
        }
        let mut bytes = call.to_string().into_bytes();
        bytes.push(0);
        bytes
    })
}

/// Calls that change nothing, whatever is put in place of one of their parameters: either the service
/// or the instance is nobody's, or the verb only looks.
fn templates() -> Vec<(&'static str, Value)> {
    vec![
        ("io.reuseportd.Status", json!({})),
        ("io.reuseportd.Status", json!({"service": "game"})),
        ("io.reuseportd.Register", json!({"service": "game"})),
        (
            "io.reuseportd.Register",
            json!({"service": "game", "pid": 0, "label": "x"}),
        ),
        (
            "io.reuseportd.Register",
            json!({"service": "nope", "pid": 4_294_967_295_u32}),
        ),
        (
            "io.reuseportd.Migrate",
            json!({"service": "game", "to": "nobody", "drain": "kernel"}),
        ),
        (
            "io.reuseportd.Migrate",
            json!({"service": "game", "to_pid": 0, "retire": "signal:TERM"}),
        ),
        ("io.reuseportd.Rollback", json!({"service": "game"})),
        (
            "io.reuseportd.Release",
            json!({"service": "game", "label": "nobody"}),
        ),
        (
            "io.reuseportd.AddService",
            json!({"name": "nope", "listen": ["1.2.3.4"]}),
        ),
        (
            "io.reuseportd.AddService",
            json!({"name": "nope", "listen": [], "slots": 0}),
        ),
        ("io.reuseportd.RemoveService", json!({"service": "nope"})),
        ("io.reuseportd.MigrateReq", json!({"netns": "/dev/null"})),
        ("io.reuseportd.Nothing", json!({"service": "game"})),
        ("io.nobody.Status", json!({})),
        ("Status", json!({})),
        ("org.varlink.service.GetInfo", json!({})),
        (
            "org.varlink.service.GetInterfaceDescription",
            json!({"interface": "io.reuseportd"}),
        ),
        (
            "org.varlink.service.GetInterfaceDescription",
            json!({"interface": "io.nobody"}),
        ),
    ]
}

/// Names of parameters, but for those by which an unlucky value could change something.
fn key() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "pid",
        "dry_run",
        "drain_timeout_ms",
        "wait_sessions_ms",
        "user",
        "slots",
        "parameters",
    ];
    prop_oneof![
        4 => select(KNOWN).prop_map(ToOwned::to_owned),
        1 => ".{0,12}".prop_filter("names somebody", |it| it != "set"),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        20 => Just(Value::Null),
        20 => any::<bool>().prop_map(Value::from),
        // Pids that nobody has.
        20 => (5_000_000..u64::MAX).prop_map(Value::from),
        20 => (i64::MIN..=0).prop_map(Value::from),
        20 => any::<f64>().prop_map(Value::from),
        20 => ".{0,40}".prop_map(Value::from),
        1 => (0..70_000_usize).prop_map(|length| Value::from("y".repeat(length))),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((".{0,4}", inner), 0..4).prop_map(|it| it.into_iter().collect()),
        ]
    })
}

/// JSON that is deeper than any reader should follow.
fn nested() -> impl Strategy<Value = Vec<u8>> {
    let depth = prop_oneof![100..200_usize, 1000..32_000_usize];
    (depth, any::<bool>()).prop_map(|(depth, closed)| {
        let mut text = format!(
            r#"{{"method":"io.reuseportd.Status","parameters":{}"#,
            "[".repeat(depth)
        );
        if closed {
            text.push_str(&"]".repeat(depth));
            text.push('}');
        }
        text.push('\0');
        text.into_bytes()
    })
}
