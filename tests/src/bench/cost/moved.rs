//! Which counters of the data plane moved, and by how much: the proof that every run measured was the run meant.

use std::{collections::BTreeMap, fmt};

use splitter_user::dataplane::Sample;

/// Counters by name, those left out that are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved(BTreeMap<String, u64>);

impl Moved {
    /// One that isn't zero.
    pub fn by(mut self, name: impl Into<String>, count: u64) -> Self {
        self.0.insert(name.into(), count);
        self
    }

    /// What has been counted in all, octets aside.
    pub fn total(sample: &Sample) -> Self {
        let mut sum = Self::default();
        let mut add = |name: &str, count: u64| {
            if count > 0 {
                *sum.0.entry(name.to_owned()).or_default() += count;
            }
        };
        for service in sample.services.values() {
            add("canary_fallback", service.canary_fallback);
            add("untracked", service.untracked);
            service.refused.iter().for_each(|(reason, count)| add(reason, *count));
            for backend in service.backends.values() {
                let counters = backend.counters;
                for (name, count) in [
                    ("packets_to", counters.packets_to),
                    ("packets_from", counters.packets_from),
                    ("opened", counters.opened),
                    ("completed", counters.completed),
                    ("refused", counters.refused),
                    ("timed_out", counters.timed_out),
                    ("reset_by_backend", counters.reset_by_backend),
                    ("reset_by_client", counters.reset_by_client),
                    ("closed", counters.closed),
                ] {
                    add(name, count);
                }
            }
        }
        sample.skipped.iter().chain(&sample.dropped).for_each(|(reason, count)| add(reason, *count));
        sum
    }

    /// What was counted since.
    pub fn since(&self, before: &Self) -> Self {
        let moved = self.0.iter().map(|(name, now)| (name.clone(), now - before.get(name)));
        Self(moved.filter(|(_, count)| *count > 0).collect())
    }

    /// All but these.
    pub fn without(mut self, names: &[&str]) -> Self {
        self.0.retain(|name, _| !names.contains(&name.as_str()));
        self
    }

    /// One of them.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        let rows: Vec<_> = self.0.iter().map(|(name, count)| format!("{name} {count}")).collect();
        f.write_str(&rows.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_is_told_without_what_did_not() {
        let before = Moved::default().by("opened", 3).by("packets_to", 10);
        let after = Moved::default().by("opened", 3).by("packets_to", 15).by("not_ours", 1);
        let moved = after.since(&before);
        assert_eq!(moved, Moved::default().by("packets_to", 5).by("not_ours", 1));
        assert_eq!(moved.to_string(), "not_ours 1, packets_to 5");
        assert_eq!(Moved::default().to_string(), "nothing");
    }
}
