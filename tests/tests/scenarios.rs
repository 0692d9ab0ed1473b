//! The scenarios: real servers, a real daemon, a ledger. Each has network namespaces of its own.

mod scenarios {
    pub(super) mod budget;
    pub(super) mod churn;
    pub(super) mod handoff;
    pub(super) mod lifecycle;
    pub(super) mod listeners;
    pub(super) mod migrate_req;
    pub(super) mod nginx;
    pub(super) mod parking;
    pub(super) mod refusals;
    pub(super) mod services;
    pub(super) mod sessions;
    pub(super) mod settings;
    pub(super) mod sleepers;
    pub(super) mod upgrade;
}

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use reuseport_tests::machine::Need;
use scenarios::{
    budget, churn,
    handoff::{receivers, troubles},
    lifecycle::{daemon, drains, registering, retire, shapes},
    listeners, migrate_req, nginx, parking, refusals, services, sessions, settings, sleepers,
    upgrade,
};

/// What scenarios need, by how their names begin.
const NEEDS: [(&str, Need); 9] = [
    ("budget::switch", Need::Speed),
    ("lifecycle::drain_by_kernel", Need::Migration),
    ("lifecycle::old_instance_ends", Need::Migration),
    ("lifecycle::python", Need::Program("python3")),
    ("migrate_req::", Need::Migration),
    ("nginx::", Need::Program("nginx")),
    ("parking::", Need::Migration),
    ("refusals::", Need::Program("setpriv")),
    ("sleepers::", Need::Migration),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Rates, queues and counters are those of the whole machine: one at a time.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials()).exit_code()
}

#[expect(clippy::too_many_lines, reason = "it is a list")]
fn trials() -> Vec<Trial> {
    vec![
        trial("churn::loopback_500", churn::loopback_500),
        trial("churn::link_100", churn::link_100),
        trial("churn::ten_thousand", churn::ten_thousand),
        trial("handoff::rust", receivers::rust),
        trial("handoff::python", receivers::python),
        trial("handoff::every_acceptor", receivers::every_acceptor),
        trial("handoff::churn", receivers::churn),
        trial(
            "handoff::killed_beside_another",
            troubles::killed_beside_another,
        ),
        trial("handoff::killed_alone", troubles::killed_alone),
        trial(
            "handoff::nobody_acknowledges",
            troubles::nobody_acknowledges,
        ),
        trial("handoff::acknowledgements", troubles::acknowledgements),
        trial("handoff::daemon_stopped", troubles::daemon_stopped),
        trial("handoff::daemon_killed", troubles::daemon_killed),
        trial("handoff::rolled_back", troubles::rolled_back),
        trial("handoff::service_removed", troubles::service_removed),
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
        trial("upgrade::under_churn", upgrade::under_churn),
        trial("upgrade::during_a_migration", upgrade::during_a_migration),
        trial(
            "sleepers::moved_by_the_kernel_alone",
            sleepers::moved_by_the_kernel_alone,
        ),
        trial(
            "sleepers::woken_by_a_migration",
            sleepers::woken_by_a_migration,
        ),
        trial("sleepers::woken_after_a_kill", sleepers::woken_after_a_kill),
        trial(
            "sleepers::a_hanging_server_is_told_of",
            sleepers::a_hanging_server_is_told_of,
        ),
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
    .into_iter()
    .chain(parking_trials())
    .collect()
}

fn parking_trials() -> Vec<Trial> {
    vec![
        trial("parking::killed_on_loopback", parking::killed_on_loopback),
        trial("parking::killed_on_a_link", parking::killed_on_a_link),
        trial(
            "parking::killed_with_a_full_queue",
            parking::killed_with_a_full_queue,
        ),
        trial("parking::closed_on_loopback", parking::closed_on_loopback),
        trial("parking::closed_on_a_link", parking::closed_on_a_link),
        trial("parking::closed_and_alive", parking::closed_and_alive),
        trial("parking::heir", parking::heir),
        trial(
            "parking::before_the_first_instance",
            parking::before_the_first_instance,
        ),
        trial(
            "parking::one_of_eight_listeners_is_left",
            parking::one_of_eight_listeners_is_left,
        ),
        trial("parking::ipv6", parking::shapes::ipv6),
        trial("parking::dual_stack", parking::shapes::dual_stack),
        trial("parking::two_addresses", parking::shapes::two_addresses),
        trial("parking::eight_workers", parking::shapes::eight_workers),
        trial("parking::another_user", parking::shapes::another_user),
        trial(
            "parking::added_or_unsupported",
            parking::commands::added_or_unsupported,
        ),
        trial("parking::refused", parking::commands::refused),
        trial("parking::timed_out", parking::commands::timed_out),
        trial(
            "parking::daemon_restarted",
            parking::commands::daemon_restarted,
        ),
        trial(
            "parking::daemon_stopped_meanwhile",
            parking::commands::daemon_stopped_meanwhile,
        ),
        trial(
            "parking::set_as_the_server_is",
            parking::commands::set_as_the_server_is,
        ),
        trial("parking::nginx_quit_20", parking::nginx::quit_20),
        trial("parking::nginx_quit_without", parking::nginx::quit_without),
        trial("parking::nginx_killed_20", parking::nginx::killed_20),
    ]
}

fn trial(name: &str, test: fn() -> Result<()>) -> Trial {
    let needs = NEEDS.iter().filter(|(begin, _)| name.starts_with(begin));
    let needs: Vec<Need> = needs.map(|(_, need)| *need).collect();
    Trial::ignorable_test(name, move || {
        run(&needs, test).map_err(|error| Failed::from(format!("{error:#}")))
    })
}

fn run(needs: &[Need], test: fn() -> Result<()>) -> Result<Completion> {
    for need in needs {
        if let Some(why) = need.unmet()? {
            return Ok(Completion::ignored_with(why));
        }
    }
    test()?;
    Ok(Completion::Completed)
}
