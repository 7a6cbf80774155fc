//! A form of the pages, by which a person changes something.

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::response::Redirect;
use serde::Deserialize;

use super::Failed;
use super::pages::{NoPage, way_back};
use super::said::{Said, peer_of};

pub(super) struct FormSaid {
    pub(super) said: Said,
    /// The page that the form was on.
    back: Option<String>,
}

impl FormSaid {
    pub(super) fn way_back(&self) -> Redirect {
        Redirect::to(&way_back(self.back.as_deref()))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FormFields {
    by: String,
    note: String,
    opinion: String,
    back: Option<String>,
}

impl<S: Send + Sync> FromRequest<S> for FormSaid {
    type Rejection = NoPage;

    async fn from_request(request: Request, state: &S) -> Result<FormSaid, NoPage> {
        let (peer, request) = peer_of(request, state).await?;
        // A form without fields has no type either.
        let has_type = request.headers().contains_key(CONTENT_TYPE);
        let fields = match Form::<FormFields>::from_request(request, state).await {
            Ok(Form(fields)) => fields,
            Err(FormRejection::InvalidFormContentType(_)) if !has_type => FormFields::default(),
            Err(error) => return Err(Failed::Refused(error.status(), error.body_text()).into()),
        };
        let said = Said::new(peer, Some(&fields.by), Some(&fields.note), Some(fields.opinion));
        Ok(FormSaid { said, back: fields.back })
    }
}
