//! Which addresses a crawl may open: public ones, on the ports of the web.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::environment::Names;

/// Says why `url` may not be fetched, whatever its name resolves to.
pub(super) fn refuse(url: &Url, allow_private: bool) -> Option<&'static str> {
    if !matches!(url.scheme(), "http" | "https") {
        return Some("scheme");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("credentials");
    }
    let Some(host) = url.host() else { return Some("no_host") };
    if allow_private {
        return None;
    }
    if !matches!(url.port_or_known_default(), Some(80 | 81 | 443 | 8000..=8999)) {
        return Some("port");
    }
    let is_public = match host {
        Host::Ipv4(address) => is_public(address.into()),
        Host::Ipv6(address) => is_public(address.into()),
        Host::Domain(name) => is_public_name(name),
    };
    (!is_public).then_some("address")
}

/// Names that never lead out of a machine, a cluster or a house (RFC 6761, RFC 6762, ICANN's `internal`), or lead nowhere.
fn is_public_name(name: &str) -> bool {
    const PRIVATE: [&str; 6] = ["localhost", "local", "internal", "svc", "lan", "arpa"];
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or(name);
    let are_labels_sound = name.split('.').all(|label| (1..=63).contains(&label.len()));
    name.contains('.') && name.len() <= 253 && are_labels_sound && !PRIVATE.contains(&last)
}

/// Whether `address` is routed on the internet. Source: IANA special-purpose address registries.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127 | 224..=255, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [192, 168, ..]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Only global unicast, without the blocks in it that are for protocols, tunnels and documentation: an
    // address of IPv4 inside one of IPv6 is never dialled.
    let [a, b, ..] = address.segments();
    let is_global = a & 0xe000 == 0x2000;
    let is_protocol = a == 0x2001 && b < 0x200;
    let is_documentation = (a == 0x2001 && b == 0xdb8) || (a == 0x3fff && b < 0x1000);
    is_global && !is_protocol && !is_documentation && a != 0x2002
}

/// Resolves names to public addresses only. The connector dials what this returns, so that a second answer of a name server
/// that changed its mind is never used.
#[derive(Clone, Debug)]
pub(super) struct PublicResolver {
    pub(super) allow_private: bool,
    pub(super) names: Names,
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { allow_private, names } = self.clone();
        Box::pin(async move {
            let found = names.lookup(name.as_str()).await?.into_iter();
            let found = found.filter(|found| allow_private || is_public(*found));
            // The connector takes the port of the URL for 0.
            let allowed: Vec<SocketAddr> = found.map(|found| (found, 0).into()).collect();
            if allowed.is_empty() {
                let error: Box<dyn Error + Send + Sync> = "it has no public address".into();
                return Err(error);
            }
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use url::Url;

    use super::{is_public, refuse};
    use crate::source::testing;

    #[test]
    fn refuses_every_url_that_leads_inside_and_allows_the_others() {
        let Some(folder) = testing::data("conformance/hostile/ssrf") else { return };
        let text = std::fs::read_to_string(folder.join("cases.jsonl")).unwrap();
        let (mut judged, mut wrong) = (0, Vec::new());
        for line in text.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            if let Some(url) = case["url"].as_str() {
                let refused = Url::parse(url).map_or(true, |url| refuse(&url, false).is_some());
                judged += 1;
                if refused != (case["expect"] == "refuse") {
                    wrong.push(url.to_owned());
                }
            } else if case["kind"] == "dns" && case["expect"] == "refuse" {
                for address in case["answers"].as_array().unwrap()[0].as_array().unwrap() {
                    judged += 1;
                    assert!(!is_public(address.as_str().unwrap().parse().unwrap()), "{address}");
                }
            }
        }
        eprintln!("judged {judged} cases");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
