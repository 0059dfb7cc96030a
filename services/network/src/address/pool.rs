//! Which addresses of a network are free, as far as this process knows. It proposes; the unique key decides.

use super::Range;
use rand::Rng;
use std::net::Ipv4Addr;

/// What became of a wish for one certain address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is yours now.
    Yours,
    /// Another has it.
    ByAnother,
    /// It doesn't belong to the pool.
    Outside,
}

/// The addresses of one network: a bit each, set while taken.
#[derive(Clone, Debug)]
pub struct Pool {
    spans: Vec<Span>,
    free: u64,
}

#[derive(Clone, Debug)]
struct Span {
    range: Range,
    bits: Vec<u64>,
    free: u64,
}

impl Pool {
    /// A pool over ranges that don't overlap.
    pub fn new(ranges: impl IntoIterator<Item = Range>) -> Pool {
        let spans: Vec<Span> = ranges.into_iter().map(Span::new).collect();
        let free = spans.iter().map(|s| s.free).sum();
        Pool { spans, free }
    }

    /// How many are free.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Takes a random free address.
    pub fn take(&mut self, rng: &mut impl Rng) -> Option<u32> {
        if self.free == 0 {
            return None;
        }
        // Ranges in order, as 4.11 fills them; random within one.
        let span = self.spans.iter_mut().find(|s| s.free > 0)?;
        let address = span.take_random(rng)?;
        self.free -= 1;
        Some(address)
    }

    /// Takes one certain address.
    pub fn take_this(&mut self, address: u32) -> Taken {
        let Some(span) = self.spans.iter_mut().find(|s| s.range.contains(address)) else { return Taken::Outside };
        if !span.set(address) {
            return Taken::ByAnother;
        }
        self.free -= 1;
        Taken::Yours
    }

    /// Gives an address back.
    pub fn give_back(&mut self, address: u32) {
        if let Some(span) = self.spans.iter_mut().find(|s| s.range.contains(address))
            && span.clear(address)
        {
            self.free += 1;
        }
    }
}

impl Span {
    fn new(range: Range) -> Span {
        let words = range.size().div_ceil(64);
        Span { range, bits: vec![0; usize::try_from(words).unwrap_or_default()], free: range.size() }
    }

    fn place(&self, address: u32) -> (usize, u64) {
        let offset = address - self.range.start;
        ((offset / 64) as usize, 1 << (offset % 64))
    }

    fn set(&mut self, address: u32) -> bool {
        let (word, bit) = self.place(address);
        let was_free = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        self.free -= u64::from(was_free);
        was_free
    }

    fn clear(&mut self, address: u32) -> bool {
        let (word, bit) = self.place(address);
        let was_taken = self.bits[word] & bit != 0;
        self.bits[word] &= !bit;
        self.free += u64::from(was_taken);
        was_taken
    }

    fn take_random(&mut self, rng: &mut impl Rng) -> Option<u32> {
        let words = self.bits.len();
        let start = rng.random_range(0..words);
        for i in 0..words {
            let word = (start + i) % words;
            let base = self.range.start + u32::try_from(word * 64).unwrap_or_default();
            let valid = match u64::from(self.range.end - base) + 1 {
                n if n >= 64 => u64::MAX,
                n => (1 << n) - 1,
            };
            let free = !self.bits[word] & valid;
            if free != 0 {
                let nth = rng.random_range(0..free.count_ones());
                let address = base + nth_set_bit(free, nth);
                self.set(address);
                return Some(address);
            }
        }
        None
    }
}

fn nth_set_bit(mut word: u64, n: u32) -> u32 {
    for _ in 0..n {
        word &= word - 1;
    }
    word.trailing_zeros()
}

impl std::fmt::Display for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, s) in self.spans.iter().enumerate() {
            write!(
                f,
                "{}{}-{}",
                if i == 0 { "" } else { ", " },
                Ipv4Addr::from(s.range.start),
                Ipv4Addr::from(s.range.end)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[derive(Clone, Debug)]
    enum Op {
        Take,
        TakeThis(u32),
        GiveBack(u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => Just(Op::Take),
            1 => (0u32..420).prop_map(Op::TakeThis),
            1 => (0u32..420).prop_map(Op::GiveBack),
        ]
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(first in 1u32..150, gap in 1u32..80, second in 1u32..150, ops in prop::collection::vec(op(), 0..600)) {
            let ranges = [Range { start: 5, end: 4 + first }, Range { start: 5 + first + gap, end: 4 + first + gap + second }];
            let mut pool = Pool::new(ranges);
            let size = u64::from(first + second);
            let mut model: HashSet<u32> = HashSet::new();
            let mut rng = rand::rng();
            for op in ops {
                match op {
                    Op::Take => match pool.take(&mut rng) {
                        Some(a) => {
                            prop_assert!(ranges.iter().any(|r| r.contains(a)));
                            prop_assert!(model.insert(a));
                        }
                        None => prop_assert_eq!(model.len() as u64, size),
                    },
                    Op::TakeThis(a) => match pool.take_this(a) {
                        Taken::Yours => prop_assert!(model.insert(a)),
                        Taken::ByAnother => prop_assert!(model.contains(&a)),
                        Taken::Outside => prop_assert!(!ranges.iter().any(|r| r.contains(a))),
                    },
                    Op::GiveBack(a) => {
                        pool.give_back(a);
                        model.remove(&a);
                    }
                }
                prop_assert_eq!(pool.free(), size - model.len() as u64);
            }
        }
    }

    #[test]
    fn a_pool_gives_all_it_has() {
        let mut pool = Pool::new([Range { start: 10, end: 139 }]);
        let mut seen = HashSet::new();
        let mut rng = rand::rng();
        while let Some(a) = pool.take(&mut rng) {
            assert!(seen.insert(a));
        }
        assert_eq!(seen.len(), 130);
        assert_eq!(pool.to_string(), "0.0.0.10-0.0.0.139");
    }
}
