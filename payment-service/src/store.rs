//! Payments, refunds and the ledger. The store promises:
//!
//! - The effect of a command and its event are written in the transaction of the message. A response of
//!   the card network is written in one transaction with its ledger entries and its event.
//! - Work that a transaction leaves is *leased* to the replica that wrote it: its worker starts at the
//!   commit, without another transaction. After the lease any replica may [claim](Store::claim_due) it.
//! - Every change and every claim increments the version. A response is [recorded](Store::record) only
//!   for the version that sent the request: a replica that was paused past its lease overwrites nothing.

mod batch; // the payments of several commands in one transaction
mod differences;
mod events;
mod ledger;
mod refunds;
mod rows;

pub use differences::{FoundDifference, Position};
pub use ledger::{Balance, Entry, Ledger};

use std::collections::BTreeSet;
use std::time::Duration;

use shared::db::{Db, DbError, Migrations, Tx, query};
use shared::messages::Outbox;
use shared::request::Paging;
use time::OffsetDateTime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

use self::batch::Batch;
use self::rows::{Inserted, Updated};
use crate::config::ORDERS;
use crate::domain::{
    AmountKind, Change, Difference, Intent, Money, Notice, Payment, Purchase, Reaction, Refund, Refusal,
};
use crate::error::Error;
use crate::metrics;

pub fn migrations() -> Migrations {
    Migrations {
        sqlite: sqlx::migrate!("migrations/sqlite"),
        postgres: sqlx::migrate!("migrations/postgres"),
    }
}

#[derive(Clone, Debug)]
pub struct Store {
    db: Db,
    outbox: Outbox,
    lease: Duration,
    work: UnboundedSender<Job>,
}

/// A payment with an intent, leased to this replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub payment: Payment,
    /// The refund to request, if that is the intent.
    pub refund: Option<Refund>,
    /// The trace of the command that set the intent.
    pub traceparent: Option<String>,
    pub leased_until: OffsetDateTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Nothing is left to do.
    Settled,
    /// The payment is due again at this time.
    DueAgain(OffsetDateTime),
    /// The payment has a newer version: the response was not recorded.
    Fenced,
}

/// Which payments to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    pub customer_id: Option<Uuid>,
    pub order_id: Option<Uuid>,
}

