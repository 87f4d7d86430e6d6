use proptest::prelude::*;

use super::*;
use crate::limit::key::Prefixes;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn settings(most: usize) -> Settings {
    Settings {
        prefixes: Prefixes::default(),
        most,
    }
}

fn rule(name: &str, when: &str) -> Rule {
    Rule {
        name: name.into(),
        when: when.parse().unwrap(),
        terms: Terms {
            first: 10 * MINUTE,
            growth: 2,
            up_to: 60 * MINUTE,
            forgotten_after: 60 * MINUTE,
        },
        mode: Mode::Enforce,
        answer: Answer::Forbidden,
        paths: Vec::new(),
    }
}

fn bans(rules: Vec<Rule>) -> Bans {
    Bans::new(rules, 1000, settings(100), None)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Has a client do something so often.
fn happens(bans: &Bans, client: &str, event: &Event<'_>, times: usize, now: Instant) {
    for _ in 0..times {
        bans.note(ip(client), event, now);
    }
}

fn answered(status: u16) -> Event<'static> {
    Event {
        kind: Happened::Answered,
        status: StatusCode::from_u16(status).ok(),
        path: Some("/"),
    }
}

fn left(bans: &Bans, client: &str, now: Instant) -> Option<u64> {
    bans.check(ip(client), now, || false)
        .map(|banned| banned.left.as_secs())
}

#[test]
fn a_client_is_banned_by_its_last_event_and_let_in_when_the_ban_is_over() {
    let bans = bans(vec![rule("scanners", "30 × 404 in 1 minute")]);
    let begin = Instant::now();
    happens(&bans, "192.0.2.1", &answered(404), 29, begin);
    happens(&bans, "192.0.2.1", &answered(200), 100, begin);
    assert_eq!(left(&bans, "192.0.2.1", begin), None);
    happens(&bans, "192.0.2.1", &answered(404), 1, begin + SECOND);
    assert_eq!(left(&bans, "192.0.2.1", begin + SECOND), Some(600));
    assert_eq!(left(&bans, "192.0.2.2", begin + SECOND), None);
    assert_eq!(left(&bans, "192.0.2.1", begin + 600 * SECOND), Some(1));
    assert_eq!(left(&bans, "192.0.2.1", begin + 601 * SECOND), None);
    assert_eq!(bans.standing().count(Mode::Enforce), 1);
    bans.tidy(begin + 601 * SECOND);
    assert_eq!(bans.standing().count(Mode::Enforce), 0);
}

#[test]
fn addresses_of_one_network_are_banned_together() {
    let bans = bans(vec![rule("logins", "2 × 401/403 in 5 minutes")]);
    let now = Instant::now();
    happens(&bans, "2001:db8::1", &answered(401), 1, now);
    happens(&bans, "2001:db8::2", &answered(403), 1, now);
    assert_eq!(left(&bans, "2001:db8::3", now), Some(600));
    assert_eq!(left(&bans, "2001:db8:0:1::3", now), None);
}

#[test]
fn each_ban_is_longer_than_the_one_before_until_that_is_forgotten() {
    let bans = bans(vec![rule("scanners", "1 × 404 in 1 minute")]);
    let mut now = Instant::now();
    for length in [600, 1200, 2400, 3600, 3600] {
        happens(&bans, "192.0.2.1", &answered(404), 1, now);
        assert_eq!(left(&bans, "192.0.2.1", now), Some(length));
        now += Duration::from_secs(length);
        bans.tidy(now);
        now += 59 * MINUTE;
    }
    now += MINUTE;
    happens(&bans, "192.0.2.1", &answered(404), 1, now);
    assert_eq!(left(&bans, "192.0.2.1", now), Some(600));
}

#[test]
fn what_happens_while_a_ban_stands_makes_it_no_longer() {
    let bans = bans(vec![rule("scanners", "2 × 404 in 1 minute")]);
    let now = Instant::now();
    happens(&bans, "192.0.2.1", &answered(404), 50, now);
    assert_eq!(left(&bans, "192.0.2.1", now), Some(600));
    let (client, ban) = bans.standing().list(now, 10).remove(0);
    assert_eq!(
        (client.to_string().as_str(), ban.offence, ban.events),
        ("192.0.2.1", 1, 2)
    );
}

#[test]
fn a_rule_in_shadow_counts_and_refuses_nothing() {
    let shadow = Rule {
        mode: Mode::Shadow,
        ..rule("trial", "2 × 404 in 1 minute")
    };
    let bans = bans(vec![shadow, rule("real", "4 × 404 in 1 minute")]);
    let now = Instant::now();
    happens(&bans, "192.0.2.1", &answered(404), 3, now);
    assert_eq!(left(&bans, "192.0.2.1", now), None);
    assert_eq!(left(&bans, "192.0.2.1", now), None);
    happens(&bans, "192.0.2.1", &answered(404), 1, now);
    assert_eq!(
        left(&bans, "192.0.2.1", now),
        Some(600),
        "the first offence that counts"
    );
    let tallies = bans.standing().tallies();
    let of = |name: &str| {
        let by = By::Rule(name.into());
        tallies.iter().find(|(one, _)| *one == by).unwrap().1
    };
    let trial = of("trial");
    assert_eq!(
        (trial.events, trial.bans, trial.refused, trial.would_refuse),
        (2, 1, 0, 3)
    );
    let real = of("real");
    assert_eq!(
        (real.events, real.bans, real.refused, real.would_refuse),
        (4, 1, 1, 0)
    );
}

