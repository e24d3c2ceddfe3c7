//! The table `outbox`, as the relay uses it: claims events, and records the results of sends.

use std::time::Duration;

use super::{Claimed, Finished, Sending, Wanted};
use crate::db::{Db, DbError, Query, Tx, query};
use crate::messages::SendError;
use crate::messages::dead_letters::{self, without_nul};
use crate::messages::outbox::{LEASE, MAX_ATTEMPTS, Outgoing, RETRY, UNAVAILABLE};
use crate::trace::{Current, SpanContext};

/// How long an event waits after it failed as a probe. Meanwhile, other events are used as probes.
pub(super) const PROBE_PAUSE: Duration = Duration::from_millis(2500);
/// The next probe is one of this number of heads. With all, each probe would read and sort the whole backlog.
const PROBE_WINDOW: usize = 100;

pub(super) struct Table {
    /// The name of the relay, in the column `claimed_by`.
    relay: String,
    db: Db,
}

impl Table {
    pub(super) fn new(relay: String, db: Db) -> Self {
        Self { relay, db }
    }

    /// Records the results of `finished`. Claims what is `wanted` if an event may wait in the table: after a failure, if
    /// a next event of a subject waited for a delivered one, or if any is due and `must_search`.
    pub(super) async fn record_and_claim(
        &self,
        finished: Vec<Finished>,
        wanted: Wanted,
        must_search: bool,
    ) -> Result<Claimed, DbError> {
        let (sent, failed): (Vec<_>, Vec<_>) = finished.into_iter().partition(|send| send.result.is_ok());
        let may_wait = self.mark_sent(&sent).await? || !failed.is_empty();
        let claims = wanted.is_any() && (may_wait || must_search && self.is_any_due(&wanted).await?);
        // They wait until the relay has room, or a receiver is back.
        let mut more_wait = (may_wait || must_search) && wanted.heads == 0;
        let mut heads = Vec::new();
        if claims || !failed.is_empty() {
            let (first, others) = traces(&failed);
            let mut tx = first.scope(self.db.begin()).await?;
            tx.link(others);
            for Finished { sending, result } in failed {
                if let Err(error) = result {
                    self.record(&mut tx, &sending, error).await?;
                }
            }
            if wanted.heads > 0 {
                heads = self.claim(&mut tx, Destinations::AllBut(&wanted.blocked), wanted.heads).await?;
                more_wait |= heads.len() == wanted.heads;
            }
            for probe in &wanted.probes {
                heads.extend(self.claim(&mut tx, Destinations::Only(probe), 1).await?);
            }
            tx.commit().await?;
        }
        Ok(Claimed { heads, more_wait })
    }

    /// Marks events as sent even if their claims have expired, because they were delivered. Returns whether other events
    /// may have waited for them.
    async fn mark_sent(&self, sent: &[Finished]) -> Result<bool, DbError> {
        if sent.is_empty() {
            return Ok(false);
        }
        let rows: Vec<i64> = sent.iter().map(|send| send.sending.outgoing.seq).collect();
        let mark = query(
            "UPDATE outbox SET sent_at = $2 WHERE seq = ANY($1) AND sent_at IS NULL \
             RETURNING EXISTS (SELECT 1 FROM outbox AS later WHERE later.subject = outbox.subject \
                AND later.sent_at IS NULL AND later.seq > outbox.seq) AS has_next",
        );
        let mark = mark.bind(rows).bind(self.db.now());
        let (first, others) = traces(sent);
        let marked = first.scope(mark.write_idempotent(&self.db, others)).await?;
        // If rows are missing, another relay has marked them, or the statement has run twice.
        let mut may_wait = marked.len() < sent.len();
        for row in marked {
            may_wait |= row.get::<bool>("has_next")?;
        }
        Ok(may_wait)
    }

