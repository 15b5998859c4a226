//! Which threshold to use: from labelled pairs with an interval, or, without labels, what each would
//! do.

use std::path::Path;

use super::components::components;
use super::graph::{Edge, KnnGraph};
use crate::error::{IndexerError, Result};
use crate::eval::PairReport;
use crate::random::SplitMix64;

/// Resamples behind an interval.
const RESAMPLES: usize = 1000;
/// Share of resamples outside an interval, on either side.
const TAIL: f64 = 0.025;

/// A pair that somebody labelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// A path or an id.
    pub a: String,
    /// Another.
    pub b: String,
    /// Whether they are copies.
    pub copy: bool,
}

/// Reads a CSV with the columns `a`, `b` and `copy` (1, yes or true; 0, no or false).
///
/// # Errors
/// It cannot be read, lacks a column, or a line is not a labelled pair; the line is named.
pub fn read_truth(path: &Path) -> Result<Vec<Labelled>> {
    let bad = |reason: String| IndexerError::Source { path: path.to_path_buf(), reason };
    let mut reader = csv::Reader::from_path(path).map_err(|error| bad(error.to_string()))?;
    let header = reader.headers().map_err(|error| bad(error.to_string()))?.clone();
    let column = |name: &str| {
        let place = header.iter().position(|field| field.trim() == name);
        place.ok_or_else(|| bad(format!("it has no column `{name}`; it needs a, b and copy")))
    };
    let (a, b, copy) = (column("a")?, column("b")?, column("copy")?);
    let mut pairs = Vec::new();
    for line in reader.records() {
        let line = line.map_err(|error| bad(error.to_string()))?;
        let number = line.position().map_or(0, csv::Position::line);
        let field = |place: usize| line.get(place).unwrap_or_default().trim();
        let copy = match field(copy).to_ascii_lowercase().as_str() {
            "1" | "yes" | "true" => true,
            "0" | "no" | "false" => false,
            other => {
                let reason = format!("line {number}: copy is `{other}`; use 1 or 0");
                return Err(bad(reason));
            }
        };
        if field(a).is_empty() || field(b).is_empty() {
            return Err(bad(format!("line {number} names no two images")));
        }
        pairs.push(Labelled { a: field(a).to_owned(), b: field(b).to_owned(), copy });
    }
    match pairs.is_empty() {
        true => Err(bad("it has no pairs".to_owned())),
        false => Ok(pairs),
    }
}

/// Precision and recall at thresholds from the least to the greatest similarity, by 0.01.
pub fn curve(pairs: &[(f32, bool)]) -> Vec<PairReport> {
    let hundredths = |similarity: f32| (similarity * 100.0).floor() as i32;
    let low = pairs.iter().map(|pair| hundredths(pair.0)).min().unwrap_or(0).max(-100);
    (low..=100).map(|hundredth| PairReport::at(hundredth as f32 / 100.0, pairs)).collect()
}

/// A threshold, how sure it is, and what it gets right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suggestion {
    /// What the threshold does to the labelled pairs.
    pub report: PairReport,
    /// Whether it has the precision asked for; else it is that of the highest F1 score.
    pub is_precise: bool,
    /// Where 95 % of the thresholds lie that resampled pairs would suggest.
    pub interval: (f32, f32),
    /// Where 95 % of their precisions lie.
    pub precision: (f64, f64),
    /// Where 95 % of their recalls lie.
    pub recall: (f64, f64),
}

/// The lowest threshold from which on `precision` (0 to 1) of the pairs called are copies, with
/// intervals by the bootstrap. The same pairs and seed give the same answer.
///
/// # Errors
/// There are no copies among the pairs, or no others, or a similarity is not a number.
pub fn suggest(pairs: &[(f32, bool)], precision: f64, seed: u64) -> Result<Suggestion> {
    if pairs.iter().all(|pair| pair.1) {
        return Err(IndexerError::InvalidRequest(
            "every pair is a copy: a threshold needs pairs that are none, similar ones above all"
                .to_owned(),
        ));
    }
    // Names the other problems, too.
    let best = PairReport::best(pairs.to_vec())?;
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let once = vec![1; sorted.len()];
    let precise = lowest_precise(&sorted, &once, precision);
    let is_precise = precise.is_some();
    let report = match precise {
        Some(threshold) => PairReport::at(threshold, &sorted),
        None => best,
    };
    let mut random = SplitMix64(seed);
    let (mut thresholds, mut precisions, mut recalls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RESAMPLES {
        let mut times = vec![0usize; sorted.len()];
        for _ in 0..sorted.len() {
            times[random.below(sorted.len())] += 1;
        }
        if let Some(threshold) = lowest_precise(&sorted, &times, precision) {
            thresholds.push(f64::from(threshold));
        }
        let (mut copies, mut called, mut found) = (0, 0, 0);
        for (pair, times) in sorted.iter().zip(&times) {
            copies += times * usize::from(pair.1);
            if pair.0 >= report.threshold {
                called += times;
                found += times * usize::from(pair.1);
            }
        }
        if called > 0 && copies > 0 {
            precisions.push(found as f64 / called as f64);
            recalls.push(found as f64 / copies as f64);
        }
    }
    let at = f64::from(report.threshold);
    let (low, high) = interval(&mut thresholds, at);
    Ok(Suggestion {
        report,
        is_precise,
        interval: (low as f32, high as f32),
        precision: interval(&mut precisions, 1.0),
        recall: interval(&mut recalls, 1.0),
    })
}

/// Of pairs by falling similarity, the midpoint below the last one down to which enough are copies.
fn lowest_precise(sorted: &[(f32, bool)], times: &[usize], precision: f64) -> Option<f32> {
    let (mut called, mut found, mut lowest) = (0usize, 0usize, None);
    for (i, (pair, times)) in sorted.iter().zip(times).enumerate() {
        called += times;
        found += times * usize::from(pair.1);
        let next = sorted.get(i + 1).map(|next| next.0);
        // A threshold cannot fall between equal similarities.
        if next != Some(pair.0) && found > 0 && found as f64 >= precision * called as f64 {
            lowest = Some(next.map_or(pair.0, |next| next + (pair.0 - next) / 2.0));
        }
    }
    lowest
}

fn interval(values: &mut [f64], otherwise: f64) -> (f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (share * values.len().saturating_sub(1) as f64).round() as usize;
        values.get(place).copied().unwrap_or(otherwise)
    };
    (at(TAIL), at(1.0 - TAIL))
}

