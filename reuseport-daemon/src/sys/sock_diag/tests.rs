use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use rustix::{
    net::sockopt::socket_cookie,
    thread::{CapabilitySet, capabilities, set_capabilities},
};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::{domain::Key, sys::listen_options::set_raw};

const V4: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("an address").port()
}

fn cookie(socket: impl AsFd) -> SocketCookie {
    SocketCookie(socket_cookie(socket).expect("a cookie"))
}

fn inode(socket: impl AsFd) -> u32 {
    let inode = rustix::fs::fstat(socket).expect("fstat").st_ino;
    u32::try_from(inode).expect("a socket's inode")
}

/// A packet may take another moment where the machine is busy.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

fn row_of(diag: &SockDiag, listener: &TcpListener) -> ListenerRow {
    let rows = diag.listeners(Some(port(listener))).expect("listeners");
    rows.into_iter()
        .find(|row| row.cookie == cookie(listener))
        .expect("the listener")
}

#[test]
fn a_listener_shows_itself_and_its_queue() {
    let listener = TcpListener::bind(V4).expect("bind");
    let diag = SockDiag::open().expect("open");
    let row = row_of(&diag, &listener);
    let address = Address::plain(listener.local_addr().expect("an address"));
    assert_eq!(row.address, address);
    assert_eq!(row.inode, inode(&listener));
    assert_eq!(row.uid, rustix::process::geteuid().as_raw());
    assert_eq!(row.accept_queue, 0);
    assert!(row.backlog > 0);

    let _client = TcpStream::connect(address.socket).expect("connect");
    eventually("a full queue", || {
        row_of(&diag, &listener).accept_queue == 1
    });
    let _accepted = listener.accept().expect("accept");
    assert_eq!(row_of(&diag, &listener).accept_queue, 0);

    let all = diag.listeners(None).expect("listeners");
    assert!(all.contains(&row));
    let other = port(&listener).wrapping_add(1);
    let others = diag.listeners(Some(other)).expect("listeners");
    assert!(others.iter().all(|row| row.address.socket.port() == other));
}

#[test]
fn the_reader_works_from_any_thread() {
    let diag = SockDiag::open().expect("open");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let listener = TcpListener::bind(V4).expect("bind");
                for _ in 0..50 {
                    row_of(&diag, &listener);
                }
            });
        }
    });
}

#[test]
fn v6only_and_the_device_belong_to_the_address() {
    let diag = SockDiag::open().expect("open");
    let has_ipv6 = Socket::new(Domain::IPV6, Type::STREAM, None).is_ok();
    for v6only in [true, false].into_iter().filter(|_| has_ipv6) {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
        socket.set_only_v6(v6only).expect("v6only");
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        socket.bind(&any.into()).expect("bind");
        socket.listen(1).expect("listen");
        let listener = TcpListener::from(socket);
        let address = row_of(&diag, &listener).address;
        assert_eq!(address.v6only, v6only);
        assert!(address.socket.is_ipv6());
        assert_eq!(address.device, None);
    }

    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::from(V4).into()).expect("bind");
    if socket.bind_device(Some(b"lo")).is_ok() {
        socket.listen(1).expect("listen");
        let address = row_of(&diag, &TcpListener::from(socket)).address;
        assert_eq!(address.device.as_deref(), Some("lo"));
    }
}

#[test]
fn more_listeners_than_one_datagram_holds_are_all_there() {
    let first = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    first.set_reuse_port(true).expect("SO_REUSEPORT");
    first.bind(&SocketAddr::from(V4).into()).expect("bind");
    first.listen(1).expect("listen");
    let address = first.local_addr().expect("an address");
    let mut expected = vec![cookie(&first)];
    let mut open = vec![first];
    for _ in 0..150 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.set_reuse_port(true).expect("SO_REUSEPORT");
        socket.bind(&address).expect("bind");
        socket.listen(1).expect("listen");
        expected.push(cookie(&socket));
        open.push(socket);
    }
    expected.sort_unstable();
    let port = address.as_socket().expect("an address").port();
    let diag = SockDiag::open().expect("open");
    let rows = diag.listeners(Some(port)).expect("listeners");
    let found: Vec<_> = rows.iter().map(|row| row.cookie).collect();
    assert_eq!(found, expected);
}

/// Clients whose handshake stays half-open: the kernel drops the client's bare ACK and waits for
/// its first bytes.
#[expect(unsafe_code, reason = "no crate here has TCP_DEFER_ACCEPT")]
fn defer_accept(listener: &TcpListener) {
    let seconds: libc::c_int = 60;
    // SAFETY: the pointer and the length are those of a live integer, which the call only reads.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            libc::socklen_t::try_from(size_of_val(&seconds)).expect("small"),
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

#[test]
fn half_open_handshakes_are_seen_until_they_end() {
    /// More than the first datagram holds, and fewer than the backlog lets through.
    const HALF_OPEN: usize = 90;
    let diag = SockDiag::open().expect("open");
    // A dual-stack listener where there is IPv6: its handshakes come as mapped addresses.
    let listeners = [
        TcpListener::bind(V4).ok(),
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).ok(),
    ];
    for listener in listeners.iter().flatten() {
        defer_accept(listener);
        let port = port(listener);
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut expected = HashSet::new();
        let mut clients = Vec::new();
        for _ in 0..HALF_OPEN {
            let client = TcpStream::connect(server).expect("connect");
            expected.insert((server, client.local_addr().expect("an address")));
            clients.push(client);
        }
        let handshakes = diag.handshakes(port).expect("handshakes");
        assert_eq!(addresses(&handshakes), expected);
        let half_open = |handshake: &&Handshake| diag.is_half_open(handshake).expect("a state");
        assert_eq!(handshakes.iter().filter(half_open).count(), HALF_OPEN);
        assert_eq!(diag.sessions(port).expect("sessions"), Sessions::default());

        let mut client = clients.pop().expect("a client");
        let finished = (server, client.local_addr().expect("an address"));
        expected.remove(&finished);
        io::Write::write_all(&mut client, b"x").expect("write");
        eventually("an established connection", || {
            diag.sessions(port).expect("sessions").unaccepted.len() == 1
        });
        let remaining = diag.handshakes(port).expect("handshakes");
        assert_eq!(addresses(&remaining), expected);
        let asked: HashSet<_> = handshakes.iter().filter(half_open).copied().collect();
        assert_eq!(asked, remaining);

        drop(listener.accept().expect("accept"));
        drop(client);
        let other = handshakes
            .difference(&remaining)
            .next()
            .expect("the finished one");
        assert!(!diag.is_half_open(other).expect("a state"));
    }
}

