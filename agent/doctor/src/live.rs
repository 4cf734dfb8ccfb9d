//! The live path to an instance: what logins directly and through the proxy have shown → findings. The logins
//! themselves are made by the agent's command.

use crate::{
    finding::Finding,
    position::Position,
    rule::{About, Found, Rule, Severity},
    setup::Setup,
};

/// What was seen of one instance.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    pub name: String,
    /// The address that was dialled.
    pub address: String,
    /// `None` if the login succeeded.
    pub failure: Option<Failure>,
    /// Issuer and serial number of the certificate.
    pub certificate: Option<String>,
    pub proxies: Vec<Through>,
    /// The database's clock minus this host's, in seconds.
    pub skew_s: Option<f64>,
    /// What is missing for the agent's user, with the remedy.
    pub missing: Vec<String>,
    pub superuser: bool,
    /// The sessions that the user may have; `None` is no limit.
    pub connection_limit: Option<i64>,
    /// Settings of the user or its database that differ from the server's: `name=value`.
    pub defaults: Vec<String>,
    /// This host's address, and what the database sees in its place.
    pub translated: Option<(String, String)>,
    /// Failed connections counted against the worst address, and the limit.
    pub connect_errors: Option<(u64, u64)>,
    /// Whether slots are reserved for which the agent's user has no right.
    pub reserved_for_others: bool,
}

/// A connection through a port of a proxy.
#[derive(Clone, Debug, Default)]
pub struct Through {
    pub address: String,
    pub failure: Option<Failure>,
    pub certificate: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Failure {
    pub trouble: Trouble,
    pub message: String,
}

/// What failed first.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    NameNotResolved,
    Refused,
    TimedOut,
    Reset,
    TlsNotOffered,
    Certificate,
    NoToken,
    LoginRefused,
    HostBlocked,
    TooManyConnections,
    Other,
}

/// A clock that is off by more makes tokens invalid soon: they live for 15 minutes.
const LARGEST_SKEW_S: f64 = 60.0;

/// The agent keeps two or three sessions for each instance.
const FEWEST_SESSIONS: i64 = 5;

/// Settings with which the agent, or an administrator who uses its user, sees something else than clients do.
const MISLEADING: [&str; 5] = [
    "default_transaction_read_only",
    "default_transaction_isolation",
    "search_path",
    "role",
    "statement_timeout",
];

/// The findings of all rules on one instance.
pub fn check(instance: &Instance) -> Vec<Finding> {
    let setup = Setup::default();
    let found = |rule: &Rule<Instance>| {
        let about = rule.about;
        (rule.check)(instance, &setup).into_iter().map(move |found| Finding::new(&about, found))
    };
    rules().flat_map(found).collect()
}

pub fn rules() -> impl Iterator<Item = &'static Rule<Instance>> {
    RULES.iter()
}

/// A rule without examples: what it judges is seen, not written.
const fn about(
    id: &'static str,
    severity: Severity,
    title: &'static str,
    why: &'static str,
    fix: &'static str,
) -> About {
    About { id, severity, title, why, fix, bad: "", good: "" }
}

