//! TCP-AO (RFC 5925), which Linux has from 6.7 on: which segments a listener wants signed, and with
//! which keys.
//!
//! Both answers are structures of the kernel's that the socket fills in place; they are taken apart
//! as bytes, by the offsets of the kernel's header. `ENOENT` says that nothing is set.
//! <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/tcp_ao.c>

#![expect(unsafe_code, reason = "getsockopt of a list, which nothing wraps")]

use std::{
    collections::BTreeSet,
    ffi::c_int,
    io,
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use linux_raw_sys::net::{TCP_AO_GET_KEYS, TCP_AO_INFO, tcp_ao_getsockopt, tcp_ao_info_opt};

use crate::{domain::Key, sys::listen_options::get};

const KEY: usize = size_of::<tcp_ao_getsockopt>();
const INFO: usize = size_of::<tcp_ao_info_opt>();

/// How many keys are asked for at first.
const FEW: usize = 16;

/// The third bit of `tcp_ao_getsockopt`'s, as the compiler lays them out.
const GET_ALL: u16 = if cfg!(target_endian = "big") {
    1 << 13
} else {
    1 << 2
};

/// `ao_required` and `accept_icmps`, the third and the fifth bit of `tcp_ao_info_opt`'s.
const RULES: u32 = if cfg!(target_endian = "big") {
    (1 << 29) | (1 << 27)
} else {
    (1 << 2) | (1 << 4)
};

/// A listener's keys, and the rules that go with them in place of a key that is for everybody.
pub(super) fn read(listener: BorrowedFd<'_>) -> io::Result<BTreeSet<Key>> {
    let Some(rules) = unless_unset(rules(listener))? else {
        return Ok(BTreeSet::new());
    };
    let mut found = unless_unset(keys(listener))?.unwrap_or_default();
    if rules != 0 {
        found.insert(Key {
            peer: "everybody".to_owned(),
            rest: rules.to_ne_bytes().to_vec(),
        });
    }
    Ok(found)
}

fn unless_unset<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn rules(listener: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = [0; INFO];
    get(listener, option(TCP_AO_INFO), &mut info)?;
    Ok(u32::from_ne_bytes(field(&info, offset_of!(tcp_ao_info_opt, _bitfield_1))) & RULES)
}

fn keys(listener: BorrowedFd<'_>) -> io::Result<BTreeSet<Key>> {
    let mut entries = vec![[0; KEY]; FEW];
    loop {
        let there = fill(listener, &mut entries)?;
        if there <= entries.len() {
            return Ok(entries[..there].iter().map(|it| key(it)).collect());
        }
        entries = vec![[0; KEY]; there];
    }
}

/// Fills `entries` with a listener's keys, as many as there is room for, and tells how many it has.
fn fill(listener: BorrowedFd<'_>, entries: &mut [[u8; KEY]]) -> io::Result<usize> {
    let nkeys = offset_of!(tcp_ao_getsockopt, nkeys);
    let flags = offset_of!(tcp_ao_getsockopt, _bitfield_1);
    let room = u32::try_from(entries.len()).map_err(io::Error::other)?;
    let Some(first) = entries.first_mut() else {
        return Ok(0);
    };
    put(first, nkeys, &room.to_ne_bytes());
    put(first, flags, &GET_ALL.to_ne_bytes());
    let mut length = libc::socklen_t::try_from(KEY).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open. The length is that of one entry, and the kernel writes at most
    // as many of those to `entries` as the first one says: as many as there are. Both places outlive
    // the call.
    let result = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            option(TCP_AO_GET_KEYS),
            entries.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let there = entries.first().map_or([0; 4], |first| field(first, nkeys));
    usize::try_from(u32::from_ne_bytes(there)).map_err(io::Error::other)
}

/// What counts is left out, and so is which key answers are signed with: a listener sends none.
fn key(entry: &[u8]) -> Key {
    let prefix: [u8; 1] = field(entry, offset_of!(tcp_ao_getsockopt, prefix));
    let address = address(entry).map_or_else(|| "anybody".to_owned(), |it| it.to_string());
    let mut rest = Vec::new();
    let algorithm: [u8; 64] = field(entry, offset_of!(tcp_ao_getsockopt, alg_name));
    let secret: [u8; 80] = field(entry, offset_of!(tcp_ao_getsockopt, key));
    rest.extend(algorithm);
    rest.extend(secret);
    for offset in [
        offset_of!(tcp_ao_getsockopt, sndid),
        offset_of!(tcp_ao_getsockopt, rcvid),
        offset_of!(tcp_ao_getsockopt, maclen),
        offset_of!(tcp_ao_getsockopt, keyflags),
        offset_of!(tcp_ao_getsockopt, keylen),
    ] {
        rest.extend(field::<1>(entry, offset));
    }
    rest.extend(field::<4>(entry, offset_of!(tcp_ao_getsockopt, ifindex)));
    Key {
        peer: format!("{address}/{}", prefix[0]),
        rest,
    }
}

/// The address of a `sockaddr_in` or `sockaddr_in6`, which stands first in an entry.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let family = u16::from_ne_bytes(field(entry, 0));
    match c_int::from(family) {
        libc::AF_INET => {
            let address: [u8; 4] = field(entry, offset_of!(libc::sockaddr_in, sin_addr));
            Some(Ipv4Addr::from(address).into())
        }
        libc::AF_INET6 => {
            let address: [u8; 16] = field(entry, offset_of!(libc::sockaddr_in6, sin6_addr));
            Some(Ipv6Addr::from(address).into())
        }
        _ => None,
    }
}

