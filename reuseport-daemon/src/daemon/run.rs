//! The daemon from its start to its stop.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing::{info, warn};

use super::{
    Config, ConfigError,
    beside::Beside,
    driver::{Driver, Inbox},
    logging::{self, LoggingError},
    migrate_req::Holders,
    parking::{Left, Store},
    probe::Probe,
    watchdog::Watchdog,
};
use crate::{
    api::server::{BindError, Server, ServerError},
    steering::{Loader, Pins, SteeringError},
    sys::{
        bpffs,
        environment::Environment,
        grace::{GraceError, GracePeriod},
        limits,
        netns::{Netns, NetnsError},
        service_manager::ServiceManager,
    },
};

/// How many calls may wait for the driver.
const MAILBOX: usize = 64;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file; the usual one where none is named.
    pub config: Option<PathBuf>,
    /// The control socket.
    pub socket: PathBuf,
    /// The bpffs.
    pub bpffs: PathBuf,
    /// What is logged, in place of what the file says.
    pub log: Option<String>,
}

/// Why the daemon could not start, or not go on.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// The control socket.
    #[error("cannot listen on {path}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: BindError,
    },
    /// The control socket broke.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// No bpffs, and none could be mounted.
    #[error("{path} is not a bpffs and cannot be made one; run: mount -t bpf bpf {path}")]
    Bpffs {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No safe switch is possible.
    #[error("no way to wait out a grace period, so no switch would be safe")]
    Grace(#[from] GraceError),
    /// The daemon's network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Programs, maps or pins.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// A signal handler.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT. Programs, maps and steering stay as they are, and what
/// the service manager keeps stays with it.
///
/// # Errors
///
/// [`RunError`]. A service that cannot be taken up, or not be added yet, is logged, and no reason not
/// to serve the others.
pub async fn run(options: Options, environment: Environment) -> Result<(), RunError> {
    let config = Config::read(options.config.as_deref())?;
    let services = config.services()?;
    logging::start(options.log.as_deref().or(config.log.as_deref()))?;
    // Each group takes eight, four more where it parks, and each service four.
    if let Err(error) = limits::raise_descriptors() {
        warn!(%error, "cannot raise the limit of open descriptors");
    }

    // First, so that a second daemon leaves before it touches anything.
    let server = Server::bind(&options.socket).map_err(|source| RunError::Bind {
        path: options.socket.clone(),
        source,
    })?;
    ensure_bpffs(&options.bpffs).map_err(|source| RunError::Bpffs {
        path: options.bpffs.clone(),
        source,
    })?;
    let store = Arc::new(Store::new(manager(&environment)));
    let (found, finds) = mpsc::unbounded_channel();
    let (events, happened) = mpsc::unbounded_channel();
    let (exits, exited) = mpsc::unbounded_channel();
    let (stopping, stopped) = watch::channel(false);
    let loader = Loader::from_environment(config.bpf_log)?;
    let mut driver = Driver {
        pins: Pins::open(&options.bpffs)?,
        probe: Probe::new(loader.clone()),
        loader,
        grace: GracePeriod::probe()?,
        home: Arc::new(Netns::current()?),
        holders: Arc::new(Holders::new(config.migrate_req)),
        services: BTreeMap::new(),
        runs: BTreeMap::new(),
        run_count: 0,
        left_alone: BTreeMap::new(),
        left: Left::sort(environment.passed, &store),
        store: Arc::clone(&store),
        beside: Beside::new(),
        found,
        events,
        exits,
        stopped,
    };
    let probe = driver.probe.clone();
    driver.beside.run(move || {
        probe.found();
    });
    driver.holders.prepare(&driver.home);
    driver.recover()?;
    for service in services {
        driver.add_configured(service);
    }

    let (calls, mailbox) = mpsc::channel(MAILBOX);
    let (until_ended, ended) = tokio::sync::oneshot::channel::<()>();
    let stop = stop_signal().map_err(RunError::Signals)?;
    let stop = async {
        stop.await;
        stopping.send_replace(true);
    };
    let serve = async {
        let result = server.run(calls, stop).await;
        drop(until_ended);
        result
    };
    store.tell("READY=1");
    info!(socket = %options.socket.display(), services = driver.services.len(), "ready");
    let until_served = async {
        // Dropped, not sent: either way the server has ended, and has had its answers.
        let _ = ended.await;
    };
    let watchdog = Watchdog::new(environment.watchdog);
    let inbox = Inbox {
        calls: mailbox,
        found: finds,
        events: happened,
        exits: exited,
    };
    let drive = driver.serve(inbox, until_served, watchdog);
    let (result, ()) = tokio::join!(serve, drive);
    store.tell("STOPPING=1");
    store.until_heard();
    info!("stopped; steering goes on as it is");
    Ok(result?)
}

fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Who has started this process, if it is to be told anything.
fn manager(environment: &Environment) -> Option<ServiceManager> {
    let socket = environment.notify.as_ref()?;
    ServiceManager::at(socket)
        .inspect_err(|error| warn!(?socket, %error, "no way to tell the service manager anything"))
        .ok()
}

fn ensure_bpffs(path: &Path) -> io::Result<()> {
    if !path.exists() {
        fs::create_dir_all(path)?;
    }
    if bpffs::is_bpffs(path)? {
        return Ok(());
    }
    bpffs::mount(path)
}
