//! The AWS region of an endpoint: configured, read from the endpoint's name, or taken from the
//! AWS chain. There is no default: a database refuses a token for the wrong region like a wrong
//! password.

use std::{fmt, sync::Arc};

use serde::Serialize;
use thiserror::Error;

/// A region's name, such as `eu-west-1`, `us-gov-west-1` or `cn-north-1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Region(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegionError {
    /// Not the name of a region.
    #[error("{0:?} is not the name of an AWS region; write it like eu-west-1, us-gov-west-1 or cn-north-1")]
    Malformed(String),
    /// An availability zone instead of a region.
    #[error("{zone:?} is an availability zone; the region is {region}")]
    Zone { zone: String, region: Region },
    /// Neither the name nor the AWS environment says which region it is.
    #[error(
        "no region for {host:?}: the name does not say it and the AWS environment does not either; \
         give the region, set AWS_REGION, or use the RDS endpoint \
         (NAME.ID.REGION.rds.amazonaws.com) instead of an alias of it"
    )]
    Unknown { host: String },
}

/// The domains of RDS endpoints, by partition.
const DOMAINS: [&str; 7] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "c2s.ic.gov",
    "sc2s.sgov.gov",
    "csp.hci.ic.gov",
    "cloud.adc-e.uk",
];

// === impl Region ===

impl Region {
    /// Parses a region's name. Checks its form only, since AWS adds regions.
    pub fn parse(text: &str) -> Result<Self, RegionError> {
        if is_region(text) {
            return Ok(Self(text.into()));
        }
        if let Some((region, zone)) = text.split_at_checked(text.len().saturating_sub(1))
            && zone.bytes().all(|b| b.is_ascii_lowercase())
            && is_region(region)
        {
            return Err(RegionError::Zone { zone: text.to_owned(), region: Self(region.into()) });
        }
        Err(RegionError::Malformed(text.to_owned()))
    }

    /// The region in an RDS endpoint's name, in every partition. `None` for aliases, addresses
    /// and global endpoints.
    pub fn from_endpoint(host: &str) -> Option<Self> {
        let host = host.to_ascii_lowercase();
        DOMAINS.iter().find_map(|domain| {
            let name = host.strip_suffix(domain)?.strip_suffix('.')?;
            let mut labels = name.rsplit('.');
            // `ID.REGION.rds.DOMAIN`, and in China also `ID.rds.REGION.DOMAIN`.
            let (("rds", region) | (region, "rds")) = (labels.next()?, labels.next()?) else {
                return None;
            };
            // Without an identifier it is the name of the RDS API.
            labels.next()?;
            is_region(region).then(|| Self(region.into()))
        })
    }

    /// The region to sign for: `explicit` if given, else the one in the endpoint's name, else
    /// that of the AWS environment (`chain`, polled only then).
    pub async fn resolve(
        explicit: Option<&str>,
        host: &str,
        chain: impl Future<Output = Option<Region>>,
    ) -> Result<Self, RegionError> {
        let named = Self::from_endpoint(host);
        if let Some(text) = explicit {
            let region = Self::parse(text)?;
            if let Some(named) = named.filter(|named| *named != region) {
                tracing::warn!(endpoint = host, %region, %named, "configured region differs from the region in the endpoint name; if the endpoint is right, logins will be refused");
            }
            return Ok(region);
        }
        match named {
            Some(region) => Ok(region),
            None => chain.await.ok_or_else(|| RegionError::Unknown { host: host.to_owned() }),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Two to four words and a number: `us-east-1`, `us-gov-west-1`.
fn is_region(text: &str) -> bool {
    let mut parts = text.rsplit('-');
    let number =
        parts.next().is_some_and(|n| matches!(n.len(), 1..=2) && n.bytes().all(|b| b.is_ascii_digit()));
    let words: Vec<&str> = parts.collect();
    number
        && matches!(words.len(), 2..=4)
        && words.iter().all(|w| matches!(w.len(), 2..=12) && w.bytes().all(|b| b.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_from_endpoints_of_every_partition() {
        for (host, region) in [
            ("orders.abc123.eu-west-1.rds.amazonaws.com", "eu-west-1"),
            ("Orders.ABC123.EU-West-1.RDS.amazonaws.com", "eu-west-1"),
            ("orders.cluster-ro-abc123.ap-southeast-5.rds.amazonaws.com", "ap-southeast-5"),
            ("orders.proxy-abc123.us-gov-west-1.rds.amazonaws.com", "us-gov-west-1"),
            ("orders.abc123.cn-north-1.rds.amazonaws.com.cn", "cn-north-1"),
            ("orders.abc123.rds.cn-northwest-1.amazonaws.com.cn", "cn-northwest-1"),
            ("orders.abc123.eusc-de-east-1.rds.amazonaws.eu", "eusc-de-east-1"),
            ("orders.abc123.us-iso-east-1.rds.c2s.ic.gov", "us-iso-east-1"),
        ] {
            assert_eq!(Region::from_endpoint(host).expect(host).as_str(), region);
        }
    }

    #[test]
    fn names_without_a_region_give_none() {
        for host in [
            "db.example.com",
            "localhost",
            "10.0.0.1",
            "orders.global-abc123.global.rds.amazonaws.com",
            "rds.eu-west-1.amazonaws.com",
            "eu-west-1.rds.amazonaws.com",
            "orders.abc123.eu-west-1.rds.amazonaws.com.evil.example",
            "orders.abc123.eu-west-1.rdsamazonaws.com",
            "orders.abc123.eu-west-1.ec2.amazonaws.com",
            "",
        ] {
            assert_eq!(Region::from_endpoint(host), None, "{host}");
        }
    }

    #[test]
    fn malformed_regions_are_refused_with_advice() {
        for text in
            ["", "us", "us-east", "US-EAST-1", "us east 1", "us-east-1/", "europe", "us-east-123", "--1"]
        {
            let error = Region::parse(text).expect_err(text);
            assert!(error.to_string().contains("write it like"), "{error}");
        }
        let error = Region::parse("us-east-1a").expect_err("a zone");
        assert_eq!(error.to_string(), "\"us-east-1a\" is an availability zone; the region is us-east-1");
        Region::parse("é").expect_err("not ASCII");
    }

    #[tokio::test]
    async fn the_configured_region_wins_then_the_name_then_the_chain() {
        const HOST: &str = "orders.abc123.eu-west-1.rds.amazonaws.com";
        let chain = || async { Some(Region::parse("sa-east-1").expect("region")) };
        let unasked = async { panic!("the chain must not be asked") };
        assert_eq!(
            Region::resolve(Some("eu-north-1"), HOST, unasked).await.expect("given").as_str(),
            "eu-north-1"
        );
        let unasked = async { panic!("the chain must not be asked") };
        assert_eq!(Region::resolve(None, HOST, unasked).await.expect("named").as_str(), "eu-west-1");
        assert_eq!(
            Region::resolve(None, "db.example.com", chain()).await.expect("chain").as_str(),
            "sa-east-1"
        );
        let error = Region::resolve(None, "db.example.com", async { None }).await.expect_err("nobody says");
        assert!(error.to_string().contains("AWS_REGION"), "{error}");
    }
}
