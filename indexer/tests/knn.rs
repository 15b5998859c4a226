//! k-NN classification against numpy.

use engine::Embedding;
use indexer::eval::{KnnSweep, Labelled};
use safetensors::SafeTensors;

fn numbers(file: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let tensor = file.tensor(name).expect("in the golden file");
    tensor.data().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
}

/// Classes by name, in the order of their numbers.
fn labelled(file: &SafeTensors<'_>, vectors: &str, labels: &str) -> Vec<Labelled> {
    let tensor = file.tensor(vectors).expect("in the golden file");
    let values: Vec<f32> =
        tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    values
        .chunks_exact(tensor.shape()[1])
        .zip(numbers(file, labels))
        .map(|(vector, label)| Labelled {
            label: format!("{label:03}"),
            embedding: Embedding::normalised(vector.to_vec()).expect("a unit vector"),
        })
        .collect()
}

#[test]
fn top_1_and_top_5_at_several_k_equal_those_of_numpy() {
    let bytes = std::fs::read(fixtures::path("golden/probe.safetensors")).expect("golden file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let gallery = labelled(&file, "knn.gallery", "knn.labels");
    let queries = labelled(&file, "knn.queries", "knn.query_labels");
    let ks: Vec<usize> = numbers(&file, "knn.ks").into_iter().map(|k| k as usize).collect();
    let sweep = KnnSweep { ks, temperature: 0.07 };
    let scores = [sweep.against(&gallery, &queries), sweep.leave_one_out(&gallery)];
    let ours: Vec<u32> = scores
        .into_iter()
        .flat_map(|scores| scores.expect("queries"))
        .flat_map(|score| [score.top1.correct, score.top5.correct])
        .map(|correct| correct as u32)
        .collect();
    assert_eq!(ours, numbers(&file, "knn.correct"));
}
