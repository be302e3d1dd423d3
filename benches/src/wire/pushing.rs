//! Tables pushed to Sluice's dataplane directly, as its control plane does: what a change takes
//! without files and without that.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use sluice_conf::message::dataplane::Reply;
use sluice_conf::{
    Access, Backend, BackendState, Frontend, FrontendKind, Generation, Protocol, Service,
    ServiceName, ServiceTable,
};
use sluice_tests::control::Dataplane;

use super::rig::{BACKEND_PORT, BACKENDS, PORT, backend, vip};

/// A connection to the dataplane, and the newest generation there.
pub struct Pushing {
    dataplane: Dataplane,
    generation: u64,
}

impl Pushing {
    /// Connects; the control plane must change nothing any more.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn start(socket: &Path) -> Result<Self> {
        let mut dataplane = Dataplane::connect(socket)?;
        let generation = dataplane.status()?.generation;
        Ok(Self {
            dataplane,
            generation: generation.context("the dataplane has no table")?.0,
        })
    }

    /// Pushes the Service of the rig with so many endpoints more; returns when every worker goes by
    /// it.
    ///
    /// # Errors
    /// No answer, or the table is refused.
    pub fn set(&mut self, spares: u8) -> Result<()> {
        self.generation += 1;
        match self
            .dataplane
            .push(table(Generation(self.generation), spares))?
        {
            Reply::Applied(_) => Ok(()),
            other => bail!("answer to a table: {other:?}"),
        }
    }
}

/// The table that the control plane makes of the rig's manifests, as far as frames show it.
fn table(generation: Generation, spares: u8) -> ServiceTable {
    let name = ServiceName {
        namespace: "default".into(),
        name: "s0".into(),
        port: "p".into(),
        protocol: Protocol::Tcp,
    };
    let kind = FrontendKind::LoadBalancer;
    let frontend = Frontend::new(vip(0).into(), PORT, kind, Access::default());
    let backends = (0..BACKENDS + spares).map(|number| Backend {
        address: backend(number).into(),
        port: BACKEND_PORT,
        weight: 1,
        state: BackendState::Active,
        local: false,
    });
    ServiceTable {
        generation,
        services: vec![Arc::new(Service {
            frontends: vec![frontend],
            backends: backends.collect(),
            ..Service::new(name)
        })],
        ..ServiceTable::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_the_rig_is_valid_with_and_without_spares() {
        for spares in [0, 1] {
            let table = table(Generation(7), spares);
            table.validate().unwrap();
            let backends = &table.services[0].backends;
            assert_eq!(backends.len(), usize::from(BACKENDS + spares));
            assert!(backends.is_sorted_by_key(|backend| backend.address));
        }
    }
}