    /// Whether any event is due for the wanted destinations, even if it is not a head. Usually no event is
    /// due, or none is wanted. Then this read replaces a write transaction.
    async fn is_any_due(&self, wanted: &Wanted) -> Result<bool, DbError> {
        // With a full queue, or during a stop, no head is wanted.
        let heads = (wanted.heads > 0).then_some(Destinations::AllBut(&wanted.blocked));
        let probes = wanted.probes.iter().map(|probe| Destinations::Only(probe));
        for destinations in heads.into_iter().chain(probes) {
            let and_destination = destinations.condition("destination", 2);
            let due = query(format!(
                "SELECT seq FROM outbox WHERE sent_at IS NULL AND next_at <= $1{and_destination} LIMIT 1"
            ));
            if destinations.bind(due.bind(self.db.now())).fetch_optional(&self.db).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Schedules the retry of an event, or makes it a dead letter.
    async fn record(
        &self,
        tx: &mut Tx,
        Sending { outgoing, is_probe }: &Sending,
        error: SendError,
    ) -> Result<(), DbError> {
        let attempts = outgoing.attempts + 1;
        let pause = match error {
            SendError::Unavailable(_) if *is_probe => PROBE_PAUSE,
            SendError::Unavailable(_) => UNAVAILABLE.delay(1),
            SendError::Failed(_) if attempts < MAX_ATTEMPTS => {
                RETRY.delay(attempts.try_into().unwrap_or(u32::MAX))
            }
            _ => return self.give_up(tx, outgoing, attempts, &error).await,
        };
        let failures = if matches!(error, SendError::Failed(_)) { attempts } else { outgoing.attempts };
        log::info!(seq = outgoing.seq, message_type = outgoing.event.kind, error:%; "an event was not delivered and will be sent again");
        query(
            "UPDATE outbox SET attempts = $2, last_error = $3, next_at = $4, claimed_by = NULL \
             WHERE seq = $1 AND sent_at IS NULL AND claimed_by = $5 AND next_at = $6",
        )
        .bind(outgoing.seq)
        .bind(failures)
        .bind(without_nul(&error.to_string()))
        .bind(tx.now() + pause)
        .bind(self.relay.as_str())
        .bind(outgoing.claimed_until)
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Makes the event a dead letter if this relay still has the claim. Otherwise, the relay with the new claim
    /// decides.
    async fn give_up(
        &self,
        tx: &mut Tx,
        outgoing: &Outgoing,
        attempts: i64,
        error: &SendError,
    ) -> Result<(), DbError> {
        let Outgoing { seq, destination, event, claimed_until, .. } = outgoing;
        // A dead letter is marked as sent, so that no relay claims its row again.
        let closed = query(
            "UPDATE outbox SET sent_at = $2 \
             WHERE seq = $1 AND sent_at IS NULL AND claimed_by = $3 AND next_at = $4",
        );
        let closed = closed.bind(*seq).bind(tx.now()).bind(self.relay.as_str()).bind(*claimed_until);
        if closed.execute(&mut *tx).await? == 1 {
            log::error!(seq, destination, message_type = event.kind, error:%; "an event becomes a dead letter");
            dead_letters::keep(tx, destination, event, attempts, &error.to_string()).await?;
        }
        Ok(())
    }

    /// Claims up to `limit` heads whose `next_at` has passed: new ones, retries, and expired claims.
    async fn claim(
        &self,
        tx: &mut Tx,
        destinations: Destinations<'_>,
        limit: usize,
    ) -> Result<Vec<Outgoing>, DbError> {
        let now = tx.now();
        let claimed_until = now + LEASE;
        // If it is not materialized, PostgreSQL may search again for each row of a small table, and claim too many.
        let claim = query(format!(
            "WITH heads AS MATERIALIZED ({}) \
             UPDATE outbox SET claimed_by = $1, next_at = $2 \
             WHERE seq IN (SELECT seq FROM heads) AND sent_at IS NULL AND next_at <= $3 \
             RETURNING seq, destination, attempts, event",
            destinations.heads()
        ));
        let claim = claim.bind(self.relay.as_str()).bind(claimed_until).bind(now).bind(limit as i64);
        let rows = destinations.bind(claim).fetch_all(&mut *tx).await?;
        let mut heads = Vec::with_capacity(rows.len());
        for row in rows {
            let seq = row.get("seq")?;
            match serde_json::from_value(row.get("event")?) {
                Ok(event) => heads.push(Outgoing {
                    seq,
                    destination: row.get("destination")?,
                    attempts: row.get("attempts")?,
                    claimed_until,
                    event,
                }),
                // The event blocks its subject, and each claim logs this error, until somebody repairs the row.
                Err(error) => log::error!(seq, error:%; "an event in the outbox cannot be read"),
            }
        }
        Ok(heads)
    }
}

/// The destinations whose events may be claimed.
#[derive(Clone, Copy)]
enum Destinations<'a> {
    AllBut(&'a [String]),
    Only(&'a str),
}

impl Destinations<'_> {
    /// `AND …` for a WHERE clause. `first` is the number of its first parameter.
    fn condition(self, column: &str, first: usize) -> String {
        match self {
            Self::Only(_) => format!(" AND {column} = ${first}"),
            Self::AllBut(blocked) => {
                (first..).zip(blocked).map(|(number, _)| format!(" AND {column} <> ${number}")).collect()
            }
        }
    }

    /// Selects the heads that are due at $3, at most $4. The oldest come first; for a probe, of the oldest
    /// [`PROBE_WINDOW`], the one that has been due for the longest time. So an event that has just failed comes after the
    /// others.
    fn heads(self) -> String {
        let and_destination = self.condition("destination", 5);
        let heads = format!(
            "FROM outbox AS head WHERE sent_at IS NULL AND next_at <= $3{and_destination} AND NOT EXISTS ( \
                SELECT 1 FROM outbox AS earlier WHERE earlier.subject = head.subject \
                AND earlier.sent_at IS NULL AND earlier.seq < head.seq) \
             ORDER BY seq LIMIT"
        );
        match self {
            Self::AllBut(_) => format!("SELECT seq {heads} $4 FOR UPDATE SKIP LOCKED"),
            Self::Only(_) => format!(
                "SELECT seq FROM (SELECT seq, next_at {heads} {PROBE_WINDOW}) AS oldest ORDER BY next_at, seq LIMIT $4"
            ),
        }
    }

    fn bind(self, query: Query) -> Query {
        match self {
            Self::Only(destination) => query.bind(destination),
            Self::AllBut(blocked) => blocked.iter().fold(query, |query, one| query.bind(one.as_str())),
        }
    }
}

/// A write that records the results of several events is in the trace of the first, and linked to the others.
fn traces(finished: &[Finished]) -> (Current, impl Iterator<Item = SpanContext>) {
    let mut spans = finished.iter().filter_map(|finished| finished.sending.outgoing.event.span());
    (Current::new(None, spans.next().unwrap_or(SpanContext::NONE)), spans)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;
    use uuid::Uuid;

    use super::*;
    use crate::db::testing;
    use crate::messages::outbox::Outbox;
    use crate::messages::{Event, SendResult};

    fn all() -> Wanted {
        Wanted { heads: 32, ..Wanted::default() }
    }

    /// Writes an event of each subject in one transaction, and returns those that the insert has claimed for `a-relay`.
    async fn put(db: &Db, subjects: &[&str]) -> Vec<Outgoing> {
        let (sender, mut committed) = unbounded_channel();
        let outbox = Outbox::new("a-relay".to_owned(), sender);
        let mut tx = db.begin().await.unwrap();
        for subject in subjects {
            outbox.put(&mut tx, "a", Event::new("a-service", "made.v1", subject, ()));
        }
        tx.commit().await.unwrap();
        committed.recv().await.unwrap().heads
    }

    fn finished(claimed: &[Outgoing], result: SendResult) -> Vec<Finished> {
        let finished = |outgoing: &Outgoing| Finished {
            sending: Sending { outgoing: outgoing.clone(), is_probe: false },
            result: result.clone(),
        };
        claimed.iter().map(finished).collect()
    }

    fn subjects(claimed: &Claimed) -> Vec<&str> {
        claimed.heads.iter().map(|head| head.event.subject.as_str()).collect()
    }

    #[actix_web::test]
    async fn after_a_mark_the_table_is_searched_only_if_an_event_may_wait() {
        for db in testing::databases().await {
            let table = Table::new("a-relay".to_owned(), db.clone());
            let first = put(&db, &["c", "d", "d"]).await;
            let late = put(&db, &["e"]).await;
            // A due event of a relay that has died, which only a search finds.
            let expire = query("UPDATE outbox SET next_at = created_at WHERE subject = 'e'");
            expire.execute(&db).await.unwrap();

            let sent = finished(&first[..1], Ok(()));
            let claimed = table.record_and_claim(sent, all(), false).await.unwrap();
            assert_eq!((subjects(&claimed), claimed.more_wait), (vec![], false), "no event waited for it");
            let sent = finished(&first[1..], Ok(()));
            let full = table.record_and_claim(sent.clone(), Wanted::default(), false).await.unwrap();
            assert_eq!((subjects(&full), full.more_wait), (vec![], true), "there was no room");
            // A statement that is repeated finds no row.
            let one = Wanted { heads: 1, ..Wanted::default() };
            let claimed = table.record_and_claim(sent, one, false).await.unwrap();
            assert_eq!((subjects(&claimed), claimed.more_wait), (vec!["d"], true));
            let claimed = table.record_and_claim(Vec::new(), all(), true).await.unwrap();
            assert_eq!((subjects(&claimed), claimed.more_wait), (vec!["e"], false));
            assert_eq!(claimed.heads[0].seq, late[0].seq);
        }
    }

    #[actix_web::test]
    async fn after_a_dead_letter_the_next_event_of_its_subject_is_claimed() {
        for db in testing::databases().await {
            let table = Table::new("a-relay".to_owned(), db.clone());
            let first = put(&db, &["c", "c"]).await;
            let rejected = finished(&first, Err(SendError::Rejected("no".to_owned())));
            let claimed = table.record_and_claim(rejected, all(), false).await.unwrap();
            assert_eq!(subjects(&claimed), ["c"]);
        }
    }

    #[actix_web::test]
    async fn an_error_text_that_postgresql_cannot_store_does_not_prevent_a_retry() {
        for db in testing::databases().await {
            let table = Table::new("a-relay".to_owned(), db.clone());
            let first = put(&db, &["c"]).await;
            let failed = finished(&first, Err(SendError::Failed("a\0b".to_owned())));
            table.record_and_claim(failed, all(), false).await.unwrap();
            let row = query("SELECT last_error, attempts FROM outbox").fetch_one(&db).await.unwrap();
            assert_eq!(row.get::<String>("last_error").unwrap(), "failed: a\u{fffd}b");
            assert_eq!(row.get::<i64>("attempts").unwrap(), 1);
        }
    }

    #[actix_web::test]
    async fn each_probe_is_another_event_of_the_oldest() {
        for db in testing::databases().await {
            let table = Table::new("a-relay".to_owned(), db.clone());
            let many: Vec<_> = (0..PROBE_WINDOW + 5).map(|number| number.to_string()).collect();
            put(&db, &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
            query("UPDATE outbox SET next_at = created_at").execute(&db).await.unwrap();
            for expected in ["0", "1", "2"] {
                let claimed = table.record_and_claim(Vec::new(), wanted(0, &["a"]), true).await.unwrap();
                assert_eq!(subjects(&claimed), [expected]);
            }
        }
    }

    fn wanted(heads: usize, probes: &[&str]) -> Wanted {
        let probes = probes.iter().map(|probe| (*probe).to_owned()).collect();
        Wanted { heads, blocked: vec!["a".to_owned()], probes }
    }

    #[actix_web::test]
    async fn while_no_event_is_wanted_none_is_due_so_no_transaction_begins() {
        for db in testing::databases().await {
            for destination in ["a", "b"] {
                query(
                    "INSERT INTO outbox (id, destination, subject, event, created_at, next_at) \
                     VALUES ($1, $2, 'c', $3, $4, $4)",
                )
                .bind(Uuid::now_v7())
                .bind(destination)
                .bind(serde_json::json!({}))
                .bind(db.now())
                .execute(&db)
                .await
                .unwrap();
            }
            let table = Table::new("a-relay".to_owned(), db);
            for (wanted, is_due) in [
                (wanted(0, &[]), false),
                (wanted(1, &[]), true),
                (wanted(0, &["a"]), true),
                (wanted(0, &["c"]), false),
            ] {
                assert_eq!(table.is_any_due(&wanted).await.unwrap(), is_due);
            }
        }
    }
}
