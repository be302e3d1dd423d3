//! From the bytes of a question to those of its answer, as far as nobody else has to be asked.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};

use super::answer::{self, Outcome, Question};
use super::find::Why;
use super::message::{self, Asked, Incoming, Sections, Transport};
use super::options::Options;
use super::zone::Zone;

/// What becomes of a message.
#[derive(Debug)]
pub enum Response {
    /// It is answered.
    Ready(Ready),
    /// Others are to be asked first.
    Open(Box<Open>),
    /// It is dropped.
    Nothing,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The type that was asked for, if the question could be read.
    pub kind: Option<RecordType>,
    /// Its response code.
    pub code: ResponseCode,
    /// Whether who asks the same gets the same, as long as the zone does not change.
    pub lasts: bool,
}

/// A question whose answer, or the rest of it, others know.
#[derive(Debug)]
pub struct Open {
    asked: Asked,
    /// What leads to the rest.
    begun: Vec<Record>,
    /// What they are to be asked.
    pub name: Name,
}

/// What others know.
#[derive(Debug, Default)]
pub struct Known {
    /// Response code.
    pub code: ResponseCode,
    /// Answer section.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authorities: Vec<Record>,
    /// Whether there is more.
    pub truncated: bool,
}

/// Answers a message; `turn` says whose turn it is among equal records.
pub fn respond(
    bytes: &[u8],
    transport: Transport,
    zone: &Zone,
    options: &Options,
    turn: u32,
) -> Response {
    let asked = match message::read(bytes, transport) {
        Incoming::Asked(asked) => asked,
        Incoming::Refused(bytes, code) => {
            return Response::Ready(Ready {
                bytes,
                kind: None,
                code,
                lasts: false,
            });
        }
        Incoming::Garbage => return Response::Nothing,
    };
    let question = Question {
        name: &asked.query.name,
        kind: asked.kind(),
        turn,
        most: asked.most(),
    };
    let answer = match answer::answer(zone, options, question) {
        Outcome::Ours(answer) => answer,
        Outcome::Elsewhere => {
            let name = asked.query.name.clone();
            return Response::Open(Box::new(Open {
                asked,
                begun: Vec::new(),
                name,
            }));
        }
    };
    if let Some(name) = answer.follow {
        let begun = answer.answers;
        return Response::Open(Box::new(Open { asked, begun, name }));
    }
    let sections = Sections {
        code: answer.code,
        answers: &answer.answers,
        authorities: &answer.authorities,
        additionals: &answer.additionals,
        truncated: answer.truncated,
        authoritative: answer.why != Why::Transfer,
        recursive: false,
    };
    Response::Ready(Ready {
        lasts: !answer.turns,
        ..ready(&asked, &sections)
    })
}

/// An empty answer that sends the client of a datagram to TCP.
pub fn shorten(bytes: &[u8]) -> Option<Ready> {
    let Incoming::Asked(asked) = message::read(bytes, Transport::Udp) else {
        return None;
    };
    let sections = Sections {
        truncated: true,
        ..Sections::code(ResponseCode::NoError)
    };
    Some(ready(&asked, &sections))
}

impl Open {
    /// Whether the client wants others to be asked.
    pub fn is_wanted(&self) -> bool {
        self.asked.wants_recursion()
    }

    /// The type that is asked for.
    pub fn kind(&self) -> RecordType {
        self.asked.kind()
    }

    /// The answer when nobody is asked: what is known, or a refusal.
    pub fn refuse(&self) -> Ready {
        let code = match self.begun.is_empty() {
            true => ResponseCode::Refused,
            false => ResponseCode::NoError,
        };
        let sections = Sections {
            answers: &self.begun,
            authoritative: !self.begun.is_empty(),
            ..Sections::code(code)
        };
        ready(&self.asked, &sections)
    }

    /// The answer when those who know do not say.
    pub fn fail(&self) -> Ready {
        let sections = Sections {
            recursive: true,
            ..Sections::code(ResponseCode::ServFail)
        };
        ready(&self.asked, &sections)
    }

    /// The answer with what others know.
    pub fn complete(&self, known: &Known) -> Ready {
        let begun = self.begun.iter().chain(&known.answers);
        let answers: Vec<Record> = begun.cloned().collect();
        ready(
            &self.asked,
            &Sections {
                code: known.code,
                answers: &answers,
                authorities: &known.authorities,
                additionals: &[],
                truncated: known.truncated,
                authoritative: false,
                recursive: true,
            },
        )
    }
}

fn ready(asked: &Asked, sections: &Sections<'_>) -> Ready {
    Ready {
        bytes: asked.answer(sections),
        kind: Some(asked.kind()),
        code: sections.code,
        lasts: false,
    }
}
