//! What AWS reports about a database, compared with the configured instances.
//!
//! A comparison only reports. It adds and removes no instance, and no verdict depends on it: an answer that
//! is empty, old or wrong takes no server out of rotation.

use std::{collections::BTreeSet, fmt};

use crate::names::InstanceId;

/// An instance, as AWS reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The identifier in AWS.
    pub identifier: String,
    /// `available`, or what is being done.
    pub status: String,
    /// Host and port; `None` while it is being created.
    pub endpoint: Option<(String, u16)>,
    /// In a cluster: whether AWS takes it for the writer, which it learns later than the instances themselves.
    pub writer: Option<bool>,
    /// Whether IAM authentication is on, if AWS reports it.
    pub iam: Option<bool>,
}

/// An instance of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    pub instance: InstanceId,
    /// The RDS name that tokens are signed for.
    pub host: String,
    pub port: u16,
}

/// A difference between AWS and the configuration. Displayed as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// A member that is not configured: it gets no sessions, and as the writer it would not be found.
    NotConfigured {
        identifier: String,
        host: String,
        port: u16,
    },
    /// A configured instance that AWS does not report as a member: deleted, renamed, or of another cluster.
    NotReported {
        instance: InstanceId,
        host: String,
    },
    /// A configured instance that is being deleted.
    Deleting {
        instance: InstanceId,
    },
    OtherPort {
        instance: InstanceId,
        configured: u16,
        reported: u16,
    },
    /// Every login will be refused.
    IamOff {
        instance: InstanceId,
    },
}

/// The differences. `members` has to be a whole answer.
pub fn compare(configured: &[Configured], members: &[Member]) -> BTreeSet<Difference> {
    let mut found = BTreeSet::new();
    for member in members {
        // Without an endpoint it cannot be configured yet.
        let Some((host, port)) = &member.endpoint else { continue };
        let known = configured.iter().find(|known| known.host.eq_ignore_ascii_case(host));
        let leaving = member.status == "deleting";
        match known {
            None if leaving || member.status == "creating" => {}
            None => drop(found.insert(Difference::NotConfigured {
                identifier: member.identifier.clone(),
                host: host.clone(),
                port: *port,
            })),
            Some(known) => {
                let instance = || known.instance.clone();
                if leaving {
                    found.insert(Difference::Deleting { instance: instance() });
                }
                if *port != known.port {
                    let (configured, reported) = (known.port, *port);
                    found.insert(Difference::OtherPort { instance: instance(), configured, reported });
                }
                if member.iam == Some(false) {
                    found.insert(Difference::IamOff { instance: instance() });
                }
            }
        }
    }
    let reported = |known: &&Configured| {
        let mut hosts = members.iter().filter_map(|member| member.endpoint.as_ref());
        hosts.any(|(host, _)| host.eq_ignore_ascii_case(&known.host))
    };
    found.extend(
        configured.iter().filter(|known| !reported(known)).map(|known| Difference::NotReported {
            instance: known.instance.clone(),
            host: known.host.clone(),
        }),
    );
    found
}

/// The differences that last. One answer may be made while AWS changes a cluster, so a difference counts
/// when it is in two answers in a row.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    last: BTreeSet<Difference>,
    lasting: BTreeSet<Difference>,
}

/// What an answer changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Differences that last from now on.
    pub new: Vec<Difference>,
    /// Whether the last difference has ended.
    pub agrees: bool,
    /// Whether the next answer should be asked for soon.
    pub unconfirmed: bool,
}

impl Comparison {
    /// The differences of a whole answer.
    pub fn answered(&mut self, found: BTreeSet<Difference>) -> Change {
        let differed = !self.lasting.is_empty();
        self.lasting.retain(|difference| found.contains(difference));
        let new: Vec<Difference> =
            found.intersection(&self.last).filter(|known| !self.lasting.contains(known)).cloned().collect();
        self.lasting.extend(new.iter().cloned());
        let unconfirmed = found.len() > self.lasting.len();
        self.last = found;
        Change { new, agrees: differed && self.lasting.is_empty(), unconfirmed }
    }

