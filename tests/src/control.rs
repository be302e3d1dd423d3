//! A client of both daemons' control sockets, speaking `sluice-conf`'s codec.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_conf::codec::{self, HEADER_LEN, MAX_BODY};
use sluice_conf::message::{Hello, controlplane, dataplane};
use sluice_conf::{Generation, ServiceTable};

/// How long a daemon may take for one answer.
const LIMIT: Duration = Duration::from_secs(20);

fn hello() -> Hello {
    Hello {
        program: "sluice-tests".to_owned(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// A connection to either socket.
#[derive(Debug)]
struct Link {
    stream: UnixStream,
}

impl Link {
    fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("control socket {}", socket.display()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self { stream })
    }

    fn ask<Request: Serialize, Reply: DeserializeOwned>(
        &mut self,
        request: &Request,
    ) -> Result<Reply> {
        self.stream.write_all(&codec::encode(request)?)?;
        let mut header = [0; HEADER_LEN];
        self.stream.read_exact(&mut header).context("the reply")?;
        let mut body = vec![0; codec::body_len(&header, MAX_BODY)?];
        self.stream.read_exact(&mut body).context("the reply")?;
        Ok(codec::decode(&body)?)
    }
}

/// A connection to the dataplane.
#[derive(Debug)]
pub struct Dataplane(Link);

impl Dataplane {
    /// Connects and says hello.
    ///
    /// # Errors
    /// Nobody listens, or the answer is not a hello.
    pub fn connect(socket: &Path) -> Result<Self> {
        let mut link = Link::connect(socket)?;
        match link.ask(&dataplane::Request::Hello(hello()))? {
            dataplane::Reply::Hello { .. } => Ok(Self(link)),
            other => bail!("answer to a hello: {other:?}"),
        }
    }

    /// How it is.
    ///
    /// # Errors
    /// No answer, or another one.
    pub fn status(&mut self) -> Result<dataplane::Status> {
        match self.0.ask(&dataplane::Request::Status)? {
            dataplane::Reply::Status(status) => Ok(status),
            other => bail!("answer to a status request: {other:?}"),
        }
    }

    /// What it has counted.
    ///
    /// # Errors
    /// No answer, or another one.
    pub fn stats(&mut self) -> Result<dataplane::Stats> {
        match self.0.ask(&dataplane::Request::Stats)? {
            dataplane::Reply::Stats(stats) => Ok(stats),
            other => bail!("answer to a stats request: {other:?}"),
        }
    }

    /// What backends have made of connections since the mark of the last answer.
    ///
    /// # Errors
    /// No answer, or another one.
    pub fn evidence(&mut self, since: dataplane::Mark) -> Result<dataplane::Evidence> {
        let question = dataplane::Request::Evidence { since };
        match self.0.ask(&question)? {
            dataplane::Reply::Evidence(evidence) => Ok(evidence),
            other => bail!("answer to a question for evidence: {other:?}"),
        }
    }

    /// The connections that match.
    ///
    /// # Errors
    /// No answer, or another one.
    pub fn connections(
        &mut self,
        filter: dataplane::ConnectionFilter,
    ) -> Result<dataplane::Connections> {
        match self.0.ask(&dataplane::Request::Connections(filter))? {
            dataplane::Reply::Connections(connections) => Ok(connections),
            other => bail!("answer to a connections request: {other:?}"),
        }
    }

    /// Replaces the service table; the answer tells whether it was taken.
    ///
    /// # Errors
    /// No answer.
    pub fn push(&mut self, table: ServiceTable) -> Result<dataplane::Reply> {
        self.0.ask(&dataplane::Request::Push(table))
    }
}

/// A connection to the control plane.
#[derive(Debug)]
pub struct Controlplane(Link);

impl Controlplane {
    /// Connects and says hello.
    ///
    /// # Errors
    /// Nobody listens, or the answer is not a hello.
    pub fn connect(socket: &Path) -> Result<Self> {
        let mut link = Link::connect(socket)?;
        match link.ask(&controlplane::Request::Hello(hello()))? {
            controlplane::Reply::Hello { .. } => Ok(Self(link)),
            other => bail!("answer to a hello: {other:?}"),
        }
    }

    /// How it is.
    ///
    /// # Errors
    /// No answer, or another one.
    pub fn status(&mut self) -> Result<controlplane::Status> {
        match self.0.ask(&controlplane::Request::Status)? {
            controlplane::Reply::Status(status) => Ok(status),
            other => bail!("answer to a status request: {other:?}"),
        }
    }

    /// The Services of all namespaces.
    ///
    /// # Errors
    /// No answer, or another one.
    pub fn services(&mut self) -> Result<Vec<controlplane::ServiceRow>> {
        let question = controlplane::Request::Services { namespace: None };
        match self.0.ask(&question)? {
            controlplane::Reply::Services(services) => Ok(services),
            other => bail!("answer to a question for Services: {other:?}"),
        }
    }
}

/// The generation that the dataplane uses, as the control plane knows it, if that is the newest.
pub fn newest_applied(status: &controlplane::Status) -> Option<Generation> {
    match &status.dataplane {
        controlplane::DataplaneLink::Connected { applied, .. } => {
            applied.filter(|applied| *applied == status.generation)
        }
        controlplane::DataplaneLink::Disconnected { .. } => None,
    }
}
