"""How deduplication and curation grow with the pool, and deduplication beside faiss and scipy.

    pip install numpy scipy faiss-cpu
    cargo build --release
    python bench/peers/curate_scale.py --rows 100000 300000 1000000 --akin target/release/akin --work /tmp/scale

Vectors are those of ann.py, with a fifth of the rows replaced by near-copies of others (cosine 0.97 to 1). For each
size: a collection is made (`akin bench index`), deduplicated by similarity (k = 64), clustered and curated (cluster
retrieval with sqrt(n) clusters from 1,000 seeds, 1,000 excluded, then balancing down to a tenth). Wall time, CPU time
and peak memory are of the whole process. With --peer, dedup.py scale runs on the same vectors with the same number of
threads, and the components of both are compared with those planted.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys

import numpy as np

from ann import make

THRESHOLD = 0.97


def plant(vectors, seed):
    """Replaces a fifth of the rows by near-copies of others; gives the group of each row."""
    rng = np.random.default_rng(seed)
    n, dim = vectors.shape
    groups = np.arange(n)
    copies = rng.choice(np.arange(n // 2, n), n // 5, replace=False)
    originals = rng.integers(0, n // 2, len(copies))
    for at in range(0, len(copies), 50_000):
        here, of = copies[at : at + 50_000], originals[at : at + 50_000]
        strength = rng.uniform(0.0, 0.18, (len(here), 1)).astype(np.float32)
        noise = rng.standard_normal((len(here), dim)).astype(np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        x = vectors[of] + strength * noise
        vectors[here] = x / np.linalg.norm(x, axis=1, keepdims=True)
        groups[here] = of
    return groups


def timed(command, **more):
    done = subprocess.run(["/usr/bin/time", "-v", *command], capture_output=True, text=True, **more)
    if done.returncode not in (0, 3):
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    field = lambda name: re.search(rf"{name}[^:]*(?:\(.*\))?: (\S+)$", done.stderr, re.M).group(1)
    wall = sum(float(part) * 60**i for i, part in enumerate(reversed(field("Elapsed").split(":"))))
    cpu = float(field("User time")) + float(field("System time"))
    return {"wall_s": wall, "cpu_s": cpu, "rss_mib": int(field("Maximum resident")) / 1024}, done.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", required=True)
    parser.add_argument("--akin", default="target/release/akin")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peer", choices=["hnsw", "ivfpq", "flat"], nargs="*", default=[])
    parser.add_argument("--work", required=True)
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    home = f"{args.work}/home"
    akin = [args.akin, "--home", home, "--threads", str(args.threads), "--json"]
    done = {}
    for rows in args.rows:
        vectors, queries = make(rows, 2000, 384, seed=1)
        groups = plant(vectors, seed=2)
        np.save(f"{args.work}/vectors.npy", vectors)
        np.save(f"{args.work}/seeds.npy", queries[:1000])
        np.save(f"{args.work}/excluded.npy", queries[1000:])
        del vectors
        steps = {}
        for name, file in (("pool", "vectors"), ("seeds", "seeds"), ("excluded", "excluded")):
            index = ["bench", "index", "--replace", "-c", name, "--vectors", f"{args.work}/{file}.npy"]
            figures, _ = timed(akin + index)
            if name == "pool":
                steps["index"] = figures
        report = f"{args.work}/report.jsonl"
        dedup = ["dedup", "-c", "pool", "--no-verify", "--threshold", str(THRESHOLD), "--report", report]
        steps["dedup"], _ = timed(akin + dedup)
        planted = {tuple(sorted(g)) for g in _planted(groups)}
        ours = {tuple(sorted(_members(line))) for line in _groups(report)}
        steps["dedup"]["planted_found"] = len(planted & ours) / len(planted)
        config = f"{args.work}/curate.toml"
        with open(config, "w") as file:
            file.write(
                "[curate]\n"
                f'[[curate.steps]]\nstep = "self-dedup"\nthreshold = {THRESHOLD}\n'
                f'[[curate.steps]]\nstep = "relative-dedup"\nthreshold = {THRESHOLD}\n'
                f'[[curate.steps]]\nstep = "retrieve"\nmethod = "cluster"\nclusters = {math.isqrt(rows)}\n'
                f'[[curate.steps]]\nstep = "balance"\ntarget = {rows // 10}\n'
            )
        run = f"{args.work}/run-{rows}"
        subprocess.run(["rm", "-rf", run], check=True)
        curate = ["--config", config, "curate", "--pool", "pool", "--seed", "seeds", "--exclude", "excluded", "--out", run]
        steps["curate"], _ = timed(akin[:1] + curate + akin[1:])
        for peer in args.peer:
            command = [sys.executable, f"{os.path.dirname(__file__)}/dedup.py", "scale", "--index", peer]
            command += ["--vectors", f"{args.work}/vectors.npy", "--threshold", str(THRESHOLD)]
            command += ["--threads", str(args.threads), "--labels", f"{args.work}/labels.npy"]
            steps[f"faiss {peer} + scipy"], _ = timed(command)
            labels = np.load(f"{args.work}/labels.npy")
            theirs = {tuple(g) for g in _planted(labels)}
            steps[f"faiss {peer} + scipy"]["planted_found"] = len(planted & theirs) / len(planted)
        done[rows] = steps
        for name, figures in steps.items():
            print(rows, name, json.dumps({key: round(value, 3) for key, value in figures.items()}), flush=True)
    sizes = sorted(done)
    for name in ("index", "dedup", "curate"):
        for small, large in zip(sizes, sizes[1:]):
            grown = done[large][name]["cpu_s"] / done[small][name]["cpu_s"]
            print(f"{name}: CPU grows with n^{math.log(grown) / math.log(large / small):.2f} from {small} to {large}")


def _planted(groups):
    """Groups of two and more, as ascending rows."""
    order = np.argsort(groups, kind="stable")
    bounds = np.flatnonzero(np.diff(groups[order])) + 1
    return [np.sort(g).tolist() for g in np.split(order, bounds) if len(g) > 1]


def _groups(report):
    with open(report) as lines:
        for line in lines:
            one = json.loads(line)
            if one.get("type") == "group" or "kept" in one:
                yield one


def _members(group):
    return [member["id"] for member in group["kept"] + group["dropped"]]


if __name__ == "__main__":
    main()
