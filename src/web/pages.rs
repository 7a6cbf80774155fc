//! The parts that all pages for people share. Everything that came from outside is escaped by the templates, and shown as `outside` shows it.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};

use super::connection::PeerAddress;
use super::{Failed, Site, api};
use crate::ledger::ActorKind;

/// What stands around every page.
#[derive(Default)]
pub(super) struct Around {
    /// The model that gives the verdicts, and the terms of the data that it was trained on.
    pub model: String,
    pub terms: Vec<String>,
    /// The person who is logged in.
    pub me: Option<String>,
}

impl Around {
    /// As `peer` is to see it; none where nobody is logged in.
    pub fn of(site: &Site, peer: Option<&PeerAddress>) -> Around {
        let me = peer.map(PeerAddress::actor).filter(|actor| actor.kind == ActorKind::Person);
        Around {
            model: site.card["name"].as_str().unwrap_or_default().to_owned(),
            terms: site.terms.to_vec(),
            me: me.map(|actor| actor.name),
        }
    }

    /// Whether some of the data is for non-commercial use alone, as far as the card says.
    pub fn is_limited(&self) -> bool {
        self.terms.iter().any(|terms| {
            let terms = terms.to_lowercase();
            terms.contains("non-commercial") || terms.contains("noncommercial")
        })
    }
}

#[derive(Template)]
#[template(path = "failure.html")]
struct Failure {
    around: Around,
    status: u16,
    why: String,
}

/// Why a page was not made; shown as a page.
pub(super) struct NoPage(Failed);

impl From<Failed> for NoPage {
    fn from(failed: Failed) -> NoPage {
        NoPage(failed)
    }
}

impl IntoResponse for NoPage {
    fn into_response(self) -> Response {
        failure(self.0)
    }
}

pub(super) fn failure(failed: Failed) -> Response {
    let (status, why) = failed.in_words();
    (status, page(&Failure { around: Around::default(), status: status.as_u16(), why })).into_response()
}

pub(super) fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be made; this is a bug");
            api::failure(Failed::Internal)
        }
    }
}

/// The page to which a form leads back: the worklist or a study's page, as it was filtered; the worklist where it does not say.
pub(super) fn way_back(asked: Option<&str>) -> String {
    let ours = asked.filter(|to| {
        let path = to.split(['?', '#']).next().unwrap_or_default();
        (path == "/" || path.starts_with("/studies/") || path == "/admin")
            && to.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    });
    ours.unwrap_or("/").to_owned()
}

/// The name of a verdict in style sheets, and the shape that goes with it, so that it is told without colour and without words.
pub(super) fn shape(verdict: &str) -> (&'static str, &'static str) {
    match verdict {
        "FLAGGED" | "flagged" => ("flagged", "▲"),
        "incomplete" => ("incomplete", "◆"),
        "not triaged" => ("incomplete", "◇"),
        "receiving" => ("receiving", "◌"),
        _ => ("unflagged", "–"),
    }
}

/// The end of a UID, by which people tell two apart.
pub(super) fn short_uid(uid: &str) -> String {
    let count = uid.chars().count();
    match count > 16 {
        true => format!("…{}", uid.chars().skip(count - 12).collect::<String>()),
        false => uid.to_owned(),
    }
}

/// Filters of the templates.
pub(super) mod filters {
    use std::fmt::Display;

    use askama::{Result, Values};

    /// `2026-11-23T15:42:07.123Z` as `2026-11-23 15:42:07`; the page says that it is UTC.
    #[askama::filter_fn]
    pub(in crate::web) fn moment(time: impl Display, _: &dyn Values) -> Result<String> {
        let time = time.to_string();
        Ok(time.get(..19).unwrap_or(&time).replace('T', " "))
    }

    /// A score as people compare it.
    #[askama::filter_fn]
    pub(in crate::web) fn score(value: impl Display, _: &dyn Values) -> Result<String> {
        Ok(format!("{value:.3}"))
    }

    /// A kept rule for people; what a later version wrote stays as it is.
    #[askama::filter_fn]
    pub(in crate::web) fn rule(kept: impl Display, _: &dyn Values) -> Result<String> {
        let kept = kept.to_string();
        Ok(triaged_model::VerdictRule::words_of(&kept).unwrap_or(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_leads_back_to_this_site_only() {
        for to in ["/", "/?q=a&page=2", "/studies/1.2%2F3?slice=4#viewer"] {
            assert_eq!(way_back(Some(to)), to);
        }
        for to in ["//evil.example", "https://evil.example", "/\\evil.example", "/logout", "/?a\r\nSet-Cookie: a", ""] {
            assert_eq!(way_back(Some(to)), "/");
        }
    }

    #[test]
    fn a_long_uid_is_told_by_its_end() {
        assert_eq!(short_uid("1.2.840.113619.2.5.1762583153"), "…5.1762583153");
        assert_eq!(short_uid("1.2.3"), "1.2.3");
    }
}
