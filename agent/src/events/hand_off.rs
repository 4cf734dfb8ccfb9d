//! Client sessions that failed behind a proxy, and the log that shows them.

use agent_core::hand_offs::{Certainty, Failure, Many};
use tracing::{debug, info, warn};

use super::{Event, rounded};
use crate::metrics::{
    Metrics,
    labels::{LineResult, OfFailure, OfLine},
};

/// The agent's own last login on the instance, for comparison: a client's TLS and token are not visible to a proxy that
/// passes TLS through.
#[derive(Clone, Debug)]
pub struct OwnLogin {
    /// `accepted` or `refused`.
    pub result: &'static str,
    pub token_age_s: f64,
    pub tls_version: Option<String>,
    pub tls_cipher: Option<String>,
}

/// A client session failed. `certainty` is `certain`, or `likely` where the agent's own logins or queries on the instance
/// failed too. `agent_` fields are of the agent's own last login there.
///
/// Do: follow `advice`.
#[derive(Debug)]
pub struct SessionFailed<'a> {
    pub failure: &'a Failure,
    pub own: Option<&'a OwnLogin>,
    /// `false` for one that is counted and reported with others.
    pub news: bool,
}

impl Event for SessionFailed<'_> {
    fn emit(&self, metrics: &Metrics) {
        let Self { failure, own, news } = self;
        metrics.session_failures.get_or_create(&OfFailure::of(failure)).inc();
        let ms = |time: std::time::Duration| rounded(time.as_secs_f64() * 1e3);
        if !news {
            debug!(
                proxy = &*failure.proxy,
                backend = &*failure.backend,
                server = failure.server.as_deref().unwrap_or("-"),
                phase = %failure.phase,
                certainty = failure.certainty.word(),
                source = failure.client(),
                state = &*failure.state,
                age_s = rounded(failure.lasted.as_secs_f64()),
                "client session failed, or was as short as one that did"
            );
            return;
        }
        warn!(
            proxy = &*failure.proxy,
            backend = &*failure.backend,
            server = failure.server.as_deref().unwrap_or("-"),
            instance = failure.instance.as_ref().map(tracing::field::display),
            phase = %failure.phase,
            certainty = failure.certainty.word(),
            source = failure.client(),
            client = failure.outgoing.map(tracing::field::display),
            state = &*failure.state,
            meaning = &*failure.meaning,
            age_s = rounded(failure.lasted.as_secs_f64()),
            connect_ms = failure.connected.map(ms),
            retries = failure.retries,
            bytes_from_client = failure.from_client,
            bytes_to_client = failure.to_client,
            error = failure.error.as_deref(),
            agent_login = own.map(|own| own.result),
            agent_token_age_s = own.map(|own| rounded(own.token_age_s)),
            agent_tls_version = own.and_then(|own| own.tls_version.as_deref()),
            agent_tls_cipher = own.and_then(|own| own.tls_cipher.as_deref()),
            cause = failure.phase.cause(),
            advice = failure.phase.advice(),
            "client session failed"
        );
    }
}

/// More client sessions failed in the same way, after the one that was logged. Sessions that are only `suspected` are
/// logged in this way alone, and only if there are many.
///
/// Do: follow `advice`; `rds-lb-agent handoffs` lists them.
#[derive(Debug)]
pub struct SessionsFailed<'a> {
    pub many: &'a Many,
}

impl Event for SessionsFailed<'_> {
    fn emit(&self, _: &Metrics) {
        let Many { last, count, clients, over } = self.many;
        let server = last.server.as_deref().unwrap_or("-");
        let over_s = over.as_secs();
        if last.certainty == Certainty::Suspected {
            info!(
                proxy = &*last.proxy,
                backend = &*last.backend,
                server,
                instance = last.instance.as_ref().map(tracing::field::display),
                phase = %last.phase,
                certainty = last.certainty.word(),
                count,
                clients,
                over_s,
                source = last.client(),
                state = &*last.state,
                cause = last.phase.cause(),
                advice = last.phase.advice(),
                "many very short client sessions"
            );
            return;
        }
        warn!(
            proxy = &*last.proxy,
            backend = &*last.backend,
            server,
            instance = last.instance.as_ref().map(tracing::field::display),
            phase = %last.phase,
            certainty = last.certainty.word(),
            count,
            clients,
            over_s,
            source = last.client(),
            state = &*last.state,
            cause = last.phase.cause(),
            advice = last.phase.advice(),
            "more client sessions failed"
        );
    }
}

/// The log of a HAProxy is received on its address, or is not.
///
/// Do: free the address, or choose another one in `haproxy.log` and in haproxy.cfg.
#[derive(Debug)]
pub struct SessionLogOpened<'a> {
    pub proxy: &'a str,
    pub address: &'a str,
    pub error: Option<String>,
}

impl Event for SessionLogOpened<'_> {
    fn emit(&self, _: &Metrics) {
        let Self { proxy, address, error } = self;
        match error {
            None => info!(proxy, address, "the log of HAProxy is received"),
            Some(error) => {
                warn!(
                    proxy,
                    address, error, "the log of HAProxy cannot be received: failed sessions are not seen"
                );
            }
        }
    }
}

/// Lines of sessions arrived on the log of a HAProxy.
#[derive(Debug)]
pub struct SessionLogRead<'a> {
    pub proxy: &'a str,
    pub sessions: u64,
    pub notices: u64,
    pub elsewhere: u64,
}

impl Event for SessionLogRead<'_> {
    fn emit(&self, metrics: &Metrics) {
        for (result, count) in [
            (LineResult::Session, self.sessions),
            (LineResult::Notice, self.notices),
            (LineResult::Elsewhere, self.elsewhere),
        ] {
            if count > 0 {
                let labels = OfLine { proxy: self.proxy.to_owned(), result };
                metrics.session_log_lines.get_or_create(&labels).inc_by(count);
            }
        }
    }
}

/// Datagrams on the log of a HAProxy that are no lines of it.
///
/// Do: use the `log-format` that `rds-lb-agent render haproxy` prints, or `option tcplog`, and let no other program log there.
#[derive(Debug)]
pub struct SessionLogUnread<'a> {
    pub proxy: &'a str,
    pub count: u64,
    /// Why the last one was not read.
    pub reason: &'a str,
    pub news: bool,
}

impl Event for SessionLogUnread<'_> {
    fn emit(&self, metrics: &Metrics) {
        let labels = OfLine { proxy: self.proxy.to_owned(), result: LineResult::Unread };
        metrics.session_log_lines.get_or_create(&labels).inc_by(self.count);
        if self.news {
            warn!(
                proxy = self.proxy,
                count = self.count,
                reason = self.reason,
                "log lines of HAProxy not understood"
            );
        }
    }
}

/// Lines of a HAProxy did not arrive: gaps in its own numbers (`%lc`). Counts of failed sessions are too low.
///
/// Do: raise `net.core.rmem_max` (UDP) or `net.unix.max_dgram_qlen` (Unix socket), or log fewer frontends to the agent.
#[derive(Debug)]
pub struct SessionLogLost<'a> {
    pub proxy: &'a str,
    pub count: u64,
    pub news: bool,
}

impl Event for SessionLogLost<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.session_log_lost.get_or_create(&self.proxy.into()).inc_by(self.count);
        if self.news {
            warn!(proxy = self.proxy, count = self.count, "log lines of HAProxy lost");
        }
    }
}
