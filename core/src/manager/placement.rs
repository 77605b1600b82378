//! Chooses the broker for a queue: the one with the fewest queues.

use crate::{
    model::{BrokerAddr, BrokerId},
    ports::BrokerRecord,
};

/// A broker that may be given queues: it is live and accepts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: BrokerId,
    pub(super) addr: BrokerAddr,
    /// Number of its queues, including those about to be assigned to it.
    pub(super) queues: u64,
}

impl From<&BrokerRecord> for Candidate {
    fn from(broker: &BrokerRecord) -> Self {
        Self { id: broker.id, addr: broker.addr.clone(), queues: broker.queues }
    }
}

/// The candidate with the fewest queues. `choose` gets the number of candidates that tie, and picks one of them.
pub(super) fn fewest_queues(candidates: &mut [Candidate], choose: impl FnOnce(u64) -> u64) -> Option<&mut Candidate> {
    let fewest = candidates.iter().map(|candidate| candidate.queues).min()?;
    let mut tied: Vec<_> = candidates.iter_mut().filter(|candidate| candidate.queues == fewest).collect();
    let chosen = usize::try_from(choose(tied.len() as u64)).unwrap_or(0).min(tied.len() - 1);
    Some(tied.swap_remove(chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(queues: &[u64]) -> Vec<Candidate> {
        let candidate = |(i, &queues): (usize, &u64)| Candidate {
            id: BrokerId::new(i as u64 + 1),
            addr: BrokerAddr { host: format!("b{}", i + 1), port: 1 },
            queues,
        };
        queues.iter().enumerate().map(candidate).collect()
    }

    fn pick(queues: &[u64], choose: u64) -> Option<u64> {
        fewest_queues(&mut candidates(queues), |_| choose).map(|candidate| candidate.id.get())
    }

    #[test]
    fn the_fewest_queues_win() {
        assert_eq!(pick(&[3, 1, 2], 0), Some(2));
        assert_eq!(pick(&[], 0), None);
    }

    #[test]
    fn chance_decides_among_equals_only() {
        assert_eq!(pick(&[1, 5, 1, 1], 0), Some(1));
        assert_eq!(pick(&[1, 5, 1, 1], 1), Some(3));
        assert_eq!(pick(&[1, 5, 1, 1], 2), Some(4));
        let mut ties = 0;
        let mut all = candidates(&[1, 5, 1]);
        fewest_queues(&mut all, |n| {
            ties = n;
            0
        });
        assert_eq!(ties, 2);
    }
}
