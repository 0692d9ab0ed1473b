//! The scenarios: real servers, a real daemon, a ledger. Each has network namespaces of its own.

mod scenarios {
    pub(super) mod budget;
    pub(super) mod churn;
    pub(super) mod configured;
    pub(super) mod exhaustion;
    pub(super) mod features;
    pub(super) mod fuzz;
    pub(super) mod handoff;
    pub(super) mod killed;
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
    pub(super) mod units;
    pub(super) mod upgrade;
}

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use reuseport_tests::machine::Need;
use scenarios::{
    budget, churn, configured, exhaustion, features, fuzz, handoff, killed, lifecycle, listeners,
    migrate_req, nginx, parking, refusals, services, sessions, settings, sleepers, units, upgrade,
};

/// What scenarios need, by how their names begin.
const NEEDS: [(&str, Need); 26] = [
    ("budget::switch", Need::Speed),
    ("churn::kernel_", Need::Migration),
    ("churn::ten_thousand", Need::Speed),
    ("configured::address_comes_later", Need::Migration),
    ("configured::served_meanwhile", Need::Migration),
    ("exhaustion::denied_client", Need::Speed),
    ("handoff::acknowledgements", Need::Program("python3")),
    ("handoff::python", Need::Program("python3")),
    ("killed::migrate_kernel_", Need::Migration),
    ("killed::parking_", Need::Migration),
    // The kernel moves their connections to a server that nobody has registered, and so nobody wakes.
    ("killed::parking_removed", Need::Wakeful),
    ("killed::parking_timed_out", Need::Wakeful),
    ("killed::serving_ends", Need::Migration),
    ("lifecycle::drain_by_kernel", Need::Migration),
    ("lifecycle::heir", Need::Migration),
    ("lifecycle::old_instance_ends", Need::Migration),
    ("lifecycle::python", Need::Program("python3")),
    ("migrate_req::", Need::Migration),
    ("nginx::", Need::Program("nginx")),
    ("parking::", Need::Migration),
    ("parking::removed", Need::Wakeful),
    ("refusals::", Need::Program("setpriv")),
    ("sleepers::", Need::Migration),
    ("units::by_themselves", Need::Migration),
    ("units::refused", Need::Program("setpriv")),
    ("upgrade::while_connections_wait", Need::Migration),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Rates, queues and counters are those of the whole machine: one at a time.
    arguments.test_threads = Some(1);
    let mut trials = trials();
    trials.extend(killed::Operation::ALL.map(kill_points));
    trials.extend(killed::DENIED.map(denials));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A trial for each of these functions: under its family's name and its own, or another one.
macro_rules! trials {
    ($($family:ident: $($module:ident)::+ { $($function:ident $(as $name:ident)?),* $(,)? })*) => {{
        let mut trials = Vec::new();
        $({
            use $($module)::+ as module;
            trials.extend([$(trial(
                concat!(stringify!($family), "::", trials!(@name $function $($name)?)),
                module::$function,
            )),*]);
        })*
        trials
    }};
    (@name $function:ident) => { stringify!($function) };
    (@name $function:ident $name:ident) => { stringify!($name) };
}

fn trials() -> Vec<Trial> {
    trials! {
        churn: churn {
            loopback_500, link_100, kernel_loopback_100, kernel_link_100, ten_thousand,
        }
        exhaustion: exhaustion::bpffs { read_only }
        exhaustion: exhaustion::clients { a_thousand, denied_client, half_a_call, clogged }
        exhaustion: exhaustion::descriptors { one_by_one, turned_away, handoff }
        handoff: handoff::receivers { rust, python, every_acceptor, churn }
        handoff: handoff::troubles {
            killed_beside_another, killed_alone, nobody_acknowledges, acknowledgements,
            daemon_stopped, daemon_killed, rolled_back, service_removed,
        }
        listeners: listeners {
            none_left_to_migrate_to, some_shut_down_before, most_new_ones_close,
        }
        migrate_req: migrate_req {
            by_command, on_for_good, on_during_a_migration, two_services_at_once,
        }
        features: features { parking, drain_by_kernel, examined }
        fuzz: fuzz { control_socket }
        killed: killed { at_random }
        nginx: nginx {
            blue_green_20, blue_green_without, blue_green_v6only, blue_green_dual_stack,
            blue_green_two_addresses, keep_sessions, master_killed, reload,
            reload_with_a_worker_less, reload_with_a_worker_less_without,
        }
        refusals: refusals { leave_no_trace }
        configured: configured {
            netns_comes_later, address_comes_later, served_meanwhile, edited,
        }
        services: services { two_at_once, one_at_a_time }
        settings: settings { refused, refused_v6, warned, examined }
        lifecycle: lifecycle::registering {
            python_passes_its_listener as python, a_passed_listener_is_the_callers as passed,
            who_does_not_serve_gets_nothing as bystanders, twice_is_once,
            a_rehearsal_changes_nothing as dry_run, a_slot_counts_anew as slot_counts,
        }
        lifecycle: lifecycle::shapes { one_worker, eight_workers }
        lifecycle: lifecycle::retire {
            keep as retire_keep, shutdown as retire_shutdown, signal as retire_signal,
        }
        lifecycle: lifecycle::drains {
            rollback, by_kernel as drain_by_kernel, new_instance_ends, new_instance_listens_no_more,
            old_instance_ends, timeout as drain_timeout,
        }
        lifecycle: lifecycle::daemon {
            restart, absence, second as second_daemon, heir, closed_heir, removal,
        }
        units: units { by_name, by_themselves, refused as refused_by_name }
        upgrade: upgrade { under_churn, during_a_migration, while_connections_wait }
        sleepers: sleepers {
            moved_by_the_kernel_alone, woken_by_a_migration, woken_after_a_kill,
            a_hanging_server_is_told_of,
        }
        budget: budget { idle, switch }
        sessions: sessions {
            end_one_by_one, outlive_the_deadline, end_with_their_server, outlive_the_daemon,
            the_caller_is_killed, another_migration_meanwhile,
        }
        parking: parking {
            killed_on_loopback, killed_on_a_link, killed_with_a_full_queue, closed_on_loopback,
            closed_on_a_link, closed_and_alive, heir, before_the_first_instance,
            one_of_eight_listeners_is_left, removed,
        }
        parking: parking::shapes { ipv6, dual_stack, two_addresses, eight_workers, another_user }
        parking: parking::commands {
            refused, timed_out, daemon_restarted, daemon_stopped_meanwhile,
            set_as_the_server_is,
        }
        parking: parking::store {
            kept_before_the_first_instance, kept_while_none_can_be_opened, kept_when_killed,
            kept_when_stopped,
            not_kept_without_a_store, kept_no_longer_than_needed, wrong_ones_are_closed,
            nobody_keeps_them,
        }
        parking: parking::nginx {
            quit_20 as nginx_quit_20, quit_without as nginx_quit_without,
            killed_20 as nginx_killed_20,
        }
    }
}

fn kill_points(operation: killed::Operation) -> Trial {
    let name = format!("killed::{}", operation.name());
    trial(&name, move || killed::at_every_effect(operation))
}

fn denials(operation: killed::Operation) -> Trial {
    let name = format!("exhaustion::denied_{}", operation.name());
    trial_with(&name, vec![Need::Speed], move || {
        killed::denied_at_every_call(operation)
    })
}

fn trial(name: &str, test: impl Fn() -> Result<()> + Send + 'static) -> Trial {
    let needs = NEEDS.iter().filter(|(begin, _)| name.starts_with(begin));
    trial_with(name, needs.map(|(_, need)| *need).collect(), test)
}

fn trial_with(
    name: &str,
    needs: Vec<Need>,
    test: impl Fn() -> Result<()> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || {
        run(&needs, test).map_err(|error| Failed::from(format!("{error:#}")))
    })
}

fn run(needs: &[Need], test: impl Fn() -> Result<()>) -> Result<Completion> {
    for need in needs {
        if let Some(why) = need.unmet()? {
            return Ok(Completion::ignored_with(why));
        }
    }
    test()?;
    Ok(Completion::Completed)
}
