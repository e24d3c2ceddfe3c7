//! Writes at the end of a transaction, each with one statement for all its rows.
//!
//! Rows that many transactions change, such as sums, are locked from their change to the commit. So a transaction
//! collects these changes, merges those of the same row, and writes them immediately before its commit. New rows, such as
//! events, are collected because one statement with many rows costs less than many statements.

use std::any::{Any, TypeId, type_name};
use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{DbError, Tx};

/// Changes that a transaction writes at its end. Until then, its own reads do not see them.
#[async_trait(?Send)]
pub trait DeferredWrite: Any + Send {
    /// To prevent deadlocks, every transaction must lock the rows in the same order. A
    /// [contradiction](DbError::Contradiction) means for the inbox that its event can never be handled.
    async fn write(self: Box<Self>, tx: &mut Tx) -> Result<(), DbError>;

    /// Whether other transactions may wait for the rows. These writes come after all others.
    fn locks_contended_rows(&self) -> bool {
        true
    }
}

/// At most one write of each type, in the order of the types' names: the same in every build of the program.
#[derive(Default)]
pub(super) struct DeferredWrites(BTreeMap<(&'static str, TypeId), Box<dyn DeferredWrite>>);

impl DeferredWrites {
    #[allow(clippy::expect_used, reason = "the key is the type of the value")]
    pub(super) fn get<T: DeferredWrite + Default>(&mut self) -> &mut T {
        let write =
            self.0.entry((type_name::<T>(), TypeId::of::<T>())).or_insert_with(|| Box::new(T::default()));
        let write: &mut dyn Any = write.as_mut();
        write.downcast_mut().expect("the key is the type of the value")
    }

    pub(super) fn take(&mut self) -> Vec<Box<dyn DeferredWrite>> {
        let mut writes: Vec<_> = std::mem::take(&mut self.0).into_values().collect();
        writes.sort_by_key(|write| write.locks_contended_rows());
        writes
    }
}
