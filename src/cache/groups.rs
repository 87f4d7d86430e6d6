//! Which groups of pages an application has declared outdated, and when (RFC 9875): an entry is good
//! if it was asked for after that. Nothing is searched for, and what is being fetched is covered too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::RwLock;

use super::Request;
use super::frame::{Digest, Frame};
use super::tags::Tag;

/// Groups that are remembered; beyond it everything counts as outdated once, and they begin anew.
const MOST: usize = 65_536;

/// Groups, each of one origin, with the time from which on they are good.
#[derive(Default)]
pub struct Groups {
    /// Whether anything was ever outdated: otherwise nobody looks further.
    any: AtomicBool,
    outdated: RwLock<Outdated>,
}

#[derive(Default)]
struct Outdated {
    everything: Option<Instant>,
    groups: HashMap<Digest, Instant>,
}

/// The groups among these tags of a response to this request, each of its origin.
pub fn of(request: &Request<'_>, tags: &[Tag]) -> Box<[Digest]> {
    let groups = tags.iter().filter_map(|tag| match tag {
        Tag::Group(name) => Some(&**name),
        Tag::Key(_) => None,
    });
    let digest = |name: &str| {
        let mut frame = Frame::default();
        frame.part(b's', request.scheme.as_bytes());
        frame.part(b'h', request.host.as_bytes());
        frame.part(b'g', name.as_bytes());
        frame.finish().digest()
    };
    groups.map(digest).collect()
}

impl Groups {
    /// What was asked for until now in one of these groups is outdated.
    pub fn outdate(&self, groups: &[Digest]) {
        if groups.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut outdated = self.outdated.write();
        if outdated.groups.len() + groups.len() > MOST {
            outdated.groups.clear();
            outdated.everything = Some(now);
        }
        outdated
            .groups
            .extend(groups.iter().map(|group| (*group, now)));
        self.any.store(true, Ordering::Release);
    }

    /// Everything that was asked for until now is outdated.
    pub fn outdate_everything(&self) {
        let mut outdated = self.outdated.write();
        outdated.groups.clear();
        outdated.everything = Some(Instant::now());
        self.any.store(true, Ordering::Release);
    }

    /// Whether what was asked for then, in these groups, is outdated.
    pub fn are_outdated(&self, groups: &[Digest], asked: Instant) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let outdated = self.outdated.read();
        let since = groups.iter().filter_map(|group| outdated.groups.get(group));
        since
            .chain(&outdated.everything)
            .any(|since| asked <= *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::get;

    fn group(name: &str) -> Box<[Digest]> {
        of(&get(&[]).head(), &[Tag::Group(name.into())])
    }

    #[test]
    fn what_was_asked_for_before_its_group_was_outdated_is() {
        let groups = Groups::default();
        let (news, shop) = (group("news"), group("shop"));
        let before = Instant::now();
        assert!(!groups.are_outdated(&news, before));
        groups.outdate(&news);
        assert!(groups.are_outdated(&news, before));
        assert!(!groups.are_outdated(&shop, before));
        assert!(!groups.are_outdated(&[], before));
        while Instant::now() <= before {}
        groups.outdate_everything();
        assert!(groups.are_outdated(&shop, before) && groups.are_outdated(&[], before));
    }

    #[test]
    fn a_group_is_of_one_host() {
        let asked = get(&[]);
        let other = Request {
            host: "b.example",
            ..asked.head()
        };
        assert_ne!(of(&other, &[Tag::Group("news".into())]), group("news"));
        assert!(of(&other, &[Tag::Key("news".into())]).is_empty());
    }

    #[test]
    fn more_groups_than_are_remembered_outdate_everything() {
        let groups = Groups::default();
        let before = Instant::now();
        for number in 0..=MOST {
            groups.outdate(&group(&number.to_string()));
        }
        assert!(groups.are_outdated(&group("never named"), before));
        assert!(groups.outdated.read().groups.len() <= MOST);
    }
}
