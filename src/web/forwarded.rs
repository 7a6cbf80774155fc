//! Whom a proxy asks for: the address of the client, as a proxy that is trusted names it.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use crate::config;

/// The client's address by the header that the settings name; `None` where the peer is no trusted proxy, or names none. Anybody may have
/// written the beginning of the header, so the last address in it counts that is no trusted proxy's.
pub(super) fn client(settings: &config::Login, headers: &HeaderMap, peer: IpAddr) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| settings.trusted_proxies.iter().any(|proxy| proxy.contains(address));
    if settings.proxy_address_header.is_empty() || !is_trusted(peer) {
        return None;
    }
    let is_rfc = settings.proxy_address_header.eq_ignore_ascii_case("forwarded");
    let values: Vec<&str> = headers
        .get_all(settings.proxy_address_header.as_str())
        .iter()
        .map(|value| value.to_str().unwrap_or(""))
        .collect();
    let mut farthest = None;
    for entry in values.iter().flat_map(|value| value.split(',')).rev() {
        // What cannot be read was not written by a proxy that is to be trusted.
        let Some(address) = (if is_rfc { for_of(entry) } else { Some(entry) }).and_then(address) else {
            return farthest;
        };
        farthest = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    farthest
}

/// The parameter `for` of an element of `Forwarded` (RFC 7239).
fn for_of(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// An address, with a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let alone = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = alone.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn asked(header: &str, values: &[&str], peer: &str) -> Option<String> {
        let mut settings = config::Settings::load(None, &[]).unwrap().web.login;
        settings.trusted_proxies = vec!["10.0.0.0/24".to_owned().try_into().unwrap()];
        settings.proxy_address_header = header.to_owned();
        let mut headers = HeaderMap::new();
        for value in values {
            let name = HeaderName::from_bytes(header.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        client(&settings, &headers, peer.parse().unwrap()).map(|address| address.to_string())
    }

    #[test]
    fn the_last_address_that_no_trusted_proxy_has_is_the_clients() {
        let header = "X-Forwarded-For";
        let of = |values: &[&str]| asked(header, values, "10.0.0.1");
        assert_eq!(of(&["192.0.2.7"]).unwrap(), "192.0.2.7");
        assert_eq!(of(&["6.6.6.6, 192.0.2.7"]).unwrap(), "192.0.2.7", "whoever asks may have written the first");
        assert_eq!(of(&["6.6.6.6", "192.0.2.7, 10.0.0.9"]).unwrap(), "192.0.2.7", "two proxies");
        assert_eq!(of(&["192.0.2.7:5123"]).unwrap(), "192.0.2.7");
        assert_eq!(of(&["[2001:db8::1]:80"]).unwrap(), "2001:db8::1");
        assert_eq!(of(&["::ffff:192.0.2.7"]).unwrap(), "192.0.2.7");
        for nothing in [&[][..], &[""], &["unknown"], &["192.0.2.7, x"]] {
            assert_eq!(of(nothing), None, "{nothing:?}");
        }
        assert_eq!(asked(header, &["192.0.2.7"], "10.0.1.1"), None, "no trusted proxy");
    }

    #[test]
    fn the_header_of_the_rfc_is_read_too() {
        let of = |value: &str| asked("Forwarded", &[value], "10.0.0.1");
        assert_eq!(of("for=192.0.2.60;proto=http;by=203.0.113.43").unwrap(), "192.0.2.60");
        assert_eq!(of("for=6.6.6.6, For=\"[2001:db8:cafe::17]:4711\"").unwrap(), "2001:db8:cafe::17");
        assert_eq!(of("for=_hidden"), None);
        assert_eq!(of("proto=http"), None);
    }
}
