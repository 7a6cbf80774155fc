//! What every association of the node shares.

use std::time::Duration;

use crate::config;
use crate::intake::Intake;

use super::policy::Policy;

pub struct Scp {
    pub policy: Policy,
    pub intake: Intake,
    pub max_associations: usize,
    pub association_request_timeout: Duration,
    pub idle_timeout: Duration,
}

impl Scp {
    pub fn new(dimse: &config::Dimse, intake: Intake) -> Scp {
        Scp {
            policy: Policy::new(dimse),
            intake,
            max_associations: dimse.max_associations,
            association_request_timeout: Duration::from_secs(dimse.association_request_timeout_seconds),
            idle_timeout: Duration::from_secs(dimse.idle_timeout_seconds),
        }
    }
}
