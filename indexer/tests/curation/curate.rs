//! Curation: what it keeps and drops, why, and that it is always the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::{
    CLASSES, PER_CLASS, PLANTED, THRESHOLD, World, assert_same, class, cluster, config, curate,
    everything, sample, stem,
};
use indexer::curate::config::{Balance, Method, RelativeDedup, Retrieve, Spread};
use indexer::curate::ledger::LedgerRow;
use indexer::curate::{CurateConfig, CurateEvent, Rule, Run, Sources, Step, explain};

fn rows(world: &World, folder: &str) -> BTreeMap<String, LedgerRow> {
    let run = Run::open(&world.path(folder)).expect("a finished run");
    run.rows().iter().map(|row| (stem(&row.path), row.clone())).collect()
}

#[test]
fn copies_and_leaks_go_with_a_reason_and_neighbours_of_seeds_stay() {
    let world = World::new();
    let info = world.run("run", &sample()).expect("curates");
    let rows = rows(&world, "run");
    assert_eq!(rows.len() as u64, CLASSES * (PER_CLASS + 3 * PLANTED));
    for class in 0..CLASSES {
        for n in 0..PLANTED {
            let name = format!("p{class}-{n}");
            let (same, edit) = (&rows[&format!("same-{name}")], &rows[&format!("edit-{name}")]);
            // The edit of the second has more pixels, and stays for all three.
            let stays = if n == 1 { &format!("edit-{name}") } else { &name };
            let group = [&rows[&name], same, edit];
            for row in group.iter().filter(|row| stem(&row.path) != *stays) {
                assert!(matches!(row.rule, Rule::SameFile | Rule::NearDuplicate), "{row:?}");
                let because = row.because.as_ref().expect("a reason");
                assert_eq!((because.set.as_str(), &stem(&because.path)), ("pool", stays));
                assert!(row.similarity.expect("similarity") >= THRESHOLD);
                assert_eq!(row.step, "01-self-dedup");
            }
            if n == 0 {
                assert_eq!(same.rule, Rule::SameFile);
            }
            let leak = &rows[&format!("leak-t{class}-{n}")];
            assert_eq!((leak.rule, leak.kept, leak.leak), (Rule::Leak, false, true));
            let because = leak.because.as_ref().expect("a reason");
            assert_eq!(
                (because.set.as_str(), stem(&because.path)),
                ("tests", format!("t{class}-{n}"))
            );
        }
    }
    let kept: Vec<&LedgerRow> = rows.values().filter(|row| row.kept).collect();
    assert_eq!(kept.len(), info.kept);
    assert!(kept.iter().all(|row| class(row) < 3 && row.rule == Rule::Neighbour && !row.leak));
    let account = &info.accounts[0];
    assert_eq!((account.retrieved.images, account.retrieved.found), (15, 15 * 6));
    assert_eq!(account.retrieved.found - account.retrieved.collisions, info.kept);
    assert!(account.retrieved.collisions > 0);
    assert_eq!(account.kept, info.kept);
    for row in &kept {
        let seed = row.seed.as_ref().expect("a seed image");
        assert_eq!(seed.set, "seeds");
        assert!((1..=6).contains(&row.rank.expect("a rank")));
    }
    let mut left = rows.len();
    for step in &info.steps {
        assert_eq!(step.images_in, left);
        left = step.images_out;
    }
    assert_eq!(left, info.kept);
}

#[test]
fn reasons_are_told_in_sentences() {
    let world = World::new();
    world.run("run", &sample()).expect("curates");
    let run = Run::open(&world.path("run")).expect("a finished run");
    let about = |name: &str| {
        let row = run.rows().iter().find(|row| stem(&row.path) == name).expect("an image");
        explain(row, run.info()).join(" ")
    };
    let same = about("same-p0-0");
    assert!(same.contains("is not in the result") && same.contains("same as"), "{same}");
    assert!(same.contains("p0-0.png"), "{same}");
    let leak = about("leak-t4-1");
    assert!(leak.contains("like the excluded image") && leak.contains("t4-1.png"), "{leak}");
    assert!(leak.contains("threshold 0.9500"), "{leak}");
    let far = about("p7-9");
    assert!(far.contains("retrieved for no seed image; the nearest is"), "{far}");
    let first = run.rows().iter().find(|row| row.kept).expect("one is kept");
    let kept = explain(first, run.info()).join(" ");
    assert!(kept.contains("is in the result") && kept.contains("as neighbour"), "{kept}");
    let path = first.path.to_string();
    assert_eq!(run.find(&path).expect("by path").id, first.id);
    assert_eq!(run.find(&first.id.to_string()).expect("by id").id, first.id);
    assert!(run.find("nothing").is_err());
}