#[test]
fn bans_survive_a_new_plan_and_so_does_what_was_counted() {
    let first = bans(vec![rule("scanners", "3 × 404 in 1 minute")]);
    let now = Instant::now();
    happens(&first, "192.0.2.1", &answered(404), 3, now);
    happens(&first, "192.0.2.2", &answered(404), 2, now);
    let longer = Rule {
        terms: Terms {
            first: 20 * MINUTE,
            ..rule("", "1 × 404 in 1 minute").terms
        },
        ..rule("scanners", "3 × 404 in 1 minute")
    };
    let second = Bans::new(vec![longer], 1000, settings(100), Some(&first));
    assert_eq!(left(&second, "192.0.2.1", now), Some(600));
    happens(&second, "192.0.2.2", &answered(404), 1, now);
    assert_eq!(left(&second, "192.0.2.2", now), Some(1200));
    let third = Bans::new(Vec::new(), 1000, settings(100), Some(&second));
    assert_eq!(left(&third, "192.0.2.1", now), Some(600));
}

#[test]
fn a_flood_of_clients_does_not_end_a_ban() {
    let bans = bans(vec![rule("scanners", "2 × 404 in 1 minute")]);
    let now = Instant::now();
    happens(&bans, "192.0.2.1", &answered(404), 2, now);
    for number in 0..50_000 {
        let other = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
        bans.note(other.into(), &answered(404), now);
    }
    assert_eq!(left(&bans, "192.0.2.1", now), Some(600));
    assert_eq!(bans.standing().count(Mode::Enforce), 1);
}

#[test]
fn when_there_are_too_many_bans_the_one_that_would_end_first_goes() {
    let bans = Bans::new(Vec::new(), 1000, settings(2), None);
    let standing = bans.standing();
    let now = Instant::now();
    let ban = |client: &str, minutes: u32| {
        let stands = standing.ban_by_hand(client.parse().unwrap(), minutes * MINUTE, None, now);
        stands.map(|ban| ban.left(now).as_secs() / 60)
    };
    assert_eq!(ban("192.0.2.1", 10), Some(10));
    assert_eq!(ban("192.0.2.2", 20), Some(20));
    assert_eq!(ban("192.0.2.3", 5), None, "it would end first itself");
    assert_eq!(ban("192.0.2.4", 30), Some(30));
    assert_eq!(standing.evicted(), 2);
    let list = standing.list(now, 10);
    let clients: Vec<_> = list.iter().map(|(client, _)| client.to_string()).collect();
    assert_eq!(clients, ["192.0.2.4", "192.0.2.2"]);
    assert_eq!(ban("192.0.2.2", 1), Some(20), "the longer one stands");
    assert_eq!(ban("192.0.2.2", 60), Some(60));
    assert_eq!(standing.count(Mode::Enforce), 2);
}

#[test]
fn a_lifted_ban_is_forgotten() {
    let bans = bans(vec![rule("scanners", "1 × 404 in 1 minute")]);
    let now = Instant::now();
    happens(&bans, "192.0.2.1", &answered(404), 1, now);
    let client = "192.0.2.1".parse().unwrap();
    assert!(bans.standing().lift(&client, now).is_some());
    assert!(bans.standing().lift(&client, now).is_none());
    assert_eq!(left(&bans, "192.0.2.1", now), None);
    happens(&bans, "192.0.2.1", &answered(404), 1, now);
    assert_eq!(left(&bans, "192.0.2.1", now), Some(600), "as the first");
}

proptest! {
    /// Whatever happens in whatever order, there are no more bans than there may be, a ban ends when it says, and the
    /// table and its order hold the same.
    #[test]
    fn the_table_of_bans_is_what_was_put_in(
        steps in prop::collection::vec((0u8..4, 0u32..6, 1u32..50), 1..200),
    ) {
        let bans = Bans::new(Vec::new(), 10, settings(4), None);
        let standing = bans.standing();
        let mut now = Instant::now();
        for (step, number, amount) in steps {
            let client: Client = std::net::Ipv4Addr::from_bits(number).to_string().parse().unwrap();
            match step {
                0 | 1 => drop(standing.ban_by_hand(client, amount * SECOND, None, now)),
                2 => drop(standing.lift(&client, now)),
                _ => {
                    now += amount * SECOND;
                    bans.tidy(now);
                }
            }
            let list = standing.list(now, usize::MAX);
            prop_assert!(list.len() <= 4);
            prop_assert_eq!(list.len(), standing.count(Mode::Enforce));
            for (client, ban) in list {
                let banned = bans.check(client.address(), now, || false);
                prop_assert_eq!(banned.map(|banned| banned.left), Some(ban.left(now)));
                prop_assert!(bans.check(client.address(), ban.ends, || false).is_none());
            }
        }
    }
}
