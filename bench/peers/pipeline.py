"""Files to an index: `akin index` beside a Python pipeline, on the same files, in one run.

    pip install torch onnx onnxruntime openvino safetensors numpy pillow faiss-cpu
    cargo build --release
    python bench/peers/pipeline.py --akin target/release/akin --weights model.safetensors \\
        --photos DIR --work /tmp/pipeline

The Python pipeline: Pillow in --threads threads (decode, RGB, shorter side to 256 by bicubic, middle
224, normalised), the model in batches of 16 on another engine while they go on, vectors of unit length
into a faiss IndexFlatIP, written to disk. `draft` lets Pillow decode JPEGs at a reduced size, as
`--decode fast` does. Its workers have loaded their model before they are timed; Akin is timed from
starting the program to its end, durable commits included. Each round asks everybody in turn, in
rotated order; workers that are not asked are stopped. Printed: pictures a second over the whole run.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import embed

AKIN = {
    "akin f32": ["--matmul", "f32"],
    "akin f32 fast": ["--matmul", "f32", "--decode", "fast"],
    "akin bf16": ["--matmul", "bf16"],
    "akin bf16 fast": ["--matmul", "bf16", "--decode", "fast"],
}
PEERS = ["onnxruntime f32", "openvino f32", "openvino bf16", "openvino bf16 draft"]
BATCH = 16


def photos(folder):
    names = [os.path.join(top, name) for top, _, files in os.walk(folder) for name in files]
    return sorted(name for name in names if name.lower().endswith((".jpg", ".jpeg")))


def prepare(path, draft, resize=256, crop=224):
    """Pixels (3, crop, crop) of one file, f32, normalised."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        if draft:
            # As much more than is needed as Akin leaves.
            image.draft("RGB", (5 * resize // 2, 5 * resize // 2))
        image = image.convert("RGB")
    short = min(image.size)
    width, height = (int(resize * side / short) for side in image.size)
    left, top = (width - crop) // 2, (height - crop) // 2
    scale = image.width / width, image.height / height
    box = (left * scale[0], top * scale[1], (left + crop) * scale[0], (top + crop) * scale[1])
    image = image.resize((crop, crop), Image.BICUBIC, box=box)
    x = np.asarray(image, np.float32) / 255
    x = (x - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    return x.transpose(2, 0, 1)


def index(paths, call, draft, threads, out):
    import faiss
    import numpy as np

    vectors = None
    waiting, batch = deque(), []
    files = iter(paths)
    with ThreadPoolExecutor(threads) as pool:
        more = lambda: [waiting.append(pool.submit(prepare, p, draft)) for p in [next(files, None)] if p]
        for _ in range(4 * BATCH):
            more()
        while waiting:
            batch.append(waiting.popleft().result())
            more()
            if len(batch) == BATCH or not waiting:
                found = np.ascontiguousarray(call(np.stack(batch)), np.float32)
                faiss.normalize_L2(found)
                if vectors is None:
                    vectors = faiss.IndexFlatIP(found.shape[1])
                vectors.add(found)
                batch.clear()
    faiss.write_index(vectors, out)
    return vectors.ntotal


def worker(args):
    import faiss

    kind, precision, *draft = args.worker.split()
    call = embed.engine(f"{kind} {precision}", args.weights, args.onnx, args.threads, 224)
    faiss.omp_set_num_threads(args.threads)
    paths = photos(args.photos)
    index(paths[:BATCH], call, bool(draft), args.threads, args.out)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        done = index(paths[: int(line)], call, bool(draft), args.threads, args.out)
        print(done / (time.perf_counter() - start), flush=True)


class Peer(embed.Process):
    def __init__(self, name, args):
        command = [sys.executable, __file__, "--worker", name, "--weights", args.weights]
        command += ["--onnx", args.onnx, "--threads", str(args.threads), "--photos", args.photos]
        command += ["--out", os.path.join(args.work, "peer.faiss")]
        super().__init__(name, command, args.threads)

    def run(self, count):
        [speed] = self.ask(str(count))
        return speed


class Akin:
    def __init__(self, name, args):
        self.name, self.args = name, args

    def run(self, count):
        home = os.path.join(self.args.work, "home")
        shutil.rmtree(home, ignore_errors=True)
        names = "\n".join(photos(self.args.photos)[:count])
        command = [self.args.akin, "--threads", str(self.args.threads), "--home", home, "--json"]
        command += ["--model", self.args.weights, "-q", "index", "--from-list", "-", *AKIN[self.name]]
        start = time.perf_counter()
        run = subprocess.run(command, input=names, capture_output=True, text=True)
        speed = count / (time.perf_counter() - start)
        if run.returncode != 0 or json.loads(run.stdout)["images"] != count:
            raise SystemExit(f"{' '.join(command)}: {run.stdout} {run.stderr}")
        shutil.rmtree(home)
        return speed

    def close(self):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--akin", default="target/release/akin")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--work", default=".")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, help="files a round; default: all")
    parser.add_argument("--engines", help="comma-separated; default: all")
    parser.add_argument("--json")
    parser.add_argument("--worker")
    parser.add_argument("--onnx")
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.worker:
        return worker(args)
    args.work, args.weights = os.path.abspath(args.work), os.path.abspath(args.weights)
    args.photos = os.path.abspath(args.photos)
    os.makedirs(args.work, exist_ok=True)
    stem = os.path.splitext(os.path.basename(args.weights))[0]
    args.onnx = os.path.join(args.work, f"{stem}-224.onnx")
    code = f"import embed; embed.export({args.weights!r}, 224, {args.onnx!r})"
    folder = os.path.dirname(os.path.abspath(__file__))
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, stderr=subprocess.DEVNULL)
    names = args.engines.split(",") if args.engines else [*AKIN, *PEERS]
    count = args.count or len(photos(args.photos))
    if not 0 < count <= len(photos(args.photos)):
        raise SystemExit(f"{args.photos} holds {len(photos(args.photos))} JPEGs, not {count}")
    all_bytes = sum(os.path.getsize(path) for path in photos(args.photos)[:count])
    runners = {name: (Akin if name in AKIN else Peer)(name, args) for name in names}
    speeds = {name: [] for name in names}
    for turn in range(args.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            speeds[name].append(runners[name].run(count))
            print(f"round {turn + 1}: {name}: {speeds[name][-1]:.2f}", file=sys.stderr, flush=True)
    for runner in runners.values():
        runner.close()
    print(f"{count} files, {all_bytes >> 20} MiB, {args.threads} threads, {args.rounds} rounds")
    print(f"{'':24}pictures a second: median (least-most)")
    for name, s in speeds.items():
        print(f"{name:24}{statistics.median(s):.2f} ({min(s):.2f}-{max(s):.2f})")
    peers = [name for name in names if name not in AKIN]
    for ours in [name for name in names if name in AKIN]:
        for peer in peers:
            each = [a / b for a, b in zip(speeds[ours], speeds[peer])]
            ratio = statistics.median(speeds[ours]) / statistics.median(speeds[peer])
            print(f"{ours} / {peer}: {ratio:.2f} ({min(each):.2f}-{max(each):.2f})")
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"files": count, "bytes": all_bytes, "pictures_per_second": speeds}, f, indent=1)


if __name__ == "__main__":
    main()
