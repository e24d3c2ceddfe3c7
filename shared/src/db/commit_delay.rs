//! Group commit: a pause between transactions, in which more work arrives for the next one.

use std::time::Duration;

use tokio::time::Instant;

use super::Db;

/// The shortest time between the starts of two transactions on SQLite, if the first had several items. In
/// `scripts/bench orders` with 16 customers, 6 and 10 ms gave a higher throughput than 0, 3 and 20 ms, and 10 ms the lower
/// cost of an order.
#[cfg(any(test, feature = "sqlite"))]
pub(super) const SHORTEST_ON_SQLITE: Duration = Duration::from_millis(10);
/// On PostgreSQL a transaction takes longer. There, with 64 customers, 20 ms gave a higher throughput than 10 ms, and the
/// lower cost.
#[cfg(feature = "postgres")]
pub(super) const SHORTEST_ON_POSTGRES: Duration = Duration::from_millis(20);
/// The longest time between the end of a transaction and the start of the next.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// When the next transaction may begin.
///
/// ```text
/// one item:       ├─ transaction ─┤├─ next
/// several items:  ├─ transaction ─┤···· pause ····├─ next
/// ```
///
/// So an item never waits in an idle system. The pause is as long as the transaction took, within these limits:
/// the slower the database, the more items share a transaction. PostgreSQL's `commit_delay`, together with
/// `commit_siblings`, is a similar idea.
#[derive(Debug)]
pub struct CommitDelay {
    shortest: Duration,
    running: Option<(Instant, usize)>,
    next: Option<Instant>,
}

impl CommitDelay {
    pub fn new(db: &Db) -> Self {
        Self::of(db.shortest_commit_delay())
    }

    fn of(shortest: Duration) -> Self {
        Self { shortest, running: None, next: None }
    }

    /// A transaction with this number of items begins.
    pub fn started(&mut self, items: usize) {
        self.running = Some((Instant::now(), items));
        self.next = None;
    }

    /// The transaction has ended.
    pub fn ended(&mut self) {
        if let Some((began, items)) = self.running.take() {
            let now = Instant::now();
            let pause = (now - began).min(LONGEST_PAUSE);
            self.next = (items > 1).then(|| (began + self.shortest).max(now + pause));
        }
    }

    pub fn is_over(&self) -> bool {
        self.next.is_none_or(|next| next <= Instant::now())
    }

    /// Waits until it is over.
    pub async fn wait(&self) {
        if let Some(next) = self.next {
            tokio::time::sleep_until(next).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pause after a transaction.
    async fn pause_after(items: usize, time: Duration) -> Duration {
        let mut delay = CommitDelay::of(SHORTEST_ON_SQLITE);
        assert!(delay.is_over());
        delay.started(items);
        tokio::time::advance(time).await;
        delay.ended();
        let since = Instant::now();
        assert_eq!(delay.is_over(), items == 1);
        delay.wait().await;
        assert!(delay.is_over());
        since.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_after_several_items_is_as_long_as_their_transaction() {
        let ms = Duration::from_millis;
        assert_eq!(pause_after(1, ms(30)).await, ms(0));
        assert_eq!(pause_after(2, ms(30)).await, ms(30));
        assert_eq!(pause_after(2, ms(3)).await, ms(7));
        assert_eq!(pause_after(32, ms(500)).await, LONGEST_PAUSE);
    }
}
