//! What is kept of payments, and the promises that come with it.
//!
//! - A command's effect, and what the order is told of it, are written in the transaction of the
//!   message that brought it. An answer of the card network is written in one transaction with the
//!   ledger's entries and the event that tells of it.
//! - Work that is left is written with the change that leaves it, *leased* to the replica that wrote
//!   it, which therefore needs no transaction to claim it and starts right at the commit. When a lease
//!   runs out, any replica may [claim](Store::claim_due) the work.
//! - Every change and every claim makes a new version, and an answer is [recorded](Store::record) only
//!   for the version that it was asked for: a replica that was paused past its lease overwrites nothing.

mod ledger;
mod refunds;
mod rows;

pub use ledger::{Balance, Ledger};

use std::time::Duration;

use shared::db::{Db, DbError, Migrations, Tx, now, query};
use shared::messages::Outbox;
use shared::request::Paging;
use time::OffsetDateTime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

use crate::domain::{Change, Intent, Money, Notice, Payment, Purchase, Reaction, Refund, Refusal};
use crate::messages;

/// The tables of this service.
pub fn migrations() -> Migrations {
    Migrations {
        sqlite: sqlx::migrate!("migrations/sqlite"),
        postgres: sqlx::migrate!("migrations/postgres"),
    }
}

/// The payments of this service, as one replica uses them.
#[derive(Clone, Debug)]
pub struct Store {
    db: Db,
    outbox: Outbox,
    lease: Duration,
    work: UnboundedSender<Job>,
}

/// A payment with something to be carried out, leased to this replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The payment.
    pub payment: Payment,
    /// The refund to carry out, if that is what is to be done.
    pub refund: Option<Refund>,
    /// The trace of the message that began it.
    pub traceparent: Option<String>,
    /// When it is anybody's again.
    pub leased_until: OffsetDateTime,
}

/// What a command led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commanded {
    /// It is written down, or had been.
    Done,
    /// There is no such payment.
    NoPayment,
    /// The payment cannot do that.
    Refused(Refusal),
}

/// What recording an answer led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// The payment is at rest.
    AtRest,
    /// There is more to do, from this time on.
    More(OffsetDateTime),
    /// The payment has changed, or somebody else has taken it over: the answer is not recorded.
    Fenced,
}

/// Which payments to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this customer's.
    pub customer_id: Option<Uuid>,
    /// Only this order's.
    pub order_id: Option<Uuid>,
}

impl Store {
    /// A store whose writers lease the work they leave for so long, and where it arrives.
    pub fn new(db: Db, outbox: Outbox, lease: Duration) -> (Self, UnboundedReceiver<Job>) {
        let (work, arriving) = unbounded_channel();
        (Self { db, outbox, lease, work }, arriving)
    }

