use super::super::kmeans::tests::Golden;
use super::*;

static GO_ON: AtomicBool = AtomicBool::new(false);

#[test]
fn shares_are_as_even_as_sizes_allow() {
    assert_eq!(even_shares(&[5, 1, 10], 9), [4, 1, 4]);
    assert_eq!(even_shares(&[5, 1, 10], 10), [5, 1, 4]);
    assert_eq!(even_shares(&[5, 1, 10], 100), [5, 1, 10]);
    assert_eq!(even_shares(&[5, 1, 10], 2), [1, 1, 0]);
    assert_eq!(even_shares(&[0, 0, 3], 2), [0, 0, 2]);
    assert_eq!(even_shares(&[], 3), Vec::<usize>::new());
}

/// How many times larger the largest group is than the smallest.
fn imbalance(drawn: &[u32], group: &[i64]) -> f64 {
    let mut sizes = [0usize; 5];
    drawn.iter().for_each(|&point| sizes[group[point as usize] as usize] += 1);
    let (most, least) = (sizes.iter().max(), sizes.iter().min());
    *most.expect("groups") as f64 / (*least.expect("groups")).max(1) as f64
}

#[test]
fn a_hierarchy_balances_the_toy_picture_and_one_level_does_not() {
    let golden = Golden::open();
    let (points, group) = (golden.points("toy.points"), golden.integers("toy.group"));
    let all: Vec<u32> = (0..group.len() as u32).collect();
    assert_eq!(imbalance(&all, &group), 70.0);
    let draw = |levels: &[usize], resamplings: usize| {
        let config = Balance { levels: levels.to_vec(), resamplings, ..Balance::default() };
        let hierarchy = Hierarchy::new(&points, &config, 7, &GO_ON).expect("hierarchy");
        let drawn = hierarchy.sample(400, Draw::Random, 7);
        assert_eq!(drawn.len(), 400);
        assert!(drawn.is_sorted_by(|a, b| a < b));
        imbalance(&drawn, &group)
    };
    let (flat, deep) = (draw(&[300], 0), draw(&[300, 60, 5], 10));
    println!("largest to smallest group: 70 before, {flat:.1} by k-means, {deep:.1} by levels");
    assert!(deep < 3.0 && deep < flat / 3.0, "{deep} beside {flat}");
}

#[test]
fn the_nearest_to_centroids_can_be_taken_and_any_number_of_threads_gives_the_same() {
    let points = Golden::open().points("well_apart.points");
    let config = Balance { levels: vec![20, 4], resamplings: 2, ..Balance::default() };
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| {
            let hierarchy = Hierarchy::new(&points, &config, 1, &GO_ON).expect("hierarchy");
            let random = hierarchy.sample(50, Draw::Random, 1);
            (random, hierarchy.sample(50, Draw::Closest, 1), hierarchy.levels[0].assigned.clone())
        })
    };
    let (random, nearest, assigned) = on(1);
    assert_eq!(on(4), (random.clone(), nearest.clone(), assigned.clone()));
    let mean = |drawn: &[u32]| {
        let sum: f32 = drawn.iter().map(|&point| assigned[point as usize].similarity).sum();
        sum / drawn.len() as f32
    };
    assert!(mean(&nearest) > mean(&random), "{} {}", mean(&nearest), mean(&random));
}
