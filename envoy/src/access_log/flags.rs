//! Envoy's response flags, as far as they can be on a TCP session.

use std::fmt;

use crate::proto::ResponseFlags;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $code:literal, $field:ident;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*

            /// With the spelling that Envoy prints.
            const ALL: &[(Flags, &str)] = &[$((Flags::$name, $code)),*];

            /// As the gRPC access log has them.
            pub fn from_grpc(flags: &ResponseFlags) -> Self {
                let mut all = Self::default();
                $(if flags.$field { all.0 |= Flags::$name.0; })*
                all
            }
        }
    };
}

/// A set of response flags.
#[derive(Copy, Clone, Default, PartialEq, Eq, Hash)]
pub struct Flags(u16);

flags! {
    /// The connection to the server could not be made.
    UPSTREAM_CONNECTION_FAILURE = 0, "UF", upstream_connection_failure;
    /// All tries to connect are used up.
    RETRY_LIMIT_EXCEEDED = 1, "URX", upstream_retry_limit_exceeded;
    /// No host of the cluster may have new sessions.
    NO_HEALTHY_UPSTREAM = 2, "UH", no_healthy_upstream;
    /// There is no such cluster.
    NO_CLUSTER_FOUND = 3, "NC", no_cluster_found;
    /// A circuit breaker is open.
    UPSTREAM_OVERFLOW = 4, "UO", upstream_overflow;
    /// The name of the server could not be resolved.
    DNS_RESOLUTION_FAILURE = 5, "DF", dns_resolution_failure;
    /// Envoy refuses work: its overload manager says so.
    OVERLOAD_MANAGER = 6, "OM", overload_manager;
    /// No route: a filter chain without a destination.
    NO_ROUTE_FOUND = 7, "NR", no_route_found;
    /// The server ended the session.
    UPSTREAM_CONNECTION_TERMINATION = 8, "UC", upstream_connection_termination;
    /// The client ended the session.
    DOWNSTREAM_CONNECTION_TERMINATION = 9, "DC", downstream_connection_termination;
    /// The server's side was reset. By itself no failure.
    UPSTREAM_REMOTE_RESET = 10, "UR", upstream_remote_reset;
    /// `max_downstream_connection_duration` has cut it.
    DURATION_TIMEOUT = 11, "DT", duration_timeout;
    /// It was idle too long for Envoy.
    STREAM_IDLE_TIMEOUT = 12, "SI", stream_idle_timeout;
}

impl Flags {
    /// As the file log prints them: `-`, or codes with commas between. What is not known is left out.
    pub fn from_text(text: &str) -> Self {
        let known = |code: &str| Self::ALL.iter().find(|(_, known)| *known == code).map(|(flag, _)| flag.0);
        Self(text.split(',').filter_map(known).fold(0, |all, flag| all | flag))
    }

    /// Whether all of these are set.
    pub fn has(self, flags: Flags) -> bool {
        self.0 & flags.0 == flags.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Flags {
    /// As Envoy prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let mut codes = Self::ALL.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, code)| *code);
        f.write_str(codes.next().unwrap_or_default())?;
        codes.try_for_each(|code| write!(f, ",{code}"))
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({self})")
    }
}
