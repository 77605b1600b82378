//! The state of the links between hosts.
//!
//! turmoil knows one state per direction of a link, the one that was set last. Faults overlap: a link that is cut twice and
//! repaired once is still cut. So all that befalls links is counted here, and what it comes to is told to turmoil.

use std::collections::BTreeMap;

/// How often something was begun and not ended.
type Counts<K> = BTreeMap<K, u32>;
/// Two hosts: from and to, or in order of name if there is no direction.
type Pair = (String, String);

/// What befalls the links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    hosts: Vec<String>,
    cuts: Counts<Pair>,
    holds: Counts<Pair>,
    /// All links of these hosts are held.
    frozen: Counts<String>,
    /// All links of these hosts are cut.
    dark: Counts<String>,
}

fn either_way(a: &str, b: &str) -> Pair {
    if a <= b { (a.to_owned(), b.to_owned()) } else { (b.to_owned(), a.to_owned()) }
}

fn one_way(from: &str, to: &str) -> Pair {
    (from.to_owned(), to.to_owned())
}

fn begin<K: Ord>(counts: &mut Counts<K>, key: K) {
    *counts.entry(key).or_default() += 1;
}

fn end<K: Ord>(counts: &mut Counts<K>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Links {
    /// Adds a host, which shares the fate of those that it is linked with.
    pub(crate) fn add(&mut self, sim: &turmoil::Sim<'_>, host: &str) {
        self.hosts.push(host.to_owned());
        self.apply_all(sim, host);
    }

    pub(crate) fn cut(&mut self, sim: &turmoil::Sim<'_>, from: &str, to: &str) {
        begin(&mut self.cuts, one_way(from, to));
        self.apply(sim, from, to);
    }

    pub(crate) fn repair(&mut self, sim: &turmoil::Sim<'_>, from: &str, to: &str) {
        end(&mut self.cuts, &one_way(from, to));
        self.apply(sim, from, to);
    }

    pub(crate) fn hold(&mut self, sim: &turmoil::Sim<'_>, a: &str, b: &str) {
        begin(&mut self.holds, either_way(a, b));
        self.apply(sim, a, b);
    }

    pub(crate) fn release(&mut self, sim: &turmoil::Sim<'_>, a: &str, b: &str) {
        end(&mut self.holds, &either_way(a, b));
        self.apply(sim, a, b);
    }

    pub(crate) fn freeze(&mut self, sim: &turmoil::Sim<'_>, host: &str) {
        begin(&mut self.frozen, host.to_owned());
        self.apply_all(sim, host);
    }

    pub(crate) fn thaw(&mut self, sim: &turmoil::Sim<'_>, host: &str) {
        end(&mut self.frozen, &host.to_owned());
        self.apply_all(sim, host);
    }

    pub(crate) fn darken(&mut self, sim: &turmoil::Sim<'_>, host: &str) {
        begin(&mut self.dark, host.to_owned());
        self.apply_all(sim, host);
    }

    /// Ends all darkness of a host.
    pub(crate) fn lighten(&mut self, sim: &turmoil::Sim<'_>, host: &str) {
        if self.dark.remove(host).is_some() {
            self.apply_all(sim, host);
        }
    }

    fn apply_all(&self, sim: &turmoil::Sim<'_>, host: &str) {
        for other in self.hosts.iter().filter(|other| *other != host) {
            self.apply(sim, host, other);
        }
    }

    /// Tells turmoil what a link is like now. To say again what it is like already changes nothing.
    fn apply(&self, sim: &turmoil::Sim<'_>, a: &str, b: &str) {
        let is = |counts: &Counts<String>| counts.contains_key(a) || counts.contains_key(b);
        // Both directions together, before those that are cut.
        if is(&self.frozen) || self.holds.contains_key(&either_way(a, b)) {
            sim.hold(a, b);
        } else {
            sim.release(a, b);
        }
        for (from, to) in [(a, b), (b, a)] {
            if is(&self.dark) || self.cuts.contains_key(&one_way(from, to)) {
                sim.partition_oneway(from, to);
            }
        }
    }
}
