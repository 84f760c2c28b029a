//! All the chance that there is in a run: one row of numbers, fixed by the seed.

/// Numbers that a seed fixes (`SplitMix64`).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds begin far from one another.
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d);
        dice.next();
        dice
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..sides`; 0 if there are none.
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        if sides == 0 { 0 } else { self.next() % sides }
    }

    /// One of `from..=to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True `in_thousand` times of a thousand.
    pub(crate) fn chance(&mut self, in_thousand: u64) -> bool {
        in_thousand > 0 && self.below(1_000) < in_thousand
    }

    /// An index into something that has `len` parts, at least one.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_throws_and_another_one_does_not() {
        let row = |seed| {
            let mut dice = Dice::new(seed);
            (0..8).map(|_| dice.next()).collect::<Vec<_>>()
        };
        assert_eq!(row(7), row(7));
        assert_ne!(row(7), row(8));
        let mut dice = Dice::new(1);
        assert!((0..1_000).all(|_| (3..=9).contains(&dice.between(3, 9))));
        assert!((0..1_000).all(|_| !dice.chance(0)) && (0..1_000).all(|_| dice.chance(1_000)));
    }
}
