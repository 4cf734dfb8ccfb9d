//! Whatever a peer asks, answers, and lets wait: in the end it has exactly what there is,
//! and on the way it is never flooded.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Incremental, Known, StateOfTheWorld, Subscription};
use crate::{
    eds::Snapshot,
    proto::{
        Any, ClusterLoadAssignment, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
        DiscoveryResponse, Message, Status,
    },
};

pub(super) mod support {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::Subscription;
    use crate::eds::{Cluster, Endpoint, Health, Snapshot};

    /// Clusters with one endpoint each, whose content is this number.
    pub fn snapshot(clusters: &[(&str, u16)]) -> Snapshot {
        with_pending(clusters, &[])
    }

    pub fn with_pending(clusters: &[(&str, u16)], pending: &[&str]) -> Snapshot {
        let known = clusters.iter().map(|(name, content)| {
            let addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, *content))];
            let endpoint = Endpoint { name: "a".into(), addresses, health: Health::Healthy };
            Cluster { name: (*name).to_owned(), endpoints: Some(vec![endpoint]) }
        });
        let pending = pending.iter().map(|name| Cluster { name: (*name).to_owned(), endpoints: None });
        Snapshot::new(known.chain(pending))
    }

    pub fn names<S: Subscription>(peer: &S) -> Vec<&str> {
        peer.known().names().collect()
    }
}

const CLUSTERS: [&str; 4] = ["a", "b", "c", "d"];

/// Contents from here on are rejected by the peer.
const BAD: u16 = 100;

#[derive(Clone, Debug)]
enum Step {
    /// There is something else to say: content by cluster, 0 for none, 1 for pending.
    Publish([u16; 4]),
    /// The peer wants these, by bit.
    Want(u8),
    /// The agent sends what is due, if it may.
    Send,
    /// The peer reads and answers.
    Read,
    /// A request with a nonce that was never sent.
    Babble,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let content = || prop_oneof![Just(0_u16), Just(1), 2..6_u16, BAD..BAD + 2];
    let step = prop_oneof![
        3 => [content(), content(), content(), content()].prop_map(Step::Publish),
        1 => (0..16_u8).prop_map(Step::Want),
        4 => Just(Step::Send),
        4 => Just(Step::Read),
        1 => Just(Step::Babble),
    ];
    prop::collection::vec(step, 0..60)
}

/// An Envoy as far as it matters here.
trait Peer: Default {
    type Variant: Subscription;

    fn want(&mut self, clusters: BTreeSet<&'static str>) -> <Self::Variant as Subscription>::Request;
    fn read(
        &mut self,
        response: <Self::Variant as Subscription>::Response,
    ) -> <Self::Variant as Subscription>::Request;
    fn babble(&self) -> <Self::Variant as Subscription>::Request;
    fn has(&self) -> &BTreeMap<String, u16>;
    /// Whether it knows that what is gone is gone.
    const HEARS_OF_REMOVALS: bool;
}

fn port(any: &Any) -> (String, u16) {
    use crate::proto::{address::Address, lb_endpoint::HostIdentifier, socket_address::PortSpecifier};
    let message = ClusterLoadAssignment::decode(&*any.value).unwrap();
    let endpoint = message.endpoints[0].lb_endpoints[0].clone();
    let Some(HostIdentifier::Endpoint(endpoint)) = endpoint.host_identifier else { panic!() };
    let Some(Address::SocketAddress(socket)) = endpoint.address.unwrap().address else { panic!() };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!() };
    (message.cluster_name, port.try_into().unwrap())
}

fn rejection() -> Status {
    Status { code: 3, message: "not this one".into(), details: vec![] }
}

#[derive(Default)]
struct Classic {
    wanted: BTreeSet<&'static str>,
    has: BTreeMap<String, u16>,
    nonce: String,
}

impl Classic {
    fn request(&self) -> DiscoveryRequest {
        DiscoveryRequest {
            // An Envoy that wants nothing has no stream; here it wants what is never there.
            resource_names: self.wanted.iter().copied().chain(["never"]).map(str::to_owned).collect(),
            response_nonce: self.nonce.clone(),
            ..DiscoveryRequest::default()
        }
    }
}

impl Peer for Classic {
    type Variant = StateOfTheWorld;
    const HEARS_OF_REMOVALS: bool = false;

    fn want(&mut self, clusters: BTreeSet<&'static str>) -> DiscoveryRequest {
        self.has.retain(|name, _| clusters.contains(&**name));
        self.wanted = clusters;
        self.request()
    }

    fn read(&mut self, response: DiscoveryResponse) -> DiscoveryRequest {
        self.nonce = response.nonce;
        let content: Vec<_> = response.resources.iter().map(port).collect();
        let bad = content.iter().any(|(_, content)| *content >= BAD);
        if !bad {
            let wanted = content.into_iter().filter(|(name, _)| self.wanted.contains(&**name));
            self.has.extend(wanted);
        }
        DiscoveryRequest { error_detail: bad.then(rejection), ..self.request() }
    }

