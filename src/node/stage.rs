//! A stage of the node that runs as one task.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// A task with the token that stops it.
pub struct Stage {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Stage {
    pub fn start<F: Future<Output = ()> + Send + 'static>(run: impl FnOnce(CancellationToken) -> F) -> Stage {
        let stop = CancellationToken::new();
        Stage { task: tokio::spawn(run(stop.clone())), stop }
    }

    /// Stops it and waits for its end, so long.
    pub async fn stop(self, name: &str, patience: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(patience, self.task).await.is_err() {
            warn!("{name} did not stop within {patience:?}");
        }
    }

    /// Tells it to stop, without waiting.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}
