"""Nearest neighbours: Akin beside hnswlib and faiss-cpu, on the same vectors, in one run.

    pip install numpy hnswlib faiss-cpu
    cargo build --release
    python bench/peers/ann.py --rows 200000 --akin target/release/akin --work /tmp/ann

Vectors are clustered: 2,000 Gaussians with Zipf-like weights and scales of their own in a
48-dimensional subspace with a decaying spectrum, a little noise in all 384 dimensions, unit length.
Truth is the exact inner product in float32. Every engine builds in a process of its own with
--threads threads and is searched with one thread; all are searched in turns, --rounds times, and
medians are printed. A bare search of a library gives row numbers. Akin's gives records from the
catalog, with similarities computed from the stored vectors, whose checksums it verifies.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import numpy as np

K = 10


def make(rows, queries, dim, seed):
    rng = np.random.default_rng(seed)
    inner, clusters = 48, 2000
    basis = np.linalg.qr(rng.standard_normal((dim, inner)))[0].T.astype(np.float32)
    spectrum = (1.0 / np.sqrt(1 + np.arange(inner))).astype(np.float32)
    centres = rng.standard_normal((clusters, inner)).astype(np.float32) * spectrum
    scales = rng.uniform(0.15, 0.5, (clusters, inner)).astype(np.float32) * spectrum
    weights = 1.0 / (10 + np.arange(clusters))
    weights /= weights.sum()
    out = np.empty((rows + queries, dim), np.float32)
    for start in range(0, rows + queries, 50_000):
        n = min(50_000, rows + queries - start)
        of = rng.choice(clusters, n, p=weights)
        x = centres[of] + rng.standard_normal((n, inner)).astype(np.float32) * scales[of]
        x = x @ basis + 0.02 / np.sqrt(dim) * rng.standard_normal((n, dim)).astype(np.float32)
        out[start : start + n] = x / np.linalg.norm(x, axis=1, keepdims=True)
    order = rng.permutation(rows + queries)
    return out[order[:rows]], out[order[rows:]]


def truth(vectors, queries):
    best = np.empty((len(queries), K), np.int64)
    for start in range(0, len(queries), 100):
        scores = queries[start : start + 100] @ vectors.T
        top = np.argpartition(-scores, K, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1)
        best[start : start + 100] = np.take_along_axis(top, order, 1)
    return best


def recall(found, best):
    return float(np.mean([len(set(f) & set(b)) / K for f, b in zip(found, best)]))


def rss_mib():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def library(args):
    """One library in this process: builds, then answers rounds asked for on stdin."""
    vectors = np.load(f"{args.work}/vectors.npy", mmap_mode="r")
    queries = np.load(f"{args.work}/queries.npy")
    best = np.load(f"{args.work}/truth.npy")
    dim = vectors.shape[1]
    before, start, spent = rss_mib(), time.time(), cpu()
    if args.library == "hnswlib":
        import hnswlib

        index = hnswlib.Index("ip", dim)
        index.init_index(len(vectors), M=16, ef_construction=128)
        for at in range(0, len(vectors), 20_000):
            index.add_items(
                np.ascontiguousarray(vectors[at : at + 20_000]),
                np.arange(at, min(at + 20_000, len(vectors))),
                num_threads=args.threads,
            )
        set_ef = index.set_ef
        search = lambda: index.knn_query(queries, K, num_threads=1)[0]
    else:
        import faiss

        faiss.omp_set_num_threads(args.threads)
        index = faiss.IndexHNSWFlat(dim, 16, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 128
        for at in range(0, len(vectors), 20_000):
            index.add(np.ascontiguousarray(vectors[at : at + 20_000]))
        faiss.omp_set_num_threads(1)

        def set_ef(ef):
            index.hnsw.efSearch = ef

        search = lambda: index.search(queries, K)[1]
    built = {"build_s": time.time() - start, "build_cpu_s": cpu() - spent}
    vectors._mmap.close()
    # Files mapped for reading are not the index's memory.
    built["bytes_per_vector"] = (rss_mib() - before) * 2**20 / len(best_rows(args))
    for ef in (16, 24, 32, 48, 64, 96, 128, 192, 256, 384):
        set_ef(ef)
        built["recall"] = recall(search(), best)
        built["ef"] = ef
        if built["recall"] >= args.recall:
            break
    print(json.dumps(built), flush=True)
    for _ in sys.stdin:
        start, spent = time.time(), cpu()
        search()
        n = len(queries)
        print(json.dumps({"cpu_us": (cpu() - spent) / n * 1e6, "us": (time.time() - start) / n * 1e6}), flush=True)


def best_rows(args):
    return np.load(f"{args.work}/vectors.npy", mmap_mode="r")


def start_library(args, name):
    command = [sys.executable, __file__, "--library", name, "--work", args.work]
    command += ["--threads", str(args.threads), "--recall", str(args.recall)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--akin", default="target/release/akin")
    parser.add_argument("--work", required=True)
    parser.add_argument("--keep", action="store_true", help="search Akin's collection of an earlier run in --work")
    parser.add_argument("--libraries", nargs="+", default=["hnswlib", "faiss"])
    parser.add_argument("--library")
    args = parser.parse_args()
    if args.library:
        return library(args)

    os.makedirs(args.work, exist_ok=True)
    shape_file = f"{args.work}/shape.json"
    shape = [args.rows, args.queries, args.dim]
    if not os.path.exists(shape_file) or json.load(open(shape_file)) != shape:
        if args.keep:
            raise SystemExit(f"{args.work} has no collection of {args.rows} x {args.dim}; leave out --keep to make it")
        vectors, queries = make(args.rows, args.queries, args.dim, seed=0)
        np.save(f"{args.work}/vectors.npy", vectors)
        np.save(f"{args.work}/queries.npy", queries)
        np.save(f"{args.work}/truth.npy", truth(vectors, queries))
        del vectors
        json.dump(shape, open(shape_file, "w"))

    akin = [args.akin, "--home", f"{args.work}/home", "--threads", str(args.threads), "--json"]
    results = {}
    built = f"{args.work}/built.json"
    if not args.keep:
        done = subprocess.run(
            akin + ["bench", "index", "-c", "bench", "--vectors", f"{args.work}/vectors.npy", "--replace"],
            check=True, stdout=subprocess.PIPE, text=True,
        )
        with open(built, "w") as file:
            file.write(done.stdout)
    results["akin"] = json.load(open(built))
    running = {}
    for name in args.libraries:
        running[name] = start_library(args, name)
        results[name] = json.loads(running[name].stdout.readline())

    rounds = {name: [] for name in ("akin", *args.libraries)}
    for _ in range(args.rounds):
        done = subprocess.run(
            akin + ["bench", "search", "-c", "bench", "--queries", f"{args.work}/queries.npy", "-k", str(K)],
            check=True, stdout=subprocess.PIPE, text=True,
        )
        rounds["akin"].append(json.loads(done.stdout))
        for name, process in running.items():
            process.stdin.write("\n")
            process.stdin.flush()
            rounds[name].append(json.loads(process.stdout.readline()))
    for process in running.values():
        process.stdin.close()
        process.wait()

    last = rounds["akin"][-1]
    best = np.load(f"{args.work}/truth.npy")
    found = [[int(hit) for hit in hits] for hits in last["found"]]
    results["akin"].update(recall=recall(found, best), ef="", open_ms=last["open_ms"])
    results["akin"]["bytes_per_vector"] = last["memory_bytes"] / args.rows
    print(f"{args.rows} x {args.dim}, k = {K}, recall@{K} >= {args.recall}, medians of {args.rounds}")
    print("| engine | ef | recall | CPU us/query (min-max) | us/query | build CPU s | build s | bytes/vector | open ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, result in results.items():
        times = [one["cpu_us"] for one in rounds[name]]
        walls = [one["us"] for one in rounds[name]]
        print(
            f"| {name} | {result['ef']} | {result['recall']:.4f} | {statistics.median(times):.0f} "
            f"({min(times):.0f}-{max(times):.0f}) | {statistics.median(walls):.0f} | {result['build_cpu_s']:.0f} | "
            f"{result['build_s']:.0f} | {result['bytes_per_vector']:.0f} | {result.get('open_ms', '')} |"
        )
    for name in args.libraries:
        pairs = [a["cpu_us"] / b["cpu_us"] for a, b in zip(rounds["akin"], rounds[name])]
        spread = f"({min(pairs):.2f}-{max(pairs):.2f})"
        print(f"akin / {name}, CPU per query, pairwise: {statistics.median(pairs):.2f} {spread}")
    print(f"akin serving: RSS {last['rss_bytes'] / 2**20:.0f} MiB, of it anonymous {last['anonymous_bytes'] / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