    /// The database.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// The order wants a payment to be authorized. One that exists, if only as the tombstone of an
    /// undo that came first, stays as it is.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn authorize(
        &self,
        tx: &mut Tx,
        purchase: Purchase,
        token: String,
        traceparent: Option<&str>,
    ) -> Result<Commanded, DbError> {
        let payment = Payment::authorize(purchase, token, now());
        let due = self.lease_end(&payment);
        if rows::insert(tx, &payment, due, traceparent).await? {
            self.leave(tx, payment, None, due, traceparent);
            return Ok(Commanded::Done);
        }
        let Some((payment, _)) = rows::locked(tx, payment.id).await? else { return Ok(Commanded::Done) };
        let standing = payment.standing();
        self.tell(tx, &payment, standing, traceparent).await?;
        Ok(Commanded::Done)
    }

    /// The order wants the money taken.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn capture(
        &self,
        tx: &mut Tx,
        id: Uuid,
        traceparent: Option<&str>,
    ) -> Result<Commanded, DbError> {
        self.command(tx, id, traceparent, |payment| payment.capture(now())).await
    }

    /// The order wants the money let go; a payment that it never ordered is kept as a tombstone, so
    /// that the order, if it comes later, finds it undone.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn void(
        &self,
        tx: &mut Tx,
        purchase: Purchase,
        traceparent: Option<&str>,
    ) -> Result<Commanded, DbError> {
        let id = purchase.id;
        let Change { payment: tombstone, notice, .. } = Payment::tombstone(purchase, now());
        if rows::insert(tx, &tombstone, None, traceparent).await? {
            self.tell(tx, &tombstone, notice, traceparent).await?;
            return Ok(Commanded::Done);
        }
        self.command(tx, id, traceparent, |payment| payment.void(now())).await
    }

    /// The order wants all that is left back.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn refund_rest(
        &self,
        tx: &mut Tx,
        id: Uuid,
        reason: &str,
        traceparent: Option<&str>,
    ) -> Result<Commanded, DbError> {
        self.command(tx, id, traceparent, |payment| payment.refund_rest(reason, now())).await
    }

    /// An admin wants `amount` back, or all that is left. `None` if there is no such payment.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn refund(
        &self,
        tx: &mut Tx,
        id: Uuid,
        amount: Option<Money>,
        reason: &str,
        traceparent: Option<&str>,
    ) -> Result<Option<Result<Refund, Refusal>>, DbError> {
        let Some((payment, _)) = rows::locked(tx, id).await? else { return Ok(None) };
        let version = payment.version;
        match payment.refund(amount, reason, now()) {
            Ok((change, refund)) => {
                self.write(tx, version, change, traceparent).await?;
                Ok(Some(Ok(refund)))
            }
            Err(refusal) => Ok(Some(Err(refusal))),
        }
    }

    /// Records what asking the card network for `job` led to, if the job is still this replica's;
    /// what is left to do is left until `pause` is over.
    ///
    /// # Errors
    /// Any [`DbError`]; the answer is then not recorded, and the lease runs out.
    pub async fn record(&self, job: &Job, change: Change, pause: Duration) -> Result<Recorded, DbError> {
        let mut tx = self.db.begin().await?;
        let due = change.payment.question().map(|_| now() + pause);
        if !rows::update(&mut tx, job.payment.version, &change.payment, due, None).await? {
            return Ok(Recorded::Fenced);
        }
        self.write_rest(&mut tx, &change, job.traceparent.as_deref()).await?;
        tx.commit().await?;
        Ok(due.map_or(Recorded::AtRest, Recorded::More))
    }

    /// Takes up to `limit` jobs that are due.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn claim_due(&self, limit: i64) -> Result<Vec<Job>, DbError> {
        let due = query("SELECT id FROM payments WHERE due_at <= $1 LIMIT 1").bind(now());
        if due.fetch_optional(&self.db).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut tx = self.db.begin().await?;
        let leased_until = now() + self.lease;
        let mut jobs = Vec::new();
        for (payment, traceparent) in rows::claim(&mut tx, leased_until, limit).await? {
            let refund = self.refund_of(&mut tx, &payment).await?;
            jobs.push(Job { payment, refund, traceparent, leased_until });
        }
        tx.commit().await?;
        Ok(jobs)
    }

    /// The payment.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn payment(&self, id: Uuid) -> Result<Option<Payment>, DbError> {
        rows::one(&self.db, id).await
    }

    /// A page of payments, newest first, and one more.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn payments(&self, filter: Filter, paging: &Paging) -> Result<Vec<Payment>, DbError> {
        rows::list(&self.db, filter, paging).await
    }

    /// The accounts and what is in them.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn ledger(&self) -> Result<Ledger, DbError> {
        ledger::read(&self.db).await
    }

    async fn command(
        &self,
        tx: &mut Tx,
        id: Uuid,
        traceparent: Option<&str>,
        command: impl FnOnce(Payment) -> Result<Reaction, Refusal>,
    ) -> Result<Commanded, DbError> {
        let Some((payment, _)) = rows::locked(tx, id).await? else { return Ok(Commanded::NoPayment) };
        let before = payment.clone();
        match command(payment) {
            Ok(Reaction::Changed(change)) => {
                self.write(tx, before.version, *change, traceparent).await?;
                Ok(Commanded::Done)
            }
            Ok(Reaction::Stands(standing)) => {
                self.tell(tx, &before, standing, traceparent).await?;
                Ok(Commanded::Done)
            }
            Err(refusal) => Ok(Commanded::Refused(refusal)),
        }
    }

    /// Writes a change to a payment that `tx` has locked, and leases what is left to this replica.
    async fn write(
        &self,
        tx: &mut Tx,
        version: i64,
        change: Change,
        traceparent: Option<&str>,
    ) -> Result<(), DbError> {
        let due = self.lease_end(&change.payment);
        if !rows::update(tx, version, &change.payment, due, traceparent).await? {
            // Only a writer that did not lock the row can do this.
            return Err(sqlx::Error::RowNotFound.into());
        }
        self.write_rest(tx, &change, traceparent).await?;
        let refund = self.refund_of(tx, &change.payment).await?;
        self.leave(tx, change.payment, refund, due, traceparent);
        Ok(())
    }

    async fn write_rest(
        &self,
        tx: &mut Tx,
        change: &Change,
        traceparent: Option<&str>,
    ) -> Result<(), DbError> {
        if let Some(refund) = &change.refund {
            refunds::write(tx, refund).await?;
        }
        if let Some(transfer) = &change.transfer {
            ledger::write(tx, change.payment.id, transfer, change.payment.updated_at).await?;
        }
        self.tell(tx, &change.payment, change.notice.clone(), traceparent).await
    }

    async fn tell(
        &self,
        tx: &mut Tx,
        payment: &Payment,
        notice: Option<Notice>,
        traceparent: Option<&str>,
    ) -> Result<(), DbError> {
        let Some(notice) = notice else { return Ok(()) };
        self.outbox.put(tx, messages::ORDERS, messages::event(payment, &notice, traceparent)).await
    }

    fn lease_end(&self, payment: &Payment) -> Option<OffsetDateTime> {
        payment.question().map(|_| now() + self.lease)
    }

    /// Hands what is left to this replica's worker, once it is committed.
    fn leave(
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
        // Without a worker the lease runs out, and another replica's takes it.
        tx.on_commit(move || work.send(job).unwrap_or_default());
    }

    async fn refund_of(&self, tx: &mut Tx, payment: &Payment) -> Result<Option<Refund>, DbError> {
        match payment.state.intent {
            Some(Intent::Refund) => refunds::next(tx, payment).await,
            _ => Ok(None),
        }
    }
}