    fn babble(&self) -> DiscoveryRequest {
        DiscoveryRequest { response_nonce: "0".into(), resource_names: vec![], ..self.request() }
    }

    fn has(&self) -> &BTreeMap<String, u16> {
        &self.has
    }
}

#[derive(Default)]
struct Delta {
    spoken: bool,
    wanted: BTreeSet<&'static str>,
    has: BTreeMap<String, u16>,
}

impl Peer for Delta {
    type Variant = Incremental;
    const HEARS_OF_REMOVALS: bool = true;

    fn want(&mut self, clusters: BTreeSet<&'static str>) -> DeltaDiscoveryRequest {
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let mut resource_names_subscribe = owned(clusters.difference(&self.wanted).copied().collect());
        let resource_names_unsubscribe = owned(self.wanted.difference(&clusters).copied().collect());
        if !std::mem::replace(&mut self.spoken, true) {
            resource_names_subscribe.push("never".into());
        }
        self.has.retain(|name, _| clusters.contains(&**name));
        self.wanted = clusters;
        DeltaDiscoveryRequest {
            resource_names_subscribe,
            resource_names_unsubscribe,
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn read(&mut self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        let resources = response.resources.into_iter();
        let content: Vec<_> = resources.map(|resource| port(&resource.resource.unwrap())).collect();
        let bad = content.iter().any(|(_, content)| *content >= BAD);
        for name in &response.removed_resources {
            self.has.remove(name);
        }
        if !bad {
            self.has.extend(content.into_iter().filter(|(name, _)| self.wanted.contains(&**name)));
        }
        let error_detail = bad.then(rejection);
        DeltaDiscoveryRequest {
            response_nonce: response.nonce,
            error_detail,
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn babble(&self) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { response_nonce: "0".into(), ..DeltaDiscoveryRequest::default() }
    }

    fn has(&self) -> &BTreeMap<String, u16> {
        &self.has
    }
}

fn publish(content: [u16; 4]) -> Snapshot {
    let all = || CLUSTERS.into_iter().zip(content);
    let known: Vec<_> = all().filter(|(_, content)| *content > 1).collect();
    let pending: Vec<_> = all().filter(|(_, content)| *content == 1).map(|(name, _)| name).collect();
    support::with_pending(&known, &pending)
}

/// Runs the steps, then lets everything settle.
fn run<P: Peer>(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut peer, mut agent) = (P::default(), P::Variant::default());
    let (mut content, mut now) = ([0; 4], publish([0; 4]));
    let mut wire = None;
    agent.hear(&peer.want(BTreeSet::new())).unwrap();
    for step in steps {
        match step {
            Step::Publish(new) => (content, now) = (new, publish(new)),
            Step::Want(bits) => {
                let wanted = CLUSTERS.into_iter().enumerate();
                let wanted = wanted.filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, name)| name);
                agent.hear(&peer.want(wanted.collect())).unwrap();
            }
            Step::Send => {
                if let Some(push) = agent.push(&now) {
                    prop_assert!(wire.is_none(), "one response at a time");
                    wire = Some(push.response);
                }
            }
            Step::Read => {
                if let Some(response) = wire.take() {
                    agent.hear(&peer.read(response)).unwrap();
                }
            }
            Step::Babble => {
                agent.hear(&peer.babble()).unwrap();
            }
        }
    }
    let mut responses = 0;
    while let Some(response) = wire.take().or_else(|| agent.push(&now).map(|push| push.response)) {
        agent.hear(&peer.read(response)).unwrap();
        responses += 1;
        prop_assert!(responses <= 2 * (CLUSTERS.len() + 1) + 1, "it never comes to rest");
    }
    let wanted: BTreeSet<String> = names_of(agent.known());
    for (name, content) in CLUSTERS.into_iter().zip(content) {
        let has = peer.has().get(name).copied();
        if !wanted.contains(name) {
            prop_assert_eq!(has, None);
            continue;
        }
        match content {
            // Not there: every subscriber has received its removal.
            0 if P::HEARS_OF_REMOVALS => prop_assert_eq!(has, None, "{} is gone", name),
            0 | 1 => {}
            // Rejected: what it had before, or nothing.
            BAD.. => prop_assert!(has.is_none_or(|has| has < BAD)),
            _ => prop_assert_eq!(has, Some(content), "{} is what there is", name),
        }
    }
    Ok(())
}

fn names_of(known: &Known) -> BTreeSet<String> {
    known.names().map(str::to_owned).collect()
}

proptest! {
    #[test]
    fn a_peer_of_the_classic_variant_ends_with_what_there_is(steps in steps()) {
        run::<Classic>(steps)?;
    }

    #[test]
    fn a_peer_of_the_delta_variant_ends_with_what_there_is(steps in steps()) {
        run::<Delta>(steps)?;
    }
}
