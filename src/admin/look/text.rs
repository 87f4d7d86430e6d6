//! What a look has come to, for humans: in lines as those of `tollgate explain`.

use std::fmt;

use super::{InTier, Looked, Standing, Stored};
use crate::explain::write_line as line;

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(refused) = &self.refused {
            return line(f, "refused", refused);
        }
        line(f, "route", self.route.as_deref().unwrap_or_default())?;
        for standing in &self.limits {
            for told in standing.to_string().lines() {
                line(f, "limit", told)?;
            }
        }
        match &self.cache {
            Some(standing) => standing.fmt(f),
            None => line(f, "cache", "nothing is stored on this route"),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(
            f,
            "cache",
            &format!("{} for {}", self.policy, self.audience),
        )?;
        line(f, "key", &self.key)?;
        if let Some(bypass) = &self.bypass {
            line(f, "looked up", &format!("no: {bypass}"))?;
        }
        if let Some(why) = &self.quarantined {
            line(f, "looked up", &format!("no: quarantined for {why}"))?;
        }
        if self.is_fetched {
            line(f, "fetched", "by a question that is under way")?;
        }
        self.memory.write(f, "memory")?;
        match &self.redis {
            Some(redis) => redis.write(f, "redis"),
            None => Ok(()),
        }
    }
}

impl InTier {
    fn write(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let found = match (&self.away, &self.finds) {
            (Some(away), _) => format!("does not answer: {away}"),
            (None, Some(finds)) => finds.clone(),
            (None, None) => match self.entries.len() {
                0 => "nothing stands there".to_owned(),
                count => format!("{count} for others"),
            },
        };
        line(f, name, &found)?;
        let (asked, others): (Vec<_>, Vec<_>) =
            self.entries.iter().partition(|entry| entry.is_asked);
        asked.iter().try_for_each(|entry| entry.write(f, ""))?;
        others
            .iter()
            .try_for_each(|entry| entry.write(f, "for other requests: "))
    }
}

impl Stored {
    fn write(&self, f: &mut fmt::Formatter<'_>, whose: &str) -> fmt::Result {
        let Self {
            status, bytes, age, ..
        } = self;
        let mut said = vec![format!("{whose}{status}, {bytes} bytes, {age} s old")];
        let mut say = |what: String| said.push(what);
        match self.fresh_for > 0.0 {
            true => say(format!("fresh for {} s", self.fresh_for)),
            false => say("stale".to_owned()),
        }
        for (what, seconds) in [
            (
                "given while it is fetched anew",
                self.stale_while_revalidate_for,
            ),
            ("given on errors", self.stale_if_error_for),
            ("kept", self.kept_for),
        ] {
            if seconds > self.fresh_for {
                say(format!("{what} for {seconds} s"));
            }
        }
        self.part
            .iter()
            .for_each(|part| say(format!("bytes {part}")));
        self.hits
            .iter()
            .for_each(|hits| say(format!("given {hits} times")));
        if !self.tags.is_empty() {
            say(format!("tags {}", self.tags.join(" ")));
        }
        if !self.varies_by.is_empty() {
            say(format!("varies by {}", self.varies_by.join(", ")));
        }
        said.extend(self.purged_by.clone());
        line(f, "", &said.join(", "))
    }
}
