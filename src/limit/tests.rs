//! What somebody with many names and addresses cannot do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;

use super::hold::tests::{at, rule};
use super::jwt::Claims;
use super::*;

/// Those that [`rule`] has room for.
const ROOM: usize = 1_000;
const BY_NAME: &str = "header:x-api-key | client-ip";

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

/// Whether a request is let through.
fn asks(rules: &[Arc<Rule>], client: IpAddr, name: Option<u32>, millis: u64) -> bool {
    let mut fields = HeaderMap::new();
    if let Some(name) = name {
        fields.insert("x-api-key", name.into());
    }
    let claims = Claims::default();
    let asker = Asker {
        client,
        fields: &fields,
        certificate: None,
        claims: &claims,
        host: "a.example",
        path: "/",
        query: None,
        route: "test",
    };
    let mut taken = Taken::default();
    let took = taken.take(rules, &asker, &Method::GET, Phase::Whole, at(millis));
    took.is_ok()
}

#[test]
fn random_names_of_one_address_neither_fill_the_memory_nor_escape_its_limit() {
    let rules = [rule(&["5 per hour"], BY_NAME, None, Mode::Enforce)];
    let let_through = (0..10 * ROOM as u32).filter(|name| asks(&rules, address(1), Some(*name), 0));
    assert_eq!(let_through.count(), 100 + 5, "names, and the address");
    assert_eq!(rules[0].live.buckets(), 100 + 1);
}

#[test]
fn names_and_addresses_stay_within_their_bounds_however_many_there_are() {
    let rules = [rule(&["5 per hour"], BY_NAME, None, Mode::Enforce)];
    for number in 0..10 * ROOM as u32 {
        asks(&rules, address(number), Some(number), 0);
    }
    let Live { local, names, .. } = &*rules[0].live;
    assert!(
        local.buckets() <= ROOM + local.pieces(),
        "{}",
        local.buckets()
    );
    assert!(names.buckets() <= ROOM / NAMED + names.pieces());
}

#[test]
fn addresses_of_one_ipv6_network_are_one_client_with_names_or_without() {
    let rules = [rule(&["5 per hour"], BY_NAME, None, Mode::Enforce)];
    let of_network = |number: u32| {
        let bits = 0x2001_0db8 << 96 | u128::from(number);
        IpAddr::from(Ipv6Addr::from_bits(bits))
    };
    let named = (0..1_000).filter(|number| asks(&rules, of_network(*number), Some(*number), 0));
    assert_eq!(named.count(), 100 + 5);
    assert!((0..1_000).all(|number| !asks(&rules, of_network(number), None, 0)));
}

#[test]
fn a_flood_of_ten_times_the_room_gives_nobody_a_fresh_bucket() {
    for quotas in [
        &["5 per hour"][..],
        &["5 per day"],
        &["5 per minute", "1000 per day"],
        &["5 per day", "100_000 per month"],
    ] {
        let rules = [rule(quotas, "client-ip", None, Mode::Enforce)];
        let used_up = |number| (0..5).all(|_| asks(&rules, address(number), None, 0));
        assert!((0..10).all(used_up), "{quotas:?}");
        for number in 10..10 * ROOM as u32 {
            // Two of five: none is as far as those.
            asks(&rules, address(number), None, 0);
            asks(&rules, address(number), None, 0);
        }
        let escaped = (0..10).filter(|number| asks(&rules, address(*number), None, 0));
        assert_eq!(escaped.count(), 0, "{quotas:?}");
    }
}

#[test]
fn an_address_that_has_brought_all_its_names_stays_known_through_a_flood() {
    let rules = [rule(&["5 per hour"], BY_NAME, None, Mode::Enforce)];
    (0..100).for_each(|name| assert!(asks(&rules, address(0), Some(name), 0)));
    for number in 1..10 * ROOM as u32 {
        asks(&rules, address(number), Some(1_000 + number), 0);
    }
    let names = 2_000_000..2_000_100;
    let let_through = names.filter(|name| asks(&rules, address(0), Some(*name), 0));
    assert_eq!(let_through.count(), 5, "as its address");
}
