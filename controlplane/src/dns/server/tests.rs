use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{RData, RecordType, rdata::A};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::*;
use crate::dns::records::Named;
use crate::dns::testing::{many, name, options};

const LONG: Duration = Duration::from_secs(10);

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn start(settings: Settings) -> Server {
    let shared = Shared::default();
    shared.change(|zone| *zone = many(200));
    Server::start(settings, shared, Clock::start())
        .await
        .unwrap()
}

fn question(text: &str) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), RecordType::A));
    message.to_vec().unwrap()
}

async fn by_udp(server: SocketAddr, bytes: &[u8]) -> Option<Message> {
    let socket = UdpSocket::bind(local()).await.unwrap();
    socket.send_to(bytes, server).await.unwrap();
    let mut buffer = vec![0; 4096];
    let answer = timeout(Duration::from_millis(500), socket.recv(&mut buffer)).await;
    answer
        .ok()
        .map(|length| Message::from_vec(&buffer[..length.unwrap()]).unwrap())
}

async fn by_tcp(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<Message> {
    stream.write_u16(bytes.len() as u16).await?;
    stream.write_all(bytes).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    Ok(Message::from_vec(&buffer).unwrap())
}

#[tokio::test]
async fn what_is_truncated_by_udp_is_whole_by_tcp() {
    let server = start(Settings::new(vec![local()], options())).await;
    let address = server.addresses()[0];
    let bytes = question("many.default.svc.cluster.local");
    let short = by_udp(address, &bytes).await.unwrap();
    assert!(short.truncation && short.answers.len() < 200);
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        let whole = by_tcp(&mut stream, &bytes).await.unwrap();
        assert!(!whole.truncation);
        assert_eq!(whole.answers.len(), 200);
    }
    let elsewhere = by_udp(address, &question("www.example.com")).await.unwrap();
    assert_eq!(elsewhere.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn what_was_answered_before_is_forgotten_when_the_zone_changes() {
    let shared = Shared::default();
    let settings = Settings::new(vec![local()], options());
    let server = Server::start(settings, shared.clone(), Clock::start());
    let server = server.await.unwrap();
    let address = server.addresses()[0];
    let bytes = question("many.default.svc.cluster.local");
    let ask = async || {
        let answer = by_udp(address, &bytes).await.unwrap();
        let addresses = answer.answers.iter().map(|record| record.data.to_string());
        (answer.response_code, addresses.collect::<Vec<_>>())
    };
    for _ in 0..2 {
        assert_eq!(ask().await.0, ResponseCode::ServFail);
    }
    shared.change(Zone::set_synced);
    for _ in 0..2 {
        assert_eq!(ask().await.0, ResponseCode::NXDomain);
    }
    let service = crate::object::NamespacedName::new("default", "many");
    let named = many(1).named(&service).map(|named| Named::clone(named));
    shared.set(&service, named);
    for _ in 0..2 {
        let (code, addresses) = ask().await;
        assert_eq!(
            (code, addresses),
            (ResponseCode::NoError, vec!["10.0.0.1".to_owned()])
        );
    }
    shared.set(&service, None);
    assert_eq!(ask().await.0, ResponseCode::NXDomain);
}

#[tokio::test]
async fn a_silent_connection_makes_room_and_one_that_sends_no_question_is_closed() {
    let mut settings = Settings::new(vec![local()], options());
    settings.tcp.connections = 2;
    let server = start(settings).await;
    let address = server.addresses()[0];
    let bytes = question("many.default.svc.cluster.local");
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    by_tcp(&mut second, &bytes).await.unwrap();
    by_tcp(&mut first, &bytes).await.unwrap();
    let mut third = TcpStream::connect(address).await.unwrap();
    by_tcp(&mut third, &bytes).await.unwrap();
    assert!(
        by_tcp(&mut second, &bytes).await.is_err(),
        "silent the longest"
    );
    by_tcp(&mut first, &bytes).await.unwrap();
    third.write_all(&[0, 2, 1, 2]).await.unwrap();
    let closed = timeout(LONG, third.read_u8()).await.unwrap();
    assert!(closed.is_err());
}

#[tokio::test]
async fn a_connection_that_stops_in_a_message_is_closed_after_the_idle_time() {
    let mut settings = Settings::new(vec![local()], options());
    settings.tcp.idle = Duration::from_millis(50);
    let server = start(settings).await;
    let mut stream = TcpStream::connect(server.addresses()[0]).await.unwrap();
    stream.write_all(&[0, 100, 1]).await.unwrap();
    let closed = timeout(LONG, stream.read_u8()).await.unwrap();
    assert!(closed.is_err());
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_way_out() {
    let server = start(Settings::new(vec![local()], options())).await;
    let taken = server.addresses()[0];
    let second = Settings::new(vec![taken], options());
    let error = Server::start(second, Shared::default(), Clock::start()).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("dns.listen {taken}: cannot listen by UDP: ")),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_is_dropped_reads_no_datagrams_any_more() {
    let server = start(Settings::new(vec![local()], options())).await;
    let address = server.addresses()[0];
    drop(server);
    UdpSocket::bind(address).await.unwrap();
}

#[tokio::test]
async fn many_questions_at_once_are_all_answered_to_those_who_asked() {
    let server = start(Settings::new(vec![local()], options())).await;
    let address = server.addresses()[0];
    let bytes = question("many.default.svc.cluster.local");
    let mut clients = Vec::new();
    for number in 0..100u16 {
        let socket = UdpSocket::bind(local()).await.unwrap();
        let mut own = bytes.clone();
        own[..2].copy_from_slice(&number.to_be_bytes());
        socket.send_to(&own, address).await.unwrap();
        clients.push((number, socket));
    }
    for (number, socket) in clients {
        let mut buffer = vec![0; 4096];
        let length = timeout(LONG, socket.recv(&mut buffer)).await.unwrap();
        let answer = Message::from_vec(&buffer[..length.unwrap()]).unwrap();
        assert_eq!(answer.id, number);
    }
}

/// A server that answers every question with an address, or with nothing.
async fn upstream(answers: bool) -> SocketAddr {
    let socket = UdpSocket::bind(local()).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(asked.id, OpCode::Query);
            let query = asked.queries[0].clone();
            let data = RData::A(A([192, 0, 2, 1].into()));
            let record = hickory_proto::rr::Record::from_rdata(query.name.clone(), 60, data);
            answer.add_query(query);
            answer.metadata.recursion_available = true;
            if answers {
                answer.add_answer(record);
                let bytes = answer.to_vec().unwrap();
                socket.send_to(&bytes, client).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn what_is_in_no_zone_is_asked_of_others() {
    let settings = Settings::new(vec![local()], options());
    let server = start(settings.with_upstreams(vec![upstream(true).await])).await;
    let answer = by_udp(server.addresses()[0], &question("www.example.com")).await;
    let answer = answer.unwrap();
    assert_eq!(answer.answers[0].data.to_string(), "192.0.2.1");
    assert!(answer.recursion_available && !answer.authoritative);
}

#[tokio::test]
async fn an_upstream_that_is_silent_is_given_up_with_servfail() {
    let settings = Settings::new(vec![local()], options());
    let mut settings = settings.with_upstreams(vec![upstream(false).await]);
    settings.forward.as_mut().unwrap().timeout = Duration::from_millis(100);
    let server = start(settings).await;
    let answer = by_udp(server.addresses()[0], &question("www.example.com")).await;
    assert_eq!(answer.unwrap().response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn upstreams_that_ask_this_server_are_found_out() {
    // The port is known before the server is there: it is its own upstream.
    let free = std::net::UdpSocket::bind(local()).unwrap();
    let port = free.local_addr().unwrap();
    drop(free);
    let settings = Settings::new(vec![port], options()).with_upstreams(vec![port]);
    let server = start(settings).await;
    let asked = tokio::time::Instant::now();
    loop {
        let answer = by_udp(server.addresses()[0], &question("www.example.com")).await;
        if answer.is_some_and(|answer| answer.response_code == ResponseCode::ServFail) {
            break;
        }
        assert!(asked.elapsed() < LONG);
    }
}

#[tokio::test]
async fn a_network_that_asks_too_much_is_sent_to_tcp_or_gets_nothing() {
    let mut settings = Settings::new(vec![local()], options());
    settings.per_second = Some(1);
    let server = start(settings).await;
    let address = server.addresses()[0];
    let bytes = question("many.default.svc.cluster.local");
    let mut kinds = [0; 3];
    for _ in 0..6 {
        match by_udp(address, &bytes).await {
            Some(answer) if !answer.answers.is_empty() => kinds[0] += 1,
            Some(answer) => {
                assert!(answer.truncation);
                kinds[1] += 1;
            }
            None => kinds[2] += 1,
        }
    }
    assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
}
