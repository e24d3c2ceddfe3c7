//! The stop signal of background tasks.

use tokio::sync::watch;

/// Receives the stop signal; clones receive the same signal.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Sends the stop signal. Dropping it sends the signal too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stop {
    pub fn pair() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(false);
        (Stopper(sender), Self(receiver))
    }

    /// Whether the signal was sent.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the signal.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means that the stopper was dropped.
        receiver.wait_for(|stop| *stop).await.map(drop).unwrap_or_default();
    }

    /// Sleeps for `duration`, or until the signal.
    pub async fn sleep(&self, duration: std::time::Duration) {
        tokio::select! {
            () = self.requested() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }
}

impl Stopper {
    /// Signals every [`Stop`] of this pair.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}
