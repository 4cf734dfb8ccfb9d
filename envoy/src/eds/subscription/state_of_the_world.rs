//! The variant whose requests name all subscriptions.
//!
//! Only changes are sent: unlike for clusters and listeners, a response with endpoints need not be complete.
//! For the same reason nothing can be removed: Envoy keeps the endpoints of a cluster that the agent no
//! longer serves.

use super::{ALL, Heard, Known, Push, Refused, Subscription, bounded};
use crate::{
    eds::{Snapshot, resources::type_url},
    proto::{DiscoveryRequest, DiscoveryResponse},
};

#[derive(Clone, Debug, Default)]
pub struct StateOfTheWorld {
    known: Known,
    /// There was a request.
    spoken: bool,
    /// A request has named a cluster: from then on, no name means none instead of all.
    named: bool,
}

impl StateOfTheWorld {
    fn ask(&mut self, names: &[String]) -> Result<(), Refused> {
        self.named |= !names.is_empty();
        self.known.wildcard = !self.named || names.iter().any(|name| name == ALL);
        self.known.names.clear();
        for name in names.iter().filter(|name| *name != ALL) {
            self.known.want(name)?;
        }
        bounded(self.known.names.iter())?;
        self.known.forget_unwanted();
        Ok(())
    }
}

impl Subscription for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn hear(&mut self, request: &DiscoveryRequest) -> Result<Heard, Refused> {
        let nonce = &*request.response_nonce;
        // The first request may have a nonce of an earlier stream. A request without a nonce was sent before
        // anything was read.
        let first = !std::mem::replace(&mut self.spoken, true);
        if !first && !nonce.is_empty() && !self.known.is_last_nonce(nonce) {
            // The answer to the last response will have its subscriptions. A dropped one may be renewed by
            // then, and has to be sent again.
            self.known.forget_unnamed(&request.resource_names);
            return Ok(Heard::Stale);
        }
        let answer = if first { None } else { self.known.answered(nonce, request.error_detail.is_none()) };
        self.ask(&request.resource_names)?;
        Ok(answer.unwrap_or(Heard::Asked))
    }

    fn push(&mut self, snapshot: &Snapshot) -> Option<Push<DiscoveryResponse>> {
        if !self.spoken {
            return None;
        }
        let due = self.known.due(snapshot, false)?;
        let response = DiscoveryResponse {
            version_info: snapshot.version().to_owned(),
            resources: due.resources.into_iter().map(|(_, resource)| resource.body.clone()).collect(),
            type_url: type_url(),
            nonce: due.nonce,
            ..DiscoveryResponse::default()
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
        super::properties::support::{names, snapshot},
        *,
    };
    use crate::proto::Status;

    fn ask(clusters: &[&str]) -> DiscoveryRequest {
        DiscoveryRequest {
            resource_names: clusters.iter().map(|name| (*name).to_owned()).collect(),
            ..DiscoveryRequest::default()
        }
    }

    fn ack(clusters: &[&str], nonce: &str) -> DiscoveryRequest {
        DiscoveryRequest { response_nonce: nonce.into(), ..ask(clusters) }
    }

    fn nack(clusters: &[&str], nonce: &str) -> DiscoveryRequest {
        let error_detail = Some(Status { code: 3, message: "no".into(), details: vec![] });
        DiscoveryRequest { error_detail, ..ack(clusters, nonce) }
    }

    fn pushed(peer: &mut StateOfTheWorld, snapshot: &Snapshot) -> Option<(String, Vec<String>)> {
        peer.push(snapshot).map(|push| (push.response.nonce, push.clusters))
    }

    #[test]
    fn a_subscription_is_sent_once() {
        let (mut peer, now) = (StateOfTheWorld::default(), snapshot(&[("w", 1), ("r", 1)]));
        assert_eq!(peer.push(&now), None, "nothing is asked for yet");
        assert_eq!(peer.hear(&ask(&["w"])), Ok(Heard::Asked));
        let push = peer.push(&now).unwrap();
        assert_eq!(push.clusters, ["w"]);
        assert_eq!(push.response.version_info, now.version());
        assert_eq!(push.response.resources.len(), 1);
        assert_eq!(peer.push(&now), None);
        assert_eq!(peer.hear(&ack(&["w"], "1")), Ok(Heard::Accepted { version: now.version().to_owned() }));
        assert_eq!(peer.push(&now), None);
    }

    #[test]
    fn changes_during_a_response_are_sent_once_after_its_answer() {
        let mut peer = StateOfTheWorld::default();
        peer.hear(&ask(&["w"])).unwrap();
        peer.push(&snapshot(&[("w", 1)])).unwrap();
        for content in 2..9 {
            assert_eq!(peer.push(&snapshot(&[("w", content)])), None);
        }
        peer.hear(&ack(&["w"], "1")).unwrap();
        let last = snapshot(&[("w", 9)]);
        assert_eq!(peer.push(&last).unwrap().version, last.version());
        peer.hear(&ack(&["w"], "2")).unwrap();
        assert_eq!(peer.push(&last), None);
    }

    #[test]
    fn a_stale_answer_does_not_change_subscriptions() {
        let mut peer = StateOfTheWorld::default();
        peer.hear(&ask(&["w"])).unwrap();
        peer.push(&snapshot(&[("w", 1)])).unwrap();
        peer.hear(&ack(&["w"], "1")).unwrap();
        peer.push(&snapshot(&[("w", 2)])).unwrap();
        for nonce in ["1", "7", "none of mine"] {
            assert_eq!(peer.hear(&ack(&["r"], nonce)), Ok(Heard::Stale));
        }
        assert!(peer.known().is_waiting());
        assert_eq!(names(&peer), ["w"]);
    }

    #[test]
    fn a_subscription_renewed_during_a_response_is_sent_again() {
        let mut peer = StateOfTheWorld::default();
        peer.hear(&ask(&["w", "r"])).unwrap();
        peer.push(&snapshot(&[("w", 1)])).unwrap();
        peer.hear(&ack(&["w", "r"], "1")).unwrap();
        let now = snapshot(&[("w", 1), ("r", 1)]);
        peer.push(&now).unwrap();
        for named in [&["r"][..], &["w", "r"]] {
            assert_eq!(peer.hear(&ack(named, "1")), Ok(Heard::Stale));
        }
        peer.hear(&ack(&["w", "r"], "2")).unwrap();
        assert_eq!(pushed(&mut peer, &now), Some(("3".into(), vec!["w".into()])));
    }

    #[test]
    fn a_nonce_of_an_earlier_stream_is_no_answer() {
        let mut peer = StateOfTheWorld::default();
        assert_eq!(peer.hear(&ack(&["w"], "1")), Ok(Heard::Asked));
        assert!(peer.push(&snapshot(&[("w", 1)])).is_some());
    }

    #[test]
    fn a_change_before_the_first_response_is_read_counts() {
        let mut peer = StateOfTheWorld::default();
        let now = snapshot(&[("w", 1), ("r", 1)]);
        peer.hear(&ask(&["w"])).unwrap();
        peer.push(&now).unwrap();
        assert_eq!(peer.hear(&ask(&["w", "r"])), Ok(Heard::Asked));
        assert!(peer.known().is_waiting());
        peer.hear(&ack(&["w", "r"], "1")).unwrap();
        assert_eq!(pushed(&mut peer, &now), Some(("2".into(), vec!["r".into()])));
    }

    #[test]
    fn a_rejected_cluster_is_not_sent_again_until_it_changes() {
        let mut peer = StateOfTheWorld::default();
        let bad = snapshot(&[("w", 1)]);
        peer.hear(&ask(&["w"])).unwrap();
        peer.push(&bad).unwrap();
        assert_eq!(
            peer.hear(&nack(&["w"], "1")),
            Ok(Heard::Rejected { version: bad.version().into(), clusters: vec!["w".into()] })
        );
        assert_eq!(peer.push(&bad), None);
        assert_eq!(peer.push(&snapshot(&[("w", 1), ("r", 3)])), None, "another cluster is not this one");
        assert!(peer.push(&snapshot(&[("w", 2)])).is_some());
    }

    #[test]
    fn clusters_rejected_together_are_sent_one_by_one_once() {
        let mut peer = StateOfTheWorld::default();
        let all = &["a", "b", "c"];
        let now = snapshot(&[("a", 1), ("b", 1), ("c", 1)]);
        peer.hear(&ask(all)).unwrap();
        assert_eq!(peer.push(&now).unwrap().clusters, *all);
        peer.hear(&nack(all, "1")).unwrap();
        for (nonce, cluster) in [("2", "a"), ("3", "b"), ("4", "c")] {
            assert_eq!(pushed(&mut peer, &now), Some((nonce.into(), vec![cluster.to_owned()])));
            peer.hear(&if cluster == "b" { nack(all, nonce) } else { ack(all, nonce) }).unwrap();
        }
        assert_eq!(peer.push(&now), None);
    }

    #[test]
    fn a_cluster_that_returns_unchanged_is_not_sent_again() {
        let mut peer = StateOfTheWorld::default();
        let now = snapshot(&[("w", 1)]);
        peer.hear(&ask(&["w"])).unwrap();
        peer.push(&now).unwrap();
        peer.hear(&ack(&["w"], "1")).unwrap();
        assert_eq!(peer.push(&snapshot(&[])), None);
        assert_eq!(peer.push(&now), None);
    }

    #[test]
    fn a_new_subscription_is_sent_again() {
        let mut peer = StateOfTheWorld::default();
        let now = snapshot(&[("w", 1)]);
        peer.hear(&ask(&["w"])).unwrap();
        peer.push(&now).unwrap();
        peer.hear(&ack(&[], "1")).unwrap();
        assert_eq!(peer.push(&snapshot(&[("w", 2)])), None, "no subscription");
        peer.hear(&ack(&["w"], "1")).unwrap();
        assert!(peer.push(&now).is_some());
    }

    #[test]
    fn no_name_means_all_until_a_cluster_was_named() {
        let mut peer = StateOfTheWorld::default();
        let now = snapshot(&[("w", 1), ("r", 1)]);
        peer.hear(&ask(&[])).unwrap();
        assert_eq!(peer.push(&now).unwrap().clusters, ["r", "w"]);
        peer.hear(&ack(&[], "1")).unwrap();
        assert!(peer.known().is_wildcard());
        peer.hear(&ack(&["w"], "1")).unwrap();
        assert!(!peer.known().is_wildcard());
        peer.hear(&ack(&[], "1")).unwrap();
        assert!(!peer.known().is_wildcard());
        peer.hear(&ack(&["*"], "1")).unwrap();
        assert!(peer.known().is_wildcard());
    }

    #[test]
    fn too_many_and_too_long_names_are_refused() {
        let many: Vec<String> = (0..=512).map(|number| number.to_string()).collect();
        let request = DiscoveryRequest { resource_names: many, ..DiscoveryRequest::default() };
        assert_eq!(StateOfTheWorld::default().hear(&request), Err(Refused::TooManyNames));
        let long = "x".repeat(257);
        assert_eq!(StateOfTheWorld::default().hear(&ask(&[&long])), Err(Refused::LongName));
    }
}
