//! As much of HTTP as it takes to ask a real server who it is, and to be strict about the answer.

use super::judgement::Judgement;
use crate::lab::wire::{After, Request, RequestId, Tag};

/// `GET /ID`.
pub(super) fn request(request: Request) -> Vec<u8> {
    let id = request.id;
    match request.after {
        After::Close => format!("GET /{id} HTTP/1.0\r\n\r\n"),
        After::KeepOpen => format!("GET /{id} HTTP/1.1\r\nHost: lab\r\n\r\n"),
    }
    .into_bytes()
}

/// Whether this is the one answer to the request `id`, and of whom.
pub(super) fn judge(bytes: &[u8], id: RequestId) -> Judgement {
    const END: &[u8] = b"\r\n\r\n";
    let Some(end) = bytes.windows(END.len()).position(|it| it == END) else {
        return Judgement::Incomplete;
    };
    let body = &bytes[end + END.len()..];
    let Some(length) = str::from_utf8(&bytes[..end]).ok().and_then(length_of_body) else {
        return Judgement::Wrong;
    };
    if body.len() < length {
        return Judgement::Incomplete;
    }
    if body.len() > length {
        return Judgement::Wrong;
    }
    label(body, id).map_or(Judgement::Wrong, Judgement::Right)
}

/// `Content-Length`, of an answer with status 200 that has it exactly once.
fn length_of_body(head: &str) -> Option<usize> {
    let mut lines = head.split("\r\n");
    let mut status = lines.next()?.splitn(3, ' ');
    let version = status.next()?;
    let ok = status.next()? == "200";
    if !ok || !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
        return None;
    }
    let mut lengths = lines
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, value)| value.trim());
    match (lengths.next(), lengths.next()) {
        (Some(length), None) => length.parse().ok(),
        (None | Some(_), _) => None,
    }
}

fn label(body: &[u8], id: RequestId) -> Option<Tag> {
    let (path, label) = str::from_utf8(body).ok()?.split_once(' ')?;
    let answers = path.strip_prefix('/')? == id.to_string();
    answers.then(|| label.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RequestId = RequestId(0x2a);
    const RIGHT: &str = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 8\r\n\r\n/0x2a v1";

    fn judged(text: &str) -> Judgement {
        judge(text.as_bytes(), ID)
    }

    #[test]
    fn a_request_says_what_follows() {
        let with = |after| String::from_utf8(request(Request { id: ID, after })).expect("text");
        assert_eq!(with(After::Close), "GET /0x2a HTTP/1.0\r\n\r\n");
        let session = "GET /0x2a HTTP/1.1\r\nHost: lab\r\n\r\n";
        assert_eq!(with(After::KeepOpen), session);
    }

    #[test]
    fn every_beginning_is_incomplete_and_the_whole_is_right() {
        for end in 0..RIGHT.len() {
            assert_eq!(judged(&RIGHT[..end]), Judgement::Incomplete, "{end}");
        }
        let tag = "v1".parse().expect("label");
        assert_eq!(judged(RIGHT), Judgement::Right(tag));
        let old = RIGHT
            .replace("1.1", "1.0")
            .replace("Content-L", "content-l");
        assert_eq!(judged(&old), Judgement::Right(tag));
    }

    #[test]
    fn anything_else_is_wrong() {
        for (from, to) in [
            ("200", "503"),
            ("HTTP/1.1", "HTTP/2.0"),
            ("HTTP/1.1 200 OK", "200"),
            ("Content-Length: 8", "Content-Length: 7"),
            ("Content-Length: 8", "Content-Length: eight"),
            ("Content-Length: 8\r\n", ""),
            ("Server: x", "Content-Length: 8"),
            ("0x2a", "0x2b"),
            ("/0x2a", "0x2aa"),
            ("v1", "?!"),
            ("/0x2a v1", "/0x2a_v1"),
            (RIGHT, &format!("{RIGHT}\n")),
            (RIGHT, &format!("{RIGHT}{RIGHT}")),
        ] {
            let wrong = RIGHT.replacen(from, to, 1);
            assert_eq!(judged(&wrong), Judgement::Wrong, "{wrong:?}");
        }
    }
}
