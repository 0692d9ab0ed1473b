//! The daemon accepts in the old server's place, and hands over: also where the old server hangs,
//! and whatever becomes of those that receive.

pub(crate) mod receivers;
pub(crate) mod troubles;

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::MigrationResult,
    lab::{
        fixture::Fixture,
        server::{Acceptor, Options},
    },
};
use reuseport_tests::{
    ctl::{Ctl, last_line},
    held::Stopped,
    stage::{SERVICE, Stage, v4},
};

/// A server that receives.
pub(super) fn receiving(stage: &Stage, options: Options) -> Options {
    Options {
        receive: Some(SERVICE.to_owned()),
        control: Some(stage.home().socket()),
        ..options
    }
}

/// The instance that serves, and that hangs.
struct Old {
    server: Fixture,
}

impl Old {
    fn start(stage: &Stage, acceptor: Acceptor) -> Result<Self> {
        let options = Options {
            acceptor,
            ..v4("v1")
        };
        let server = stage.instance(&options)?;
        Ok(Self { server })
    }

    fn stop(&self) -> Result<Stopped<'_>> {
        Stopped::stop(&self.server)
    }

    /// It goes on, and finds nothing to do: its queue was empty, and it has served nobody.
    fn ends_without_work(self) -> Result<()> {
        let counts = self.server.exit()?;
        ensure!(counts.accepted == 0, "{counts:?}");
        Ok(())
    }
}

/// Hands over to an instance; it must end well.
fn hand_over(stage: &Stage, to: &str) -> Result<MigrationResult> {
    migrate(stage, &format!("--to {to}"), "done", 0)
}

/// Hands over as `arguments` say; it must end that way.
fn migrate(stage: &Stage, arguments: &str, outcome: &str, code: i32) -> Result<MigrationResult> {
    let line = format!("--json migrate {SERVICE} --drain handoff {arguments}");
    let ran = Ctl::of(stage.home())?.run(&line)?;
    let result: MigrationResult =
        serde_json::from_value(last_line(&ran.out)?).with_context(|| format!("{ran:?}"))?;
    ensure!(ran.code == code && result.outcome == outcome, "{ran:?}");
    Ok(result)
}
