//! Random sequences of changes, commits, reopening and upkeep against a plain model in memory.

mod machine;

use indexer::{Collections, CreateOptions, Precision};
use machine::{Lot, Model};

/// Steps of one sequence.
const STEPS: u64 = 60;

fn sequence(seed: u64) {
    let home = tempfile::tempdir().expect("temporary folder");
    let collections = Collections::new(home.path());
    let mut lot = Lot(seed);
    let options = CreateOptions {
        // From always exact to nearly always through a graph.
        ann_from: Some([u64::MAX, 150, 60, 1][lot.below(4) as usize]),
        precision: if lot.below(2) == 0 { Precision::F16 } else { Precision::F32 },
    };
    let mut collection = collections.create("c", &machine::identity(), options).expect("create");
    let mut model = Model::default();
    for _ in 0..STEPS {
        let before = collection.view();
        let held = before.len();
        model.drive(seed, &mut collection).expect("step");
        assert_eq!(before.len(), held, "a view does not change");
        match lot.below(8) {
            0 => collection.finish().expect("finish"),
            1 => {
                drop(before);
                drop(collection);
                collection = collections.open("c").expect("open");
            }
            2 => {
                collection.finish().expect("finish");
                drop(before);
                drop(collection);
                collection = collections.open("c").expect("open");
            }
            _ => {}
        }
        model.compare(&collection, 12).expect("compare");
    }
    // Every item is reachable.
    collection.finish().expect("finish");
    model.compare(&collection, usize::MAX).expect("compare");
}

#[test]
fn a_collection_answers_as_a_plain_model_does() {
    for seed in 1..=12 {
        println!("seed {seed}");
        sequence(seed);
    }
}
