//! IAM tokens for RDS: credentials, signing, and a served token that never runs out.
//!
//! A token is the password of an IAM login: a presigned URL that the database
//! verifies with AWS. It lives 900 seconds, or as long as the credentials that
//! signed it, whichever ends first. This crate signs it, knows when it ends,
//! and has the next one ready before that.
//!
//! It does not log in anywhere and does not send a token anywhere. Its only
//! traffic is that of the AWS credential chain.
//!
//! # Layout
//! - [`region`]: the region of an endpoint: explicit, from its name, or the chain's.
//! - [`target`]: whom a token is for: one user on one endpoint in one region.
//! - [`token`]: the secret, when it was signed and when it ends.
//! - [`sign`](mod@sign): from target, credentials and time to a token. Pure.
//! - [`credentials`]: the standard AWS chain, loaded once, one load at a time.
//! - [`rotation`]: when to sign, what to serve, when to try again. Pure.
//! - [`source`]: the task around `rotation`: one served token per target.
//! - [`status`]: what `/state` and the metrics show of both.
//! - [`error`]: what callers see when there is no token, and why.
//! - [`clock`]: the wall clock as an argument.

mod causes;
pub mod clock;
pub mod credentials;
pub mod error;
pub mod region;
pub mod rotation;
pub mod sign;
pub mod source;
pub mod status;
pub mod target;
pub mod token;

pub use clock::WallClock;
pub use credentials::{ChainOptions, CredentialChain};
pub use error::{CredentialsError, TokenError};
pub use region::{Region, RegionError};
pub use sign::{SignError, sign};
pub use source::{Proof, TokenSource};
pub use status::{CredentialStatus, Failure, Status, TokenView};
pub use target::{Target, TargetError};
pub use token::Token;
