use std::io::{Cursor, Seek, SeekFrom, Write};
use std::sync::Barrier;

use super::super::cpu::tests::Drawn;
use super::super::cpu::{Batch, CpuVit, Tokens};
use super::super::{FfnKind, PosEmbedRule, VitConfig};
use super::*;
use crate::kernels::{Isa, Precision, Team};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];
const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn config(ffn: FfnKind) -> VitConfig {
    let hidden = if ffn == FfnKind::Mlp { 256 } else { 168 };
    VitConfig { ffn, ffn_hidden_dim: hidden, num_register_tokens: 4, ..VitConfig::mlp(64, 3, 2, 5) }
}

/// A cache in a folder that is not there yet.
fn cache(folder: &Path, layout: &str) -> PackedCache {
    PackedCache::new(&folder.join("a/cache"), Path::new("no/model.safetensors"), "kind", layout)
}

fn reopened(found: &Found, config: &VitConfig, isa: Isa, precision: Precision) -> Option<CpuVit> {
    CpuVit::stored(config, PosEmbedRule::Published, isa, precision, found.stored())
}

fn tokens(model: &CpuVit) -> Vec<u32> {
    let image: Vec<f32> = (0..3 * 56 * 70).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let mut out = vec![f32::NAN; 2 * model.tokens(56, 70) * model.config().embed_dim];
    let batch = Batch { images: &[&image], height: 56, width: 70 };
    model.forward(&Team::new(2), batch, &[1, 2], Tokens::All, &mut out);
    out.into_iter().map(f32::to_bits).collect()
}

/// A kept model of one kind, and its file.
fn kept(folder: &Path) -> (PackedCache, Vec<u8>) {
    let config = config(FfnKind::Mlp);
    let model = Drawn::new(&config).load(&config, Isa::Portable, Precision::Int8);
    let cache = cache(folder, "layout");
    cache.keep(SHA256, &model.arrays());
    let bytes = std::fs::read(&cache.path).expect("kept");
    (cache, bytes)
}

#[test]
fn a_kept_model_computes_the_same_bits() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for precision in PRECISIONS {
            for ffn in [FfnKind::Mlp, FfnKind::SwiGlu] {
                let config = config(ffn);
                let case = format!("{isa:?} {precision} {ffn:?}");
                let folder = tempfile::tempdir().expect("temporary folder");
                let made = Drawn::new(&config).load(&config, isa, precision);
                let layout = CpuVit::layout(&config, isa, precision).expect("there");
                let cache = cache(folder.path(), &layout);
                assert!(cache.find().is_none(), "{case}");
                cache.keep(SHA256, &made.arrays());
                let found = cache.find().expect("just kept");
                assert_eq!(found.weights_sha256(), SHA256);
                let model = reopened(&found, &config, isa, precision).expect("the same layout");
                assert_eq!(model.arrays(), made.arrays(), "{case}");
                assert_eq!(model.bytes(), made.bytes(), "{case}");
                assert_eq!(tokens(&model), tokens(&made), "{case}");
            }
        }
    }
}

#[test]
fn what_is_computed_comes_from_the_file() {
    let config = config(FfnKind::Mlp);
    let (isa, precision) = (Isa::Portable, Precision::F32);
    let made = Drawn::new(&config).load(&config, isa, precision);
    let mut arrays: Vec<Vec<u8>> = made.arrays().into_iter().map(<[u8]>::to_vec).collect();
    // The bias of the patches, which every token of them gets.
    arrays[0][..4].copy_from_slice(&7f32.to_ne_bytes());
    let folder = tempfile::tempdir().expect("temporary folder");
    let cache = cache(folder.path(), "layout");
    cache.keep(SHA256, &arrays.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let model = reopened(&cache.find().expect("kept"), &config, isa, precision).expect("fits");
    assert_ne!(tokens(&model), tokens(&made));
}

#[test]
fn damage_of_any_byte_and_any_other_length_is_noticed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (cache, bytes) = kept(folder.path());
    assert!(cache.find().is_some());
    let list = 128..(128 + 4 * bytes.len().div_ceil(1 << 20));
    let rest = (list.end.next_multiple_of(64)..bytes.len()).step_by(8191);
    for at in (0..list.end).chain(rest).chain([bytes.len() - 1]) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&cache.path, damaged).expect("write");
        assert!(cache.find().is_none(), "byte {at}");
    }
    for length in [0, 1, 127, 128, 191, bytes.len() / 2, bytes.len() - 64, bytes.len() - 1] {
        std::fs::write(&cache.path, &bytes[..length]).expect("write");
        assert!(cache.find().is_none(), "{length} of {} bytes", bytes.len());
    }
    for more in [1, 64, 1 << 20] {
        let mut longer = bytes.clone();
        longer.resize(bytes.len() + more, 0);
        std::fs::write(&cache.path, longer).expect("write");
        assert!(cache.find().is_none(), "{more} bytes more");
    }
    std::fs::write(&cache.path, &bytes).expect("write");
    assert!(cache.find().is_some());
}

