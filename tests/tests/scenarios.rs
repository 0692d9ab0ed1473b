//! The scenarios: real servers, a real daemon, a ledger. Each has network namespaces of its own.

mod scenarios {
    pub(super) mod budget;
    pub(super) mod churn;
    pub(super) mod fuzz;
    pub(super) mod killed;
    pub(super) mod lifecycle;
    pub(super) mod listeners;
    pub(super) mod migrate_req;
    pub(super) mod nginx;
    pub(super) mod refusals;
    pub(super) mod services;
    pub(super) mod sessions;
    pub(super) mod settings;
}

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use scenarios::{
    budget, churn, fuzz, killed,
    lifecycle::{daemon, drains, registering, retire, shapes},
    listeners, migrate_req, nginx, refusals, services, sessions, settings,
};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Rates, queues and counters are those of the whole machine: one at a time.
    arguments.test_threads = Some(1);
    let mut trials = trials();
    trials.extend(killed::Operation::ALL.map(kill_points));
    libtest_mimic::run(&arguments, trials).exit_code()
}

#[expect(clippy::too_many_lines, reason = "it is a list")]
fn trials() -> Vec<Trial> {
    vec![
        trial("churn::loopback_500", churn::loopback_500),
        trial("churn::link_100", churn::link_100),
        trial(
            "listeners::none_left_to_migrate_to",
            listeners::none_left_to_migrate_to,
        ),
        trial(
            "listeners::some_shut_down_before",
            listeners::some_shut_down_before,
        ),
        trial("migrate_req::by_command", migrate_req::by_command),
        trial("migrate_req::on_for_good", migrate_req::on_for_good),
        trial(
            "migrate_req::on_during_a_migration",
            migrate_req::on_during_a_migration,
        ),
        trial(
            "migrate_req::two_services_at_once",
            migrate_req::two_services_at_once,
        ),
        trial("fuzz::control_socket", fuzz::control_socket),
        trial("killed::at_random", killed::at_random),
        trial("nginx::blue_green_20", nginx::blue_green_20),
        trial("nginx::blue_green_without", nginx::blue_green_without),
        trial("nginx::blue_green_v6only", nginx::blue_green_v6only),
        trial("nginx::blue_green_dual_stack", nginx::blue_green_dual_stack),
        trial(
            "nginx::blue_green_two_addresses",
            nginx::blue_green_two_addresses,
        ),
        trial("nginx::keep_sessions", nginx::keep_sessions),
        trial("nginx::master_killed", nginx::master_killed),
        trial("nginx::reload", nginx::reload),
        trial(
            "nginx::reload_with_a_worker_less",
            nginx::reload_with_a_worker_less,
        ),
        trial(
            "nginx::reload_with_a_worker_less_without",
            nginx::reload_with_a_worker_less_without,
        ),
        trial("refusals::leave_no_trace", refusals::leave_no_trace),
        trial("services::two_at_once", services::two_at_once),
        trial("services::one_at_a_time", services::one_at_a_time),
        trial("settings::refused", settings::refused),
        trial("settings::refused_v6", settings::refused_v6),
        trial("settings::warned", settings::warned),
        trial("settings::examined", settings::examined),
        trial("lifecycle::python", registering::python_passes_its_listener),
        trial(
            "lifecycle::passed",
            registering::a_passed_listener_is_the_callers,
        ),
        trial(
            "lifecycle::bystanders",
            registering::who_does_not_serve_gets_nothing,
        ),
        trial("lifecycle::twice_is_once", registering::twice_is_once),
        trial(
            "lifecycle::dry_run",
            registering::a_rehearsal_changes_nothing,
        ),
        trial("lifecycle::slot_counts", registering::a_slot_counts_anew),
        trial("lifecycle::one_worker", shapes::one_worker),
        trial("lifecycle::eight_workers", shapes::eight_workers),
        trial("lifecycle::retire_keep", retire::keep),
        trial("lifecycle::retire_shutdown", retire::shutdown),
        trial("lifecycle::retire_signal", retire::signal),
        trial("lifecycle::rollback", drains::rollback),
        trial("lifecycle::drain_by_kernel", drains::by_kernel),
        trial("lifecycle::new_instance_ends", drains::new_instance_ends),
        trial(
            "lifecycle::new_instance_listens_no_more",
            drains::new_instance_listens_no_more,
        ),
        trial("lifecycle::old_instance_ends", drains::old_instance_ends),
        trial("lifecycle::drain_timeout", drains::timeout),
        trial("lifecycle::restart", daemon::restart),
        trial("lifecycle::absence", daemon::absence),
        trial("lifecycle::second_daemon", daemon::second),
        trial("lifecycle::heir", daemon::heir),
        trial("lifecycle::removal", daemon::removal),
        trial("budget::idle", budget::idle),
        trial("budget::switch", budget::switch),
        trial("sessions::end_one_by_one", sessions::end_one_by_one),
        trial(
            "sessions::outlive_the_deadline",
            sessions::outlive_the_deadline,
        ),
        trial(
            "sessions::end_with_their_server",
            sessions::end_with_their_server,
        ),
        trial(
            "sessions::the_caller_is_killed",
            sessions::the_caller_is_killed,
        ),
        trial(
            "sessions::another_migration_meanwhile",
            sessions::another_migration_meanwhile,
        ),
    ]
}

fn kill_points(operation: killed::Operation) -> Trial {
    Trial::test(format!("killed::{}", operation.name()), move || {
        killed::at_every_effect(operation).map_err(|error| Failed::from(format!("{error:#}")))
    })
}

fn trial(name: &str, test: fn() -> Result<()>) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| Failed::from(format!("{error:#}")))
    })
}
