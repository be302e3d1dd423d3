//! A DNS server for one case, asked by a socket, and an upstream that answers what the case says.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde::Deserialize;
use sluice_controlplane::clock::Clock;
use sluice_controlplane::dns::options::Options;
use sluice_controlplane::dns::server::Settings;
use sluice_controlplane::dns::zone::Zone;
use sluice_controlplane::dns::{Server, Shared};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what the upstream says holds, in seconds; that of the file, which compares it.
const UPSTREAM_TTL: u32 = 5;

/// What an upstream answers: `NAME TYPE DATA`, more of them behind commas, each with a name or of the
/// one before.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Upstream {
    Answers(String),
    Flagged {
        answers: String,
        #[serde(default)]
        truncated: bool,
    },
}

/// A server that can be asked.
pub struct Asking {
    runtime: Runtime,
    server: Server,
}

impl Asking {
    pub fn start(
        zone: Zone,
        options: Options,
        upstream: Option<&Upstream>,
    ) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let known = upstream.map(Known::read).transpose()?;
        let server = runtime.block_on(async {
            let mut settings = Settings::new(vec![local()], options);
            if let Some(known) = known {
                settings = settings.with_upstreams(vec![known.serve().await?]);
            }
            let shared = Shared::default();
            shared.change(|empty| *empty = zone);
            let server = Server::start(settings, shared, Clock::start()).await;
            server.map_err(|error| error.to_string())
        })?;
        Ok(Self { runtime, server })
    }

    /// Asks by UDP, and by TCP when the answer does not fit although it should.
    pub fn ask(&self, name: &str, kind: RecordType, truncated: bool) -> Result<Message, String> {
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        let mut name = Name::from_ascii(name).map_err(|error| error.to_string())?;
        name.set_fqdn(true);
        message.add_query(Query::query(name, kind));
        message.metadata.recursion_desired = true;
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        message.set_edns(edns);
        let bytes = message.to_vec().map_err(|error| error.to_string())?;
        let address = *self.server.addresses().first().ok_or("no address")?;
        let asked = async {
            let answer = by_udp(address, &bytes).await?;
            match answer.truncation && !truncated {
                true => by_tcp(address, &bytes).await,
                false => Ok(answer),
            }
        };
        let asked = async { tokio::time::timeout(PATIENCE, asked).await };
        let answer = self.runtime.block_on(asked);
        let answer = answer.map_err(|_| format!("no answer within {PATIENCE:?}"))?;
        answer.map_err(|error: std::io::Error| error.to_string())
    }
}

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn by_udp(server: SocketAddr, bytes: &[u8]) -> std::io::Result<Message> {
    let socket = UdpSocket::bind(local()).await?;
    socket.send_to(bytes, server).await?;
    let mut buffer = vec![0; 4096];
    let length = socket.recv(&mut buffer).await?;
    buffer.truncate(length);
    Message::from_vec(&buffer).map_err(std::io::Error::other)
}

async fn by_tcp(server: SocketAddr, bytes: &[u8]) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    send(&mut stream, bytes).await?;
    Message::from_vec(&receive(&mut stream).await?).map_err(std::io::Error::other)
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_u16(length).await?;
    stream.write_all(bytes).await
}

async fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// What the upstream knows.
#[derive(Debug, Clone)]
struct Known {
    addresses: BTreeMap<Name, Vec<IpAddr>>,
    truncated: bool,
}

impl Known {
    fn read(upstream: &Upstream) -> Result<Self, String> {
        let (text, truncated) = match upstream {
            Upstream::Answers(answers) => (answers, false),
            Upstream::Flagged { answers, truncated } => (answers, *truncated),
        };
        let mut known = Self {
            addresses: BTreeMap::new(),
            truncated,
        };
        let mut name = None;
        for entry in text.split(',') {
            let words: Vec<&str> = entry.split_whitespace().collect();
            let unknown = || format!("upstream: {entry:?} is not NAME TYPE ADDRESS");
            let [owner @ .., _kind, address] = words.as_slice() else {
                return Err(unknown());
            };
            if let [owner] = owner {
                name = Name::from_ascii(owner).ok();
            }
            let owner = name.clone().ok_or_else(unknown)?;
            let address = address.parse().map_err(|_| unknown())?;
            known.addresses.entry(owner).or_default().push(address);
        }
        Ok(known)
    }

    /// Answers by UDP and TCP until the runtime ends.
    async fn serve(self) -> Result<SocketAddr, String> {
        let listener = TcpListener::bind(local())
            .await
            .map_err(|e| e.to_string())?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        let socket = UdpSocket::bind(address).await.map_err(|e| e.to_string())?;
        let known = self.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                if let Some(answer) = known.answer(buffer.get(..length).unwrap_or_default()) {
                    // A client that is gone has its answer no more.
                    let _ = socket.send_to(&answer, client).await;
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let known = self.clone();
                tokio::spawn(async move {
                    while let Ok(question) = receive(&mut stream).await {
                        let Some(answer) = known.answer(&question) else {
                            return;
                        };
                        if send(&mut stream, &answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(address)
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let asked = Message::from_vec(question).ok()?;
        let query = asked.queries.first()?.clone();
        let mut answer = Message::response(asked.id, OpCode::Query);
        answer.metadata.truncation = self.truncated;
        answer.metadata.recursion_available = true;
        let addresses = self.addresses.get(&query.name).into_iter().flatten();
        for address in addresses {
            let data = match address {
                IpAddr::V4(address) => RData::A(A(*address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
            };
            if data.record_type() == query.query_type {
                let record = Record::from_rdata(query.name.clone(), UPSTREAM_TTL, data);
                answer.add_answer(record);
            }
        }
        answer.add_query(query);
        answer.to_vec().ok()
    }
}
