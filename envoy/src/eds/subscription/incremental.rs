//! The variant whose requests name changes of subscriptions, usually called delta.

use super::{
    ALL, Heard, Known, LONGEST_NAME, LONGEST_VERSION, MOST_NAMES, Push, Refused, Subscription, bounded,
};
use crate::{
    eds::{Snapshot, resources::type_url},
    proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
};

#[derive(Clone, Debug, Default)]
pub struct Incremental {
    known: Known,
    /// There was a request.
    spoken: bool,
}

impl Incremental {
    fn subscribe(&mut self, names: &[String]) -> Result<(), Refused> {
        for name in names {
            if name == ALL {
                self.known.wildcard = true;
                continue;
            }
            // A repeated subscription means that the peer has lost the cluster.
            self.known.sent.remove(name);
            self.known.want(name)?;
        }
        bounded(self.known.names.iter())
    }

    fn unsubscribe(&mut self, names: &[String]) {
        for name in names {
            if name == ALL {
                self.known.wildcard = false;
            }
            self.known.names.remove(name);
        }
        self.known.forget_unwanted();
    }

    /// The versions that a reconnecting peer has from an earlier stream, possibly of another agent.
    fn has(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Refused> {
        let wanted = |name: &str| self.known.wildcard || self.known.names.contains(name);
        let held: Vec<_> = request
            .initial_resource_versions
            .iter()
            .filter(|(name, version)| {
                wanted(name) && name.len() <= LONGEST_NAME && version.len() <= LONGEST_VERSION
            })
            .take(MOST_NAMES)
            .map(|(name, version)| (name.clone(), Some(version.as_str().into())))
            .collect();
        self.known.sent.extend(held);
        bounded(self.known.sent.keys())
    }
}

impl Subscription for Incremental {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn hear(&mut self, request: &DeltaDiscoveryRequest) -> Result<Heard, Refused> {
        let first = !std::mem::replace(&mut self.spoken, true);
        let nonce = &*request.response_nonce;
        let answer = if first { None } else { self.known.answered(nonce, request.error_detail.is_none()) };
        let stale = !first && !nonce.is_empty() && answer.is_none();
        // Changes of subscriptions count in every request, also in a stale one.
        self.subscribe(&request.resource_names_subscribe)?;
        self.unsubscribe(&request.resource_names_unsubscribe);
        if first {
            self.known.wildcard |= request.resource_names_subscribe.is_empty();
            self.has(request)?;
        }
        Ok(answer.unwrap_or(if stale { Heard::Stale } else { Heard::Asked }))
    }

    fn push(&mut self, snapshot: &Snapshot) -> Option<Push<DeltaDiscoveryResponse>> {
        if !self.spoken {
            return None;
        }
        let due = self.known.due(snapshot, true)?;
        let resource = |(name, resource): (&str, &crate::eds::resources::Resource)| Resource {
            name: name.to_owned(),
            version: resource.version.to_string(),
            resource: Some(resource.body.clone()),
            ..Resource::default()
        };
        let response = DeltaDiscoveryResponse {
            system_version_info: snapshot.version().to_owned(),
            resources: due.resources.into_iter().map(resource).collect(),
            removed_resources: due.removed,
            type_url: type_url(),
            nonce: due.nonce,
            ..DeltaDiscoveryResponse::default()
        };
        let clusters = self.known.clusters_under_way();
        Some(Push { response, version: snapshot.version().to_owned(), clusters })
    }

    fn known(&self) -> &Known {
        &self.known
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::properties::support::{names, snapshot, with_pending},
        *,
    };
    use crate::proto::Status;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn ask(subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            resource_names_subscribe: owned(subscribe),
            resource_names_unsubscribe: owned(unsubscribe),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn ack(nonce: &str) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { response_nonce: nonce.into(), ..DeltaDiscoveryRequest::default() }
    }

    fn nack(nonce: &str) -> DeltaDiscoveryRequest {
        let error_detail = Some(Status { code: 3, message: "no".into(), details: vec![] });
        DeltaDiscoveryRequest { error_detail, ..ack(nonce) }
    }

    /// What is sent: present and removed clusters, by name.
    fn sent(peer: &mut Incremental, snapshot: &Snapshot) -> Option<(Vec<String>, Vec<String>)> {
        let response = peer.push(snapshot)?.response;
        Some((response.resources.into_iter().map(|one| one.name).collect(), response.removed_resources))
    }

    #[test]
    fn only_what_changed_is_sent() {
        let mut peer = Incremental::default();
        peer.hear(&ask(&["w", "r"], &[])).unwrap();
        assert_eq!(sent(&mut peer, &snapshot(&[("w", 1), ("r", 1)])), Some((owned(&["r", "w"]), vec![])));
        assert!(matches!(peer.hear(&ack("1")), Ok(Heard::Accepted { .. })));
        assert_eq!(sent(&mut peer, &snapshot(&[("w", 2), ("r", 1)])), Some((owned(&["w"]), vec![])));
        peer.hear(&ack("2")).unwrap();
        assert_eq!(sent(&mut peer, &snapshot(&[("w", 2)])), Some((vec![], owned(&["r"]))));
        peer.hear(&ack("3")).unwrap();
        assert_eq!(sent(&mut peer, &snapshot(&[("w", 2)])), None);
    }

