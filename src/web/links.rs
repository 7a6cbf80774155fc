//! `/acknowledge`: what a signed link in a message leads to. Whoever has the link may acknowledge that one study, once.
//!
//! GET only asks: mail scanners and chat previews follow links. POST acknowledges.

use askama::Template;
use axum::body::Bytes;
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
    /// The present verdict, which the button acknowledges.
    verdict: Option<Shown>,
    /// The study was judged again since the message was raised, or since the page was shown.
    is_judged_again: bool,
    /// `None`: the page asks. Otherwise what came of the answer.
    outcome: Option<String>,
}

/// A verdict as this page tells it.
struct Shown {
    revision: i64,
    words: String,
    decided_at: String,
}

type LinkQuery = Result<Query<AcknowledgeLink>, QueryRejection>;

/// `GET /acknowledge?…`: asks.
pub(super) async fn ask(State(site): State<Site>, link: LinkQuery) -> Result<Response, NoPage> {
    let link = checked(&site, link)?;
    let study_uid = link.study.clone();
    let row = site.ledger(move |ledger| ledger.study(&study_uid)).await?;
    let row = row.ok_or_else(|| Failed::NotFound("there is no study with this UID".into()))?;
    let outcome = row.acknowledged_at.map(|at| format!("The study was acknowledged before, at {at}."));
    show(&site, link, outcome).await
}

/// `POST /acknowledge?…`: acknowledges what was shown: the verdict that the link's message told, or the one that the page shows.
pub(super) async fn acknowledge(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    link: LinkQuery,
    body: Bytes,
) -> Result<Response, NoPage> {
    let link = checked(&site, link)?;
    let actor = peer.actor_with_link(&link.channel);
    // The page says which revision it has shown; a script that says nothing has seen the message's.
    let shown = form_urlencoded::parse(&body).find(|(key, _)| key == "revision");
    let shown = shown.and_then(|(_, revision)| revision.parse().ok()).unwrap_or(link.revision);
    let used = link.clone();
    let expires = jiff::Timestamp::from_second(link.expires).map(format_time).unwrap_or_default();
    let outcome = site.ledger(move |ledger| ledger.use_link(&used.nonce, &used.study, shown, &expires, &actor)).await?;
    let outcome = match outcome {
        LinkUse::Acknowledged { first: true } => "The study is acknowledged.",
        LinkUse::Acknowledged { first: false } => "The study was acknowledged before by somebody else.",
        LinkUse::Seen => "The study is not flagged, so there is nothing to acknowledge: it is marked as seen.",
        LinkUse::JudgedAgain => return show(&site, link, None).await,
        LinkUse::UsedBefore { at } => {
            let why = format!("this link was used before, at {at}; each link works once");
            return Err(Failed::Refused(StatusCode::GONE, why).into());
        }
    };
    tracing::info!(study = link.study, channel = link.channel, "acknowledged by a link");
    show(&site, link, Some(outcome.to_owned())).await
}

/// The page, with the present verdict.
async fn show(site: &Site, link: AcknowledgeLink, outcome: Option<String>) -> Result<Response, NoPage> {
    let study_uid = link.study.clone();
    let read = site.ledger(move |ledger| Ok((ledger.study(&study_uid)?, ledger.verdicts(&study_uid)?.pop())));
    let (row, verdict) = read.await?;
    // A flag stays up, whatever a later verdict finds.
    let stands = row.and_then(|row| row.verdict);
    let verdict = verdict.map(|verdict| Shown {
        revision: verdict.revision,
        words: stands.or(verdict.verdict).unwrap_or_default(),
        decided_at: verdict.decided_at,
    });
    Ok(page(&Acknowledge {
        around: Around::of(site, None),
        is_judged_again: verdict.as_ref().is_some_and(|verdict| verdict.revision > link.revision),
        verdict,
        study_uid: link.study,
        channel: link.channel,
        outcome,
    }))
}

fn checked(site: &Site, link: LinkQuery) -> Result<AcknowledgeLink, Failed> {
    let refused = |why: String| Failed::Refused(StatusCode::FORBIDDEN, why);
    let Query(link) = link.map_err(|_| refused("this link is not complete".into()))?;
    site.links.check(&link).map_err(|error| refused(error.to_string()))?;
    Ok(link)
}
