//! The lab itself: that its load, its link and its servers do what the scenarios take for granted,
//! and that its ledger sees every loss there is.

mod lab {
    pub(super) mod clean;
    pub(super) mod left_out;
    pub(super) mod load;
    pub(super) mod loss;
    pub(super) mod setup;
}

use std::process::ExitCode;

use lab::left_out;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use reuseport_tests::machine::Need;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Rates and losses are those of the whole machine: one at a time.
    arguments.test_threads = Some(1);
    let trials = vec![
        trial("loopback_churn", lab::load::loopback_churn),
        trial("packets_ignored", lab::load::packets_ignored),
        trial("link_churn", lab::load::link_churn),
        trial("every_acceptor", lab::load::every_acceptor),
        trial("both_families", lab::load::both_families),
        trial("dual_stack", lab::load::dual_stack),
        trial("lossy_link", lab::load::lossy_link),
        trial("fast_open_and_deferred", lab::load::fast_open_and_deferred),
        trial("sessions_stay", lab::load::sessions_stay),
        trial("filtered_handshakes", lab::load::filtered_handshakes),
        trial("close_loses_on_loopback", lab::loss::close_loopback),
        trial("close_loses_on_a_link", lab::loss::close_link),
        trial("drain_close_loses_on_a_link", lab::loss::drain_close_link),
        trial("shutdown_from_outside", lab::loss::shutdown_from_outside),
        trial("nobody_listens", lab::loss::nobody_listens),
        trial("left_out::grace_period", left_out::grace::grace),
        trial("left_out::snapshot", left_out::snapshot::snapshot),
        trial("left_out::accept_queue", left_out::queued::accept_queue),
        trial("left_out::process_dies", left_out::queued::process_dies),
        moving("left_out::queue_is_moved", left_out::queued::queue_is_moved),
        moving(
            "left_out::process_dies_moved",
            left_out::queued::process_dies_moved,
        ),
        moving("left_out::nobody_is_left", left_out::queued::nobody_is_left),
        trial("left_out::program_stays", left_out::daemon::program_stays),
        trial("left_out::program_goes", left_out::daemon::program_goes),
        trial(
            "left_out::patient_clients",
            left_out::overflow::patient_clients,
        ),
        trial(
            "left_out::impatient_clients",
            left_out::overflow::impatient_clients,
        ),
        trial("nothing_left_behind", lab::clean::nothing_left_behind),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: &str, test: fn() -> anyhow::Result<()>) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| Failed::from(format!("{error:#}")))
    })
}

/// One for kernels that move a closing listener's connections.
fn moving(name: &str, test: fn() -> anyhow::Result<()>) -> Trial {
    let run = move || match Need::Migration.unmet()? {
        Some(why) => Ok(Completion::ignored_with(why)),
        None => test().map(|()| Completion::Completed),
    };
    Trial::ignorable_test(name, move || {
        run().map_err(|error: anyhow::Error| Failed::from(format!("{error:#}")))
    })
}