    #[test]
    fn a_missing_cluster_is_removed_once_and_an_unknown_one_never() {
        let mut peer = Incremental::default();
        peer.hear(&ask(&["missing", "pending"], &[])).unwrap();
        let now = with_pending(&[], &["pending"]);
        assert_eq!(sent(&mut peer, &now), Some((vec![], owned(&["missing"]))));
        peer.hear(&ack("1")).unwrap();
        assert_eq!(sent(&mut peer, &now), None);
        assert_eq!(sent(&mut peer, &snapshot(&[("pending", 1)])), Some((owned(&["pending"]), vec![])));
    }

    #[test]
    fn a_reconnecting_peer_receives_only_what_differs() {
        let now = snapshot(&[("w", 1), ("r", 1)]);
        let mut peer = Incremental::default();
        let mut request = ask(&["w", "r", "gone"], &[]);
        for (name, version) in
            [("w", now.version_of("w").unwrap()), ("r", "older"), ("gone", "old"), ("another's", "x")]
        {
            request.initial_resource_versions.insert(name.into(), version.into());
        }
        peer.hear(&request).unwrap();
        assert_eq!(sent(&mut peer, &now), Some((owned(&["r"]), owned(&["gone"]))));
    }

    #[test]
    fn a_wildcard_receives_new_and_removed_clusters() {
        let mut peer = Incremental::default();
        peer.hear(&ask(&[], &[])).unwrap();
        assert_eq!(sent(&mut peer, &snapshot(&[])), None);
        assert_eq!(sent(&mut peer, &snapshot(&[("w", 1)])), Some((owned(&["w"]), vec![])));
        peer.hear(&ack("1")).unwrap();
        assert_eq!(sent(&mut peer, &snapshot(&[("r", 1)])), Some((owned(&["r"]), owned(&["w"]))));
        peer.hear(&ack("2")).unwrap();
        peer.hear(&ask(&["w"], &["*"])).unwrap();
        let now = snapshot(&[("w", 1), ("r", 2)]);
        assert_eq!(sent(&mut peer, &now), Some((owned(&["w"]), vec![])));
    }

    #[test]
    fn a_renewed_subscription_is_sent_again() {
        let now = snapshot(&[("w", 1)]);
        let mut peer = Incremental::default();
        peer.hear(&ask(&["w"], &[])).unwrap();
        peer.push(&now).unwrap();
        peer.hear(&ask(&[], &["w"])).unwrap();
        assert_eq!(names(&peer), Vec::<&str>::new());
        peer.hear(&ask(&["w"], &[])).unwrap();
        assert_eq!(peer.push(&now), None, "one at a time");
        peer.hear(&ack("1")).unwrap();
        assert_eq!(sent(&mut peer, &now), Some((owned(&["w"]), vec![])));
    }

    #[test]
    fn a_stale_answer_still_changes_subscriptions() {
        let now = snapshot(&[("w", 1), ("r", 1)]);
        let mut peer = Incremental::default();
        peer.hear(&ask(&["w"], &[])).unwrap();
        peer.push(&now).unwrap();
        let late = DeltaDiscoveryRequest { response_nonce: "0".into(), ..ask(&["r"], &[]) };
        assert_eq!(peer.hear(&late), Ok(Heard::Stale));
        assert!(peer.known().is_waiting());
        peer.hear(&ack("1")).unwrap();
        assert_eq!(sent(&mut peer, &now), Some((owned(&["r"]), vec![])));
    }

    #[test]
    fn a_rejected_cluster_is_not_sent_again_until_it_changes() {
        let bad = snapshot(&[("w", 1)]);
        let mut peer = Incremental::default();
        peer.hear(&ask(&["w"], &[])).unwrap();
        peer.push(&bad).unwrap();
        assert!(matches!(peer.hear(&nack("1")), Ok(Heard::Rejected { .. })));
        assert_eq!(sent(&mut peer, &bad), None);
        assert_eq!(sent(&mut peer, &snapshot(&[("w", 2)])), Some((owned(&["w"]), vec![])));
    }

    #[test]
    fn too_many_subscriptions_are_refused() {
        let mut peer = Incremental::default();
        for number in 0..512 {
            peer.hear(&ask(&[&number.to_string()], &[])).unwrap();
        }
        assert_eq!(peer.hear(&ask(&["one more"], &[])), Err(Refused::TooManyNames));
        assert_eq!(Incremental::default().hear(&ask(&[&"x".repeat(257)], &[])), Err(Refused::LongName));
    }
}
