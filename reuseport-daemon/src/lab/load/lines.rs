//! What `examples/game.py` speaks.

use super::judgement::Judgement;
use crate::lab::wire::{After, Request, RequestId, Tag};

/// A move, or the last one.
pub(super) fn request(request: Request) -> Vec<u8> {
    let id = request.id;
    match request.after {
        After::Close => format!("LAST {id}\n"),
        After::KeepOpen => format!("MOVE {id}\n"),
    }
    .into_bytes()
}

/// Whether this is the one answer to the request `id`, and of whom: label, id, and how many moves the
/// session has made.
pub(super) fn judge(bytes: &[u8], id: RequestId) -> Judgement {
    match bytes.split_last() {
        Some((b'\n', line)) => label(line, id).map_or(Judgement::Wrong, Judgement::Right),
        Some(_) if bytes.contains(&b'\n') => Judgement::Wrong,
        Some(_) | None => Judgement::Incomplete,
    }
}

fn label(line: &[u8], id: RequestId) -> Option<Tag> {
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let (label, answered, moves) = (words.next()?, words.next()?, words.next()?);
    let moves: u64 = moves.parse().ok()?;
    let right = answered == id.to_string() && moves > 0 && words.next().is_none();
    right.then(|| label.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RequestId = RequestId(0x2a);

    fn judged(text: &str) -> Judgement {
        judge(text.as_bytes(), ID)
    }

    #[test]
    fn a_request_says_what_follows() {
        let with = |after| String::from_utf8(request(Request { id: ID, after })).expect("text");
        assert_eq!(with(After::Close), "LAST 0x2a\n");
        assert_eq!(with(After::KeepOpen), "MOVE 0x2a\n");
    }

    #[test]
    fn an_answer_is_one_line() {
        let right = "v1 0x2a 7\n";
        for end in 0..right.len() {
            assert_eq!(judged(&right[..end]), Judgement::Incomplete, "{end}");
        }
        assert_eq!(
            judged(right),
            Judgement::Right("v1".parse().expect("label"))
        );
        for wrong in [
            "v1 0x2b 7\n",
            "v1 0x2a 0\n",
            "v1 0x2a x\n",
            "v1 0x2a 7 8\n",
            "?! 0x2a 7\n",
            "v1 0x2a\n",
            "v1 0x2a 7\nv1",
            "v1 0x2a 7\nv1 0x2a 8\n",
        ] {
            assert_eq!(judged(wrong), Judgement::Wrong, "{wrong:?}");
        }
    }
}
