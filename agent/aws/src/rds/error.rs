//! Why a call of the API failed. No message contains a secret.

use aws_sdk_rds::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use thiserror::Error;

use crate::{causes::chain, error::CredentialsError};

/// A failed call. The action is the one that a policy has to allow, such as `rds:DescribeDBInstances`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{action}: {kind}{}{message}", if message.is_empty() { "" } else { ": " })]
pub struct ApiError {
    pub action: &'static str,
    pub kind: ApiErrorKind,
    /// What AWS or the network reported.
    pub message: String,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
pub enum ApiErrorKind {
    /// The policy of the agent's credentials lacks the action.
    #[error("not allowed; add this action to the policy of these credentials")]
    Denied,
    /// No credentials, or AWS does not accept them: expired, unknown, or this host's clock is wrong.
    #[error("no valid AWS credentials")]
    Credentials,
    /// Too many calls in this account and region, by any caller.
    #[error("AWS throttles these calls; try again later")]
    Throttled,
    #[error("there is no such resource")]
    NotFound,
    /// No connection: no route, no endpoint in this network, no name.
    #[error("the RDS API cannot be reached; it needs a route to the internet or a VPC endpoint")]
    Unreachable,
    #[error("no answer of the RDS API in time")]
    TimedOut,
    /// The settings of the environment or the profile are at fault: an invalid endpoint, for example.
    #[error("the call could not be made; correct the AWS settings of this environment")]
    NotSent,
    /// AWS is at fault.
    #[error("the RDS API failed")]
    Failed,
    /// Any other refusal.
    #[error("the RDS API refused the call")]
    Refused,
    /// More entries than are ever read, or pages without an end.
    #[error("the answer is too long")]
    TooLong,
}

impl ApiErrorKind {
    /// The value of a metric's label.
    pub fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Credentials => "credentials",
            Self::Throttled => "throttled",
            Self::NotFound => "not_found",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::NotSent => "not_sent",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::TooLong => "too_long",
        }
    }
}

// === impl ApiError ===

impl ApiError {
    pub(super) fn new(action: &'static str, kind: ApiErrorKind, message: impl Into<String>) -> Self {
        Self { action, kind, message: message.into() }
    }

    pub(super) fn credentials(action: &'static str, error: &CredentialsError) -> Self {
        Self::new(action, ApiErrorKind::Credentials, error.to_string())
    }

    pub(super) fn from_sdk<E>(action: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match error {
            SdkError::ServiceError(context) => {
                let code = context.err().code().unwrap_or_default();
                let status = context.raw().status().as_u16();
                let kind = kind(code, status);
                let text = match context.err().message().unwrap_or_default() {
                    "" if code.is_empty() => format!("status {status}"),
                    "" => code.to_owned(),
                    message => format!("{message} ({code})"),
                };
                Self::new(action, kind, text)
            }
            SdkError::TimeoutError(_) => Self::new(action, ApiErrorKind::TimedOut, ""),
            SdkError::DispatchFailure(failure) => {
                let kind = if failure.is_timeout() {
                    ApiErrorKind::TimedOut
                } else if failure.is_io() {
                    ApiErrorKind::Unreachable
                } else {
                    ApiErrorKind::NotSent
                };
                // The outer errors quote the request.
                let text = if kind == ApiErrorKind::NotSent { innermost(&error) } else { chain(&error) };
                Self::new(action, kind, text)
            }
            // Not the API: a proxy or a login page answers.
            SdkError::ResponseError(context) => {
                let status = context.raw().status().as_u16();
                Self::new(action, ApiErrorKind::Failed, format!("status {status}, {}", chain(&error)))
            }
            _ => Self::new(action, ApiErrorKind::NotSent, innermost(&error)),
        }
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// By AWS's error codes, which differ between its services.
fn kind(code: &str, status: u16) -> ApiErrorKind {
    match code {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => ApiErrorKind::Denied,
        "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "OptInRequired"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => ApiErrorKind::Credentials,
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "TooManyRequestsException"
        | "SlowDown" => ApiErrorKind::Throttled,
        code if code.contains("NotFound") => ApiErrorKind::NotFound,
        _ if status >= 500 => ApiErrorKind::Failed,
        _ => ApiErrorKind::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart_and_a_denied_call_names_its_action() {
        for (code, status, expected) in [
            ("AccessDenied", 403, ApiErrorKind::Denied),
            ("InvalidClientTokenId", 403, ApiErrorKind::Credentials),
            ("Throttling", 400, ApiErrorKind::Throttled),
            ("DBClusterNotFoundFault", 404, ApiErrorKind::NotFound),
            ("InternalFailure", 500, ApiErrorKind::Failed),
            ("InvalidParameterValue", 400, ApiErrorKind::Refused),
        ] {
            assert_eq!(kind(code, status), expected, "{code}");
        }
        let error = ApiError::new("rds:DescribeEvents", ApiErrorKind::Denied, "");
        assert_eq!(
            error.to_string(),
            "rds:DescribeEvents: not allowed; add this action to the policy of these credentials"
        );
    }
}