#[test]
fn another_layout_and_another_shape_are_not_used() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (cache, _) = kept(folder.path());
    let other =
        PackedCache { layout: [7; 32], folder: cache.folder.clone(), path: cache.path.clone() };
    assert!(other.find().is_none());
    let found = cache.find().expect("kept");
    let (isa, config) = (Isa::Portable, config(FfnKind::Mlp));
    assert!(reopened(&found, &config, isa, Precision::Int8).is_some());
    assert!(reopened(&found, &config, isa, Precision::F32).is_none());
    for depth in [2, 4] {
        let config = VitConfig { depth, ..config.clone() };
        assert!(reopened(&found, &config, isa, Precision::Int8).is_none(), "depth {depth}");
    }
    let layouts: Vec<_> = PRECISIONS
        .iter()
        .flat_map(|&precision| {
            let heads = VitConfig { num_heads: 1, ..config.clone() };
            [&config, &heads].map(|config| CpuVit::layout(config, isa, precision).expect("there"))
        })
        .collect();
    let distinct: std::collections::BTreeSet<_> = layouts.iter().collect();
    assert_eq!(distinct.len(), layouts.len(), "{layouts:?}");
}

#[test]
fn a_folder_that_cannot_be_made_and_a_place_that_is_taken_are_no_errors() {
    let folder = tempfile::tempdir().expect("temporary folder");
    std::fs::write(folder.path().join("a"), "a file").expect("write");
    let cache = cache(folder.path(), "layout");
    cache.keep(SHA256, &[&[1, 2, 3]]);
    assert!(cache.find().is_none());

    let taken = tempfile::tempdir().expect("temporary folder");
    let cache = super::tests::cache(taken.path(), "layout");
    std::fs::create_dir_all(cache.path.join("inside")).expect("folder");
    cache.keep(SHA256, &[&[1, 2, 3]]);
    assert!(cache.find().is_none());
    let left = std::fs::read_dir(&cache.folder).expect("list").count();
    assert_eq!(left, 1, "the temporary file is gone");
}

/// A disk with room for so many bytes.
struct Full(Cursor<Vec<u8>>, usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = self.1.saturating_sub(self.0.position() as usize);
        match room {
            0 => Err(ErrorKind::StorageFull.into()),
            _ => self.0.write(&bytes[..bytes.len().min(room)]),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seek for Full {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn a_full_disk_is_an_error_and_what_it_left_is_not_taken_for_a_file() {
    let array = vec![5u8; 3 << 20];
    let whole = file::length(&[&array]) as usize;
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("file");
    for room in [0, 100, 1 << 20, whole - 1, whole] {
        let mut disk = Full(Cursor::default(), room);
        let written = file::write(&mut disk, &[1; 32], SHA256, &[&array]);
        assert_eq!(written.is_ok(), room == whole, "{room} of {whole} bytes");
        std::fs::write(&path, disk.0.into_inner()).expect("write");
        assert_eq!(file::open(&path, &[1; 32]).is_ok(), room == whole, "{room} of {whole} bytes");
    }
}

#[test]
fn many_at_once_see_all_or_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let arrays: Vec<Vec<u8>> = (0..4u8).map(|i| vec![i; 700_000 + usize::from(i)]).collect();
    let cache = cache(folder.path(), "layout");
    let start = Barrier::new(arrays.len());
    let noticed = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for array in &arrays {
            scope.spawn(|| {
                start.wait();
                for _ in 0..20 {
                    cache.keep(SHA256, &[array]);
                    // Some thread has kept its file by now, and it is whole whosever it is.
                    if cache.find().is_some() {
                        noticed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(noticed.into_inner(), 4 * 20);
    assert_eq!(std::fs::read_dir(&cache.folder).expect("list").count(), 1);
}

#[test]
fn the_files_used_least_recently_make_room_and_those_of_killed_processes_go() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (cache, bytes) = kept(folder.path());
    let ago = |seconds| SystemTime::now() - Duration::from_secs(seconds);
    let old = |name: &str, seconds: u64| {
        let path = cache.folder.join(name);
        std::fs::write(&path, &bytes).expect("write");
        let file = std::fs::File::options().append(true).open(&path).expect("open");
        file.set_modified(ago(seconds)).expect("time");
        path
    };
    let size = bytes.len() as u64;
    let (oldest, older, other) =
        (old("x.packed", 900), old("y.packed", 800), old("notes.txt", 9_999_999));
    let (killed, running) = (old("z.1-0.packed-part", 4000), old("z.2-0.packed-part", 10));
    cache.make_room(3 * size);
    assert!(oldest.exists() && older.exists() && !killed.exists() && running.exists());
    cache.make_room(3 * size - 1);
    assert!(!oldest.exists() && older.exists() && cache.path.exists());
    // Its own file stays, however little room there is.
    cache.make_room(0);
    assert!(!older.exists() && other.exists() && cache.path.exists());
    cache.touch();
    assert!(cache.find().is_some());
}

/// Files of releases before must not be taken for what this one would pack.
#[test]
fn what_is_packed_changes_only_with_the_format() {
    let mut found = vec![u64::from(file::FORMAT)];
    for precision in PRECISIONS {
        for ffn in [FfnKind::Mlp, FfnKind::SwiGlu] {
            let config = config(ffn);
            let model = Drawn::new(&config).load(&config, Isa::Portable, precision);
            found.push(u64::from(crc32fast::hash(&model.arrays().concat())));
        }
    }
    // When this fails because packing has changed, raise `FORMAT` and write down what was found.
    assert_eq!(found, [1, 2396195629, 1907516377, 3296908913, 1756003443, 2819473172, 1316475122]);
}
