//! IAM tokens for RDS: credentials, signing and rotation; and what RDS's API reports.
//!
//! A token is the password of an IAM login: a presigned URL that the database verifies with AWS.
//! It is valid for 900 seconds, or until the credentials that signed it expire, whichever is
//! first. This crate signs tokens and has the next one ready before the current one expires.
//!
//! It never logs in to a database or sends a token. Its only traffic is that of the AWS
//! credential chain, and calls of RDS's API that only read.
//!
//! # Layout
//! - [`region`]: the region of an endpoint: explicit, from its name, or from the chain.
//! - [`target`]: what a token is for: one user on one endpoint in one region.
//! - [`token`]: the secret, its date and its expiry.
//! - [`sign`](mod@sign): signs a token. Pure.
//! - [`credentials`]: the standard AWS credential chain, shared by all sources.
//! - `providers`: the providers of the chain, with names for errors.
//! - [`rotation`]: when to sign, which token to serve, when to retry. Pure.
//! - [`source`]: the task around `rotation`: the tokens of one target.
//! - [`status`]: what `/state` and the metrics show.
//! - [`rds`]: instances, clusters, parameters and events, by RDS's API.
//! - [`error`]: why there is no token. `causes`: error chains on one line.
//! - [`clock`]: the wall clock as an argument.

mod causes;
pub mod clock;
pub mod credentials;
pub mod error;
mod providers;
pub mod rds;
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
