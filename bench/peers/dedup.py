"""Duplicates: Akin beside a perceptual hash (imagehash), and beside faiss-cpu + scipy.

    pip install numpy scipy pillow imagehash faiss-cpu

Edited copies hidden among other photographs:

    akin index COPIES OTHERS... -c copies
    akin dedup -c copies --pixels --report report.jsonl
    akin dedup -c copies --no-verify --threshold 0.7 --report alone.jsonl
    python bench/peers/dedup.py copies --report report.jsonl --truth COPIES/truth.csv \\
        --others OTHERS... [--not-truth PAIRS.csv]

A pair is a copy when both files are of one family: an original, its edits, and the file it was made
from. Pairs of other files that are duplicates in fact can be named in --not-truth (columns a,b; ends
of paths): they count neither way, for any method. The same pairs are judged by imagehash's pHash
(least distance over flips and quarter turns, too) at every distance.

All pairs of many vectors:

    python bench/peers/dedup.py scale --vectors x.npy --threshold 0.9 --k 64 --index hnsw

builds a faiss index, finds k neighbours of every vector, verifies them by inner product, and joins
those at or above the threshold with scipy's connected_components.
"""

import argparse
import csv
import itertools
import json
import os
import pathlib
import resource
import time


def families(truth):
    """Family of each path."""
    truth = pathlib.Path(truth).resolve()
    shared = truth.parent.parent
    of = {}
    with open(truth) as lines:
        for line in csv.DictReader(lines):
            family = line["original"]
            of[str(truth.parent / line["original"])] = (family, "original")
            of[str(truth.parent / line["copy"])] = (family, line["transform"])
            of[str(shared / line["source"])] = (family, "source")
    return of


def ignored(path):
    pairs = []
    if path:
        with open(path) as lines:
            pairs = [(line["a"], line["b"]) for line in csv.DictReader(lines)]

    def is_ignored(a, b):
        return any(
            (a.endswith(x) and b.endswith(y)) or (a.endswith(y) and b.endswith(x))
            for x, y in pairs
        )

    return is_ignored


def score(name, called, of, is_ignored, present):
    """called: set of sorted pairs of paths."""

    def same(a, b):
        return a in of and b in of and of[a][0] == of[b][0]

    members = {}
    for path in present:
        if path in of:
            members.setdefault(of[path][0], []).append(path)
    copies = {
        tuple(sorted(pair))
        for family in members.values()
        for pair in itertools.combinations(family, 2)
    }
    called = {pair for pair in called if not is_ignored(*pair)}
    found = called & copies
    wrong = sorted(called - copies)
    edits = {}
    for pair in copies:
        kinds = {of[path][1] for path in pair}
        if "original" in kinds and len(kinds) == 2:
            edit = next(iter(kinds - {"original"}))
            hits, all_ = edits.get(edit, (0, 0))
            edits[edit] = (hits + (pair in found), all_ + 1)
    with_original = [counts for edit, counts in edits.items() if edit != "source"]
    hits, all_ = (sum(column) for column in zip(*with_original))
    print(
        f"{name}: precision {len(found) / max(1, len(called)):.4f} ({len(found)}/{len(called)}), "
        f"recall {len(found) / len(copies):.4f} of {len(copies)} pairs, "
        f"{hits / all_:.4f} of {all_} with the original"
    )
    return edits, wrong


def copies(args):
    of = families(args.truth)
    is_ignored = ignored(args.not_truth)
    present, pairs, same_files = set(), [], set()
    with open(args.report) as lines:
        for line in map(json.loads, lines):
            if line["type"] == "pair":
                a, b = line["a"]["path"], line["b"]["path"]
                pairs.append((*sorted((a, b)), line["similarity"], line["kind"]))
            else:
                group = line["kept"] + line["dropped"]
                for a, b in itertools.combinations(group, 2):
                    if a["sha256"] == b["sha256"]:
                        same_files.add(tuple(sorted((a["path"], b["path"]))))
    roots = [args.truth, *args.others]
    for root in roots:
        root = pathlib.Path(root).resolve()
        folder = root.parent if root.is_file() else root
        for file in folder.rglob("*"):
            if file.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
                present.add(str(file))
    print(f"{len(present)} pictures, {len(pairs)} pairs looked at, {len(same_files)} of equal files")

    verified = {(a, b) for a, b, _, kind in pairs if kind in ("same-picture", "same-pixels")}
    edits, wrong = score("akin, verified", verified | same_files, of, is_ignored, present)
    for edit, (hits, all_) in sorted(edits.items()):
        print(f"  {edit:10} {hits}/{all_}")
    for a, b in wrong:
        print(f"  not a labelled copy: {a} {b}")
    for threshold in (0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98):
        called = {(a, b) for a, b, similarity, _ in pairs if similarity >= threshold}
        score(f"similarity alone >= {threshold}", called | same_files, of, is_ignored, present)
    if args.phash:
        phash(sorted(present), of, is_ignored)