/// What a threshold would do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// The threshold.
    pub threshold: f32,
    /// Pairs at or above it.
    pub pairs: usize,
    /// Groups they make.
    pub groups: usize,
    /// Images in groups.
    pub grouped: usize,
    /// Images of the largest group.
    pub largest: usize,
    /// Links of the longest chain.
    pub chain: usize,
}

/// Counts at each threshold.
pub fn counts(graph: &KnnGraph, thresholds: &[f32]) -> Vec<Count> {
    let count = |&threshold: &f32| {
        let edges = graph.edges(threshold);
        let groups = components(&edges);
        Count {
            threshold,
            pairs: edges.len(),
            groups: groups.len(),
            grouped: groups.iter().map(|group| group.members.len()).sum(),
            largest: groups.iter().map(|group| group.members.len()).max().unwrap_or(0),
            chain: groups.iter().map(|group| group.chain).max().unwrap_or(0),
        }
    };
    thresholds.iter().map(count).collect()
}

/// Pairs within `margin` of a threshold, at most `limit` drawn by lot, by falling similarity.
pub fn marginal(edges: &[Edge], threshold: f32, margin: f32, limit: usize, seed: u64) -> Vec<Edge> {
    let near = |edge: &&Edge| (edge.similarity - threshold).abs() <= margin;
    let mut near: Vec<Edge> = edges.iter().filter(near).copied().collect();
    let mut random = SplitMix64(seed);
    let wanted = limit.min(near.len());
    for place in 0..wanted {
        let other = place + random.below(near.len() - place);
        near.swap(place, other);
    }
    near.truncate(wanted);
    near.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then((a.a, a.b).cmp(&(b.a, b.b))));
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_precise_threshold_by_hand() -> Result<()> {
        let pairs =
            [(0.9, true), (0.8, true), (0.7, false), (0.6, true), (0.5, true), (0.4, false)];
        // Shares of copies from the top: 1, 1, 2/3, 3/4, 4/5, 4/6.
        let at = |precision| suggest(&pairs, precision, 0).map(|found| found.report.threshold);
        assert!((at(1.0)? - 0.75).abs() < 1e-6);
        assert!((at(0.8)? - 0.45).abs() < 1e-6);
        let found = suggest(&pairs, 1.0, 0)?;
        assert!(found.is_precise && found.interval.0 <= 0.75 && found.interval.1 >= 0.75);
        assert_eq!(found, suggest(&pairs, 1.0, 0)?, "seeded");
        Ok(())
    }

    #[test]
    fn what_cannot_be_precise_gets_the_best_f1() -> Result<()> {
        let found = suggest(&[(0.9, false), (0.8, true), (0.7, true), (0.1, false)], 0.99, 1)?;
        assert!(!found.is_precise);
        assert_eq!((found.report.called, found.report.found), (3, 2));
        assert!(suggest(&[(0.9, true)], 0.9, 0).is_err());
        assert!(suggest(&[(0.9, false)], 0.9, 0).is_err());
        assert!(suggest(&[(f32::NAN, false), (0.5, true)], 0.9, 0).is_err());
        Ok(())
    }

    #[test]
    fn marginal_pairs_are_near_and_seeded() {
        let edges: Vec<Edge> = (0..100u32).map(|i| Edge::new(i, i + 1, i as f32 / 100.0)).collect();
        let found = marginal(&edges, 0.5, 0.055, 4, 9);
        assert_eq!(found.len(), 4);
        assert!(found.iter().all(|edge| (edge.similarity - 0.5).abs() < 0.056));
        assert_eq!(found, marginal(&edges, 0.5, 0.055, 4, 9));
        assert_eq!(marginal(&edges, 0.5, 0.055, 99, 9).len(), 11);
        assert!(marginal(&edges, 5.0, 0.1, 4, 9).is_empty());
    }

    #[test]
    fn bad_truth_is_named_by_line() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("truth.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("write");
            read_truth(&path)
        };
        let good = read("a,b,copy\n/x,/y,1\n3, 4 ,no\n").expect("truth");
        assert_eq!(good.iter().map(|pair| pair.copy).collect::<Vec<_>>(), [true, false]);
        assert_eq!(good[1].b, "4");
        for (text, message) in [
            ("", "no column `a`"),
            ("a,b\n1,2\n", "no column `copy`"),
            ("a,b,copy\n", "no pairs"),
            ("a,b,copy\n1,2,maybe\n", "line 2"),
            ("a,b,copy\n1,2,1\n,2,0\n", "line 3"),
            ("a,b,copy\n1,2\n", "line"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(read_truth(&folder.path().join("gone.csv")).is_err());
    }
}
