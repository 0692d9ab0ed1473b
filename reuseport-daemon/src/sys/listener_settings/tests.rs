use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::sys::listen_options::{set_defer_accept, set_fast_open, set_raw};

fn socket(domain: Domain) -> Socket {
    Socket::new(domain, Type::STREAM, None).expect("socket")
}

fn listening(socket: &Socket, address: impl Into<SocketAddr>) {
    let address: SocketAddr = address.into();
    socket.bind(&address.into()).expect("bind");
    socket.listen(5).expect("listen");
}

fn save_syn(socket: &Socket) {
    let on = 1_i32.to_ne_bytes();
    set_raw(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, &on).expect("set");
}

/// What changing one setting changes.
fn changed(domain: Domain, change: impl FnOnce(&Socket)) -> Vec<(Setting, Value)> {
    let address: SocketAddr = match domain {
        Domain::IPV6 => (Ipv6Addr::LOCALHOST, 0).into(),
        _ => (Ipv4Addr::LOCALHOST, 0).into(),
    };
    let (plain, other) = (socket(domain), socket(domain));
    listening(&plain, address);
    change(&other);
    listening(&other, address);
    let before = read(plain.as_fd());
    let after = read(other.as_fd());
    assert_eq!(before.len(), THROUGH_A_DUPLICATE.len());
    let differ = after.into_iter().filter(|(it, value)| before[it] != *value);
    differ.collect()
}

#[test]
fn each_setting_is_read_for_itself() {
    let is = |setting, number| vec![(setting, Value::Number(number))];
    let v4 = Domain::IPV4;
    assert_eq!(changed(v4, |_| {}), vec![]);
    let read = changed(v4, save_syn);
    assert_eq!(read, is(Setting::TcpSaveSyn, 1));
    let read = changed(v4, |it| set_fast_open(it.as_fd(), 3).expect("set"));
    assert_eq!(read, is(Setting::TcpFastopen, 3));
    let read = changed(v4, |it| set_defer_accept(it.as_fd(), 1).expect("set"));
    assert_eq!(read, is(Setting::TcpDeferAccept, 1));
    let read = changed(v4, |it| it.set_freebind_v4(true).expect("set"));
    assert_eq!(read, is(Setting::IpFreebind, 1));
    let read = changed(v4, |it| it.set_tcp_mss(1_000).expect("set"));
    assert_eq!(read, is(Setting::TcpMaxseg, 1_000));
    let read = changed(v4, |it| it.set_cpu_affinity(0).expect("set"));
    assert_eq!(read, is(Setting::SoIncomingCpu, 0));
    // The kernel doubles what it is told.
    let read = changed(v4, |it| it.set_recv_buffer_size(8_192).expect("set"));
    assert_eq!(read, is(Setting::SoRcvbuf, 16_384));
    let read = changed(v4, |it| it.set_send_buffer_size(40_000).expect("set"));
    assert_eq!(read, is(Setting::SoSndbuf, 80_000));
    // Every kernel has it, and lets everybody choose it.
    let read = changed(v4, |it| {
        it.set_tcp_congestion(b"reno").expect("set");
    });
    assert_eq!(
        read,
        [(Setting::TcpCongestion, Value::Name("reno".to_owned()))]
    );
}

#[test]
fn the_flags_of_both_families_go_by_one_name() {
    let Ok(_) = Socket::new(Domain::IPV6, Type::STREAM, None) else {
        return; // A kernel without IPv6.
    };
    let read = changed(Domain::IPV6, |it| it.set_freebind_v6(true).expect("set"));
    assert_eq!(read, [(Setting::IpFreebind, Value::Number(1))]);
    for (domain, transparent) in [(Domain::IPV4, false), (Domain::IPV6, true)] {
        let mut permitted = true;
        let read = changed(domain, |it| {
            permitted = if transparent {
                it.set_ip_transparent_v6(true).is_ok()
            } else {
                it.set_ip_transparent_v4(true).is_ok()
            };
        });
        // It takes CAP_NET_ADMIN.
        if permitted {
            assert_eq!(read, [(Setting::IpTransparent, Value::Number(1))]);
        }
    }
}

#[test]
fn a_mark_is_read_where_it_can_be_set() {
    let mut permitted = true;
    let read = changed(Domain::IPV4, |it| permitted = it.set_mark(7).is_ok());
    // It takes CAP_NET_ADMIN.
    if permitted {
        assert_eq!(read, [(Setting::SoMark, Value::Number(7))]);
    }
}

#[test]
fn what_is_not_set_says_so() {
    let socket = socket(Domain::IPV4);
    listening(&socket, (Ipv4Addr::LOCALHOST, 0));
    let settings = read(socket.as_fd());
    assert_eq!(settings[&Setting::TcpUlp], Value::Name(String::new()));
    let authentication = &settings[&Setting::TcpAo];
    // The kernel has it from 6.7 on, if it is built with it.
    assert!(
        matches!(authentication, Value::Absent)
            || *authentication == Value::Keys(std::collections::BTreeSet::new()),
        "{authentication}"
    );
}

#[test]
fn what_is_no_socket_cannot_be_read() {
    let file = std::fs::File::open("/proc/self/stat").expect("open");
    let settings = read(file.as_fd());
    let unreadable = |value: &Value| matches!(value, Value::Unreadable(_));
    assert!(settings.values().all(unreadable), "{settings:?}");
}