const RULES: &[Rule<Instance>] = &[
    Rule {
        about: about(
            "live-tls-terminated",
            Severity::Error,
            "clients see another certificate through the proxy than at the endpoint",
            "Something between the client and the database ends TLS: it can read the tokens, and clients cannot verify \
             the database.",
            "Remove TLS from the proxy's listener and servers; look for a further load balancer in front of it.",
        ),
        check: |instance, _| {
            let other = instance.proxies.iter().filter_map(|through| {
                let (seen, own) = (through.certificate.as_ref()?, instance.certificate.as_ref()?);
                (seen != own).then(|| {
                    at(
                        instance,
                        format!(
                            "through {} the certificate is {seen}, and {own} at the endpoint",
                            through.address
                        ),
                    )
                })
            });
            other.collect()
        },
    },
    Rule {
        about: about(
            "live-proxy",
            Severity::Error,
            "no login through the proxy",
            "The instance accepts the same login directly, so the proxy or what it leads to is at fault.",
            "Look at the message; run `doctor` with the files of the proxy.",
        ),
        check: |instance, _| {
            let failed = instance.proxies.iter().filter_map(|through| {
                let failure = through.failure.as_ref().filter(|_| instance.failure.is_none())?;
                Some(at(instance, format!("through {}: {}", through.address, failure.message)))
            });
            failed.collect()
        },
    },
    Rule {
        about: about(
            "live-name",
            Severity::Error,
            "the name of the endpoint is not resolved",
            "Neither the agent nor a proxy that resolves it can reach the instance.",
            "Compare the name with the endpoint that RDS shows; check the resolver of this host.",
        ),
        check: |instance, _| failed(instance, &[Trouble::NameNotResolved]),
    },
    Rule {
        about: about(
            "live-refused",
            Severity::Error,
            "the connection is refused",
            "The host answers and nothing listens at this port: the instance is stopped, restarting, or has another port. \
             It is no security group: those never answer.",
            "Compare the port; look at the status of the instance.",
        ),
        check: |instance, _| failed(instance, &[Trouble::Refused]),
    },
    Rule {
        about: about(
            "live-timeout",
            Severity::Error,
            "the connection gets no answer",
            "Packets are dropped on the way: a security group, a network ACL or a missing route. A stopped database \
             would refuse.",
            "Let the security group of the instance accept the port from this host and from the proxy; check ACL and routes.",
        ),
        check: |instance, _| failed(instance, &[Trouble::TimedOut]),
    },
    Rule {
        about: about(
            "live-reset",
            Severity::Error,
            "the connection is closed before the login",
            "Something accepts connections and ends them: a proxy without a usable server, a firewall, or an instance that \
             restarts or is out of memory.",
            "Name the instance's own address in `connect`; look at the log of the database.",
        ),
        check: |instance, _| failed(instance, &[Trouble::Reset]),
    },
    Rule {
        about: about(
            "live-certificate",
            Severity::Error,
            "the certificate is not that of the endpoint, or TLS is not offered",
            "No token is sent to a server that is not proved to be the endpoint. Clients that verify fail too.",
            "Write the RDS name in `endpoint`, and use a current CA bundle; see that nothing between ends TLS.",
        ),
        check: |instance, _| failed(instance, &[Trouble::Certificate, Trouble::TlsNotOffered]),
    },
    Rule {
        about: about(
            "live-token",
            Severity::Error,
            "there is no token",
            "Without AWS credentials and a region the agent cannot log in.",
            "Give this host a role, or set the variables of the AWS environment; `rds-lb-agent token` shows the cause.",
        ),
        check: |instance, _| failed(instance, &[Trouble::NoToken]),
    },
    Rule {
        about: about(
            "live-login-refused",
            Severity::Error,
            "the database refuses the token",
            "The server looks the same whatever is wrong: a token for another name, port, region or user, a policy without \
             rds-db:connect, IAM authentication switched off, a user without IAM, or a wrong clock.",
            "Compare endpoint, port and region with what RDS shows; check `rds-lb-agent render iam` against the policy; see \
             the log export iam-db-auth-error, which names the cause.",
        ),
        check: |instance, _| failed(instance, &[Trouble::LoginRefused]),
    },
    Rule {
        about: about(
            "live-host-blocked",
            Severity::Error,
            "the server blocks this host's address, or soon will",
            "After max_connect_errors connections that ended before their login, no client behind this address can log in.",
            "Find what connects without logging in (checks of a load balancer, port scanners); TRUNCATE TABLE \
             performance_schema.host_cache unblocks; raise max_connect_errors.",
        ),
        check: |instance, _| {
            let mut found = failed(instance, &[Trouble::HostBlocked]);
            if let Some((errors, limit)) =
                instance.connect_errors.filter(|(errors, limit)| errors * 2 >= *limit)
            {
                found.push(at(
                    instance,
                    format!("{errors} of {limit} failed connections are counted against one address"),
                ));
            }
            found
        },
    },
    Rule {
        about: about(
            "live-slots",
            Severity::Error,
            "all connections are taken",
            "Neither clients nor the agent can log in.",
            "Raise max_connections, or limit the pools; from PostgreSQL 16, GRANT pg_use_reserved_connections to the agent's \
             user lets it in.",
        ),
        check: |instance, _| failed(instance, &[Trouble::TooManyConnections]),
    },
    Rule {
        about: about(
            "live-failed",
            Severity::Error,
            "the login fails",
            "The agent cannot judge the instance.",
            "See the message.",
        ),
        check: |instance, _| failed(instance, &[Trouble::Other]),
    },
    Rule {
        about: about(
            "live-clock",
            Severity::Error,
            "the clocks of this host and of the database differ",
            "Tokens carry the time at which they were signed and live for 15 minutes. A clock that is late uses up their life \
             before they are used; one that is early makes them invalid.",
            "Synchronise this host's clock (chrony with 169.254.169.123 on EC2).",
        ),
        check: |instance, _| {
            let skew = instance.skew_s.filter(|skew| skew.abs() > LARGEST_SKEW_S);
            skew.map(|skew| at(instance, format!("the database's clock is {skew:.0} s from this host's")))
                .into_iter()
                .collect()
        },
    },
    Rule {
        about: about(
            "live-rights",
            Severity::Warning,
            "the agent's user lacks rights",
            "What the user cannot see or do, the agent does not do: it holds the sessions.",
            "Run the statements of `rds-lb-agent render grants`.",
        ),
        check: |instance, _| instance.missing.iter().map(|missing| at(instance, missing.clone())).collect(),
    },
    Rule {
        about: about(
            "live-superuser",
            Severity::Warning,
            "the agent's user is a superuser",
            "The agent needs few rights, and its token would give all of them.",
            "Give the agent a user of its own: `rds-lb-agent render grants`.",
        ),
        check: |instance, _| {
            if instance.superuser {
                vec![at(instance, "the agent's user is a superuser".into())]
            } else {
                Vec::new()
            }
        },
    },
    Rule {
        about: about(
            "live-defaults",
            Severity::Warning,
            "settings of the agent's user mislead",
            "A setting that only this user has, like default_transaction_read_only, makes the instance look different to the \
             agent than to clients.",
            "ALTER ROLE ... RESET the setting.",
        ),
        check: |instance, _| {
            let misleading = |setting: &&String| MISLEADING.iter().any(|name| setting.starts_with(name));
            instance
                .defaults
                .iter()
                .filter(misleading)
                .map(|setting| at(instance, format!("the agent's user has {setting}")))
                .collect()
        },
    },
    Rule {
        about: about(
            "live-connection-limit",
            Severity::Warning,
            "the agent's user may have too few sessions",
            "The agent keeps up to three sessions for each instance, and a second agent as many. At the limit its logins \
             are refused.",
            "Raise the limit to 10: ALTER ROLE ... CONNECTION LIMIT, or MAX_USER_CONNECTIONS.",
        ),
        check: |instance, _| {
            let few = instance.connection_limit.filter(|limit| (0..FEWEST_SESSIONS).contains(limit));
            few.map(|limit| at(instance, format!("the user may have {limit} sessions"))).into_iter().collect()
        },
    },
    Rule {
        about: about(
            "live-reserved",
            Severity::Note,
            "the agent is shut out when all slots are taken",
            "The server reserves connections for users with pg_use_reserved_connections, and the agent's user is not one.",
            "GRANT pg_use_reserved_connections TO the agent's user.",
        ),
        check: |instance, _| {
            if instance.reserved_for_others {
                vec![at(instance, "reserved_connections are for others".into())]
            } else {
                Vec::new()
            }
        },
    },
    Rule {
        about: about(
            "live-nat",
            Severity::Warning,
            "the database sees another address than this host has",
            "Between this host and the database addresses are translated. Sessions are joined by address and port, so those of \
             a proxy on this host are not recognized, and none is retired.",
            "Route to the database without NAT.",
        ),
        check: |instance, _| {
            let translated = instance.translated.as_ref();
            translated
                .map(|(own, seen)| {
                    at(instance, format!("this host connects from {own}, and the database sees {seen}"))
                })
                .into_iter()
                .collect()
        },
    },
];

