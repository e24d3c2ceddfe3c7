//! How a program's tasks learn that they should finish.

use tokio::sync::watch;

/// What a background task watches; clones watch the same signal.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// What gives the signal, once.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stop {
    /// A signal that has not been given, and what gives it.
    pub fn pair() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(false);
        (Stopper(sender), Self(receiver))
    }

    /// Whether the signal was given. Dropping the [`Stopper`] gives it too.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the signal.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means that the sender is gone, which is the signal too.
        receiver.wait_for(|stop| *stop).await.map(drop).unwrap_or_default();
    }

    /// Waits for `duration`, or for the signal if that comes first.
    pub async fn sleep(&self, duration: std::time::Duration) {
        tokio::select! {
            () = self.requested() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }
}

impl Stopper {
    /// Tells every [`Stop`] of this pair.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}
