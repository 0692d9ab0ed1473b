//! Which sockets of a process, or of those it passed, are a service's listeners.

use std::collections::{BTreeMap, BTreeSet};

use super::{Address, Definition, ListenerFault, Refusal, SocketCookie, Uid};

/// A listening TCP socket of the service's network namespace, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which socket it is.
    pub cookie: SocketCookie,
    /// Where it listens.
    pub address: Address,
    /// Who owns it.
    pub owner: Uid,
    /// Whether `SO_REUSEPORT` is set.
    pub reuseport: bool,
}

/// A listener that is fit for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Index of the group.
    pub group: usize,
    /// The listener.
    pub cookie: SocketCookie,
}

/// Checks the listeners that a process has at a service's addresses: every address must have one,
/// and all that are there must be fit. What it listens on `elsewhere` is its own business.
///
/// # Errors
///
/// [`Refusal::NotListening`], or [`Refusal::Listener`] with what is wrong.
pub fn of_process(
    definition: &Definition,
    pid: u32,
    found: &[Found],
    elsewhere: &[Address],
) -> Result<Vec<Placed>, Refusal> {
    let placed = place(definition, found)?;
    match uncovered(definition, &placed) {
        None => Ok(placed),
        Some(address) => {
            let covered = found.iter().map(|it| &it.address);
            Err(Refusal::NotListening {
                pid,
                address: address.clone(),
                found: nearest(address, covered.chain(elsewhere)),
            })
        }
    }
}

/// Checks the listeners that a process passed: every one must be the service's.
///
/// # Errors
///
/// [`Refusal::NotPassed`], or [`Refusal::Listener`] with what is wrong.
pub fn of_passed(definition: &Definition, found: &[Found]) -> Result<Vec<Placed>, Refusal> {
    let placed = place(definition, found)?;
    match uncovered(definition, &placed) {
        None => Ok(placed),
        Some(address) => Err(Refusal::NotPassed(address.clone())),
    }
}

/// A refusal over a descriptor that is meant for `address`, or for the service as a whole.
#[must_use]
pub fn unfit(definition: &Definition, address: Option<&Address>, fault: ListenerFault) -> Refusal {
    let address = address.or_else(|| definition.addresses.first());
    match address {
        Some(address) => Refusal::Listener {
            address: address.clone(),
            fault,
        },
        None => Refusal::Addresses("the service has no address"),
    }
}

fn place(definition: &Definition, found: &[Found]) -> Result<Vec<Placed>, Refusal> {
    let mut placed: BTreeMap<SocketCookie, Placed> = BTreeMap::new();
    for listener in found {
        let Some(group) = definition
            .addresses
            .iter()
            .position(|it| *it == listener.address)
        else {
            let fault = ListenerFault::OtherAddress(listener.address.clone());
            return Err(unfit(definition, None, fault));
        };
        check(definition, listener)?;
        let cookie = listener.cookie;
        placed.insert(cookie, Placed { group, cookie });
    }
    Ok(placed.into_values().collect())
}

fn check(definition: &Definition, listener: &Found) -> Result<(), Refusal> {
    let fault = if !listener.reuseport {
        ListenerFault::NoReuseport
    } else if listener.owner != definition.owner {
        ListenerFault::OtherOwner {
            found: listener.owner,
            expected: definition.owner,
        }
    } else {
        return Ok(());
    };
    Err(unfit(definition, Some(&listener.address), fault))
}

fn uncovered<'a>(definition: &'a Definition, placed: &[Placed]) -> Option<&'a Address> {
    definition
        .addresses
        .iter()
        .enumerate()
        .find(|(group, _)| !placed.iter().any(|it| it.group == *group))
        .map(|(_, address)| address)
}

/// What to tell of a process that does not listen where it should: its listeners on the same port,
/// or else all of them, each address once.
fn nearest<'a>(address: &Address, found: impl Iterator<Item = &'a Address>) -> Vec<Address> {
    let all: BTreeSet<&Address> = found.collect();
    let same_port: Vec<Address> = all
        .iter()
        .filter(|it| it.socket.port() == address.socket.port())
        .map(|it| (*it).clone())
        .collect();
    if same_port.is_empty() {
        all.into_iter().cloned().collect()
    } else {
        same_port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(listen: &[&str]) -> Definition {
        Definition {
            name: "game".parse().expect("name"),
            addresses: listen
                .iter()
                .map(|it| it.parse().expect("address"))
                .collect(),
            owner: Uid(7),
            netns: None,
            slots: 16,
            park_timeout: None,
            instances: None,
        }
    }

    fn found(cookie: u64, address: &str) -> Found {
        Found {
            cookie: SocketCookie(cookie),
            address: address.parse().expect("address"),
            owner: Uid(7),
            reuseport: true,
        }
    }

    #[test]
    fn every_address_needs_a_listener_and_others_are_ignored() {
        let game = definition(&["127.0.0.1:80", "[::]:80,v6only"]);
        let all = [
            found(1, "127.0.0.1:80"),
            found(3, "[::]:80,v6only"),
            found(4, "127.0.0.1:80"),
        ];
        let elsewhere = ["127.0.0.1:9999".parse().expect("address")];
        let placed = of_process(&game, 1, &all, &elsewhere).expect("fit");
        let pairs: Vec<(usize, u64)> = placed.iter().map(|it| (it.group, it.cookie.0)).collect();
        assert_eq!(pairs, [(0, 1), (1, 3), (0, 4)]);

        let refusal = of_process(&game, 5, &all[..1], &elsewhere).expect_err("no IPv6");
        assert_eq!(refusal.code(), "not-listening-there");
        assert!(refusal.to_string().ends_with("but on 127.0.0.1:80"));
        let refusal = of_process(&game, 5, &[], &elsewhere).expect_err("other port");
        assert!(refusal.to_string().ends_with("but on 127.0.0.1:9999"));
    }

    #[test]
    fn a_dual_stack_socket_is_not_an_ipv6_only_one() {
        let game = definition(&["[::]:80"]);
        let elsewhere = ["[::]:80,v6only".parse().expect("address")];
        let refusal = of_process(&game, 5, &[], &elsewhere).expect_err("other group");
        assert!(refusal.hint().expect("hint").contains("'[::]:80,v6only'"));
    }

    #[test]
    fn unfit_listeners_are_refused_with_the_reason() {
        let game = definition(&["127.0.0.1:80"]);
        let mut alone = found(1, "127.0.0.1:80");
        alone.reuseport = false;
        let mut foreign = found(1, "127.0.0.1:80");
        foreign.owner = Uid(8);
        for check in [
            |d: &Definition, f: &Found| of_process(d, 1, std::slice::from_ref(f), &[]),
            |d: &Definition, f: &Found| of_passed(d, std::slice::from_ref(f)),
        ] {
            assert_eq!(
                check(&game, &alone).expect_err("alone").code(),
                "no-reuseport"
            );
            assert_eq!(
                check(&game, &foreign).expect_err("foreign").code(),
                "other-owner"
            );
        }
        assert_eq!(
            of_passed(&game, &[found(1, "127.0.0.1:81")])
                .expect_err("port")
                .code(),
            "other-address"
        );
        assert_eq!(
            of_passed(&game, &[]).expect_err("none").code(),
            "not-passed"
        );
    }

    #[test]
    fn a_socket_that_is_passed_twice_counts_once() {
        let game = definition(&["127.0.0.1:80"]);
        let twice = [found(1, "127.0.0.1:80"), found(1, "127.0.0.1:80")];
        assert_eq!(of_passed(&game, &twice).expect("fit").len(), 1);
    }
}
