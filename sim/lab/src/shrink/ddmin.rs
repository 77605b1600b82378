//! Delta debugging: finds which of many items a failure needs.

/// Leaves out items as long as the rest `fails`, but keeps at least `least`. All `items` together must fail. No single item
/// of the result can be left out.
///
/// This is `ddmin` of Andreas Zeller and Ralf Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE
/// Transactions on Software Engineering 28 (2), 2002. It first asks whether the empty list fails, which they assume to pass.
pub(super) fn ddmin<T: Clone>(mut items: Vec<T>, least: usize, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    if least == 0 && fails(&[]) {
        return Vec::new();
    }
    let mut parts = 2;
    while items.len() > least.max(1) {
        parts = parts.min(items.len());
        let size = items.len().div_ceil(parts);
        if let Some(one) = items.chunks(size).filter(|one| one.len() >= least).find(|one| fails(one)) {
            items = one.to_vec();
            parts = 2;
            continue;
        }
        let rests = (0..items.len()).step_by(size).map(|from| {
            let to = (from + size).min(items.len());
            [&items[..from], &items[to..]].concat()
        });
        // With two parts, the complement of one is the other.
        if let Some(rest) = rests.filter(|rest| parts > 2 && rest.len() >= least).find(|rest| fails(rest)) {
            items = rest;
            parts = (parts - 1).max(2);
        } else if size == 1 {
            break;
        } else {
            parts *= 2;
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The remainder of 0 … `count` - 1 if a failure needs the items in `needed`, and the number of attempts.
    fn left(count: usize, least: usize, needed: &[usize]) -> (Vec<usize>, usize) {
        let mut attempts = 0;
        let left = ddmin((0..count).collect(), least, |kept| {
            attempts += 1;
            needed.iter().all(|number| kept.contains(number))
        });
        (left, attempts)
    }

    #[test]
    fn needed_items_stay() {
        for needed in [&[][..], &[0], &[6], &[15], &[3, 12], &[0, 1, 15], &[1, 3, 5, 7, 9, 11, 13, 15]] {
            assert_eq!(left(16, 0, needed).0, needed);
        }
        for count in 1..40 {
            for first in 0..count {
                for second in first + 1..count {
                    assert_eq!(left(count, 0, &[first, second]).0, [first, second], "of {count}");
                }
            }
        }
    }

    #[test]
    fn the_minimum_number_stays() {
        assert_eq!(left(1, 1, &[]).0, [0]);
        assert_eq!(left(5, 1, &[]).0.len(), 1);
        assert_eq!(left(5, 1, &[3]).0, [3]);
        assert!(left(0, 0, &[]).0.is_empty());
    }

    #[test]
    fn a_single_cause_is_found_in_about_the_logarithm() {
        let (_, attempts) = left(128, 0, &[77]);
        assert!(attempts <= 1 + 2 * 7, "{attempts} attempts");
    }

    #[test]
    fn every_remaining_item_is_needed() {
        // A failure that needs any three neighbours, so that several results are correct.
        let fails = |kept: &[u32]| kept.windows(3).any(|three| three[0] + 1 == three[1] && three[1] + 1 == three[2]);
        let left = ddmin((0..50).collect(), 0, fails);
        assert!(fails(&left));
        for number in 0..left.len() {
            let mut without = left.clone();
            without.remove(number);
            assert!(!fails(&without), "{left:?} without {}", left[number]);
        }
    }
}
