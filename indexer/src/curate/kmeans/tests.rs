use std::collections::BTreeSet;

use safetensors::{Dtype, SafeTensors};

use super::*;

/// Tensors made by `kmeans_reference.py`.
pub(crate) struct Golden(Vec<u8>);

impl Golden {
    pub(crate) fn open() -> Self {
        Self(std::fs::read(fixtures::path("golden/kmeans.safetensors")).expect("golden file"))
    }

    fn bytes(&self, name: &str, dtype: Dtype) -> (Vec<usize>, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.0).expect("safetensors");
        let tensor = tensors.tensor(name).expect("a tensor of this name");
        assert_eq!(tensor.dtype(), dtype, "{name}");
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    pub(crate) fn points(&self, name: &str) -> Held {
        let (shape, bytes) = self.bytes(name, Dtype::F32);
        let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Held { values, dim: shape[1] }
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<i64> {
        let (_, bytes) = self.bytes(name, Dtype::I64);
        bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
    }

    fn doubles(&self, name: &str) -> Vec<f64> {
        let (_, bytes) = self.bytes(name, Dtype::F64);
        bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }
}

static GO_ON: AtomicBool = AtomicBool::new(false);

fn kmeans(clusters: usize, start: Start, seed: u64) -> KMeans {
    KMeans { clusters, iterations: 100, start, seed }
}

#[test]
fn assignments_and_objective_are_those_of_scikit_learn() {
    let golden = Golden::open();
    for (name, clusters) in [("well_apart", 8), ("overlapping", 12)] {
        let points = golden.points(&format!("{name}.points"));
        let start = Start::Given(golden.points(&format!("{name}.start")).values);
        let found = kmeans(clusters, start, 0).run(&points, &GO_ON).expect("clusters");
        let assigned: Vec<i64> = found.assigned.iter().map(|a| i64::from(a.number)).collect();
        assert_eq!(assigned, golden.integers(&format!("{name}.assigned")), "{name}");
        let objective = golden.doubles(&format!("{name}.objective"));
        assert_eq!(found.objective.len(), objective.len(), "{name}: passes");
        for (pass, (got, want)) in found.objective.iter().zip(&objective).enumerate() {
            assert!((got - want).abs() <= 1e-4 * want, "{name} pass {pass}: {got}, not {want}");
        }
        let centroids = golden.points(&format!("{name}.centroids"));
        for (got, want) in found.centroids.values.iter().zip(&centroids.values) {
            assert!((got - want).abs() < 1e-5, "{name}: {got}, not {want}");
        }
    }
}

#[test]
fn a_start_of_its_own_ends_no_worse_than_a_poor_one_and_is_the_same_on_any_number_of_threads() {
    let points = Golden::open().points("well_apart.points");
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| kmeans(8, Start::Careful, 3).run(&points, &GO_ON).expect("clusters"))
    };
    let (one, four) = (on(1), on(4));
    assert_eq!(one.centroids.values, four.centroids.values);
    assert_eq!(one.assigned, four.assigned);
    assert_eq!(one.objective, four.objective);
    let best = Golden::open().doubles("well_apart.objective");
    let last = *one.objective.last().expect("passes");
    assert!(last < 1.5 * best[best.len() - 1], "{last} beside {best:?}");
    assert!(one.objective.is_sorted_by(|a, b| *a >= *b - 1e-6), "{:?}", one.objective);
}

#[test]
fn ties_go_to_the_lowest_centroid_and_empty_clusters_start_anew() {
    let square = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0f32]];
    let points = Held { values: square.iter().flatten().copied().collect(), dim: 2 };
    // Two equal centroids: the first gets every point that is as near to both.
    let start = Start::Given(vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    let found = kmeans(3, start, 0).run(&points, &GO_ON).expect("clusters");
    let used: BTreeSet<u32> = found.assigned.iter().map(|assigned| assigned.number).collect();
    assert_eq!(used.len(), 3, "no cluster stays empty: {found:?}");
    assert!(found.reseeded >= 1);
    assert_eq!(found.assigned[0].number, 0);
}

#[test]
fn more_clusters_than_points_and_copies_of_one_point_are_fine() {
    let points = Held { values: [0.6f32, 0.8].repeat(5), dim: 2 };
    let found = kmeans(50, Start::Careful, 1).run(&points, &GO_ON).expect("clusters");
    assert_eq!(found.centroids.len(), 5);
    assert!(found.objective.last().expect("one").abs() < 1e-5);
    let none = Held { values: Vec::new(), dim: 2 };
    let error = kmeans(3, Start::Careful, 1).run(&none, &GO_ON).err().map(|e| e.to_string());
    assert!(error.is_some_and(|error| error.contains("no images to cluster")));
}

#[test]
fn draws_are_ascending_different_and_seeded() {
    let lot = |seed| draw(1000, 30, &mut SplitMix64(seed));
    assert_eq!(lot(1), lot(1));
    assert_ne!(lot(1), lot(2));
    assert!(lot(3).is_sorted_by(|a, b| a < b) && lot(3).len() == 30);
    assert_eq!(draw(3, 9, &mut SplitMix64(0)), [0, 1, 2]);
    let sum: u32 = (0..200).map(|seed| lot(seed).iter().sum::<u32>()).sum();
    let mean = f64::from(sum) / 6000.0;
    assert!((mean - 499.5).abs() < 15.0, "{mean}");
}
