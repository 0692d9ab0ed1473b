//! Events as entries of systemd's journal, in its own protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! The text of an entry has everything, as on a terminal, and its fields have it once more, so that
//! `journalctl -u reuseportd` can be read and `journalctl REUSEPORTD_SERVICE=game` finds what is
//! about one service. `tracing-journald` leaves the values out of the text, where what failed and
//! why is; lines with `<N>` before them would leave out the fields.

use std::{
    fmt::{self, Write as _},
    io,
    os::unix::net::UnixDatagram,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// What the names of our own fields begin with.
const PREFIX: &str = "REUSEPORTD_";

/// Writes events to the journal.
#[derive(Debug)]
pub(super) struct Journal(UnixDatagram);

/// An event on its way.
#[derive(Debug, Default)]
struct Entry {
    message: String,
    /// What stands behind the message in the text.
    values: String,
    fields: Vec<u8>,
}

impl Journal {
    /// Fails where no journal listens.
    pub(super) fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // The driver must not wait for the journal.
        socket.set_nonblocking(true)?;
        // It drops an entry without fields.
        socket.send_to(&[], SOCKET)?;
        Ok(Self(socket))
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        // By its path, since the journal may have been started anew. Nobody is there to be told.
        let _ = self.0.send_to(&entry.finish(event), SOCKET);
    }
}

impl Entry {
    fn finish(mut self, event: &Event<'_>) -> Vec<u8> {
        let text = std::mem::take(&mut self.message) + &self.values;
        let priority = match *event.metadata().level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        self.put("MESSAGE", &text);
        self.put("PRIORITY", priority);
        self.put("SYSLOG_IDENTIFIER", "reuseportd");
        self.put("TARGET", event.metadata().target());
        self.fields
    }

    /// With its length before it, since it may have more lines than one.
    fn put(&mut self, name: &str, value: &str) {
        self.fields.extend_from_slice(name.as_bytes());
        self.fields.push(b'\n');
        let length = value.len() as u64;
        self.fields.extend_from_slice(&length.to_le_bytes());
        self.fields.extend_from_slice(value.as_bytes());
        self.fields.push(b'\n');
    }

    fn take(&mut self, field: &Field, value: &str) {
        let name = field.name();
        if name == "message" {
            value.clone_into(&mut self.message);
            return;
        }
        // Into a string, which takes everything.
        let _ = write!(self.values, " {name}={value}");
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        self.put(&(PREFIX.to_owned() + &name.to_ascii_uppercase()), value);
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    use tracing::warn;
    use tracing_subscriber::{Registry, layer::SubscriberExt};

    use super::*;

    /// Keeps what would be sent.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let mut entry = Entry::default();
            event.record(&mut entry);
            *self.0.lock().expect("kept") = entry.finish(event);
        }
    }

    /// Reads an entry the way the journal does.
    fn parse(mut entry: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !entry.is_empty() {
            let name_end = entry.iter().position(|it| *it == b'\n').expect("a name");
            let (name, rest) = entry.split_at(name_end);
            let (length, rest) = rest[1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
            let (value, rest) = rest.split_at(usize::try_from(length).expect("a length"));
            assert_eq!(rest[0], b'\n');
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
            fields.insert(text(name), text(value));
            entry = &rest[1..];
        }
        fields
    }

    #[test]
    fn text_and_fields_have_the_same() {
        let kept = Kept::default();
        let subscriber = Registry::default().with(kept.clone());
        tracing::subscriber::with_default(subscriber, || {
            warn!(service = %"game", error = "two\nlines", pid = 17, "it is so");
        });
        let fields = parse(&kept.0.lock().expect("kept"));
        let expected = [
            ("MESSAGE", "it is so service=game error=two\nlines pid=17"),
            ("PRIORITY", "4"),
            ("REUSEPORTD_SERVICE", "game"),
            ("REUSEPORTD_ERROR", "two\nlines"),
            ("REUSEPORTD_PID", "17"),
            ("SYSLOG_IDENTIFIER", "reuseportd"),
            ("TARGET", module_path!()),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields, BTreeMap::from(expected));
    }
}
