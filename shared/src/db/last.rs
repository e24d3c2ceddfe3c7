//! Writes at the end of a transaction.
//!
//! Rows that many transactions change, such as sums, are locked from their change to the commit. So a transaction
//! collects these changes, merges those of the same row, and writes them immediately before its commit.

use std::any::{Any, TypeId, type_name};
use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{DbError, Tx};

/// Changes that a transaction writes at its end. Until then, its own reads do not see them.
#[async_trait(?Send)]
pub trait LastWrite: Any + Send {
    /// To prevent deadlocks, every transaction must lock the rows in the same order. A
    /// [contradiction](DbError::Contradiction) means for the inbox that its event can never be handled.
    async fn write(self: Box<Self>, tx: &mut Tx) -> Result<(), DbError>;
}

/// At most one write of each type, in the order of the types' names: the same in every build of the program.
#[derive(Default)]
pub(super) struct LastWrites(BTreeMap<(&'static str, TypeId), Box<dyn LastWrite>>);

impl LastWrites {
    #[allow(clippy::expect_used, reason = "the key is the type of the value")]
    pub(super) fn get<T: LastWrite + Default>(&mut self) -> &mut T {
        let write =
            self.0.entry((type_name::<T>(), TypeId::of::<T>())).or_insert_with(|| Box::new(T::default()));
        let write: &mut dyn Any = write.as_mut();
        write.downcast_mut().expect("the key is the type of the value")
    }

    pub(super) fn take(&mut self) -> Vec<Box<dyn LastWrite>> {
        std::mem::take(&mut self.0).into_values().collect()
    }
}
