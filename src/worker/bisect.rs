//! The parts of a batch that is stored in one transaction, until the items to blame for an error
//! stand alone.

/// Begins with one part, the whole batch. A part that could not be stored is replaced by its
/// halves, and the other parts stay as they are: `n` items to blame among `m` cost at most about
/// `2 n log m` transactions (invariant 15).
pub(super) struct Bisection<T>(Vec<Vec<T>>);

impl<T> Default for Bisection<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Bisection<T> {
    pub fn of(items: Vec<T>) -> Self {
        Self(if items.is_empty() { Vec::new() } else { vec![items] })
    }

    /// The part to store next: never an empty one.
    pub fn next(&mut self) -> Option<Vec<T>> {
        self.0.pop()
    }

    /// An error in the data of a part. A part of one item is handed back: the item is to blame.
    pub fn split(&mut self, mut part: Vec<T>) -> Option<T> {
        if part.len() < 2 {
            return part.pop();
        }
        let second = part.split_off(part.len() / 2);
        self.0.extend([second, part]);
        None
    }

    /// Items to be stored before all that wait here.
    pub fn push(&mut self, items: Vec<T>) {
        if !items.is_empty() {
            self.0.push(items);
        }
    }

    /// Items to be stored after all that wait here.
    pub fn push_behind(&mut self, items: Vec<T>) {
        if !items.is_empty() {
            self.0.insert(0, items);
        }
    }

    /// Takes the items out that are chosen, in their order.
    pub fn take(&mut self, is_chosen: impl Fn(&T) -> bool) -> Vec<T> {
        let mut chosen = Vec::new();
        for part in self.0.iter_mut().rev() {
            chosen.extend(part.extract_if(.., |item| is_chosen(item)));
        }
        self.0.retain(|part| !part.is_empty());
        chosen
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Everything that is still to be stored, in its order.
    pub fn into_rest(self) -> Vec<T> {
        self.0.into_iter().rev().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores as a database would; returns the blamed items, the stored ones, and the count of
    /// transactions.
    fn store(items: Vec<u32>, is_bad: impl Fn(u32) -> bool) -> (Vec<u32>, Vec<u32>, usize) {
        let (mut parts, mut blamed, mut stored, mut transactions) = (Bisection::of(items), Vec::new(), Vec::new(), 0);
        while let Some(part) = parts.next() {
            transactions += 1;
            if part.iter().any(|item| is_bad(*item)) {
                blamed.extend(parts.split(part));
            } else {
                stored.extend(part);
            }
        }
        (blamed, stored, transactions)
    }

    #[test]
    fn only_the_items_to_blame_are_left_out_and_each_keeps_its_place() {
        for bad in [vec![], vec![0], vec![255], vec![7, 8, 100], (0..256).collect()] {
            let (blamed, stored, _) = store((0..256).collect(), |item| bad.contains(&item));
            assert_eq!(blamed, bad);
            assert_eq!(stored, (0..256).filter(|item| !bad.contains(item)).collect::<Vec<_>>());
        }
        assert_eq!(store(Vec::new(), |_| true).2, 0, "nothing is stored of nothing");
    }

    #[test]
    fn the_cost_grows_with_the_items_to_blame_and_not_with_their_square() {
        assert_eq!(store((0..256).collect(), |_| false).2, 1);
        assert_eq!(store((0..256).collect(), |item| item == 9).2, 17, "twice the logarithm");
        let all_but_one = store((0..1024).collect(), |item| item != 600);
        assert_eq!(all_but_one.1, [600]);
        assert!(all_but_one.2 <= 2 * 1024, "{} transactions", all_but_one.2);
        let every_tenth = store((0..1024).collect(), |item| item % 10 == 0);
        assert!(every_tenth.2 <= 2 * 103 * 10, "{} transactions", every_tenth.2);
    }

    #[test]
    fn items_are_taken_out_of_every_part() {
        let mut parts = Bisection::of((0..8).collect());
        let whole = parts.next().expect("one part");
        assert_eq!(parts.split(whole), None);
        assert_eq!(parts.take(|item| item % 3 == 0), [0, 3, 6]);
        assert_eq!((parts.len(), parts.take(|_| true)), (5, vec![1, 2, 4, 5, 7]));
        assert_eq!((parts.len(), parts.next()), (0, None));
    }

    #[test]
    fn the_rest_stays_in_its_order() {
        let mut parts = Bisection::of((0..8).collect());
        let whole = parts.next().expect("one part");
        assert_eq!(parts.split(whole), None);
        assert_eq!(parts.next(), Some(vec![0, 1, 2, 3]));
        assert_eq!(parts.split(vec![0, 1, 2, 3]), None);
        assert_eq!(parts.into_rest(), (0..8).collect::<Vec<u32>>());
    }
}
