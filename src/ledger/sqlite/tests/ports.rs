//! SQLite's ports, by the tests that every backend has.

use crate::ledger::port_tests::{Backend, port_tests};
use crate::ledger::sqlite::tests::ledger;
use crate::ledger::{Escalations, Instances, Ledger, Outbox, Queue, SliceRow, Studies, WorklistRow};

impl Backend for Ledger {
    fn queue(&self) -> &dyn Queue {
        self
    }

    fn instances(&self) -> &dyn Instances {
        self
    }

    fn studies(&self) -> &dyn Studies {
        self
    }

    fn outbox(&self) -> &dyn Outbox {
        self
    }

    fn escalations(&self) -> &dyn Escalations {
        self
    }

    fn slices(&self, study_uid: &str) -> Vec<SliceRow> {
        crate::ledger::Reader::slices(self, study_uid).unwrap()
    }

    fn row(&self, study_uid: &str) -> WorklistRow {
        self.study(study_uid).unwrap().unwrap()
    }

    fn flags(&self, study_uid: &str) -> Vec<Option<bool>> {
        self.verdicts(study_uid).unwrap().iter().map(|verdict| verdict.flagged).collect()
    }
}

port_tests!(ledger());