def phash(paths, of, is_ignored):
    import imagehash
    import numpy as np
    from PIL import Image, ImageOps

    start = time.time()
    plain, turned = [], []
    kept = []
    for path in paths:
        try:
            image = ImageOps.exif_transpose(Image.open(path)).convert("L")
        except OSError:
            continue
        kept.append(path)
        image.thumbnail((256, 256))
        views = []
        for flip in (False, True):
            view = ImageOps.mirror(image) if flip else image
            for turn in range(4):
                views.append(imagehash.phash(view.rotate(90 * turn, expand=True)).hash.ravel())
        plain.append(views[0])
        turned.append(views)
    plain = np.array(plain, np.float32) * 2 - 1
    turned = np.array(turned, np.float32) * 2 - 1
    print(f"imagehash: {len(kept)} pictures hashed in {time.time() - start:.0f} s")
    upright = (64 - plain @ plain.T) / 2
    best = np.min([(64 - turned[:, view] @ plain.T) / 2 for view in range(8)], 0)
    best = np.minimum(best, best.T)
    for name, distance in (("imagehash pHash", upright), ("imagehash pHash, 8 views", best)):
        for limit in (0, 2, 4, 6, 8, 10, 12, 16):
            a, b = np.nonzero(np.triu(distance <= limit, 1))
            called = {tuple(sorted((kept[i], kept[j]))) for i, j in zip(a, b)}
            score(f"{name} <= {limit}", called, of, is_ignored, kept)


def scale(args):
    import faiss
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    faiss.omp_set_num_threads(args.threads)
    vectors = np.load(args.vectors, mmap_mode="r")
    n, dim = vectors.shape
    start = time.time()
    if args.index == "flat":
        index = faiss.IndexFlatIP(dim)
    elif args.index == "hnsw":
        index = faiss.IndexHNSWFlat(dim, 16, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 128
        index.hnsw.efSearch = max(64, args.k)
    else:
        lists = int(4 * n**0.5)
        quantiser = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFPQ(quantiser, dim, lists, dim // 8, 8, faiss.METRIC_INNER_PRODUCT)
        rng = np.random.default_rng(0)
        some = np.sort(rng.choice(n, min(n, 64 * lists), replace=False))
        index.train(np.ascontiguousarray(vectors[some], np.float32))
        index.nprobe = 32
    for at in range(0, n, 20_000):
        index.add(np.ascontiguousarray(vectors[at : at + 20_000], np.float32))
    built = time.time() - start
    rows, columns = [], []
    for at in range(0, n, 2_000):
        queries = np.ascontiguousarray(vectors[at : at + 2_000], np.float32)
        _, near = index.search(queries, args.k + 1)
        for i, ids in enumerate(near):
            ids = ids[(ids >= 0) & (ids != at + i)]
            if len(ids):
                exact = np.asarray(vectors[np.sort(ids)], np.float32) @ queries[i]
                ids = np.sort(ids)[exact >= args.threshold]
                rows.append(np.full(len(ids), at + i))
                columns.append(ids)
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(n, n))
    count, labels = connected_components(graph, directed=False)
    sizes = np.bincount(labels)
    print(json.dumps({
        "index": args.index,
        "rows": n,
        "build_s": built,
        "total_s": time.time() - start,
        "cpu_s": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "groups": int((sizes > 1).sum()),
        "grouped": int(sizes[sizes > 1].sum()),
        "largest": int(sizes.max()),
    }))
    if args.labels:
        np.save(args.labels, labels)


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("copies")
    command.add_argument("--report", required=True)
    command.add_argument("--truth", required=True)
    command.add_argument("--others", nargs="*", default=[])
    command.add_argument("--not-truth")
    command.add_argument("--phash", action="store_true")
    command.set_defaults(run=copies)
    command = commands.add_parser("scale")
    command.add_argument("--vectors", required=True)
    command.add_argument("--threshold", type=float, required=True)
    command.add_argument("--k", type=int, default=64)
    command.add_argument("--index", choices=["flat", "hnsw", "ivfpq"], default="hnsw")
    command.add_argument("--threads", type=int, default=os.cpu_count())
    command.add_argument("--labels")
    command.set_defaults(run=scale)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