fn at(instance: &Instance, what: String) -> Found {
    (Position { file: instance.name.as_str().into(), line: 0 }, what)
}

fn failed(instance: &Instance, troubles: &[Trouble]) -> Vec<Found> {
    let failure = instance.failure.as_ref().filter(|failure| troubles.contains(&failure.trouble));
    failure
        .map(|failure| at(instance, format!("{}: {}", instance.address, failure.message)))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Instance {
        Instance {
            name: "orders/a".into(),
            address: "10.0.0.1:5432".into(),
            certificate: Some("CN=RDS 01".into()),
            proxies: vec![Through {
                address: "127.0.0.1:5432".into(),
                failure: None,
                certificate: Some("CN=RDS 01".into()),
            }],
            skew_s: Some(0.4),
            connect_errors: Some((3, 100)),
            ..Instance::default()
        }
    }

    fn fails(trouble: Trouble) -> Failure {
        Failure { trouble, message: "the message".into() }
    }

    #[test]
    fn every_rule_finds_its_mistake_and_a_good_instance_has_none() {
        type Break = fn(&mut Instance);
        let cases: [(&str, Break); 19] = [
            ("live-tls-terminated", |i| i.proxies[0].certificate = Some("CN=proxy 02".into())),
            ("live-proxy", |i| i.proxies[0].failure = Some(fails(Trouble::Reset))),
            ("live-name", |i| i.failure = Some(fails(Trouble::NameNotResolved))),
            ("live-refused", |i| i.failure = Some(fails(Trouble::Refused))),
            ("live-timeout", |i| i.failure = Some(fails(Trouble::TimedOut))),
            ("live-reset", |i| i.failure = Some(fails(Trouble::Reset))),
            ("live-certificate", |i| i.failure = Some(fails(Trouble::Certificate))),
            ("live-token", |i| i.failure = Some(fails(Trouble::NoToken))),
            ("live-login-refused", |i| i.failure = Some(fails(Trouble::LoginRefused))),
            ("live-host-blocked", |i| i.connect_errors = Some((50, 100))),
            ("live-slots", |i| i.failure = Some(fails(Trouble::TooManyConnections))),
            ("live-failed", |i| i.failure = Some(fails(Trouble::Other))),
            ("live-clock", |i| i.skew_s = Some(-300.0)),
            ("live-rights", |i| i.missing = vec!["GRANT pg_monitor".into()]),
            ("live-superuser", |i| i.superuser = true),
            ("live-defaults", |i| i.defaults = vec!["default_transaction_read_only=on".into()]),
            ("live-connection-limit", |i| i.connection_limit = Some(1)),
            ("live-reserved", |i| i.reserved_for_others = true),
            ("live-nat", |i| i.translated = Some(("10.0.0.9".into(), "10.1.0.1".into()))),
        ];
        assert_eq!(rules().count(), cases.len());
        assert_eq!(check(&good()), []);
        for (id, plant) in cases {
            let mut instance = good();
            plant(&mut instance);
            let found: Vec<&str> = check(&instance).iter().map(|finding| finding.rule).collect();
            assert_eq!(found, [id]);
        }
    }
}
