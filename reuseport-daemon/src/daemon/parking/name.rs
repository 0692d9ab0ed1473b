//! What a parking listener is called in the service manager's keeping: `parking.SERVICE.COOKIE`.

use crate::domain::{ServiceName, SocketCookie};

/// What comes before the service's name and the cookie, of which neither has a dot.
const PREFIX: &str = "parking";

/// The name under which a listener is kept.
pub(super) fn name_of(service: &ServiceName, cookie: SocketCookie) -> String {
    format!("{PREFIX}.{service}.{cookie}")
}

/// The service and the socket that a name is of, if it is such a name.
pub(super) fn parse(name: &str) -> Option<(ServiceName, SocketCookie)> {
    let (prefix, rest) = name.split_once('.')?;
    let (service, cookie) = rest.split_once('.')?;
    let cookie = cookie.parse().ok().map(SocketCookie)?;
    (prefix == PREFIX).then_some((service.parse().ok()?, cookie))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is() {
        let service: ServiceName = "game-1_a".parse().expect("a name");
        let name = name_of(&service, SocketCookie(4711));
        assert_eq!(name, "parking.game-1_a.4711");
        assert_eq!(parse(&name), Some((service, SocketCookie(4711))));
        for name in [
            "",
            "parking",
            "parking.game",
            "parking..1",
            "parking.game.x",
            "parking.game.1.2",
            "probe.game.1",
            "parking.-.1",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