fn addresses(handshakes: &HashSet<Handshake>) -> HashSet<(SocketAddr, SocketAddr)> {
    handshakes
        .iter()
        .map(|handshake| (handshake.local, handshake.remote))
        .collect()
}

#[test]
fn sessions_are_what_a_process_holds() {
    let listener = TcpListener::bind(V4).expect("bind");
    let port = port(&listener);
    let diag = SockDiag::open().expect("open");
    let server = listener.local_addr().expect("an address");
    let clients: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(server).expect("connect"))
        .collect();
    eventually("three in the queue", || {
        diag.sessions(port).expect("sessions").unaccepted.len() == 3
    });

    let held = listener.accept().expect("accept").0;
    let half_closed = listener.accept().expect("accept").0;
    half_closed
        .shutdown(std::net::Shutdown::Write)
        .expect("shutdown");
    let sessions = diag.sessions(port).expect("sessions");
    let mut expected = [inode(&held), inode(&half_closed)];
    expected.sort_unstable();
    assert_eq!(sessions.inodes, expected);
    assert_eq!(sessions.unaccepted.len(), 1);

    drop(held);
    let sessions = diag.sessions(port).expect("sessions");
    assert_eq!(sessions.inodes, [inode(&half_closed)]);

    // The client may be the first to close; the session goes on.
    let last = listener.accept().expect("accept").0;
    drop(clients);
    assert!(
        diag.sessions(port)
            .expect("sessions")
            .inodes
            .contains(&inode(&last))
    );
}

#[test]
fn sessions_are_told_by_place_however_many_are_asked_for() {
    let listeners = [
        TcpListener::bind(V4).ok(),
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).ok(),
    ];
    let mut places = BTreeSet::new();
    let mut expected = BTreeMap::new();
    let mut open = Vec::new();
    for listener in listeners.iter().flatten() {
        let address = listener.local_addr().expect("an address");
        let (ipv6, port) = (address.is_ipv6(), address.port());
        // Over IPv4 to both; one that nobody accepts is no session.
        for _ in 0..3 {
            open.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect"));
        }
        let held = [0; 2].map(|_| listener.accept().expect("accept").0);
        let mut inodes: Vec<u32> = held.iter().map(inode).collect();
        inodes.sort_unstable();
        places.insert(Place { ipv6, port });
        expected.insert(Place { ipv6, port }, inodes);
        open.extend(held);
    }
    let diag = SockDiag::open().expect("open");
    assert_eq!(diag.sessions_at(&places).expect("sessions"), expected);
    // Where nobody listens, so many that the kernel is asked for all there is.
    places.extend((1..20).map(|port| Place { ipv6: false, port }));
    assert_eq!(diag.sessions_at(&places).expect("sessions"), expected);
}

/// A listener with a key for `10.9.8.0/24`, which every kernel before it was left out could take.
fn signed() -> Option<TcpListener> {
    const TCP_MD5SIG_EXT: i32 = 32;
    let listener = TcpListener::bind(V4).expect("bind");
    let mut option = vec![0; 216];
    option[..2].copy_from_slice(&2_u16.to_ne_bytes());
    option[4..7].copy_from_slice(&[10, 9, 8]);
    // A prefix, of 24 bits, and a key of 6 bytes.
    option[128..130].copy_from_slice(&[1, 24]);
    option[130..132].copy_from_slice(&6_u16.to_ne_bytes());
    option[136..142].copy_from_slice(b"secret");
    let set = set_raw(listener.as_fd(), 6, TCP_MD5SIG_EXT, &option);
    set.is_ok().then_some(listener)
}

#[test]
fn signing_keys_are_told_to_who_may_see_them() {
    let Some(signed) = signed() else {
        return; // A kernel without TCP_MD5SIG.
    };
    let keys_of = |listener: &TcpListener| {
        let diag = SockDiag::open().expect("open");
        let mut keys = diag.md5_keys(port(listener)).expect("keys");
        keys.remove(&cookie(listener)).expect("the listener")
    };
    let plain = TcpListener::bind(V4).expect("bind");
    if let Some(keys) = keys_of(&signed) {
        let expected = Key {
            peer: "10.9.8.0/24".to_owned(),
            rest: b"secret".to_vec(),
        };
        assert_eq!(keys, [expected].into());
        assert_eq!(keys_of(&plain), Some([].into()));
    }

    // Capabilities are a thread's own.
    let told = std::thread::spawn(move || {
        let mut ours = capabilities(None).expect("capabilities");
        ours.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, ours).expect("fewer capabilities");
        (keys_of(&signed), keys_of(&plain))
    });
    assert_eq!(told.join().expect("thread"), (None, None));
}
