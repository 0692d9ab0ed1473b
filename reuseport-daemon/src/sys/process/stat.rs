//! `/proc/PID/stat`.
//! <https://elixir.bootlin.com/linux/v6.18/source/Documentation/filesystems/proc.rst>

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::{Errno, read as read_into, retry_on_intr},
};

use super::ProcessError;

/// What this program reads of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Field 4: the parent's pid.
    pub(super) parent: u32,
    /// Field 22: clock ticks after boot.
    pub(super) start_time: u64,
}

/// Reads the file of whichever process `pid` names at this moment.
pub(super) fn read(pid: u32) -> Result<Stat, ProcessError> {
    const CALL: &str = "/proc/PID/stat";
    let fault = |error| match error {
        // Before or while reading.
        Errno::NOENT | Errno::SRCH => ProcessError::NoProcess(pid),
        other => ProcessError::new(pid, CALL, other),
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(CWD, format!("/proc/{pid}/stat"), flags, Mode::empty()).map_err(fault)?;
    // 52 numbers and a name of at most 64 bytes; the kernel makes the text in one piece.
    let mut text = [0; 2048];
    let length = retry_on_intr(|| read_into(&file, &mut text)).map_err(fault)?;
    parse(&text[..length]).ok_or_else(|| fault(Errno::ILSEQ))
}

/// The name, in parentheses, is whatever the process likes: spaces, parentheses, digits, no UTF-8.
/// No field after it has a parenthesis.
fn parse(text: &[u8]) -> Option<Stat> {
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(&text[name_end + 1..]).ok()?;
    let mut fields = fields.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &[u8] = b" S 41 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 2 3 4 5\n";
    const EXPECTED: Stat = Stat {
        parent: 41,
        start_time: 987_654,
    };

    #[test]
    fn a_name_cannot_disturb_the_fields() {
        for name in [
            &b"cat"[..],
            b"a b c",
            b") S 1 1",
            b"(((",
            b"x) R 7 (y",
            b"",
            b"\xff\xfe)",
            b"a\nb",
        ] {
            let text = [b"42 (", name, b")", REST].concat();
            assert_eq!(parse(&text), Some(EXPECTED), "{name:?}");
        }
    }

    #[test]
    fn a_torn_line_is_refused() {
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"42 (cat"), None);
        assert_eq!(parse(b"42 (cat) S 41 42"), None);
        assert_eq!(parse(b"42 (cat) S x 42"), None);
    }

    #[test]
    fn this_process_is_its_parents_child() {
        let stat = read(std::process::id()).expect("stat");
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(matches!(read(0), Err(ProcessError::NoProcess(0))));
    }
}
