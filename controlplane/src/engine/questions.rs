//! What others ask of the engine: to see what it knows, and to take endpoints out of use.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use sluice_conf::message::controlplane::{DrainRow, Problem};
use tokio::sync::{mpsc, oneshot};

use super::Rehearsal;
use crate::endpoints::Slice;
use crate::env::Announcements;
use crate::health::Judged;
use crate::index::Known;
use crate::kinds::policy::PolicySpec;
use crate::object::NamespacedName;
use crate::pools;
use crate::readiness::Moment;
use crate::readiness::drains::{Drains, Target};
use crate::service::ServiceSpec;
use crate::slices::node::Node;
use crate::slices::pod::Pod;

/// Questions that may wait.
pub(super) const MAX_WAITING: usize = 64;

/// The objects behind the newest table.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Services, sorted by namespace and name.
    pub services: Vec<Known<ServiceSpec>>,
    /// How many EndpointSlices there are.
    pub slices: usize,
    /// What is wrong, oldest first.
    pub problems: Vec<Problem>,
}

/// What serves Services.
#[derive(Debug, Clone)]
pub struct Standings {
    /// By Service, sorted.
    pub services: Vec<Standing>,
    /// The drains.
    pub drains: Drains,
    /// When it was so.
    pub moment: Moment,
}

/// What serves one Service.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its name.
    pub service: NamespacedName,
    /// When a slice of it, or without any the Service, was first seen.
    pub first_seen: Duration,
    /// Its slices as they were written, each with what is made of it where that differs.
    pub slices: Vec<(Arc<Slice>, Option<Slice>)>,
    /// The verdicts on what it has judged.
    pub verdicts: Vec<Judged>,
}

/// One Service.
#[derive(Debug, Clone)]
pub struct Detail {
    /// As it was admitted, with everything that it was given.
    pub service: Arc<core::Service>,
    /// What serves it.
    pub standings: Standings,
    /// Why it has no load-balancer address, or not the one that it should have.
    pub pending: Option<String>,
    /// What is wrong with it and its ServicePolicy.
    pub problems: Vec<Problem>,
}

/// What is neither a Service nor an endpoint.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// The pools in the order of use.
    pub pools: Vec<pools::Usage>,
    /// ServicePolicies, sorted by namespace and name, each with the Services that it holds for.
    pub policies: Vec<(NamespacedName, Arc<PolicySpec>, Vec<String>)>,
    /// Nodes, sorted by name, each with whether the gateway stands in front of it.
    pub nodes: Vec<(Node, bool)>,
    /// Pods, sorted by namespace and name.
    pub pods: Vec<Arc<Pod>>,
}

/// One question, with where to put the answer.
pub(super) enum Question {
    View(oneshot::Sender<View>),
    Standings {
        namespace: Option<String>,
        answer: oneshot::Sender<Standings>,
    },
    Detail {
        service: NamespacedName,
        answer: oneshot::Sender<Option<Detail>>,
    },
    Inventory(oneshot::Sender<Inventory>),
    Rehearsal(oneshot::Sender<Option<Box<Rehearsal>>>),
    Drain {
        target: Target,
        timeout_seconds: Option<u32>,
        answer: oneshot::Sender<Result<DrainRow, String>>,
    },
    Undrain {
        target: Target,
        answer: oneshot::Sender<Result<bool, String>>,
    },
    Drains(oneshot::Sender<Vec<DrainRow>>),
    Announced {
        namespaces: Option<BTreeSet<String>>,
        answer: oneshot::Sender<Option<Announcements>>,
    },
}

/// Asks the engine.
#[derive(Debug, Clone)]
pub struct Questions(pub(super) mpsc::Sender<Question>);

/// The engine has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the control plane is stopping")]
pub struct Stopping;

impl Questions {
    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, Stopping> {
        let (sender, answer) = oneshot::channel();
        self.0.send(question(sender)).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// What there is now.
    ///
    /// # Errors
    /// The engine has ended.
    pub async fn view(&self) -> Result<View, Stopping> {
        self.ask(Question::View).await
    }

    /// What serves the Services of `namespace`, or all.
    ///
    /// # Errors
    /// The engine has ended.
    pub async fn standings(&self, namespace: Option<String>) -> Result<Standings, Stopping> {
        self.ask(|answer| Question::Standings { namespace, answer })
            .await
    }

    /// Everything about one Service; `None` when there is none of that name.
    ///
    /// # Errors
    /// The engine has ended.
    pub async fn detail(&self, service: NamespacedName) -> Result<Option<Detail>, Stopping> {
        self.ask(|answer| Question::Detail { service, answer })
            .await
    }

    /// Pools, policies, Nodes and Pods.
    ///
    /// # Errors
    /// The engine has ended.
    pub async fn inventory(&self) -> Result<Inventory, Stopping> {
        self.ask(Question::Inventory).await
    }

    /// A copy of what there is, to try manifests on; `None` before every source has told all. The
    /// engine waits only for the copy.
    ///
    /// # Errors
    /// The engine has ended.
    pub async fn rehearsal(&self) -> Result<Option<Box<Rehearsal>>, Stopping> {
        self.ask(Question::Rehearsal).await
    }

    /// Takes endpoints out of use; existing connections may go on for `timeout_seconds`, or until
    /// they end. That nothing of the kind is known is no mistake: it may come later.
    ///
    /// # Errors
    /// The engine has ended, or the drain cannot be stored.
    pub async fn drain(
        &self,
        target: Target,
        timeout_seconds: Option<u32>,
    ) -> Result<Result<DrainRow, String>, Stopping> {
        self.ask(|answer| Question::Drain {
            target,
            timeout_seconds,
            answer,
        })
        .await
    }

    /// Puts endpoints back in use. Returns whether they were drained.
    ///
    /// # Errors
    /// The engine has ended, or the end of the drain cannot be stored.
    pub async fn undrain(&self, target: Target) -> Result<Result<bool, String>, Stopping> {
        self.ask(|answer| Question::Undrain { target, answer })
            .await
    }

    /// All drains, sorted by target.
    ///
    /// # Errors
    /// The engine has ended.
    pub async fn drains(&self) -> Result<Vec<DrainRow>, Stopping> {
        self.ask(Question::Drains).await
    }

    /// What workloads of `namespaces`, or of all, are told of; `None` before every source has told
    /// all.
    ///
    /// # Errors
    /// The engine has ended.
    pub async fn announced(
        &self,
        namespaces: Option<BTreeSet<String>>,
    ) -> Result<Option<Announcements>, Stopping> {
        self.ask(|answer| Question::Announced { namespaces, answer })
            .await
    }
}
