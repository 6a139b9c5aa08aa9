//! Every way in which a request can fail, as one response shape: an HTTP status and an [`ErrorBody`].

use axum::{
    Json,
    extract::rejection::{JsonRejection, PathRejection, QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{
    command::CommandError,
    wire::{ErrorBody, ErrorCode},
};

/// A response that isn't a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The HTTP status.
    pub status: StatusCode,
    /// What is in it.
    pub body: ErrorBody,
}

impl Reject {
    /// With the status that belongs to the code.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status: status_of(code), body: ErrorBody { code, message: message.into(), remedy: None, place: None } }
    }

    /// With what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.body.remedy = Some(remedy.into());
        self
    }

    /// With another status than the code's own.
    fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

const fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::NotFound | ErrorCode::Unsupported => StatusCode::NOT_FOUND,
        ErrorCode::Invalid => StatusCode::BAD_REQUEST,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<CommandError> for Reject {
    fn from(error: CommandError) -> Self {
        let body = ErrorBody::from(error);
        Self { status: status_of(body.code), body }
    }
}

/// A body that can't be read. 413 and 415 keep their status.
impl From<JsonRejection> for Reject {
    fn from(rejection: JsonRejection) -> Self {
        let reject = Self::new(ErrorCode::Invalid, rejection.body_text());
        match rejection.status() {
            status @ (StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE) => reject.status(status),
            _ => reject,
        }
    }
}

impl From<QueryRejection> for Reject {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(ErrorCode::Invalid, rejection.body_text())
    }
}

impl From<PathRejection> for Reject {
    fn from(rejection: PathRejection) -> Self {
        Self::new(ErrorCode::Invalid, rejection.body_text())
    }
}

impl IntoResponse for Reject {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// A path that no call has.
pub async fn unknown_path() -> Reject {
    Reject::new(ErrorCode::Unsupported, "this agent has no such call").remedy("use a command line of the agent's version")
}

/// A path with a method that it hasn't.
pub async fn unknown_method() -> Reject {
    unknown_path().await.status(StatusCode::METHOD_NOT_ALLOWED)
}