    pub fn lasting(&self) -> impl ExactSizeIterator<Item = &Difference> {
        self.lasting.iter()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfigured { identifier, host, port } => {
                write!(f, "AWS has the member {identifier} ({host}:{port}), which is not configured")
            }
            Self::NotReported { instance, host } => {
                write!(f, "{instance} is configured, and AWS has no member {host}")
            }
            Self::Deleting { instance } => write!(f, "AWS is deleting {instance}"),
            Self::OtherPort { instance, configured, reported } => {
                write!(f, "{instance} is configured with port {configured}, and AWS has {reported}")
            }
            Self::IamOff { instance } => write!(f, "IAM authentication is off at {instance}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(name: &str) -> Member {
        Member {
            identifier: name.to_owned(),
            status: "available".to_owned(),
            endpoint: Some((format!("{name}.rds"), 5432)),
            writer: None,
            iam: Some(true),
        }
    }

    fn configured(name: &str) -> Configured {
        Configured { instance: InstanceId::new("orders", name), host: format!("{name}.rds"), port: 5432 }
    }

    fn sentences(found: &BTreeSet<Difference>) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn members_and_instances_are_matched_by_name_without_case() {
        let shouted = Member { endpoint: Some(("A.RDS".to_owned(), 5432)), ..member("a") };
        assert!(compare(&[configured("a")], &[shouted]).is_empty());
    }

    #[test]
    fn each_difference_is_a_sentence() {
        let configured = [configured("a"), configured("b"), configured("d")];
        let members = [
            Member { endpoint: Some(("a.rds".to_owned(), 5433)), iam: Some(false), ..member("a") },
            Member { status: "deleting".to_owned(), ..member("b") },
            member("c"),
        ];
        assert_eq!(
            sentences(&compare(&configured, &members)),
            [
                "AWS has the member c (c.rds:5432), which is not configured",
                "orders/d is configured, and AWS has no member d.rds",
                "AWS is deleting orders/b",
                "orders/a is configured with port 5432, and AWS has 5433",
                "IAM authentication is off at orders/a",
            ]
        );
    }

    #[test]
    fn members_that_come_or_go_are_no_difference_before_they_can_be_configured() {
        let creating = Member { status: "creating".to_owned(), ..member("b") };
        let nameless = Member { endpoint: None, ..member("c") };
        let leaving = Member { status: "deleting".to_owned(), ..member("d") };
        assert!(compare(&[configured("a")], &[member("a"), creating, nameless, leaving]).is_empty());
    }

    #[test]
    fn a_difference_counts_when_two_answers_have_it_and_ends_with_the_first_that_has_not() {
        let mut comparison = Comparison::default();
        let differs = || compare(&[configured("a")], &[member("a"), member("b")]);
        let first = comparison.answered(differs());
        assert_eq!(first, Change { new: vec![], agrees: false, unconfirmed: true });
        assert_eq!(comparison.answered(differs()).new.len(), 1);
        assert_eq!(comparison.answered(differs()), Change::default());
        let ended = comparison.answered(BTreeSet::new());
        assert_eq!(ended, Change { new: vec![], agrees: true, unconfirmed: false });
    }

    proptest! {
        /// Readers that scale in and out: what two answers in a row agree on is what lasts, and is new once.
        #[test]
        fn what_lasts_is_what_the_last_two_answers_have(
            answers in prop::collection::vec(prop::collection::btree_set(0_u8..200, 0..200), 1..20),
        ) {
            let mut comparison = Comparison::default();
            let (mut before, mut lasting) = (BTreeSet::new(), BTreeSet::new());
            for answer in answers {
                let members: Vec<Member> = answer.iter().map(|number| member(&number.to_string())).collect();
                let found = compare(&[], &members);
                let change = comparison.answered(found.clone());
                let both: BTreeSet<Difference> = found.intersection(&before).cloned().collect();
                let new: Vec<Difference> = both.difference(&lasting).cloned().collect();
                prop_assert_eq!(&change.new, &new);
                prop_assert_eq!(comparison.lasting().cloned().collect::<BTreeSet<_>>(), both.clone());
                (before, lasting) = (found, both);
            }
        }
    }
}
