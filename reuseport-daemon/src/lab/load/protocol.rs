//! What a load can speak.

use super::{http, judgement::Judgement, lines};
use crate::lab::wire::{ANSWER_LEN, Answer, Request, RequestId};

/// The most bytes that a right answer has, in any protocol.
pub(super) const LONGEST_ANSWER: usize = 1024;

/// What a load speaks with its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The lab's own, of [`wire`](crate::lab::wire).
    Lab,
    /// HTTP: `GET /ID`. A server answers with status 200, the length of the body, and in the body
    /// the path, a space and its label. Clients of one request ask in HTTP/1.0, so that the server
    /// closes; sessions ask in HTTP/1.1.
    Http,
    /// That of `examples/game.py`.
    Lines,
}

impl Protocol {
    /// A request as it goes over the wire.
    pub(super) fn request(self, request: Request) -> Vec<u8> {
        match self {
            Self::Lab => request.encode().to_vec(),
            Self::Http => http::request(request),
            Self::Lines => lines::request(request),
        }
    }

    /// Judges what has come in answer to the request `id`.
    pub(super) fn judge(self, bytes: &[u8], id: RequestId) -> Judgement {
        match self {
            Self::Lab => lab(bytes, id),
            Self::Http => http::judge(bytes, id),
            Self::Lines => lines::judge(bytes, id),
        }
    }
}

fn lab(bytes: &[u8], id: RequestId) -> Judgement {
    if bytes.len() < ANSWER_LEN {
        return Judgement::Incomplete;
    }
    <&[u8; ANSWER_LEN]>::try_from(bytes)
        .ok()
        .and_then(Answer::decode)
        .filter(|answer| answer.id == id)
        .map_or(Judgement::Wrong, |answer| Judgement::Right(answer.tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_lab_is_whole_and_alone() {
        let tag = "v1".parse().expect("label");
        let id = RequestId(7);
        let answer = Answer { id, tag }.encode();
        let judge = |bytes: &[u8], id| Protocol::Lab.judge(bytes, id);
        assert_eq!(judge(&answer, id), Judgement::Right(tag));
        assert_eq!(judge(&answer, RequestId(8)), Judgement::Wrong);
        assert_eq!(judge(&answer[1..], id), Judgement::Incomplete);
        assert_eq!(judge(&[&answer[..], b"x"].concat(), id), Judgement::Wrong);
    }
}
