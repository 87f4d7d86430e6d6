//! What is told of limits, for humans: a line for each client, quota and limit.

use std::fmt;
use std::time::Duration;

use super::{Report, ReportOfLimit, Reset, ToldClient, ToldStanding, Top, TopOfLimit, WINDOWS};

impl fmt::Display for ToldClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limits = self.limits.iter();
        limits.try_for_each(|standing| standing.fmt(f))?;
        match &self.ban {
            Some(ban) => ban.fmt(f),
            None => f.write_str("no ban"),
        }
    }
}

/// A line for each quota and bound.
impl fmt::Display for ToldStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, plan, .. } = self;
        let client = match plan {
            Some(plan) => format!("{}, plan {plan}", self.client),
            None => self.client.clone(),
        };
        if self.quotas.is_empty() && self.in_flight.is_none() {
            writeln!(f, "{limit} {client}: any number of requests")?;
        }
        let mode = match &*self.mode {
            "enforce" => String::new(),
            mode => format!(", {mode}"),
        };
        for quota in &self.quotas {
            let reset = Duration::from_secs(quota.reset_seconds);
            writeln!(
                f,
                "{limit} {client}: {} used, {} left of {}, all of it in {reset:?}{mode}",
                quota.used, quota.left, quota.quota
            )?;
        }
        if let Some(in_flight) = &self.in_flight {
            let (under_way, most) = (in_flight.under_way, in_flight.most);
            writeln!(f, "{limit} {client}: {under_way} of {most} under way{mode}")?;
        }
        match self.waiting {
            0 => Ok(()),
            waiting => writeln!(f, "{limit} {client}: {waiting} waiting"),
        }
    }
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, one) in self.limits.iter().enumerate() {
            let end = if place == 0 { "" } else { "\n" };
            let (limit, client) = (&one.limit, &one.client);
            match one.quotas {
                0 => write!(f, "{end}{limit} {client}: had used nothing"),
                1 => write!(f, "{end}{limit} {client}: begins anew with 1 quota"),
                quotas => write!(f, "{end}{limit} {client}: begins anew with {quotas} quotas"),
            }?;
        }
        Ok(())
    }
}

impl Top {
    /// Of these minutes and this limit only, where they are said; whether there is such a limit.
    pub fn narrow(&mut self, minutes: Option<u64>, limit: Option<&str>) -> bool {
        let is_wanted = |one: &TopOfLimit| limit.is_none_or(|limit| limit == one.limit);
        self.limits.retain(is_wanted);
        for one in &mut self.limits {
            one.windows
                .retain(|window| minutes.is_none_or(|minutes| minutes == window.minutes));
        }
        limit.is_none() || !self.limits.is_empty()
    }

    /// The stretches of time that there are.
    pub const MINUTES: [u64; 3] = WINDOWS;
}

impl fmt::Display for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_first = true;
        for limit in &self.limits {
            for window in &limit.windows {
                let end = if std::mem::take(&mut is_first) {
                    ""
                } else {
                    "\n"
                };
                let minutes = match window.minutes {
                    1 => "minute".to_owned(),
                    minutes => format!("{minutes} minutes"),
                };
                write!(f, "{end}{}, the last {minutes}:", limit.limit)?;
                if window.clients.is_empty() {
                    f.write_str(" nobody")?;
                }
                for client in &window.clients {
                    let about = about(client.requests, client.over);
                    write!(f, "\n  {} {about} requests", client.client)?;
                    if client.refused > 0 {
                        write!(f, ", {} too many", client.refused)?;
                    }
                }
            }
        }
        match is_first {
            true => f.write_str("no limits"),
            false => Ok(()),
        }
    }
}

impl Report {
    /// Of this limit only; whether there is one.
    pub fn narrow(&mut self, limit: &str) -> bool {
        self.limits.retain(|one| one.limit == limit);
        !self.limits.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.limits.is_empty() {
            return f.write_str("no limits");
        }
        for (place, limit) in self.limits.iter().enumerate() {
            let end = if place == 0 { "" } else { "\n" };
            write!(f, "{end}{limit}")?;
        }
        Ok(())
    }
}

/// A line for the limit, and one for each client.
impl fmt::Display for ReportOfLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = Duration::from_secs(self.since_seconds);
        write!(
            f,
            "{}, {}: of {} requests in {since:?}",
            self.limit, self.mode, self.requests
        )?;
        let all = [
            (self.would_be_refused, "would have been refused"),
            (self.refused, "were refused"),
            (self.tarpitted, "were refused after a pause"),
        ];
        match all.iter().all(|(count, _)| *count == 0) {
            true => f.write_str(", none was one too many")?,
            false => {
                for (count, what) in all.iter().filter(|(count, _)| *count > 0) {
                    write!(f, ", {count} {what}")?;
                }
            }
        }
        for client in &self.clients {
            let about = about(client.times, client.over);
            write!(f, "\n  {} {about} times", client.client)?;
        }
        Ok(())
    }
}

/// A count that others may have had a part in.
fn about(count: u64, over: u64) -> String {
    match over {
        0 => count.to_string(),
        over => format!("{} to {count}", count - over),
    }
}
