//! What others ask of the engine: to see what it knows, and to take endpoints out of use.

use tokio::sync::{mpsc, oneshot};

use super::View;
use crate::readiness::drains::{Drain, Target};

/// Questions that may wait.
pub(super) const MAX_WAITING: usize = 64;

/// One question, with where to put the answer.
#[derive(Debug)]
pub(super) enum Question {
    View(oneshot::Sender<View>),
    Drain {
        target: Target,
        timeout_seconds: Option<u32>,
        answer: oneshot::Sender<Result<usize, String>>,
    },
    Undrain {
        target: Target,
        answer: oneshot::Sender<Result<bool, String>>,
    },
    Drains(oneshot::Sender<Vec<(Target, Drain)>>),
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

    /// Takes endpoints out of use; existing connections may go on for `timeout_seconds`, or until
    /// they end. Returns how many endpoints are meant now.
    ///
    /// # Errors
    /// The engine has ended, or the drain cannot be stored.
    pub async fn drain(
        &self,
        target: Target,
        timeout_seconds: Option<u32>,
    ) -> Result<Result<usize, String>, Stopping> {
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
    pub async fn drains(&self) -> Result<Vec<(Target, Drain)>, Stopping> {
        self.ask(Question::Drains).await
    }
}
