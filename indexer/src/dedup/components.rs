//! What hangs together: a union-find for many threads, components, and how stretched they are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;

use super::graph::Edge;

/// Members up to which the chain of a component is measured from each of them.
const EXACT_CHAIN: usize = 512;

/// Disjoint sets of `0..len`, joined by any number of threads. The name of a set is its smallest
/// member, so the result does not depend on the order of joins.
#[derive(Debug)]
pub struct UnionFind {
    parents: Vec<AtomicU32>,
}

impl UnionFind {
    /// Every number alone.
    pub fn new(len: u32) -> Self {
        Self { parents: (0..len).map(AtomicU32::new).collect() }
    }

    /// Smallest member of the set of `x`, once nobody joins any more.
    ///
    /// # Panics
    /// `x` is not below the length.
    pub fn find(&self, mut x: u32) -> u32 {
        loop {
            let parent = self.parents[x as usize].load(Ordering::Relaxed);
            if parent == x {
                return x;
            }
            let above = self.parents[parent as usize].load(Ordering::Relaxed);
            // Halves the path. Links only ever lead to smaller numbers of the same set, so a lost
            // race costs nothing.
            let link = &self.parents[x as usize];
            let _ = link.compare_exchange_weak(parent, above, Ordering::Relaxed, Ordering::Relaxed);
            x = above;
        }
    }

    /// Joins two sets; false when they are one already.
    ///
    /// # Panics
    /// `a` or `b` is not below the length.
    pub fn union(&self, a: u32, b: u32) -> bool {
        loop {
            let (a, b) = (self.find(a), self.find(b));
            if a == b {
                return false;
            }
            // A root is only ever replaced by a smaller one: no cycles, whoever else joins.
            let (low, high) = (a.min(b), a.max(b));
            let root = &self.parents[high as usize];
            if root.compare_exchange(high, low, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return true;
            }
        }
    }
}

/// Nodes that edges connect, directly or through others.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// At least two, ascending.
    pub members: Vec<u32>,
    /// Similarity of the weakest link.
    pub weakest: f32,
    /// Links on the shortest way between the two members farthest apart; 1 when all are linked.
    pub chain: usize,
    /// Whether `chain` was measured between all members; a lower bound otherwise.
    pub chain_is_exact: bool,
}

/// Connected components of a graph, by smallest member. Nodes without an edge are in none.
pub fn components(edges: &[Edge]) -> Vec<Component> {
    let mut nodes: Vec<u32> = edges.iter().flat_map(|edge| [edge.a, edge.b]).collect();
    nodes.par_sort_unstable();
    nodes.dedup();
    let place = |node: u32| nodes.binary_search(&node).unwrap_or_default() as u32;
    let sets = UnionFind::new(nodes.len() as u32);
    edges.par_iter().for_each(|edge| {
        sets.union(place(edge.a), place(edge.b));
    });
    let mut found: BTreeMap<u32, (Vec<u32>, Vec<Edge>)> = BTreeMap::new();
    for (place, &node) in nodes.iter().enumerate() {
        found.entry(sets.find(place as u32)).or_default().0.push(node);
    }
    for edge in edges {
        found.entry(sets.find(place(edge.a))).or_default().1.push(*edge);
    }
    let found: Vec<_> = found.into_values().collect();
    found.into_par_iter().map(|(members, edges)| measured(members, &edges)).collect()
}

fn measured(members: Vec<u32>, edges: &[Edge]) -> Component {
    let weakest = edges.iter().map(|edge| edge.similarity).fold(f32::INFINITY, f32::min);
    let mut links = vec![Vec::new(); members.len()];
    for edge in edges {
        let place = |node: u32| members.binary_search(&node).unwrap_or_default();
        let (a, b) = (place(edge.a), place(edge.b));
        links[a].push(b);
        links[b].push(a);
    }
    let chain_is_exact = members.len() <= EXACT_CHAIN;
    let chain = match chain_is_exact {
        true => (0..members.len()).map(|from| farthest(&links, from).1).max().unwrap_or(0),
        // From anywhere to the farthest, and from there to the farthest again.
        false => farthest(&links, farthest(&links, 0).0).1,
    };
    Component { members, weakest, chain, chain_is_exact }
}

/// The node farthest from one and the links to it, breadth first; the first of several.
fn farthest(links: &[Vec<usize>], from: usize) -> (usize, usize) {
    let mut steps = vec![usize::MAX; links.len()];
    steps[from] = 0;
    let mut queue = VecDeque::from([from]);
    let mut last = from;
    while let Some(node) = queue.pop_front() {
        if steps[node] > steps[last] {
            last = node;
        }
        for &next in &links[node] {
            if steps[next] == usize::MAX {
                steps[next] = steps[node] + 1;
                queue.push_back(next);
            }
        }
    }
    (last, steps[last])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    fn edges(pairs: &[(u32, u32)]) -> Vec<Edge> {
        pairs.iter().map(|&(a, b)| Edge::new(a, b, 0.5 + 0.001 * (a + b) as f32)).collect()
    }

    #[test]
    fn chains_are_measured_and_the_weakest_link_is_named() {
        let found = components(&edges(&[(9, 7), (3, 1), (1, 2), (4, 3), (4, 20)]));
        let of = |members: &[u32], weakest, chain| Component {
            members: members.to_vec(),
            weakest,
            chain,
            chain_is_exact: true,
        };
        let expected = [of(&[1, 2, 3, 4, 20], 0.503, 4), of(&[7, 9], 0.516, 1)];
        assert_eq!(found, expected);
        assert!(components(&[]).is_empty());
    }

    #[test]
    fn a_long_chain_is_measured_by_two_sweeps() {
        let pairs: Vec<(u32, u32)> = (0..2000).map(|i| (i, i + 1)).collect();
        let found = components(&edges(&pairs));
        assert_eq!((found.len(), found[0].chain, found[0].chain_is_exact), (1, 2000, false));
    }

    #[test]
    fn many_threads_give_what_one_by_one_labelling_gives() {
        let mut random = SplitMix64(3);
        for nodes in [1, 2, 50, 3000] {
            let pairs: Vec<(u32, u32)> = (0..nodes)
                .map(|_| (random.below(nodes) as u32, random.below(nodes) as u32))
                .filter(|(a, b)| a != b)
                .collect();
            // Labels spread until nothing changes: slow, and right by construction.
            let mut labels: Vec<u32> = (0..nodes as u32).collect();
            loop {
                let before = labels.clone();
                for &(a, b) in &pairs {
                    let low = labels[a as usize].min(labels[b as usize]);
                    (labels[a as usize], labels[b as usize]) = (low, low);
                }
                if labels == before {
                    break;
                }
            }
            let sets = UnionFind::new(nodes as u32);
            pairs.par_iter().with_max_len(1).for_each(|&(a, b)| {
                sets.union(a, b);
            });
            let found: Vec<u32> = (0..nodes as u32).map(|node| sets.find(node)).collect();
            assert_eq!(found, labels);
        }
    }
}
