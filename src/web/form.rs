//! A form of the pages, by which a person changes something. The pages' script asks for JSON and believes nothing else: whatever
//! stands before the node may answer with a page or lead elsewhere.

use axum::Json;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::json;

use super::pages::{self, way_back};
use super::said::{Said, peer_of};
use super::{Failed, api};
use crate::ledger::{DeedKind, Shown};

pub(super) struct FormSaid {
    pub(super) said: Said,
    /// The name as it was typed.
    pub(super) by: String,
    /// The page that the form was on.
    back: Option<String>,
    pub(super) asker: Asker,
}

impl FormSaid {
    /// The answer to a form: the page that it was on, or why it was not done.
    pub(super) fn answer(&self, done: Result<(), Failed>) -> Response {
        match done {
            Ok(()) if self.asker == Asker::Script => Json(json!({ "done": true })).into_response(),
            Ok(()) => Redirect::to(&way_back(self.back.as_deref())).into_response(),
            Err(failed) => self.asker.failure(failed),
        }
    }
}

/// Who sent a form, and so how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A browser, which shows the answer.
    Page,
    /// The script of a page that stays.
    Script,
}

impl Asker {
    pub(super) fn of(headers: &HeaderMap) -> Asker {
        let accepted = headers.get(ACCEPT).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
        if accepted.starts_with("application/json") { Asker::Script } else { Asker::Page }
    }

    pub(super) fn failure(self, failed: Failed) -> Response {
        match self {
            Asker::Page => pages::failure(failed),
            Asker::Script => api::failure(failed),
        }
    }
}

/// A form that could not be read.
pub(super) struct NoForm(Asker, Failed);

impl IntoResponse for NoForm {
    fn into_response(self) -> Response {
        self.0.failure(self.1)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FormFields {
    by: String,
    note: String,
    opinion: String,
    back: Option<String>,
    /// The id of the verdict that the page showed, 0 for none.
    verdict: String,
    /// What the button offered.
    kind: String,
}

impl FormFields {
    fn shown(&self) -> Result<Shown, Failed> {
        let wrong = || Failed::Refused(StatusCode::BAD_REQUEST, "the form does not say what its page showed".into());
        let verdict = match self.verdict.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|_| wrong())?),
        };
        let kind = match self.kind.as_str() {
            "" => None,
            kind => {
                let all = [DeedKind::Acknowledged, DeedKind::Seen];
                Some(all.into_iter().find(|known| known.name() == kind).ok_or_else(wrong)?)
            }
        };
        Ok(Shown { verdict, revision: None, kind })
    }
}

impl<S: Send + Sync> FromRequest<S> for FormSaid {
    type Rejection = NoForm;

    async fn from_request(request: Request, state: &S) -> Result<FormSaid, NoForm> {
        let asker = Asker::of(request.headers());
        let refused = |failed| NoForm(asker, failed);
        let (peer, request) = peer_of(request, state).await.map_err(refused)?;
        // A form without fields has no type either.
        let has_type = request.headers().contains_key(CONTENT_TYPE);
        let fields = match Form::<FormFields>::from_request(request, state).await {
            Ok(Form(fields)) => fields,
            Err(FormRejection::InvalidFormContentType(_)) if !has_type => FormFields::default(),
            Err(error) => return Err(refused(Failed::Refused(error.status(), error.body_text()))),
        };
        let shown = fields.shown().map_err(refused)?;
        let said = Said::new(peer, Some(&fields.by), Some(&fields.note), Some(fields.opinion), shown);
        Ok(FormSaid { said, by: fields.by, back: fields.back, asker })
    }
}