fn option(name: u32) -> c_int {
    name.cast_signed()
}

/// Bytes of a structure; all zero beyond its end.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    field.copied().unwrap_or([0; N])
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(offset..offset + value.len()) {
        field.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use linux_raw_sys::net::tcp_ao_info_opt;

    use super::*;

    fn entry(family: c_int, address_at: usize, address: &[u8], secret: &[u8]) -> Vec<u8> {
        let mut entry = vec![0; KEY];
        let family = u16::try_from(family).expect("a family");
        put(&mut entry, 0, &family.to_ne_bytes());
        put(&mut entry, address_at, address);
        put(&mut entry, offset_of!(tcp_ao_getsockopt, key), secret);
        put(&mut entry, offset_of!(tcp_ao_getsockopt, prefix), &[24]);
        entry
    }

    #[test]
    fn a_key_is_its_peer_and_all_that_makes_it() {
        let at = offset_of!(libc::sockaddr_in, sin_addr);
        let first = entry(libc::AF_INET, at, &[10, 0, 0, 0], b"secret");
        assert_eq!(key(&first).peer, "10.0.0.0/24");
        assert_eq!(key(&first), key(&first.clone()));
        let other = entry(libc::AF_INET, at, &[10, 0, 0, 0], b"hidden");
        assert_ne!(key(&first), key(&other));
        let mut used = first.clone();
        let counter = offset_of!(tcp_ao_getsockopt, pkt_good);
        put(&mut used, counter, &7_u64.to_ne_bytes());
        put(&mut used, offset_of!(tcp_ao_getsockopt, nkeys), &[1]);
        assert_eq!(key(&first), key(&used));

        let at = offset_of!(libc::sockaddr_in6, sin6_addr);
        let over_v6 = entry(libc::AF_INET6, at, &Ipv6Addr::LOCALHOST.octets(), b"");
        assert_eq!(key(&over_v6).peer, "::1/24");
        assert_eq!(key(&entry(0, at, &[], b"")).peer, "anybody/24");
    }

    #[test]
    fn the_bits_are_where_the_kernel_s_header_has_them() {
        let word = tcp_ao_info_opt::new_bitfield_1(0, 0, 1, 0, 1, 0).get(0, 32);
        let wanted = if cfg!(target_endian = "big") {
            u64::from(RULES.reverse_bits())
        } else {
            u64::from(RULES)
        };
        assert_eq!(word, wanted);
        let word = tcp_ao_getsockopt::new_bitfield_1(0, 0, 1, 0).get(0, 16);
        assert_eq!(word, 1 << 2);
    }
}
