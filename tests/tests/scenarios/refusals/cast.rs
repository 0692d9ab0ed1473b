//! The servers and services that the table is about, one for each way to be wrong.

use std::{
    fs,
    net::SocketAddr,
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use anyhow::Result;
use reuseport_daemon::{
    lab::{fixture::Fixture, process::Process, server::Options},
    sys::netns::Netns,
};
use reuseport_tests::{
    ctl::Ctl,
    held::until_state,
    people::{NOBODY, server_as, server_in},
    sockets::{Made, tcp},
    stage::{DEADLINE, PORT, Stage, listening, v4},
};
use rustix::process::Signal;

/// Everybody who appears in the table.
pub(super) struct Cast {
    /// A pid that was a process's.
    pub(super) dead: u32,
    /// Of service `alone`: without `SO_REUSEPORT`.
    pub(super) alone: Fixture,
    /// Of service `foreign`, which is root's: another user's server.
    pub(super) foreign: Fixture,
    /// Of service `owned`, which is another user's: root's server.
    pub(super) owned: Fixture,
    /// Of service `six`, which is IPv6 alone: IPv4.
    pub(super) four: Fixture,
    /// Of the same: dual stack.
    pub(super) both: Fixture,
    /// Of service `dual`, which is dual stack: IPv6 alone.
    pub(super) six_only: Fixture,
    /// Of service `small`, whose only slot is taken: one more.
    pub(super) too_many: Fixture,
    /// Of service `shared`: holds the listener that another process has registered.
    pub(super) sharer: Process,
    /// Of service `held`: `h1`, which serves, and `h2`.
    pub(super) held: [Fixture; 2],
    /// Of no service, and at the address of `held`.
    pub(super) late: Fixture,
    /// Of service `game`: at another port.
    pub(super) other_port: Fixture,
    /// Of service `game`: at another address.
    pub(super) other_address: Fixture,
    /// Of service `game`: in another network namespace.
    pub(super) elsewhere: Fixture,
    /// Of service `game`: nobody knows it yet.
    pub(super) new: Fixture,
    /// The instance that serves `game`.
    pub(super) serving: u32,
    /// Another network namespace.
    pub(super) other_netns: Netns,
    /// A control socket whose daemon talks nonsense.
    pub(super) nonsense: PathBuf,
    _taken: Fixture,
    _first: Process,
}

/// Where clients reach the service `held`.
pub(super) fn held_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7810))
}

impl Cast {
    pub(super) fn gather(stage: &Stage) -> Result<Self> {
        let ctl = Ctl::of(stage.home())?;
        let netns = stage.world.server();
        for service in [
            "alone --listen 0.0.0.0:7801",
            "foreign --listen 0.0.0.0:7802",
            "owned --listen 0.0.0.0:7803 --user 65534",
            "six --listen [::]:7804,v6only",
            "dual --listen [::]:7805",
            "small --listen 0.0.0.0:7806 --slots 2",
            "shared --listen 0.0.0.0:7807",
            "gone --listen 0.0.0.0:7808",
            "held --listen 0.0.0.0:7810",
            "pair --listen 0.0.0.0:7811 --listen [::]:7811,v6only",
            "late --listen 0.0.0.0:7812",
            "lone --listen 0.0.0.0:7813",
        ] {
            ctl.done(&format!("service add {service}"))?;
        }
        // Not empty, so that nothing can be renamed over it.
        fs::create_dir_all(stage.home().bpffs().join("reuseportd/clash/theirs"))?;
        let server = |listen: &str| server_in(netns, &listening("x", &[listen]));
        let instance = |service: &str, label: &str, listen: &str| -> Result<Fixture> {
            let server = server(listen)?;
            stage.daemon().register(service, server.pid(), label)?;
            Ok(server)
        };
        let other_netns = Netns::create()?;
        let (first, sharer) = sharing(stage)?;
        Ok(Self {
            dead: dead_of_service(stage)?,
            alone: server_in(netns, &alone(&listening("x", &["0.0.0.0:7801"])))?,
            foreign: server_as(NOBODY, netns, &listening("x", &["0.0.0.0:7802"]))?,
            owned: server("0.0.0.0:7803")?,
            four: server("0.0.0.0:7804")?,
            both: server("[::]:7804")?,
            six_only: server("[::]:7805,v6only")?,
            _taken: instance("small", "s1", "0.0.0.0:7806")?,
            too_many: server("0.0.0.0:7806")?,
            _first: first,
            sharer,
            held: [
                instance("held", "h1", "0.0.0.0:7810")?,
                instance("held", "h2", "0.0.0.0:7810")?,
            ],
            late: server("0.0.0.0:7810")?,
            other_port: server("0.0.0.0:7809")?,
            // Not the address that the clients go to, which it would take away.
            other_address: server(&format!("127.0.0.2:{PORT}"))?,
            elsewhere: server_in(&other_netns, &v4("x"))?,
            new: server_in(netns, &v4("x"))?,
            serving: stage.status()?.instances[0].pid,
            other_netns,
            nonsense: talking_nonsense(stage)?,
        })
    }
}

fn alone(options: &Options) -> Options {
    Options {
        without_reuse_port: true,
        ..options.clone()
    }
}

/// The only instance of service `gone`, after its end.
fn dead_of_service(stage: &Stage) -> Result<u32> {
    let server = server_in(stage.world.server(), &listening("x", &["0.0.0.0:7808"]))?;
    let pid = server.pid();
    stage.daemon().register("gone", pid, "g1")?;
    server.signal(Signal::KILL)?;
    drop(server);
    until_state(stage, "gone", "g1", "gone")?;
    Ok(pid)
}

/// Two processes with one listener, the first of which is registered.
fn sharing(stage: &Stage) -> Result<(Process, Process)> {
    let netns = stage.world.server();
    let listener = tcp(
        netns,
        SocketAddr::from(([0, 0, 0, 0], 7807)),
        Made::Listening,
    )?;
    let holder = || -> Result<Process> {
        let mut command = Command::new("cat");
        command.stderr(Stdio::from(listener.try_clone()?));
        Ok(Process::start(netns, command)?)
    };
    let (first, second) = (holder()?, holder()?);
    stage.daemon().register("shared", first.pid(), "one")?;
    Ok((first, second))
}

/// A listener that answers every connection with the same line, whatever it is asked.
fn talking_nonsense(stage: &Stage) -> Result<PathBuf> {
    use std::io::Write;
    let path = stage.home().socket().with_file_name("nonsense");
    let listener = UnixListener::bind(&path)?;
    thread::spawn(move || {
        // It ends with the test.
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.set_write_timeout(Some(DEADLINE));
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n\0");
        }
    });
    Ok(path)
}
