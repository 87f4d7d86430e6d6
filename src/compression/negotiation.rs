//! One coding by what a client accepts (RFC 9110 12.5.3). Knows qualities, not how they are written.

use super::Coding;

/// The most welcome of the codings that are `offered`, of equally welcome ones the first; `None` where the
/// body is to stay as it is.
///
/// `accepted`: the names of `Accept-Encoding` with their qualities in thousandths; of one that is named twice the better counts.
/// `*` stands for all that are not named. A client that refuses the body as it is, too, is not heard
/// in that: RFC 9110 leaves it to the server, and an answer is worth more than none.
pub fn choose(accepted: &[(&[u8], u16)], offered: &[Coding]) -> Option<Coding> {
    let quality = |wanted: &str| {
        let is_named = |name: &[u8]| name.eq_ignore_ascii_case(wanted.as_bytes());
        let named = accepted.iter().filter(|(name, _)| is_named(name));
        named.map(|(_, quality)| *quality).max()
    };
    let any = quality("*").unwrap_or(0);
    let identity = quality("identity").unwrap_or(0);
    let offered = offered.iter().rev();
    let (quality, coding) = offered
        .map(|coding| (quality(coding.as_str()).unwrap_or(any), *coding))
        .max_by_key(|(quality, _)| *quality)?;
    (quality > 0 && quality >= identity).then_some(coding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_prefers_and_the_server_breaks_ties() {
        use Coding::{Br, Gzip, Zstd};
        let all = [Br, Zstd, Gzip];
        for (accepted, offered, expected) in [
            (&[("gzip", 1000), ("br", 1000)][..], &all[..], Some(Br)),
            (&[("gzip", 1000), ("br", 1000)], &[Gzip, Br], Some(Gzip)),
            (&[("gzip", 1000), ("br", 900)], &all, Some(Gzip)),
            (&[("GZIP", 1000)], &all, Some(Gzip)),
            (&[("gzip", 1000)], &[Br], None),
            (&[("gzip", 1000)], &[], None),
            (&[("gzip", 0)], &all, None),
            (&[("deflate", 1000)], &all, None),
            (&[], &all, None),
            (&[("*", 1000)], &all, Some(Br)),
            (&[("*", 500), ("br", 0)], &all, Some(Zstd)),
            (&[("gzip", 800), ("*", 500)], &all, Some(Gzip)),
            (&[("*", 0)], &all, None),
            (&[("identity", 1000), ("gzip", 500)], &all, None),
            (&[("identity", 500), ("gzip", 500)], &all, Some(Gzip)),
            (&[("gzip", 500), ("identity", 0)], &all, Some(Gzip)),
            (&[("identity", 1000)], &all, None),
            (&[("identity", 500), ("*", 100)], &all, None),
            (&[("gzip", 0), ("gzip", 500)], &all, Some(Gzip)),
        ] {
            let accepted = accepted.iter();
            let accepted = accepted.map(|(name, quality)| (name.as_bytes(), *quality));
            let accepted: Vec<_> = accepted.collect();
            assert_eq!(
                choose(&accepted, offered),
                expected,
                "{accepted:?} {offered:?}"
            );
        }
    }
}
