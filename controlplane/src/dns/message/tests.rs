use hickory_proto::rr::Name;
use proptest::prelude::*;

use super::*;
use crate::dns::respond;
use crate::dns::testing::{many, name, options};

/// A question with an id, by a client that takes so much.
fn question(text: &str, kind: RecordType, takes: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name(text), kind));
    if let Some(takes) = takes {
        let mut edns = Edns::new();
        edns.set_max_payload(takes);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

/// How many bytes a message has, those behind it not counted.
fn read_length(bytes: &[u8]) -> usize {
    let mut decoder = BinDecoder::new(bytes);
    Message::read(&mut decoder).unwrap();
    decoder.index()
}

fn refusal(bytes: &[u8]) -> Option<ResponseCode> {
    match read(bytes, Transport::Udp) {
        Incoming::Refused(written, code) => {
            assert_eq!(written[..2], bytes[..2], "the id");
            Some(code)
        }
        _ => None,
    }
}

#[test]
fn what_is_no_question_is_refused_by_its_kind_or_dropped() {
    let good = question("web.default.svc.cluster.local", RecordType::A, None);
    assert!(matches!(read(&good, Transport::Udp), Incoming::Asked(_)));
    let with = |place: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[place] = value;
        bytes
    };
    assert!(
        matches!(read(&with(2, 0x80), Transport::Udp), Incoming::Garbage),
        "a response"
    );
    assert!(
        matches!(read(&good[..11], Transport::Udp), Incoming::Garbage),
        "no header"
    );
    assert_eq!(
        refusal(&with(2, 0x28)),
        Some(ResponseCode::NotImp),
        "an update"
    );
    assert_eq!(
        refusal(&with(5, 0)),
        Some(ResponseCode::FormErr),
        "no question"
    );
    assert_eq!(
        refusal(&with(4, 0xff)),
        Some(ResponseCode::FormErr),
        "many questions"
    );
    assert_eq!(
        refusal(&good[..20]),
        Some(ResponseCode::FormErr),
        "half a question"
    );
    assert_eq!(
        refusal(&with(12, 0xc0)),
        Some(ResponseCode::FormErr),
        "a name in a circle"
    );
    let class = good.len() - 1;
    assert_eq!(
        refusal(&with(class, 3)),
        Some(ResponseCode::Refused),
        "class CH"
    );
}

#[test]
fn a_version_of_edns_that_nobody_knows_is_refused() {
    let mut bytes = question("a", RecordType::A, Some(1232));
    let version = bytes.len() - 5;
    bytes[version] = 1;
    assert_eq!(refusal(&bytes), Some(ResponseCode::BADVERS));
    let Incoming::Refused(written, _) = read(&bytes, Transport::Udp) else {
        panic!("refused");
    };
    let answer = Message::from_vec(&written).unwrap();
    assert_eq!(u16::from(answer.response_code), 16);
}

#[test]
fn an_answer_is_as_long_as_the_client_takes_and_says_when_a_record_is_missing() {
    let (zone, options) = (many(200), options());
    let name = "many.default.svc.cluster.local";
    let mut seen = Vec::new();
    for (takes, transport) in [
        (Some(100), Transport::Udp),
        (None, Transport::Udp),
        (Some(900), Transport::Udp),
        (Some(4096), Transport::Udp),
        (None, Transport::Tcp),
    ] {
        let bytes = question(name, RecordType::A, takes);
        let respond::Response::Ready(ready) =
            respond::respond(&bytes, transport, &zone, &options, 0)
        else {
            panic!("it is in the zone");
        };
        let answer = Message::from_vec(&ready.bytes).unwrap();
        assert_eq!(answer.edns.is_some(), takes.is_some());
        assert_eq!(answer.truncation, answer.answers.len() < 200);
        seen.push((ready.bytes.len() <= 1232, answer.answers.len()));
        assert_eq!(read_length(&ready.bytes), ready.bytes.len());
        let most = takes.unwrap_or(512).clamp(512, LARGEST_UDP);
        assert!(transport == Transport::Tcp || ready.bytes.len() <= most.into());
    }
    let counts: Vec<usize> = seen.iter().map(|(_, count)| *count).collect();
    assert!(
        counts.is_sorted() && counts[4] == 200 && counts[0] > 20,
        "{counts:?}"
    );
}

#[test]
fn glue_that_does_not_fit_is_left_out_without_a_word() {
    let (zone, options) = (many(7), options());
    let bytes = question("many.default.svc.cluster.local", RecordType::SRV, None);
    let written = crate::dns::respond(&bytes, &zone, &options).unwrap();
    let answer = Message::from_vec(&written).unwrap();
    assert_eq!(answer.answers.len(), 7);
    assert!(!answer.truncation);
    assert!(answer.additionals.len() < 7);
    assert_eq!(read_length(&written), written.len());
}

#[test]
fn the_name_is_given_back_as_it_was_written() {
    let (zone, options) = (many(1), options());
    let bytes = question("MANY.default.svc.Cluster.LOCAL", RecordType::SRV, None);
    let written = crate::dns::respond(&bytes, &zone, &options).unwrap();
    let answer = Message::from_vec(&written).unwrap();
    let owner = &answer.answers[0].name;
    assert!(owner.eq_case(&Name::from_ascii("MANY.default.svc.Cluster.LOCAL.").unwrap()));
    assert_eq!(
        answer.additionals[0].name.to_ascii(),
        "10-0-0-1.many.default.svc.Cluster.LOCAL."
    );
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_dropped(mut bytes in prop::collection::vec(any::<u8>(), 0..200), spoil in any::<bool>(), at in 0..40usize) {
        let (zone, options) = (many(3), options());
        if spoil {
            let good = question("many.default.svc.cluster.local", RecordType::SRV, Some(600));
            let value = bytes.first().copied().unwrap_or_default();
            bytes = good;
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Some(answer) = crate::dns::respond(&bytes, &zone, &options) {
            prop_assert!(answer.len() <= usize::from(LARGEST_UDP));
            prop_assert_eq!(&answer[..2], &bytes[..2]);
            prop_assert!(answer[2] & 0x80 != 0);
        }
    }
}
