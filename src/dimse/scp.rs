//! The service class provider: everything that all associations of the node share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::config;
use crate::intake::Intake;

use super::policy::Policy;
use super::service::Service;
use super::service::echo::Echo;
use super::service::store::Store;

pub struct Scp {
    pub policy: Policy,
    /// The services that the node provides.
    pub services: Vec<Arc<dyn Service>>,
    /// One permit for each association.
    pub places: Arc<Semaphore>,
    /// One permit for each connection. Those without an association are limited so that they cannot keep scanners out; past
    /// the limit, new connections wait in the backlog for the request timeout at most.
    pub connections: Arc<Semaphore>,
    /// The longest P-DATA-TF that peers are asked to send, in bytes of its length field.
    pub max_pdu: u32,
    pub association_request_timeout: Duration,
    pub idle_timeout: Duration,
}

impl Scp {
    /// The node's services: Verification and Storage.
    pub fn new(settings: &config::Dimse, intake: Intake) -> Scp {
        let services: Vec<Arc<dyn Service>> =
            vec![Arc::new(Echo), Arc::new(Store::new(intake, &settings.other_storage_classes))];
        Scp::with_services(settings, services)
    }

    /// Other services, under the same policy and limits.
    pub fn with_services(settings: &config::Dimse, services: Vec<Arc<dyn Service>>) -> Scp {
        Scp {
            policy: Policy::new(settings),
            services,
            places: Arc::new(Semaphore::new(settings.max_associations)),
            connections: Arc::new(Semaphore::new(settings.max_associations.saturating_mul(2))),
            max_pdu: settings.max_pdu_bytes,
            association_request_timeout: Duration::from_secs(settings.association_request_timeout_seconds),
            idle_timeout: Duration::from_secs(settings.idle_timeout_seconds),
        }
    }
}
