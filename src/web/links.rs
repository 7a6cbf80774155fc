//! `/acknowledge`: what a signed link in a message leads to. Whoever has the link may acknowledge that one study, once.
//!
//! GET only asks: mail scanners and chat previews follow links. POST acknowledges.

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::connection::PeerAddress;
use super::pages::{Around, NoPage, page};
use super::{Failed, Site};
use crate::ledger::{LinkUse, format_time};
use crate::notify::AcknowledgeLink;

/// No patient data: this page is shown without a login.
#[derive(Template)]
#[template(path = "acknowledge.html")]
struct Acknowledge {
    around: Around,
    study_uid: String,
    channel: String,
    /// `None`: the page asks. Otherwise what came of the answer.
    outcome: Option<String>,
}

type LinkQuery = Result<Query<AcknowledgeLink>, QueryRejection>;

/// `GET /acknowledge?…`: asks.
pub(super) async fn ask(State(site): State<Site>, link: LinkQuery) -> Result<Response, NoPage> {
    let link = checked(&site, link)?;
    let study_uid = link.study.clone();
    let row = site.ledger(move |ledger| ledger.study(&study_uid)).await?;
    let row = row.ok_or_else(|| Failed::NotFound("there is no study with this UID".into()))?;
    let outcome = row.acknowledged_at.map(|at| format!("The study was acknowledged before, at {at}."));
    Ok(page(&Acknowledge { around: Around::of(&site, None), study_uid: link.study, channel: link.channel, outcome }))
}

/// `POST /acknowledge?…`: acknowledges.
pub(super) async fn acknowledge(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    link: LinkQuery,
) -> Result<Response, NoPage> {
    let link = checked(&site, link)?;
    let actor = peer.actor_with_link(&link.channel);
    let used = link.clone();
    let expires = jiff::Timestamp::from_second(link.expires).map(format_time).unwrap_or_default();
    let outcome = site.ledger(move |ledger| ledger.use_link(&used.nonce, &used.study, &expires, &actor)).await?;
    let outcome = match outcome {
        LinkUse::Acknowledged { first: true } => "The study is acknowledged.".to_owned(),
        LinkUse::Acknowledged { first: false } => "The study was acknowledged before by somebody else.".to_owned(),
        LinkUse::UsedBefore { at } => {
            let why = format!("this link was used before, at {at}; each link works once");
            return Err(Failed::Refused(StatusCode::GONE, why).into());
        }
    };
    tracing::info!(study = link.study, channel = link.channel, "acknowledged by a link");
    Ok(page(&Acknowledge {
        around: Around::of(&site, None),
        study_uid: link.study,
        channel: link.channel,
        outcome: Some(outcome),
    }))
}

fn checked(site: &Site, link: LinkQuery) -> Result<AcknowledgeLink, Failed> {
    let refused = |why: String| Failed::Refused(StatusCode::FORBIDDEN, why);
    let Query(link) = link.map_err(|_| refused("this link is not complete".into()))?;
    site.links.check(&link).map_err(|error| refused(error.to_string()))?;
    Ok(link)
}