#[test]
fn clusters_with_enough_seeds_are_drawn_from_within_the_limits() {
    let world = World::new();
    let info = world.run("all", &cluster()).expect("curates");
    let all = rows(&world, "all");
    // Three classes with five seeds each: all of their images but copies and leaks.
    assert_eq!(info.kept as u64, 3 * PER_CLASS);
    assert!(
        all.values().filter(|row| row.kept).all(|row| class(row) < 3 && row.rule == Rule::Drawn)
    );
    assert_eq!(info.accounts[0].retrieved.clusters, 3);

    let limited = |min_seeds, per_cluster, cap| Retrieve {
        method: Method::Cluster,
        clusters: Some(CLASSES as usize),
        min_seeds,
        per_cluster,
        cap,
        ..Retrieve::default()
    };
    let none = world.run("none", &config(limited(5, 1000, 1000))).expect("curates");
    assert_eq!(none.kept, 0, "no cluster has more than 5");
    let few = world.run("few", &config(limited(3, 7, 1000))).expect("curates");
    assert_eq!(few.kept, 21);
    let over = rows(&world, "few").values().filter(|row| row.rule == Rule::OverCap).count();
    assert_eq!(over as u64, 3 * PER_CLASS - 21);
    let capped = world.run("capped", &config(limited(3, 7, 10))).expect("curates");
    assert_eq!((capped.kept, capped.accounts[0].retrieved.retrieved), (10, 10));
}

#[test]
fn several_seed_sets_are_counted_apart_and_an_image_once() {
    let world = World::new();
    let mut sources = world.sources();
    drop(std::mem::take(&mut sources.seeds));
    let open = world.collections().open("seeds").expect("open");
    for name in ["one", "two"] {
        sources.seeds.push(indexer::curate::ImageSet::new(name, open.view()).expect("set"));
    }
    let info = curate(&world.path("run"), &sources, &sample(), &mut |_| {}).expect("curates");
    let [one, two] = info.accounts.as_slice() else { panic!("two sets") };
    // The same images as similar to both: the first set has them.
    assert_eq!((one.kept, one.shared), (info.kept, 0));
    assert_eq!((two.kept, two.shared, two.left), (0, info.kept, info.kept));
}

#[test]
fn a_component_goes_with_one_leak_unless_only_direct_ones_shall() {
    let world = World::new();
    // With so low a threshold, classes hang together, and every class has excluded images.
    let with = |spread| {
        let mut config = sample();
        config.steps[1] = Step::RelativeDedup(RelativeDedup {
            threshold: Some(0.66),
            spread,
            ..RelativeDedup::default()
        });
        config
    };
    let direct = world.run("direct", &with(Spread::Direct)).expect("curates");
    let whole = world.run("whole", &with(Spread::Component)).expect("curates");
    let chained = |folder: &str| {
        rows(&world, folder).values().filter(|row| row.rule == Rule::LeakByComponent).count()
    };
    assert_eq!(chained("direct"), 0);
    println!("{:?}", whole.steps[1]);
    assert!(chained("whole") > 0);
    assert!(whole.steps[1].images_out < direct.steps[1].images_out);
}

#[test]
fn what_stands_for_a_leak_goes_with_it() {
    let world = World::new();
    let with = |threshold, spread| {
        let mut config = sample();
        config.steps[1] = Step::RelativeDedup(RelativeDedup {
            threshold: Some(threshold),
            spread,
            ..RelativeDedup::default()
        });
        config
    };
    world.run("before", &sample()).expect("curates");
    let before = rows(&world, "before");
    // Where what went as a duplicate is nearer to an excluded image than what stayed for it.
    let nearer = |row: &LedgerRow| {
        let because = row.because.as_ref()?;
        let (name, kept) = before.iter().find(|(_, kept)| kept.id == because.id)?;
        let (gone, stays) = (row.excluded_similarity?, kept.excluded_similarity?);
        (gone > stays + 1e-3).then(|| ((gone + stays) / 2.0, name.clone()))
    };
    let duplicates = before.values().filter(|row| row.rule == Rule::NearDuplicate);
    let (threshold, kept) = duplicates.filter_map(nearer).next().expect("a nearer duplicate");
    world.run("direct", &with(threshold, Spread::Direct)).expect("curates");
    world.run("duplicates", &with(threshold, Spread::Duplicates)).expect("curates");
    assert!(!matches!(rows(&world, "direct")[&kept].rule, Rule::Leak | Rule::LeakByComponent));
    assert_eq!(rows(&world, "duplicates")[&kept].rule, Rule::LeakByComponent);
}

