use proptest::prelude::*;

use super::*;
use crate::cache::testing::fields;

fn response(lines: &[&str]) -> ResponseDirectives {
    let lines: Vec<_> = lines.iter().map(|line| ("cache-control", *line)).collect();
    ResponseDirectives::parse(&fields(&lines))
}

fn request(line: &str) -> RequestDirectives {
    RequestDirectives::parse(&fields(&[("cache-control", line)]), &Honoured::ALL)
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn delta_seconds_are_digits_and_saturate() {
    for (text, expected) in [
        ("0", seconds(0)),
        ("3600", seconds(3600)),
        ("003600", seconds(3600)),
        ("2147483647", seconds(2_147_483_647)),
        ("2147483648", seconds(2_147_483_648)),
        ("2147483649", seconds(2_147_483_648)),
        ("99999999999", seconds(2_147_483_648)),
        ("999999999999999999999999999999", seconds(2_147_483_648)),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.0", None),
        ("3600a", None),
        ("a3600", None),
        (" 1", None),
    ] {
        assert_eq!(delta_seconds(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn a_max_age_that_is_no_number_is_stale() {
    for (line, expected) in [
        ("max-age=3600", 3600),
        ("MaX-aGe=3600", 3600),
        ("max-age=003600", 3600),
        (r#"max-age="3600""#, 3600),
        ("foobar, max-age=3600", 3600),
        ("max-age=1800, max-age=1", 1800),
        ("max-age=1, max-age=1800", 1),
        ("max-age=-3600", 0),
        ("max-age='3600'", 0),
        ("max-age=3600.0", 0),
        ("max-age=3600a", 0),
        ("max-age=a3600", 0),
        ("max-age", 0),
        ("max-age=", 0),
        ("max-age =3600", 0),
        ("max-age= 3600", 0),
        (r#"max-age="3600"#, 0),
        (r#"extension="max-age=3600", max-age=1"#, 1),
        (r#"max-age=1, extension="max-age=3600""#, 1),
    ] {
        assert_eq!(response(&[line]).max_age, seconds(expected), "{line}");
    }
}

#[test]
fn directives_come_from_every_line_in_any_case() {
    let said = response(&["S-MaxAge=3, No-StOrE", "max-age=4,MUST-REVALIDATE,public"]);
    let expected = ResponseDirectives {
        s_maxage: seconds(3),
        max_age: seconds(4),
        no_store: true,
        must_revalidate: true,
        public: true,
        ..Default::default()
    };
    assert_eq!(said, expected);
    assert_eq!(said.lifetime(), seconds(3));
}

#[test]
fn unknown_directives_say_nothing() {
    let said = response(&["foobar, x=\"no-store, private\", max-age-x=3, no-stores, =1"]);
    assert_eq!(said, ResponseDirectives::default());
}

#[test]
fn a_prohibition_counts_whatever_its_argument() {
    assert!(response(&["no-store=0"]).no_store);
    assert!(response(&["no-store =x"]).no_store);
    assert!(response(&["x=\"a, no-store"]).no_store);
}

#[test]
fn no_cache_and_private_may_be_limited_to_fields() {
    let list = |names: &[&'static str]| {
        let names = names.iter().map(|name| HeaderName::from_static(name));
        Scope::Fields(names.collect())
    };
    for (line, expected) in [
        ("no-cache", Scope::Everything),
        (r#"no-cache="a""#, list(&["a"])),
        ("no-cache=a", list(&["a"])),
        (r#"no-cache="A, b""#, list(&["a", "b"])),
        (r#"no-cache="a", no-cache="b""#, list(&["a", "b"])),
        (r#"no-cache="a", no-cache"#, Scope::Everything),
        (r#"no-cache, no-cache="a""#, Scope::Everything),
        (r#"no-cache="""#, Scope::Everything),
        (r#"no-cache="a b""#, Scope::Everything),
        ("no-cache=(a)", Scope::Everything),
        ("max-age=1", Scope::Nothing),
    ] {
        assert_eq!(response(&[line]).no_cache, expected, "{line}");
        let private = line.replace("no-cache", "private");
        assert_eq!(response(&[&private]).private, expected, "{private}");
    }
}

#[test]
fn a_stale_window_that_is_no_number_was_not_said() {
    let said = response(&["stale-while-revalidate=x, stale-if-error"]);
    assert_eq!(said, ResponseDirectives::default());
    let said = response(&["stale-while-revalidate=30, stale-if-error=60"]);
    assert_eq!(said.stale_while_revalidate, seconds(30));
    assert_eq!(said.stale_if_error, seconds(60));
}

#[test]
fn request_directives_are_read_and_unknown_ones_are_not() {
    let none = RequestDirectives::default();
    for (line, expected) in [
        ("unknown, x=1", none),
        ("max-age=x, min-fresh, max-stale=x", none),
        (
            "No-Cache",
            RequestDirectives {
                no_cache: true,
                ..none
            },
        ),
        (
            "no-store, only-if-cached",
            RequestDirectives {
                no_store: true,
                only_if_cached: true,
                ..none
            },
        ),
        (
            "max-age=0, min-fresh=20",
            RequestDirectives {
                max_age: seconds(0),
                min_fresh: seconds(20),
                ..none
            },
        ),
        (
            "max-stale",
            RequestDirectives {
                max_stale: Some(Duration::MAX),
                ..none
            },
        ),
        (
            "max-stale=5",
            RequestDirectives {
                max_stale: seconds(5),
                ..none
            },
        ),
    ] {
        assert_eq!(request(line), expected, "{line}");
    }
}

#[test]
fn each_request_directive_can_be_ignored_by_itself() {
    let line = "no-cache, no-store, only-if-cached, max-age=1, min-fresh=2, max-stale=3";
    let all = fields(&[("cache-control", line)]);
    let read = |honoured: Honoured| RequestDirectives::parse(&all, &honoured);
    let every = read(Honoured::ALL);
    assert_eq!(read(Honoured::NONE), RequestDirectives::default());
    let but = Honoured {
        no_cache: false,
        max_age: false,
        ..Honoured::ALL
    };
    let expected = RequestDirectives {
        no_cache: false,
        max_age: None,
        ..every
    };
    assert_eq!(read(but), expected);
}

fn written(said: &ResponseDirectives) -> Vec<String> {
    let with = |name: &str, value: Option<Duration>| {
        value.map(|value| format!("{name}={}", value.as_secs()))
    };
    let scoped = |name: &str, scope: &Scope| match scope {
        Scope::Nothing => None,
        Scope::Everything => Some(name.to_owned()),
        Scope::Fields(fields) => {
            let names: Vec<_> = fields.iter().map(HeaderName::as_str).collect();
            Some(format!("{name}=\"{}\"", names.join(" , ")))
        }
    };
    let flag = |name: &str, set: bool| set.then(|| name.to_owned());
    [
        with("max-age", said.max_age),
        with("s-maxage", said.s_maxage),
        with("stale-while-revalidate", said.stale_while_revalidate),
        with("stale-if-error", said.stale_if_error),
        scoped("no-cache", &said.no_cache),
        scoped("private", &said.private),
        flag("no-store", said.no_store),
        flag("public", said.public),
        flag("must-revalidate", said.must_revalidate),
        flag("proxy-revalidate", said.proxy_revalidate),
        flag("must-understand", said.must_understand),
        flag("no-transform", said.no_transform),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn any_said() -> impl Strategy<Value = ResponseDirectives> {
    let delta =
        || proptest::option::of((0..=LONGEST.as_secs()).prop_map(Duration::from_secs)).boxed();
    let scope = || {
        let names = proptest::collection::vec("[a-z]{1,5}", 1..3).prop_map(|names| {
            let names = names.iter().map(|name| name.parse().unwrap());
            Scope::Fields(names.collect())
        });
        prop_oneof![Just(Scope::Nothing), Just(Scope::Everything), names].boxed()
    };
    let lifetimes = (delta(), delta(), delta(), delta());
    (lifetimes, scope(), scope(), any::<[bool; 6]>()).prop_map(
        |(lifetimes, no_cache, private, flags)| ResponseDirectives {
            max_age: lifetimes.0,
            s_maxage: lifetimes.1,
            stale_while_revalidate: lifetimes.2,
            stale_if_error: lifetimes.3,
            no_cache,
            private,
            no_store: flags[0],
            public: flags[1],
            must_revalidate: flags[2],
            proxy_revalidate: flags[3],
            must_understand: flags[4],
            no_transform: flags[5],
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_in_any_order_case_and_cut(
        said in any_said(),
        turn in 0usize..12,
        cut in 0usize..12,
        upper: bool,
    ) {
        let mut directives = written(&said);
        let count = directives.len();
        directives.rotate_left(turn.min(count));
        let (first, second) = directives.split_at(cut.min(count));
        let mut lines = [first.join(" ,"), second.join(", x=\"a,b\", ")];
        if upper {
            lines = lines.map(|line| line.to_uppercase());
        }
        prop_assert_eq!(response(&[&lines[0], &lines[1]]), said);
    }

    #[test]
    fn no_text_panics(line in r#"[ -~]{0,40}|(max-age|no-cache|private)[="0-9a,\\ ]{0,16}"#) {
        response(&[&line]);
        request(&line);
    }
}
