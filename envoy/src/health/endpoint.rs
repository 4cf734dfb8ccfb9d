//! The endpoint that a check names. The cluster is in the path or in the service name; the endpoint is in
//! the settings that Envoy has for each endpoint.
//!
//! - The Host header (`:authority` in gRPC) is `health_check_config.hostname` of the
//!   endpoint, else `endpoint.hostname`; without either, the cluster's `host` or the
//!   cluster's name.
//! - A header of the cluster's `request_headers_to_add` can carry metadata of the endpoint,
//!   `%UPSTREAM_METADATA(rdslb:endpoint)%`, or its address, `%UPSTREAM_HOST%`.

/// The header that names the endpoint. It has precedence over the Host header.
pub const HEADER: &str = "x-rdslb-endpoint";

/// The endpoint of the cluster that a check names, if any.
///
/// `endpoints` has the name and the addresses (`IP:PORT`) of each endpoint; both identify it. Some versions
/// of Envoy add a port to the Host header, which is ignored if only the rest is a name.
pub fn named<'a>(
    header: Option<&str>,
    host: Option<&str>,
    endpoints: &[(&'a str, &'a [String])],
) -> Option<&'a str> {
    let find = |text: &str| {
        let is = |(name, addresses): &&(&str, &[String])| {
            name.eq_ignore_ascii_case(text) || addresses.iter().any(|address| address == text)
        };
        endpoints.iter().find(is).map(|(name, _)| *name)
    };
    // Envoy writes `-` or nothing for an unknown value.
    let header = header.map(str::trim).filter(|header| !header.is_empty() && *header != "-");
    if let Some(header) = header {
        return find(header);
    }
    let host = host?.trim();
    find(host).or_else(|| find(host.rsplit_once(':')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(header: Option<&str>, host: Option<&str>) -> Option<&'static str> {
        static ADDRESSES: std::sync::OnceLock<[Vec<String>; 2]> = std::sync::OnceLock::new();
        let [a, b] =
            ADDRESSES.get_or_init(|| [vec!["10.0.0.1:5432".into()], vec!["[2001:db8::2]:5432".into()]]);
        named(header, host, &[("a", a.as_slice()), ("b", b.as_slice())])
    }

    #[test]
    fn the_host_header_names_an_endpoint() {
        assert_eq!(find(None, Some("a")), Some("a"));
        assert_eq!(find(None, Some("B")), Some("b"), "host names have no case");
        assert_eq!(find(None, Some("a:7879")), Some("a"));
        assert_eq!(find(None, Some("10.0.0.1:5432")), Some("a"));
        assert_eq!(find(None, Some("the_cluster")), None);
        assert_eq!(find(None, None), None);
    }

    #[test]
    fn the_own_header_has_precedence() {
        assert_eq!(find(Some("b"), Some("a")), Some("b"));
        assert_eq!(find(Some("[2001:db8::2]:5432"), Some("a")), Some("b"));
        assert_eq!(find(Some("unknown"), Some("a")), None, "an unknown name is no endpoint");
    }

    #[test]
    fn an_empty_header_is_ignored() {
        assert_eq!(find(Some("-"), Some("a")), Some("a"));
        assert_eq!(find(Some(" "), Some("a")), Some("a"));
    }
}