#[test]
fn the_same_bytes_whatever_the_number_of_threads() {
    let world = World::new();
    for (name, config) in [("sample", sample()), ("everything", everything())] {
        let on = |threads: usize| {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let folder = format!("{name}-{threads}");
            pool.install(|| world.run(&folder, &config).expect("curates"));
            world.path(&folder)
        };
        assert_same(&on(1), &on(4));
    }
    let other = CurateConfig { random_seed: 8, ..everything() };
    world.run("other", &other).expect("curates");
    let manifest =
        |folder: &str| std::fs::read(world.path(folder).join("manifest.jsonl")).expect("manifest");
    assert_ne!(manifest("other"), manifest("everything-1"), "the seed has an effect");
}

#[test]
fn a_changed_configuration_redoes_only_what_it_changes() {
    let world = World::new();
    let reused = |config: &CurateConfig| {
        let mut reused = Vec::new();
        let mut note = |event: CurateEvent<'_>| {
            if let CurateEvent::Done { reused: was, .. } = event {
                reused.push(was);
            }
        };
        curate(&world.path("run"), &world.sources(), config, &mut note).expect("curates");
        reused
    };
    let mut config = everything();
    assert_eq!(reused(&config), [false; 5]);
    assert_eq!(reused(&config), [true; 5]);
    config.steps[4] = Step::Balance(Balance { target: 15, levels: vec![9], ..Balance::default() });
    assert_eq!(reused(&config), [true, true, true, true, false]);
    config.steps.pop();
    assert_eq!(reused(&config), [true; 4]);
    assert!(!world.path("run/05-balance").exists());
    world.add("tests", 0, "one more");
    assert_eq!(reused(&config), [true, false, false, false]);
    // Damage is noticed, and the step done again.
    let output = world.path("run/03-retrieve/output.bin");
    let mut bytes = std::fs::read(&output).expect("read");
    bytes[40] ^= 1;
    std::fs::write(&output, bytes).expect("write");
    assert_eq!(reused(&config), [true, true, false, true]);
}

const HOME: &str = "AKIN_TEST_CURATE_HOME";
const STOP_AT: &str = "AKIN_TEST_CURATE_STOP_AT";

fn world_at(home: &Path) -> Sources {
    let collections = indexer::Collections::new(home);
    let set = |name: &str| {
        let open = collections.open(name).expect("open");
        indexer::curate::ImageSet::new(name, open.view()).expect("set")
    };
    Sources { pool: set("pool"), seeds: vec![set("seeds")], excluded: vec![set("tests")] }
}

/// The process that is killed: not a test of its own.
#[test]
fn victim() {
    let Ok(home) = std::env::var(HOME) else { return };
    let stop_at: usize = std::env::var(STOP_AT).expect("set").parse().expect("a number");
    let home = Path::new(&home);
    let mut events = 0;
    let mut wait = |_: CurateEvent<'_>| {
        events += 1;
        if events == stop_at {
            let mut out = std::io::stdout().lock();
            writeln!(out, "\nat {stop_at}").and_then(|()| out.flush()).expect("a parent");
            std::thread::sleep(std::time::Duration::from_secs(600));
        }
    };
    curate(&home.join("killed"), &world_at(home), &everything(), &mut wait).expect("curates");
    println!("\nfinished");
}

#[test]
fn kill_9_in_every_step_and_the_same_bytes_after_going_on() {
    let world = World::new();
    let mut events = 0;
    curate(&world.path("whole"), &world.sources(), &everything(), &mut |_| events += 1)
        .expect("curates");
    assert_eq!(events, 3 * 5 + 1);
    for stop_at in 1..=events {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["curate::victim", "--exact", "--nocapture", "--test-threads=1"])
            .env(HOME, world.home.path())
            .env(STOP_AT, stop_at.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let said = output
            .lines()
            .map_while(Result::ok)
            .find(|line| line.starts_with("at ") || line.starts_with("finished"));
        assert_eq!(said.as_deref(), Some(format!("at {stop_at}").as_str()));
        child.kill().expect("SIGKILL");
        child.wait().expect("ended");
        assert!(Run::open(&world.path("killed")).is_err(), "an unfinished run is not opened");
        curate(&world.path("killed"), &world.sources(), &everything(), &mut |_| {})
            .expect("goes on");
        assert_same(&world.path("whole"), &world.path("killed"));
        std::fs::remove_dir_all(world.path("killed")).expect("remove");
    }
}

