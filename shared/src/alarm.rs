//! A timer for deadlines that move with every byte.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// A timer that is made when it is first needed. It stays set while the deadline moves away, and looks again when it
/// fires: so a later deadline costs nothing.
#[derive(Debug, Default)]
pub struct Alarm(Option<(Instant, Pin<Box<Sleep>>)>);

impl Alarm {
    /// Ready at the time `at`.
    pub fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let (set, sleep) = self.0.get_or_insert_with(|| (at, Box::pin(tokio::time::sleep_until(at))));
        loop {
            if at < *set || (at > *set && sleep.is_elapsed()) {
                *set = at;
                sleep.as_mut().reset(at);
            }
            ready!(sleep.as_mut().poll(cx));
            if *set >= at {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_fires_at_the_last_deadline_whether_that_is_later_or_earlier_than_the_first() {
        let began = Instant::now();
        let mut alarm = Alarm::default();
        for seconds in [5, 8, 3, 3, 20, 21, 9] {
            let at = began + Duration::from_secs(seconds);
            let polled = poll_fn(|cx| Poll::Ready(alarm.poll(cx, at))).await;
            assert!(polled.is_pending(), "{seconds}");
        }
        poll_fn(|cx| alarm.poll(cx, began + Duration::from_secs(12))).await;
        assert_eq!(began.elapsed().as_secs(), 12);
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx, began + Duration::from_secs(1)))).await.is_ready());
        poll_fn(|cx| alarm.poll(cx, began + Duration::from_secs(30))).await;
        assert_eq!(began.elapsed().as_secs(), 30);
    }
}
