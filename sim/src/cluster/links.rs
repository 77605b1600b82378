//! The state of the links between hosts.
//!
//! turmoil knows one state per direction of a link: the one that was set last. But faults overlap: a link that is cut twice
//! and repaired once is still cut. So this module counts the faults of each link, and sets the resulting state in turmoil.

use std::collections::BTreeMap;

/// How often a fault was begun and not ended.
type Counts<K> = BTreeMap<K, u32>;
/// Two hosts: from and to, or in order of name if direction does not matter.
type Pair = (String, String);

/// The active faults of the links.
#[derive(Debug, Default)]
pub(super) struct Links {
    hosts: Vec<String>,
    cuts: Counts<Pair>,
    holds: Counts<Pair>,
    /// All links of these hosts are held.
    frozen: Counts<String>,
    /// All links of these hosts are cut.
    powered_off: Counts<String>,
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
    /// Adds a host, and applies the faults of other hosts to its links with them.
    pub(super) fn add(&mut self, sim: &turmoil::Sim<'_>, host: &str) {
        self.hosts.push(host.to_owned());
        self.apply_all(sim, host);
    }

    pub(super) fn cut(&mut self, sim: &turmoil::Sim<'_>, from: &str, to: &str) {
        begin(&mut self.cuts, one_way(from, to));
        self.apply(sim, from, to);
    }

    pub(super) fn repair(&mut self, sim: &turmoil::Sim<'_>, from: &str, to: &str) {
        end(&mut self.cuts, &one_way(from, to));
        self.apply(sim, from, to);
    }

    pub(super) fn hold(&mut self, sim: &turmoil::Sim<'_>, a: &str, b: &str) {
        begin(&mut self.holds, either_way(a, b));
        self.apply(sim, a, b);
    }

    pub(super) fn release(&mut self, sim: &turmoil::Sim<'_>, a: &str, b: &str) {
        end(&mut self.holds, &either_way(a, b));
        self.apply(sim, a, b);
    }

    pub(super) fn freeze(&mut self, sim: &turmoil::Sim<'_>, host: &str) {
        begin(&mut self.frozen, host.to_owned());
        self.apply_all(sim, host);
    }

    pub(super) fn thaw(&mut self, sim: &turmoil::Sim<'_>, host: &str) {
        end(&mut self.frozen, &host.to_owned());
        self.apply_all(sim, host);
    }

    pub(super) fn power_off(&mut self, sim: &turmoil::Sim<'_>, host: &str) {
        begin(&mut self.powered_off, host.to_owned());
        self.apply_all(sim, host);
    }

    /// Ends the cuts that power losses made on a host's links.
    pub(super) fn power_on(&mut self, sim: &turmoil::Sim<'_>, host: &str) {
        if self.powered_off.remove(host).is_some() {
            self.apply_all(sim, host);
        }
    }

    fn apply_all(&self, sim: &turmoil::Sim<'_>, host: &str) {
        for other in self.hosts.iter().filter(|other| *other != host) {
            self.apply(sim, host, other);
        }
    }

    /// Sets the present state of a link in turmoil. Setting the same state again changes nothing.
    fn apply(&self, sim: &turmoil::Sim<'_>, a: &str, b: &str) {
        let is = |counts: &Counts<String>| counts.contains_key(a) || counts.contains_key(b);
        // Holds apply to both directions, so they come before cuts.
        if is(&self.frozen) || self.holds.contains_key(&either_way(a, b)) {
            sim.hold(a, b);
        } else {
            sim.release(a, b);
        }
        for (from, to) in [(a, b), (b, a)] {
            if is(&self.powered_off) || self.cuts.contains_key(&one_way(from, to)) {
                sim.partition_oneway(from, to);
            }
        }
    }
}
