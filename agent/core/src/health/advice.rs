//! What would change a verdict, for people. Not here: what decides it, which is `judge`.

use super::VerdictReason;

impl VerdictReason {
    /// What would change the verdict.
    pub fn what_changes_it(self) -> &'static str {
        use VerdictReason as R;
        match self {
            R::Proved => {
                "two refused connections, another role, or silence or failing logins while a sibling is usable"
            }
            R::LastKnown | R::NotProbedYet => "the first login",
            R::SilentKept => "an answer, or a sibling that is usable",
            R::AuthIllKept => {
                "a login that works: check IAM (`rds-db:connect`), the AWS credentials and the clock of this host"
            }
            R::HostBlockedKept | R::HostBlocked => {
                "the end of the block: `TRUNCATE TABLE performance_schema.host_cache` or `FLUSH HOSTS`"
            }
            R::WriterServesReads => "a usable reader",
            R::OnlyServerKept => "another usable server in the backend",
            R::RoleUnproved => "a new answer of the instance",
            R::ReadersUnseen => "the runtime socket of HAProxy, once it answers",
            R::NothingAgainst => "a new answer, for or against it",
            R::Released => "`resume`, or the next start of the agent",
            R::AuthRefused => "logins that work here, or that are refused at the siblings too",
            R::RefusalUnconfirmed => "connections of clients, seen at the proxy: refused or served",
            R::ServedForClients => "the path from this host to the database: security group, route, firewall",
            R::Refusing => "a login that works",
            R::Silent => "an answer, or the last usable sibling failing",
            R::Superseded | R::NotWriter => "the role of the instance: it has to become the writer",
            R::NotReader => "the role of the instance, or the last usable reader failing",
            R::StaleWriter => "a restart of the instance as a reader, or the end of the other claim",
            R::ConflictKept | R::Conflict | R::Undecided => {
                "one claim less: `rds-lb-agent writer DATABASE INSTANCE` names the writer"
            }
            R::LoginsFail => "two logins that work, or logins that fail at the siblings too",
            R::Lagging => "a lag below three quarters of `max_lag`, or no reader left without lag",
            R::AddressUnproved => "a login of the agent at the address that the proxy dials",
            R::AddressDead => "a connection to the address that the proxy dials",
            R::RoutingObserved => "`routing: act`",
        }
    }
}
