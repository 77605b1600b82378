//! Operations from bytes, for fuzzing: one byte says which, and each of its arguments is one more. All bytes are
//! operations, and those that are not there count as zero.

use super::operation::{Append, From, HOSTS, IDS, Knowledge, LABELS, LONGEST_SEQUENCE, Nth, Operation, Place};

/// Most batches of one group.
const MAX_GROUP: u8 = 3;

struct Bytes<'a>(std::slice::Iter<'a, u8>);

pub(super) fn operations(bytes: &[u8]) -> Vec<Operation> {
    let mut bytes = Bytes(bytes.iter());
    let mut operations = Vec::new();
    while !bytes.0.as_slice().is_empty() && operations.len() < LONGEST_SEQUENCE {
        operations.push(bytes.operation());
    }
    operations
}

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or_default()
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.next() % bound
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    /// One in as many values is none.
    fn some_below(&mut self, bound: u8) -> Option<u8> {
        match self.below(bound + 1) {
            0 => None,
            number => Some(number - 1),
        }
    }

    fn number(&mut self, bound: u8) -> u64 {
        u64::from(self.below(bound))
    }

    fn knowledge(&mut self) -> Knowledge {
        match self.below(8) {
            0..=5 => Knowledge::Latest,
            6 => Knowledge::Stale,
            _ => Knowledge::NeverWas,
        }
    }

    fn queue(&mut self) -> Nth {
        match self.next() {
            Nth::MAX => Nth::MAX,
            number => number % (2 * LABELS),
        }
    }

    /// One more than there are is one that nobody knows.
    fn host(&mut self) -> u8 {
        self.below(HOSTS + 1)
    }

    fn append(&mut self) -> Append {
        let (queue, epoch) = (self.queue(), self.knowledge());
        let place = match self.below(12) {
            0 => Place::OfTheLast,
            1 => Place::EndOfTheLast,
            2 => Place::First,
            3 => Place::Beyond,
            4 => Place::AfterAnother,
            _ => Place::Next,
        };
        Append { queue, epoch, place, count: 1 + self.number(3), lifetime: self.some_below(6).map(u64::from) }
    }

    fn operation(&mut self) -> Operation {
        match self.below(21) {
            0 => Operation::Clock(self.number(20)),
            1 => Operation::Register { host: self.below(HOSTS), replaces: self.knowledge(), again: self.flag() },
            2 => Operation::Renew { host: self.host(), run: self.knowledge(), lease: self.number(8) },
            3 => Operation::Retire { host: self.host(), run: self.knowledge() },
            4 => Operation::Drain { host: self.host(), draining: self.flag() },
            5 => Operation::Create {
                label: self.below(LABELS),
                assignee: self.some_below(HOSTS + 1),
                again: self.flag(),
            },
            6 => Operation::Assign { queue: self.queue(), assignment: self.knowledge(), to: self.host() },
            7 => Operation::Delete { queue: self.queue() },
            8 => Operation::Claim {
                queue: self.queue(),
                by: self.some_below(HOSTS + 1),
                run: self.knowledge(),
                again: self.flag(),
            },
            9 => Operation::Append((0..=self.below(MAX_GROUP)).map(|_| self.append()).collect()),
            10 => Operation::Trim {
                queue: self.queue(),
                epoch: self.knowledge(),
                short_of_end: self.number(5),
                saves: self.flag(),
                from: self.some_below(12).map(u64::from),
                limit: u32::from(self.below(5)),
            },
            11 => Operation::OpenProducer { queue: self.queue(), producer: self.below(IDS) },
            12 => Operation::Purge { limit: 1 + u32::from(self.below(4)) },
            13 => {
                let (id, queue, topic) = (self.below(IDS), self.queue(), self.below(IDS));
                let from = match self.below(10) {
                    0 => From::Earliest,
                    1 => From::Latest,
                    beyond => From::At(u64::from(beyond) - 2),
                };
                Operation::CreateChannel { id, queue, topic, from }
            }
            14 => Operation::DeleteChannel { id: self.below(IDS) },
            15 => Operation::Lead { manager: self.below(IDS), lease: self.number(8) },
            16 => Operation::Resign { manager: self.below(IDS) },
            17 => Operation::Headers { queue: self.queue(), after: self.number(12), limit: u32::from(self.below(4)) },
            18 => {
                Operation::Read { queue: self.queue(), after: self.number(12), max_bytes: usize::from(self.below(80)) }
            }
            19 => Operation::Reopen,
            _ => Operation::LookAtEverything,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_operations() {
        assert!(operations(&[]).is_empty());
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert!(operations(&all).len() > 40);
        assert_eq!(operations(&[19; 1_000]).len(), LONGEST_SEQUENCE);
        assert!(matches!(operations(&[9, 1, 2])[..], [Operation::Append(ref group)] if group.len() == 2));
    }
}