#[test]
fn a_pool_image_that_is_a_seed_stays_and_counts_for_no_neighbour() {
    let world = World::new();
    let open = world.collections().open("pool").expect("open");
    let view = open.view();
    drop(open);
    let mut sources = world.sources_without_pool();
    sources.pool = indexer::curate::ImageSet::new("pool", view.clone()).expect("set");
    sources.seeds = vec![indexer::curate::ImageSet::new("all", view).expect("set")];
    let info = curate(&world.path("run"), &sources, &sample(), &mut |_| {}).expect("curates");
    let rows = rows(&world, "run");
    let kept = rows.values().filter(|row| row.kept).count();
    assert_eq!(kept, info.kept);
    assert!(rows.values().filter(|row| row.kept).all(|row| row.rule == Rule::IsSeed));
    let left = info.steps[1].images_out;
    assert_eq!(kept, left, "every image that is no copy and no leak is a seed");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_written() {
    let world = World::new();
    let refused = |change: &dyn Fn(&mut Sources, &mut CurateConfig)| {
        let (mut sources, mut config) = (world.sources(), sample());
        change(&mut sources, &mut config);
        let error =
            curate(&world.path("bad"), &sources, &config, &mut |_| {}).expect_err("refused");
        assert!(!world.path("bad").exists(), "{error}");
        error.to_string()
    };
    let retrieve = |config: &mut CurateConfig, retrieve: Retrieve| {
        config.steps[2] = Step::Retrieve(retrieve);
    };
    type Change<'a> = &'a dyn Fn(&mut Sources, &mut CurateConfig);
    let cases: [(Change<'_>, &str); 9] = [
        (&|sources, _| sources.seeds.clear(), "no seed images"),
        (&|_, config| config.steps.clear(), "no steps"),
        (&|_, config| retrieve(config, Retrieve { cap: 0, ..Retrieve::default() }), "cap is 0"),
        (&|_, config| retrieve(config, Retrieve { k: 0, ..Retrieve::default() }), "k is 0"),
        (
            &|_, config| {
                config.steps[1] = Step::RelativeDedup(RelativeDedup {
                    threshold: Some(1.5),
                    ..RelativeDedup::default()
                })
            },
            "1.5 is no cosine",
        ),
        (&|_, config| drop(config.steps.remove(1)), "no effect"),
        (&|_, config| config.steps.push(Step::Retrieve(Retrieve::default())), "more than one"),
        (&|_, config| config.steps.push(Step::Balance(Balance::default())), "target is 0"),
        (
            &|sources, _| {
                let again = sources.seeds[0].clone();
                sources.seeds.push(again);
            },
            "two seed sets are called `seeds`",
        ),
    ];
    for (change, words) in cases {
        let error = refused(change);
        assert!(error.contains(words), "{error} has no {words}");
    }
    let open = world.collections().open("pool").expect("open");
    let view = open.view();
    drop(open);
    let mut sources = world.sources_without_pool();
    sources.pool = indexer::curate::ImageSet::new("pool", view.clone()).expect("set");
    sources.excluded = vec![indexer::curate::ImageSet::new("copy", view).expect("set")];
    let error = curate(&world.path("bad"), &sources, &sample(), &mut |_| {}).expect_err("refused");
    assert!(error.to_string().contains("is the pool itself"), "{error}");
    drop(sources);

    std::fs::create_dir(world.path("full")).expect("create");
    std::fs::write(world.path("full/x"), "x").expect("write");
    let error = world.run("full", &sample()).expect_err("refused").to_string();
    assert!(error.contains("not empty and no curation's"), "{error}");
    std::fs::write(world.path("file"), "x").expect("write");
    assert!(world.run("file/run", &sample()).is_err());
}

#[test]
fn more_neighbours_than_images_are_all_images() {
    let world = World::new();
    let info = world.run("run", &config(Retrieve { k: 100_000, ..Retrieve::default() }));
    let info = info.expect("curates");
    assert_eq!(info.kept, info.steps[1].images_out);
    let clusters = Retrieve {
        method: Method::Cluster,
        clusters: Some(1_000_000),
        min_seeds: 0,
        ..Retrieve::default()
    };
    let info = world.run("clusters", &config(clusters)).expect("curates");
    assert!(info.kept <= 15, "each image is a cluster of its own: {}", info.kept);
}

#[test]
fn an_empty_pool_and_another_model_are_refused() {
    let world = World::new();
    let collections = world.collections();
    let mut identity =
        engine::Embedder::identity(&engine::testing::ThumbnailEmbedder::default()).clone();
    let empty = collections.create("empty", &identity, indexer::CreateOptions::default());
    drop(empty.expect("create"));
    identity.weights_sha256 = "1".repeat(64);
    let other = collections.create("other", &identity, indexer::CreateOptions::default());
    drop(other.expect("create"));
    world.add("other", 0, "x");
    let mut sources = world.sources();
    sources.pool = world.set("empty");
    let error = curate(&world.path("bad"), &sources, &sample(), &mut |_| {}).expect_err("refused");
    assert!(error.to_string().contains("the pool `empty` has no images"), "{error}");
    drop(sources);
    let mut sources = world.sources();
    sources.seeds = vec![world.set("other")];
    let error = curate(&world.path("bad"), &sources, &sample(), &mut |_| {}).expect_err("refused");
    assert!(error.to_string().contains("cannot be mixed"), "{error}");
    let names: BTreeSet<String> = std::fs::read_dir(world.home.path())
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, BTreeSet::from(["collections", "files"].map(str::to_owned)));
}
