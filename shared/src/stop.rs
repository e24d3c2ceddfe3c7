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

    /// Whether it is time to finish.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is time to finish. A [`Stopper`] that is dropped gives the signal too.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means the sender is gone, which says the same.
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