impl Store {
    /// A store that leases new work for `lease`, and the receiver of that work.
    pub fn new(db: Db, outbox: Outbox, lease: Duration) -> (Self, UnboundedReceiver<Job>) {
        let (work, received) = unbounded_channel();
        (Self { db, outbox, lease, work }, received)
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Creates a payment to be authorized. An existing one, perhaps a tombstone, stays as it is.
    pub async fn authorize(
        &self,
        tx: &mut Tx,
        purchase: Purchase,
        token: String,
        traceparent: Option<&str>,
    ) -> Result<(), Error> {
        let payment = Payment::authorize(purchase, token, tx.now());
        let due = self.lease_end(tx, &payment);
        match rows::insert(tx, &payment, due, traceparent).await? {
            Inserted::New => self.dispatch(tx, payment, None, due, traceparent),
            Inserted::Exists => {
                let payment = lock(tx, payment.id).await?;
                self.notify(tx, &payment, payment.settled_outcome(), traceparent);
            }
        }
        Ok(())
    }

    pub async fn capture(&self, tx: &mut Tx, id: Uuid, traceparent: Option<&str>) -> Result<(), Error> {
        self.command(tx, id, traceparent, Payment::capture).await
    }

    /// Locks payments, in the order of their orders' ids, until the transaction ends. Commands to them then need no other
    /// lock, and their changes are written together before the commit.
    pub async fn lock_all(&self, tx: &mut Tx, ids: Vec<Uuid>) -> Result<(), DbError> {
        batch::lock_all(tx, ids).await
    }

    /// Voids a payment. An unknown one is kept as a tombstone, so that a late authorization is refused.
    pub async fn void(
        &self,
        tx: &mut Tx,
        purchase: Purchase,
        traceparent: Option<&str>,
    ) -> Result<(), Error> {
        let id = purchase.id;
        let Change { payment: tombstone, notice, .. } = Payment::tombstone(purchase, tx.now());
        match rows::insert(tx, &tombstone, None, traceparent).await? {
            Inserted::New => self.notify(tx, &tombstone, notice, traceparent),
            Inserted::Exists => self.command(tx, id, traceparent, Payment::void).await?,
        }
        Ok(())
    }

    /// Refunds what is not refunded yet, for the order.
    pub async fn refund_rest(
        &self,
        tx: &mut Tx,
        id: Uuid,
        reason: &str,
        traceparent: Option<&str>,
    ) -> Result<(), Error> {
        self.command(tx, id, traceparent, |payment, now| payment.refund_rest(reason, now)).await
    }

    /// Refunds `amount`, or what is not refunded yet, for an admin.
    pub async fn refund(
        &self,
        tx: &mut Tx,
        id: Uuid,
        amount: Option<Money>,
        reason: &str,
        traceparent: Option<&str>,
    ) -> Result<Refund, Error> {
        let payment = lock(tx, id).await?;
        let version = payment.version;
        let (change, refund) = payment.refund(amount, reason, tx.now())?;
        self.write(tx, version, change, traceparent).await?;
        Ok(refund)
    }

    /// Records the change that the response to `job` made, unless the payment has a newer version.
    /// What is left to do is due after `pause`.
    pub async fn record(
        &self,
        tx: &mut Tx,
        job: &Job,
        change: &Change,
        pause: Duration,
    ) -> Result<Recorded, DbError> {
        let due = change.payment.next_request().map(|_| tx.now() + pause);
        match rows::update(tx, job.payment.version, &change.payment, due, None).await? {
            Updated::Stale => return Ok(Recorded::Fenced),
            Updated::Written => self.write_parts(tx, change, job.traceparent.as_deref()).await?,
        }
        Ok(due.map_or(Recorded::Settled, Recorded::DueAgain))
    }

    /// Whether [`Store::claim_due`] would find work. Takes no lock.
    pub async fn has_due(&self) -> Result<bool, DbError> {
        // Without ORDER BY, PostgreSQL reads the whole table: it expects that a third of the rows is due.
        let due = query("SELECT id FROM payments WHERE due_at <= $1 ORDER BY due_at LIMIT 1");
        let due = due.bind(self.db.now());
        Ok(due.fetch_optional(&self.db).await?.is_some())
    }

    /// Leases up to `limit` jobs that are due.
    pub async fn claim_due(&self, tx: &mut Tx, limit: i64) -> Result<Vec<Job>, DbError> {
        let leased_until = tx.now() + self.lease;
        let mut jobs = Vec::new();
        for (payment, traceparent) in rows::claim(tx, leased_until, limit).await? {
            let refund = next_refund(tx, &payment).await?;
            jobs.push(Job { payment, refund, traceparent, leased_until });
        }
        Ok(jobs)
    }

    pub async fn payment(&self, id: Uuid) -> Result<Option<Payment>, DbError> {
        rows::by_id(&self.db, id).await
    }

    /// A page, newest first, and one payment more.
    pub async fn payments(&self, filter: Filter, paging: &Paging) -> Result<Vec<Payment>, DbError> {
        rows::list(&self.db, filter, paging).await
    }

    /// The first `limit` payments above `after`, in the order of their ids.
    pub async fn payments_after(&self, after: Option<Uuid>, limit: usize) -> Result<Vec<Payment>, DbError> {
        rows::page_after(&self.db, after, limit as i64).await
    }

    pub async fn payments_of(&self, ids: &BTreeSet<Uuid>) -> Result<Vec<Payment>, DbError> {
        rows::by_ids(&self.db, ids).await
    }

    /// Records at the end of `tx` where the card network contradicts the books: key of the charge, payment, difference.
    pub fn write_differences(&self, tx: &mut Tx, differences: &[(String, Option<Uuid>, Difference)]) {
        for (key, payment_id, difference) in differences {
            differences::defer(tx, key, *payment_id, difference);
        }
    }

    /// `gone` is sorted, so that no two transactions deadlock.
    pub async fn resolve_differences(
        &self,
        tx: &mut Tx,
        gone: &BTreeSet<(String, AmountKind)>,
    ) -> Result<(), DbError> {
        for (key, figure) in gone {
            differences::resolve(tx, key, *figure).await?;
        }
        Ok(())
    }

    /// Lists at most `limit` of the open or the resolved differences, after the position `after`, newest first.
    pub async fn differences(
        &self,
        is_open: bool,
        after: Option<&Position>,
        limit: i64,
    ) -> Result<Vec<FoundDifference>, DbError> {
        differences::list(&self.db, is_open, after, limit).await
    }

    pub async fn open_differences(&self) -> Result<BTreeSet<(String, AmountKind)>, DbError> {
        differences::open(&self.db).await
    }

    pub async fn count_open_differences(&self) -> Result<i64, DbError> {
        differences::count_open(&self.db).await
    }

    /// The ledger's entries of a payment, oldest first.
    pub async fn entries(&self, payment_id: Uuid) -> Result<Vec<Entry>, DbError> {
        ledger::entries(&self.db, payment_id).await
    }

    pub async fn ledger(&self) -> Result<Ledger, DbError> {
        ledger::read(&self.db).await
    }

    async fn command(
        &self,
        tx: &mut Tx,
        id: Uuid,
        traceparent: Option<&str>,
        command: impl FnOnce(Payment, OffsetDateTime) -> Result<Reaction, Refusal>,
    ) -> Result<(), Error> {
        let payment = lock(tx, id).await?;
        match command(payment.clone(), tx.now())? {
            Reaction::Changed(change) => self.write(tx, payment.version, *change, traceparent).await?,
            Reaction::Unchanged(notice) => self.notify(tx, &payment, notice, traceparent),
        }
        Ok(())
    }

    /// Writes a change to a payment that `tx` has locked, and leases what is left to this replica.
    async fn write(
        &self,
        tx: &mut Tx,
        version: i64,
        change: Change,
        traceparent: Option<&str>,
    ) -> Result<(), DbError> {
        let due = self.lease_end(tx, &change.payment);
        if !tx.deferred::<Batch>().change(&change.payment, due, traceparent) {
            match rows::update(tx, version, &change.payment, due, traceparent).await? {
                Updated::Written => {}
                // Impossible while the row is locked.
                Updated::Stale => return Err(sqlx::Error::RowNotFound.into()),
            }
        }
        self.write_parts(tx, &change, traceparent).await?;
        let refund = next_refund(tx, &change.payment).await?;
        self.dispatch(tx, change.payment, refund, due, traceparent);
        Ok(())
    }

    async fn write_parts(
        &self,
        tx: &mut Tx,
        change: &Change,
        traceparent: Option<&str>,
    ) -> Result<(), DbError> {
        if let Some(refund) = &change.refund {
            refunds::write(tx, refund).await?;
        }
        if let Some(transfer) = &change.transfer {
            ledger::defer(tx, change.payment.id, transfer, change.payment.updated_at);
        }
        tx.on_commit(metrics::count_on_commit(change));
        self.notify(tx, &change.payment, change.notice.clone(), traceparent);
        Ok(())
    }

    fn notify(&self, tx: &mut Tx, payment: &Payment, notice: Option<Notice>, traceparent: Option<&str>) {
        if let Some(notice) = notice {
            self.outbox.put(tx, ORDERS, events::event(payment, &notice, traceparent));
        }
    }

    fn lease_end(&self, tx: &Tx, payment: &Payment) -> Option<OffsetDateTime> {
        payment.next_request().map(|_| tx.now() + self.lease)
    }

    /// Gives the job to this replica's worker after the commit.
    fn dispatch(
        &self,
        tx: &mut Tx,
        payment: Payment,
        refund: Option<Refund>,
        due: Option<OffsetDateTime>,
        traceparent: Option<&str>,
    ) {
        let Some(leased_until) = due else { return };
        let job = Job { payment, refund, traceparent: traceparent.map(str::to_owned), leased_until };
        let work = self.work.clone();
        // Without a worker the lease runs out, and another replica claims the job.
        tx.on_commit(move || work.send(job).unwrap_or_default());
    }
}

async fn lock(tx: &mut Tx, id: Uuid) -> Result<Payment, Error> {
    match tx.deferred::<Batch>().get(id) {
        Some(payment) => Ok(payment.clone()),
        None => rows::lock(tx, id).await?.ok_or(Error::NotFound),
    }
}

async fn next_refund(tx: &mut Tx, payment: &Payment) -> Result<Option<Refund>, DbError> {
    match payment.state.intent {
        Some(Intent::Refund) => refunds::next(tx, payment).await,
        _ => Ok(None),
    }
}
