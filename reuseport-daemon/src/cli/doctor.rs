//! `doctor`.

use std::path::Path;

use clap::Args;

use super::{
    error::{CliError, Explained},
    output::Output,
    render,
};
use crate::{
    api::{
        client::Client,
        exit_code,
        wire::{Doctor, Finding, ServiceFilter},
    },
    daemon::examine_machine,
    domain::ServiceName,
};

/// Where a daemon pins unless its command line says otherwise.
const BPFFS: &str = "/sys/fs/bpf";

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The service [default: every one that you may see]
    service: Option<ServiceName>,
}

pub(super) async fn run(
    args: DoctorArgs,
    client: &mut Client,
    output: &mut Output<'_>,
) -> Result<u8, CliError> {
    let parameters = ServiceFilter {
        service: args.service.as_ref().map(ToString::to_string),
    };
    let doctor: Doctor = client.call("Doctor", &parameters, Vec::new()).await?;
    output.result(&doctor, render::doctor)?;
    Ok(exit_code::of_doctor(&doctor))
}

/// Without a daemon: what can be found out of the machine by this process itself.
pub(super) fn alone(
    args: &DoctorArgs,
    error: &CliError,
    output: &mut Output<'_>,
) -> Result<u8, CliError> {
    let mut doctor = examine_machine(Path::new(BPFFS));
    doctor
        .findings
        .insert(0, unreachable(args.service.as_ref(), error.explain()));
    output.result(&doctor, render::doctor)?;
    Ok(exit_code::UNREACHABLE)
}

fn unreachable(service: Option<&ServiceName>, explained: Explained) -> Finding {
    let without = match service {
        None => "what follows was found with your own privileges, and says nothing of services",
        Some(_) => {
            "what follows was found with your own privileges, and says nothing of the service"
        }
    };
    Finding {
        subject: "reuseportd".to_owned(),
        level: "error".to_owned(),
        message: format!("{}; {without}", explained.message),
        hint: explained.hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::client::ClientError;

    #[test]
    fn a_daemon_that_cannot_be_reached_comes_first_and_says_why() {
        let absent = ClientError::Absent {
            path: "/nowhere".into(),
            source: std::io::Error::from_raw_os_error(libc::ENOENT),
        };
        let args = DoctorArgs {
            service: "game".parse().ok(),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut output = Output::new(&mut out, &mut err);
        output.set_style(crate::cli::output::Style::Json);
        let code = alone(&args, &absent.into(), &mut output).expect("written");
        assert_eq!(code, exit_code::UNREACHABLE);
        let doctor: Doctor = serde_json::from_slice(&out).expect("one object");
        let first = &doctor.findings[0];
        assert_eq!(first.subject, "reuseportd");
        assert_eq!(first.level, "error");
        assert!(first.message.contains("no socket at /nowhere"), "{first:?}");
        assert!(doctor.findings.len() > 1);
        assert!(err.is_empty());
    }
}
