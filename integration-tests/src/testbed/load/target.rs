//! Where clients dial, whom they verify, and how they log in.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Weak},
};

use jiff::Timestamp;

use crate::{
    standin::{self, DATABASE, Engine, StandIn, token},
    tls::VerifiedTls,
};

/// Where passwords come from: IAM tokens, signed anew or kept for a while.
///
/// Any `Fn() -> impl Future<Output = Result<String, String>>` is one; the error is for people.
pub trait TokenSource: Send + Sync {
    /// The password of the next login.
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>>;
}

impl<S, F> TokenSource for S
where
    S: Fn() -> F + Send + Sync,
    F: Future<Output = Result<String, String>> + Send + 'static,
{
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(self())
    }
}

/// How to log in to a database through whatever is dialled.
#[derive(Clone)]
pub struct Target {
    /// What kind of database it is.
    pub engine: Engine,
    /// What is dialled: a port of a proxy, or a server itself.
    pub dial: SocketAddr,
    /// The name that TLS verifies: an RDS endpoint, without a port.
    pub endpoint: String,
    /// The user who logs in.
    pub user: String,
    pub database: String,
    /// Its `application_name`, or `program_name`; `None` names each client after its work.
    pub application: Option<String>,
    pub tls: VerifiedTls,
    /// Whether the user proves itself by a password, and not by a token.
    pub has_password: bool,
    /// The password of each login.
    pub token: Arc<dyn TokenSource>,
}

impl Target {
    /// A user of a stand-in's cluster endpoint, with a token signed for each login. Dials
    /// the present writer itself: see [`Target::dialling`].
    pub fn of(standin: &Arc<StandIn>, user: &str) -> Result<Self, standin::Error> {
        let writer = standin.writer()?;
        Ok(Self {
            engine: standin.engine(),
            dial: writer.connect(),
            endpoint: standin.cluster_endpoint().to_owned(),
            user: user.to_owned(),
            database: DATABASE.to_owned(),
            application: None,
            tls: standin.tls()?,
            has_password: false,
            token: Arc::new(ClusterTokens {
                standin: Arc::downgrade(standin),
                port: writer.connect().port(),
                user: user.to_owned(),
            }),
        })
    }

    /// Dials this, a proxy's frontend for one.
    #[must_use]
    pub fn dialling(mut self, dial: SocketAddr) -> Self {
        self.dial = dial;
        self
    }

    /// Is known to the server by this `application_name`.
    #[must_use]
    pub fn application(mut self, name: &str) -> Self {
        self.application = Some(name.to_owned());
        self
    }

    /// Logs in as a user who has a password.
    #[must_use]
    pub fn password(mut self, user: &str, password: &str) -> Self {
        let password = password.to_owned();
        user.clone_into(&mut self.user);
        self.has_password = true;
        self.token = Arc::new(move || {
            let password = password.clone();
            async move { Ok(password) }
        });
        self
    }
}

/// Tokens for a stand-in's cluster endpoint, which any of its servers takes.
struct ClusterTokens {
    // The clients of a load do not keep the stand-in from being shut down.
    standin: Weak<StandIn>,
    port: u16,
    user: String,
}

impl TokenSource for ClusterTokens {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(async {
            let standin = self.standin.upgrade().ok_or("the stand-in is gone")?;
            let now = Timestamp::now();
            let purpose = token::Purpose {
                host: standin.cluster_endpoint(),
                port: self.port,
                region: standin.region(),
                user: &self.user,
            };
            Ok(token::sign(&standin.credentials().issuer().current(now), &purpose, now))
        })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dial, endpoint, user, .. } = self;
        f.debug_struct("Target")
            .field("dial", dial)
            .field("endpoint", endpoint)
            .field("user", user)
            .finish_non_exhaustive()
    }
}
