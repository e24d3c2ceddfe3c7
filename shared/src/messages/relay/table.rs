//! The table `outbox`, as the relay uses it: claims events, and records the results of sends.

use std::time::Duration;

use super::{Finished, Sending, Wanted};
use crate::db::{Db, DbError, Query, Tx, query};
use crate::messages::outbox::{LEASE, MAX_ATTEMPTS, Outgoing, RETRY, UNAVAILABLE};
use crate::messages::{SendError, dead_letters};
use crate::trace::{Current, SpanContext};

/// How long an event waits after it failed as a probe. Meanwhile, other events are used as probes.
pub(super) const PROBE_PAUSE: Duration = Duration::from_millis(2500);

pub(super) struct Table {
    /// The name of the relay, in the column `claimed_by`.
    relay: String,
    db: Db,
}

impl Table {
    pub(super) fn new(relay: String, db: Db) -> Self {
        Self { relay, db }
    }

    /// Records the results of `finished` and claims what is `wanted`, in one transaction.
    pub(super) async fn record_and_claim(
        &self,
        finished: Vec<Finished>,
        wanted: Wanted,
    ) -> Result<Vec<Outgoing>, DbError> {
        if finished.is_empty() && !self.is_any_due(&wanted).await? {
            return Ok(Vec::new());
        }
        // One transaction may mark events of several traces: it is in the trace of the first, and linked to the others.
        let mut spans = finished.iter().filter_map(|finished| finished.sending.outgoing.event.span());
        let first = Current::new(None, spans.next().unwrap_or(SpanContext::NONE));
        let mut tx = first.scope(self.db.begin()).await?;
        tx.link(spans);
        let (sent, failed): (Vec<_>, Vec<_>) = finished.into_iter().partition(|send| send.result.is_ok());
        mark_sent(&mut tx, &sent).await?;
        for Finished { sending, result } in failed {
            if let Err(error) = result {
                self.record(&mut tx, &sending, error).await?;
            }
        }
        let mut heads = Vec::new();
        if wanted.heads > 0 {
            heads = self.claim(&mut tx, Destinations::AllBut(&wanted.blocked), wanted.heads).await?;
        }
        for probe in &wanted.probes {
            heads.extend(self.claim(&mut tx, Destinations::Only(probe), 1).await?);
        }
        tx.commit().await?;
        Ok(heads)
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
        .bind(error.to_string())
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
        let and_destination = destinations.condition("head.destination", 5);
        let order = destinations.order();
        let claim = query(format!(
            "UPDATE outbox SET claimed_by = $1, next_at = $2 WHERE seq IN ( \
                SELECT seq FROM outbox AS head WHERE sent_at IS NULL AND next_at <= $3{and_destination} AND NOT EXISTS ( \
                    SELECT 1 FROM outbox AS earlier WHERE earlier.subject = head.subject \
                    AND earlier.sent_at IS NULL AND earlier.seq < head.seq) \
                ORDER BY {order} LIMIT $4 FOR UPDATE SKIP LOCKED) \
             RETURNING seq, destination, attempts, event",
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

    /// The ORDER BY clause. For a probe, the event that has been due for the longest time comes first. So an event that
    /// has just failed comes after all others.
    fn order(self) -> &'static str {
        match self {
            Self::Only(_) => "next_at, seq",
            Self::AllBut(_) => "seq",
        }
    }

    fn bind(self, query: Query) -> Query {
        match self {
            Self::Only(destination) => query.bind(destination),
            Self::AllBut(blocked) => blocked.iter().fold(query, |query, one| query.bind(one.as_str())),
        }
    }
}

/// Marks events as sent even if their claims have expired, because they were delivered.
async fn mark_sent(tx: &mut Tx, sent: &[Finished]) -> Result<(), DbError> {
    if sent.is_empty() {
        return Ok(());
    }
    let rows: Vec<i64> = sent.iter().map(|send| send.sending.outgoing.seq).collect();
    query("UPDATE outbox SET sent_at = $2 WHERE seq = ANY($1) AND sent_at IS NULL")
        .bind(rows)
        .bind(tx.now())
        .execute(tx)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::db::{now, testing};

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
                .bind(now())
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
