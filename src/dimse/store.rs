//! C-STORE (PS3.7 9.1.1, PS3.4 B): the intake takes the object, its outcome becomes a status.

use crate::intake::Outcome;

use super::command::Request;
use super::policy::Context;
use super::status::Status;

/// Whether the request fits the presentation context it came in.
pub fn check(context: &Context, request: &Request) -> Result<(), Status> {
    if request.sop_class_uid == context.abstract_syntax {
        return Ok(());
    }
    let why = "the SOP class is not the presentation context's abstract syntax";
    Err(Status::new(Status::SOP_CLASS_NOT_SUPPORTED, why))
}

/// The status of a C-STORE response (PS3.4 table B.2-1). What is set aside is kept, so its sender is told success.
pub fn status(outcome: &Outcome) -> Status {
    let code = match outcome {
        Outcome::Stored | Outcome::Duplicate | Outcome::SetAside => Status::SUCCESS,
        Outcome::DoesNotMatch(_) => Status::DATA_SET_DOES_NOT_MATCH,
        Outcome::CannotUnderstand(_) => Status::CANNOT_UNDERSTAND,
        Outcome::InvalidInstance(_) => Status::INVALID_SOP_INSTANCE,
        Outcome::OutOfResources(_) => Status::OUT_OF_RESOURCES,
    };
    Status::new(code, outcome.reason())
}
