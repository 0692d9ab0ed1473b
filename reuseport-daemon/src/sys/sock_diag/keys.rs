//! The keys of `TCP_MD5SIG`, which getsockopt(2) does not tell and the socket table does.

use std::{
    collections::{BTreeSet, HashMap},
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use linux_raw_sys::net::tcp_diag_md5sig;
use netlink_packet_core::{DecodeError, NlasIterator};
use netlink_packet_sock_diag::{
    constants::{AF_INET, AF_INET6, INET_DIAG_MARK, INET_DIAG_MD5SIG},
    inet::{ExtensionFlags, InetRequest, StateFlags},
};

use super::{
    SockDiag, SockDiagError,
    channel::Seams,
    rows::{self, FAMILIES, Row, request},
};
use crate::domain::{Key, SocketCookie};

impl SockDiag {
    /// The `TCP_MD5SIG` keys of the listeners on `port`; nothing for one whose keys are kept from
    /// whoever lacks `CAP_NET_ADMIN`.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer, or not properly.
    pub fn md5_keys(
        &self,
        port: u16,
    ) -> Result<HashMap<SocketCookie, Option<BTreeSet<Key>>>, SockDiagError> {
        let mut found = HashMap::new();
        for family in FAMILIES {
            let request = InetRequest {
                extensions: ExtensionFlags::INFO,
                ..request(family, StateFlags::LISTEN, Some(port))
            };
            let mut take = |row: Row<'_>| {
                found.insert(rows::cookie(row.header.socket_id.cookie), keys(&row)?);
                Ok(())
            };
            let mut channel = self.channel();
            // Once more where it had a seam, as for the listeners themselves.
            if channel.dump(&request, &mut take)? == Seams::Some {
                channel.dump(&request, &mut take)?;
            }
        }
        Ok(found)
    }
}

/// The kernel leaves out the keys of a listener that has none, and those that the reader may not
/// see. It tells the two apart by the mark, which comes with every socket that the reader may see
/// all of (`inet_diag_msg_attrs_fill`, `tcp_diag_get_aux`:
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/inet_diag.c>,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/tcp_diag.c>).
fn keys(row: &Row<'_>) -> Result<Option<BTreeSet<Key>>, DecodeError> {
    let mut may_see = false;
    let mut keys = BTreeSet::new();
    for attribute in NlasIterator::new(row.attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            INET_DIAG_MARK => may_see = true,
            INET_DIAG_MD5SIG => {
                let entries = attribute.value().chunks_exact(size_of::<tcp_diag_md5sig>());
                keys.extend(entries.map(key));
            }
            _ => {}
        }
    }
    Ok(may_see.then_some(keys))
}

fn key(entry: &[u8]) -> Key {
    let byte = |offset: usize| entry.get(offset).copied().unwrap_or_default();
    let from = |offset: usize| entry.get(offset..).unwrap_or_default();
    let address = from(offset_of!(tcp_diag_md5sig, tcpm_addr));
    let address: Option<IpAddr> = match byte(offset_of!(tcp_diag_md5sig, tcpm_family)) {
        AF_INET => address
            .first_chunk()
            .map(|it: &[u8; 4]| Ipv4Addr::from(*it).into()),
        AF_INET6 => address
            .first_chunk()
            .map(|it: &[u8; 16]| Ipv6Addr::from(*it).into()),
        _ => None,
    };
    let address = address.map_or_else(|| "anybody".to_owned(), |it| it.to_string());
    let length = from(offset_of!(tcp_diag_md5sig, tcpm_keylen)).first_chunk();
    let length = length.map_or(0, |it| usize::from(u16::from_ne_bytes(*it)));
    let secret = from(offset_of!(tcp_diag_md5sig, tcpm_key));
    Key {
        peer: format!(
            "{address}/{}",
            byte(offset_of!(tcp_diag_md5sig, tcpm_prefixlen))
        ),
        rest: secret.get(..length).unwrap_or(secret).to_vec(),
    }
}
