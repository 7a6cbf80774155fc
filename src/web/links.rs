//! `/acknowledge`: what a signed link in a message leads to. Whoever has the link may acknowledge that one study, once.
//!
//! GET only asks: mail scanners and chat previews follow links. POST acknowledges.

use askama::Template;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::connection::PeerAddress;
use super::pages::{Around, NoPage, filters, page, shape};
use super::{Failed, Site};
use crate::ledger::{LinkUse, Shown, format_time};
use crate::notify::AcknowledgeLink;

/// No patient data: this page is shown without a login.
#[derive(Template)]
#[template(path = "acknowledge.html")]
struct Acknowledge {
    around: Around,
    study_uid: String,
    channel: String,
    /// The present verdict, which the button acknowledges.
    verdict: Option<ShownVerdict>,
    /// The study was judged again since the message was raised, or since the page was shown.
    is_judged_again: bool,
    /// Nothing was done for that.
    is_refused: bool,
    /// `None`: the page asks. Otherwise what came of the answer.
    outcome: Option<Outcome>,
}

/// What came of a link.
struct Outcome {
    words: &'static str,
    /// When somebody was faster.
    at: Option<String>,
}

/// A verdict as this page tells it.
struct ShownVerdict {
    id: i64,
    revision: i64,
    words: String,
    class: &'static str,
    shape: &'static str,
    decided_at: String,
}

type LinkQuery = Result<Query<AcknowledgeLink>, QueryRejection>;

/// `GET /acknowledge?…`: asks.
pub(super) async fn ask(State(site): State<Site>, link: LinkQuery) -> Result<Response, NoPage> {
    let link = checked(&site, link)?;
    let study_uid = link.study.clone();
    let row = site.ledger(move |ledger| ledger.study(&study_uid)).await?;
    let row = row.ok_or_else(|| Failed::NotFound("there is no study with this UID".into()))?;
    let before = |at| Outcome { words: "The study was acknowledged before", at: Some(at) };
    show(&site, link, row.acknowledged_at.map(before), false).await
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
    // The page says which verdict it has shown; a script that says nothing has seen the message's.
    let said = |name: &str| {
        let value = form_urlencoded::parse(&body).find(|(key, _)| key == name);
        value.and_then(|(_, number)| number.parse::<i64>().ok())
    };
    let shown = match said("verdict") {
        Some(id) => Shown::verdict(id),
        None => Shown::revision(said("revision").unwrap_or(link.revision)),
    };
    let used = link.clone();
    let expires = jiff::Timestamp::from_second(link.expires).map(format_time).unwrap_or_default();
    let outcome = site.ledger(move |ledger| ledger.use_link(&used.nonce, &used.study, shown, &expires, &actor)).await?;
    let words = match outcome {
        LinkUse::Acknowledged { first: true } => "The study is acknowledged",
        LinkUse::Acknowledged { first: false } => "The study was acknowledged before by somebody else",
        LinkUse::Seen => "The study is not flagged, so there is nothing to acknowledge: it is marked as seen",
        LinkUse::JudgedAgain => return show(&site, link, None, true).await,
        LinkUse::UsedBefore { at } => {
            let outcome = Outcome { words: "This link was used before; each link works once", at: Some(at) };
            return Ok((StatusCode::GONE, show(&site, link, Some(outcome), false).await?).into_response());
        }
    };
    tracing::info!(study = link.study, channel = link.channel, "acknowledged by a link");
    show(&site, link, Some(Outcome { words, at: None }), false).await
}

/// The page, with the present verdict.
async fn show(
    site: &Site,
    link: AcknowledgeLink,
    outcome: Option<Outcome>,
    is_refused: bool,
) -> Result<Response, NoPage> {
    let study_uid = link.study.clone();
    // The verdict first: where another comes between the two, the page names the older one, and is refused.
    let read = site.ledger(move |ledger| Ok((ledger.verdicts(&study_uid)?.pop(), ledger.study(&study_uid)?)));
    let (verdict, row) = read.await?;
    // A flag stays up, whatever a later verdict finds.
    let stands = row.and_then(|row| row.verdict);
    let verdict = verdict.map(|verdict| {
        let words = stands.or(verdict.verdict).unwrap_or_default();
        let (class, shape) = shape(&words);
        let (id, revision, decided_at) = (verdict.id, verdict.revision, verdict.decided_at);
        ShownVerdict { id, revision, words, class, shape, decided_at }
    });
    Ok(page(&Acknowledge {
        around: Around::of(site, None),
        is_judged_again: is_refused || verdict.as_ref().is_some_and(|verdict| verdict.revision > link.revision),
        verdict,
        study_uid: link.study,
        channel: link.channel,
        is_refused,
        outcome,
    }))
}

fn checked(site: &Site, link: LinkQuery) -> Result<AcknowledgeLink, Failed> {
    let refused = |why: String| Failed::Refused(StatusCode::FORBIDDEN, why);
    let Query(link) = link.map_err(|_| refused("this link is not complete".into()))?;
    site.links.check(&link).map_err(|error| refused(error.to_string()))?;
    Ok(link)
}
