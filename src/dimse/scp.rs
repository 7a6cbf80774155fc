//! The service class provider: everything that all associations of the node share.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::warn;

use crate::config;
use crate::crowd::Crowd;
use crate::intake::Intake;
use crate::log_limit::LogLimit;

use super::applicant::Refusal;
use super::policy::Policy;
use super::senders::Senders;
use super::service::Service;
use super::service::commitment::Commitment;
use super::service::echo::Echo;
use super::service::store::Store;

/// Connections without an association for which there is room in any case: a scanner's is one for some milliseconds.
const LEAST_CROWD: usize = 64;

pub struct Scp {
    pub policy: Policy,
    /// The services that the node provides.
    pub services: Vec<Arc<dyn Service>>,
    /// One permit for each association.
    pub places: Arc<Semaphore>,
    /// How many associations each sender has, and how many it may have.
    pub senders: Arc<Senders>,
    /// The connections that have not asked for an association yet.
    pub crowd: Arc<Crowd>,
    /// The longest P-DATA-TF that peers are asked to send, in bytes of its length field.
    pub max_pdu: u32,
    /// For lines about peers that try again and again.
    pub log_limit: LogLimit,
    pub association_request_timeout: Duration,
    pub idle_timeout: Duration,
}

impl Scp {
    /// The node's services: Verification, Storage, and Storage Commitment where it is given.
    pub fn new(settings: &config::Dimse, intake: Intake, commitment: Option<Commitment>) -> Scp {
        let mut services: Vec<Arc<dyn Service>> =
            vec![Arc::new(Echo), Arc::new(Store::new(intake, &settings.other_storage_classes))];
        services.extend(commitment.map(|commitment| Arc::new(commitment) as Arc<dyn Service>));
        Scp::with_services(settings, services)
    }

    /// Other services, under the same policy and limits.
    pub fn with_services(settings: &config::Dimse, services: Vec<Arc<dyn Service>>) -> Scp {
        Scp {
            policy: Policy::new(settings),
            services,
            places: Arc::new(Semaphore::new(settings.max_associations)),
            senders: Senders::new(settings.max_associations_of_source),
            crowd: Crowd::new(settings.max_associations.saturating_mul(2).max(LEAST_CROWD)),
            log_limit: LogLimit::default(),
            max_pdu: settings.max_pdu_bytes,
            association_request_timeout: Duration::from_secs(settings.association_request_timeout_seconds),
            idle_timeout: Duration::from_secs(settings.idle_timeout_seconds),
        }
    }

    /// Counts and tells a connection that did not become an association, once for each address and reason.
    pub fn garbage(&self, address: IpAddr, why: &str) {
        metrics::counter!("triaged_associations_total", "result" => "garbage").increment(1);
        if let Some(kept_back) = self.log_limit.admit(address, why) {
            warn!(%address, kept_back, "no association: {why}");
        }
    }

    /// Counts and tells a rejection, once for each peer and reason.
    pub fn rejected(&self, address: IpAddr, calling_ae: &str, refusal: &Refusal) {
        metrics::counter!("triaged_associations_total", "result" => "rejected").increment(1);
        let [result, source, reason] = refusal.rejection.words();
        metrics::counter!("triaged_rejections_total", "result" => result, "source" => source, "reason" => reason)
            .increment(1);
        if let Some(kept_back) = self.log_limit.admit(address, &format!("{calling_ae}\\{}", refusal.why)) {
            warn!(%address, calling_ae, result, source, reason, kept_back, "association rejected: {}", refusal.why);
        }
    }
}
