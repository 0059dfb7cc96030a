//! A segment tree over hosts that finds the first one with enough of everything, from any starting point.

/// What a leaf has to give: MHz and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Free {
    /// MHz.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
}

impl Free {
    const NONE: Free = Free { cpu: i64::MIN, memory: i64::MIN };

    fn max(self, other: Free) -> Free {
        Free { cpu: self.cpu.max(other.cpu), memory: self.memory.max(other.memory) }
    }

    fn holds(self, wanted: Free) -> bool {
        self.cpu >= wanted.cpu && self.memory >= wanted.memory
    }
}

/// The tree. Leaves keep their order; inner nodes hold the maxima below them.
#[derive(Clone, Debug, Default)]
pub struct FitTree {
    leaves: usize,
    width: usize,
    nodes: Vec<Free>,
}

impl FitTree {
    /// Builds the tree over `leaves`.
    pub fn new(leaves: &[Free]) -> FitTree {
        let width = leaves.len().next_power_of_two().max(1);
        let mut nodes = vec![Free::NONE; 2 * width];
        nodes[width..width + leaves.len()].copy_from_slice(leaves);
        for i in (1..width).rev() {
            nodes[i] = nodes[2 * i].max(nodes[2 * i + 1]);
        }
        FitTree { leaves: leaves.len(), width, nodes }
    }

    /// Number of leaves.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.leaves
    }

    /// Changes a leaf; one that doesn't exist is ignored.
    pub fn set(&mut self, leaf: usize, free: Free) {
        if leaf >= self.leaves {
            return;
        }
        let mut i = self.width + leaf;
        self.nodes[i] = free;
        while i > 1 {
            i /= 2;
            self.nodes[i] = self.nodes[2 * i].max(self.nodes[2 * i + 1]);
        }
    }

    /// The first leaf at `from` or later that holds `wanted`.
    pub fn first(&self, from: usize, wanted: Free) -> Option<usize> {
        (from < self.leaves).then(|| self.descend(1, 0, self.width, from, wanted))?
    }

    fn descend(&self, node: usize, low: usize, width: usize, from: usize, wanted: Free) -> Option<usize> {
        if low + width <= from || !self.nodes.get(node)?.holds(wanted) {
            return None;
        }
        if width == 1 {
            return Some(low);
        }
        let half = width / 2;
        self.descend(2 * node, low, half, from, wanted)
            .or_else(|| self.descend(2 * node + 1, low + half, half, from, wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn free() -> impl Strategy<Value = Free> {
        (0i64..8, 0i64..8).prop_map(|(cpu, memory)| Free { cpu, memory })
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            mut leaves in proptest::collection::vec(free(), 0..40),
            changes in proptest::collection::vec((0usize..40, free()), 0..20),
            from in 0usize..41,
            wanted in free(),
        ) {
            let mut tree = FitTree::new(&leaves);
            for (leaf, value) in changes {
                tree.set(leaf, value);
                if let Some(slot) = leaves.get_mut(leaf) {
                    *slot = value;
                }
            }
            let scanned = (from..leaves.len()).find(|i| leaves[*i].holds(wanted));
            prop_assert_eq!(tree.first(from, wanted), scanned);
            prop_assert_eq!(tree.len(), leaves.len());
        }
    }
}
