//! SQLite's queue, by the tests that every queue has.

use crate::ledger::queue_tests::{Backend, queue_tests};
use crate::ledger::sqlite::tests::ledger;
use crate::ledger::{Ledger, NewInstance, Pending, Queue, SliceRow, Stored};

impl Backend for Ledger {
    fn queue(&self) -> &dyn Queue {
        self
    }

    fn receive(&self, instance: NewInstance) -> Pending<'_, Stored> {
        Box::pin(self.store(instance))
    }

    fn slices(&self, study_uid: &str) -> Vec<SliceRow> {
        crate::ledger::Reader::slices(self, study_uid).unwrap()
    }
}

queue_tests!(ledger());
