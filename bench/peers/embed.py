"""Embedding speed: Akin beside PyTorch, transformers, ONNX Runtime and OpenVINO, in one run.

    pip install torch transformers onnx onnxruntime openvino nncf safetensors numpy
    cargo build --release
    python bench/peers/embed.py --akin target/release/akin --weights model.safetensors --work /tmp/embed

One worker process per engine, all with the same weights and --threads threads. Each round asks every
engine in turn, in rotated order, for 4 batches of 1 (the first not counted) and one of each larger
batch; workers that are not asked are stopped. Printed: pictures a second (median over rounds), and
the ratio of Akin's median to each peer's, with the least and largest ratio of a round.

With --processor-time (and --threads 1) a picture costs the time that its process was on a processor,
not what the clock says: for machines on which other work runs. Each question is then of 8 batches of 1.

Weights are a safetensors file of a DINOv2 ViT with an MLP, in the original layout or that of Hugging
Face transformers. The ONNX model is exported from the plain PyTorch module below; from it come the int8
models, ONNX Runtime's by dynamic quantisation (weights by channel), OpenVINO's by NNCF's post-training
quantisation for transformers, calibrated on noise (speed does not depend on the values).
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time

AKIN = {
    "akin f32": ["--matmul", "f32"],
    "akin bf16": ["--matmul", "bf16"],
    "akin int8": ["--matmul", "int8"],
    "akin f32 all-tokens": ["--matmul", "f32", "--patch-tokens"],
    "akin bf16 all-tokens": ["--matmul", "bf16", "--patch-tokens"],
    "akin f32 avx2": ["--matmul", "f32", "--isa", "avx2"],
    "akin f32 avx512": ["--matmul", "f32", "--isa", "avx512"],
    "akin int8 avx2": ["--matmul", "int8", "--isa", "avx2"],
}
PEERS = [
    "torch f32",
    "torch bf16",
    "transformers f32",
    "onnxruntime f32",
    "openvino f32",
    "openvino bf16",
    "onnxruntime int8",
    "openvino int8",
]


def load(path):
    """Tensors of a backbone in f32, by the names of the original release."""
    from safetensors.torch import load_file

    tensors = {k: v.float() for k, v in load_file(path).items()}
    if "cls_token" in tensors:
        return tensors
    named = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    out = {ours: tensors[theirs] for ours, theirs in named.items()}
    import torch

    depth = 1 + max(int(k.split(".")[2]) for k in tensors if k.startswith("encoder.layer."))
    for i in range(depth):
        a, b = f"encoder.layer.{i}.", f"blocks.{i}."
        for kind in ("weight", "bias"):
            parts = [tensors[f"{a}attention.attention.{p}.{kind}"] for p in ("query", "key", "value")]
            out[f"{b}attn.qkv.{kind}"] = torch.cat(parts)
            out[f"{b}attn.proj.{kind}"] = tensors[f"{a}attention.output.dense.{kind}"]
            for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                out[f"{b}{part}.{kind}"] = tensors[f"{a}{part}.{kind}"]
        out[f"{b}ls1.gamma"] = tensors[f"{a}layer_scale1.lambda1"]
        out[f"{b}ls2.gamma"] = tensors[f"{a}layer_scale2.lambda1"]
    return out


def module(path, size):
    """The backbone as a PyTorch module: pixels to normed tokens, attention by SDPA."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    w = load(path)
    dim = w["cls_token"].shape[-1]
    depth = 1 + max(int(k.split(".")[1]) for k in w if k.startswith("blocks."))
    side = size // 14

    class Block(nn.Module):
        def __init__(self, i):
            super().__init__()
            get = lambda name: nn.Parameter(w[f"blocks.{i}.{name}"].clone(), False)
            self.n1 = nn.ParameterList([get("norm1.weight"), get("norm1.bias")])
            self.n2 = nn.ParameterList([get("norm2.weight"), get("norm2.bias")])
            names = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
            self.m = nn.ParameterList([get(f"{n}.{k}") for n in names for k in ("weight", "bias")])
            self.g = nn.ParameterList([get("ls1.gamma"), get("ls2.gamma")])

        def forward(self, x):
            b, n, c = x.shape[0], x.shape[1], dim
            h = F.layer_norm(x, (c,), self.n1[0], self.n1[1], 1e-6)
            qkv = F.linear(h, self.m[0], self.m[1]).reshape(b, n, 3, c // 64, 64)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
            x = x + self.g[0] * F.linear(h, self.m[2], self.m[3])
            h = F.layer_norm(x, (c,), self.n2[0], self.n2[1], 1e-6)
            h = F.gelu(F.linear(h, self.m[4], self.m[5]))
            return x + self.g[1] * F.linear(h, self.m[6], self.m[7])

    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            get = lambda tensor: nn.Parameter(tensor.clone(), False)
            grid = w["pos_embed"][:, 1:]
            n = int(grid.shape[1] ** 0.5)
            grid = grid.reshape(1, n, n, dim).permute(0, 3, 1, 2)
            factor = (side + 0.1) / n
            if side != n:
                grid = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
            self.pos = get(grid.permute(0, 2, 3, 1).reshape(1, side * side, dim))
            self.cls = get(w["cls_token"] + w["pos_embed"][:, :1])
            self.pw, self.pb = get(w["patch_embed.proj.weight"]), get(w["patch_embed.proj.bias"])
            self.nw, self.nb = get(w["norm.weight"]), get(w["norm.bias"])
            self.blocks = nn.ModuleList([Block(i) for i in range(depth)])

        def forward(self, x):
            x = F.conv2d(x, self.pw, self.pb, stride=14).flatten(2).transpose(1, 2) + self.pos
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
            for block in self.blocks:
                x = block(x)
            return F.layer_norm(x, (dim,), self.nw, self.nb, 1e-6)

    return Vit().eval()


def export(weights, size, out):
    """The module as ONNX, once; batches of any size."""
    import torch

    if os.path.exists(out):
        return
    torch.onnx.export(
        module(weights, size),
        (torch.zeros(1, 3, size, size),),
        out,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "b"}, "y": {0: "b"}},
        opset_version=18,
        dynamo=False,
    )


def quantise(kind, onnx, size):
    """An int8 model made of the ONNX one, once; its path."""
    if kind == "onnxruntime":
        out = onnx.replace(".onnx", ".int8.onnx")
        if not os.path.exists(out):
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(onnx, out, per_channel=True, weight_type=QuantType.QInt8)
        return out
    out = onnx.replace(".onnx", ".int8.xml")
    if not os.path.exists(out):
        import nncf
        import numpy as np
        import openvino as ov

        rng = np.random.default_rng(0)
        noise = [rng.standard_normal((1, 3, size, size), np.float32) for _ in range(16)]
        model = nncf.quantize(
            ov.Core().read_model(onnx),
            nncf.Dataset(noise),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(noise),
        )
        ov.save_model(model, out, compress_to_fp16=False)
    return out


def engine(name, weights, onnx, threads, size):
    """A function from a batch (n, 3, size, size) to something computed."""
    kind, precision = name.split()
    if precision == "int8":
        onnx = quantise(kind, onnx, size)
    if kind == "onnxruntime":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {"x": x})[0][:, 0]
    if kind == "openvino":
        import openvino as ov

        core = ov.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        # Of an int8 model the rest is left to OpenVINO: bf16 where the processor has it.
        if precision != "int8":
            settings["INFERENCE_PRECISION_HINT"] = precision
        model = core.compile_model(core.read_model(onnx), "CPU", settings)
        return lambda x: model(x)[0][:, 0]
    import torch

    torch.set_num_threads(threads)
    dtype = torch.float32 if precision == "f32" else torch.bfloat16
    if kind == "torch":
        net = module(weights, size).to(dtype)
        run = lambda x: net(x)[:, 0]
    else:
        from transformers import Dinov2Config, Dinov2Model

        w = load(weights)
        dim, depth = w["cls_token"].shape[-1], 1 + max(
            int(k.split(".")[1]) for k in w if k.startswith("blocks.")
        )
        # Speed does not depend on the values; shapes are those of the weights.
        config = Dinov2Config(
            hidden_size=dim, num_hidden_layers=depth, num_attention_heads=dim // 64, image_size=518
        )
        net = Dinov2Model(config).eval().to(dtype)
        run = lambda x: net(x).last_hidden_state[:, 0]

    def call(x):
        with torch.inference_mode():
            return run(torch.from_numpy(x).to(dtype)).float().numpy()

    return call


def worker(args):
    import numpy as np

    start = time.time()
    call = engine(args.worker, args.weights, args.onnx, args.threads, args.size)
    rng = np.random.default_rng(0)
    inputs = {}
    print(f"ready {time.time() - start:.3f}", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "quit":
            break
        if words[0] == "rss":
            with open("/proc/self/statm") as f:
                print(int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE"), flush=True)
            continue
        batch, rounds = int(words[1]), int(words[2])
        if batch not in inputs:
            inputs[batch] = rng.standard_normal((batch, 3, args.size, args.size), np.float32)
        times = []
        for _ in range(rounds):
            begin = time.perf_counter()
            call(inputs[batch])
            times.append(time.perf_counter() - begin)
        print(" ".join(f"{t:.6f}" for t in times), flush=True)


class Process:
    """A program that says `ready`, then answers a line with a line; stopped while it is not asked."""

    def __init__(self, name, command, threads):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=dict(os.environ, OMP_NUM_THREADS=str(threads)),
        )
        start = time.time()
        if not self.process.stdout.readline().startswith("ready"):
            raise SystemExit(f"{name} did not start: {' '.join(command)}")
        self.start = time.time() - start
        self.stop()

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def on_processor(self):
        """Seconds that all threads have run so far."""
        total = 0
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
        return total / 1e9

    def ask(self, line):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        self.stop()
        return [float(x) for x in answer]

    def close(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


class Worker(Process):
    def __init__(self, name, args):
        self.name = name
        if name in AKIN:
            command = [args.akin, "--threads", str(args.threads), "--model", args.weights]
            command += ["bench", "embed", "--serve", "--size", str(args.size), *AKIN[name]]
        else:
            command = [sys.executable, __file__, "--worker", name, "--weights", args.weights]
            command += ["--onnx", args.onnx, "--threads", str(args.threads), "--size", str(args.size)]
        super().__init__(name, command, args.threads)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--akin", default="target/release/akin")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--work", default=".")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--engines", help="comma-separated; default: all")
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--worker")
    parser.add_argument("--onnx")
    args = parser.parse_args()
    if args.worker:
        return worker(args)
    args.work, args.weights = os.path.abspath(args.work), os.path.abspath(args.weights)
    os.makedirs(args.work, exist_ok=True)
    stem = os.path.splitext(os.path.basename(args.weights))[0]
    args.onnx = os.path.join(args.work, f"{stem}-{args.size}.onnx")
    names = args.engines.split(",") if args.engines else [*AKIN, *PEERS]
    if any(name.startswith(("onnx", "openvino")) for name in names):
        code = f"import embed; embed.export({args.weights!r}, {args.size}, {args.onnx!r})"
        folder = os.path.dirname(os.path.abspath(__file__))
        subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, stderr=subprocess.DEVNULL)
        for kind in [name.split()[0] for name in names if name in PEERS and name.endswith("int8")]:
            code = f"import embed; embed.quantise({kind!r}, {args.onnx!r}, {args.size})"
            command = [sys.executable, "-c", code]
            subprocess.run(command, check=True, cwd=folder, stdout=sys.stderr)
    workers = [Worker(name, args) for name in names]
    batches = [int(b) for b in args.batches.split(",")]
    for w in workers:
        for batch in batches:
            w.ask(f"run {batch} 1")
    speeds = {name: {batch: [] for batch in batches} for name in names}
    for turn in range(args.rounds):
        for w in workers[turn % len(workers) :] + workers[: turn % len(workers)]:
            for batch in batches:
                if args.processor_time:
                    count = 8 if batch == 1 else 1
                    before = w.on_processor()
                    w.ask(f"run {batch} {count}")
                    speeds[w.name][batch].append(count * batch / (w.on_processor() - before))
                    continue
                times = w.ask(f"run {batch} {4 if batch == 1 else 1}")
                counted = times[1:] if batch == 1 else times
                speeds[w.name][batch].append(batch / statistics.median(counted))
    report = {}
    for w in workers:
        rss = w.ask("rss")[0] / 2**20
        w.close()
        report[w.name] = {"rss_mib": rss, "start_s": w.start, "images_per_second": speeds[w.name]}
    unit = "second of processor time" if args.processor_time else "second"
    print(f"{args.threads} threads, {args.size} px, {args.rounds} rounds; pictures a {unit}")
    head = "".join(f"{f'batch {b}: median (least-most)':>32}" for b in batches)
    print(f"{'engine':24}{head}{'RSS MiB':>10}{'start s':>9}")
    for name in names:
        line = f"{name:24}"
        for batch in batches:
            s = speeds[name][batch]
            line += f"{f'{statistics.median(s):.1f} ({min(s):.1f}-{max(s):.1f})':>32}"
        print(line + f"{report[name]['rss_mib']:10.0f}{report[name]['start_s']:9.2f}")
    for ours in [name for name in names if name in AKIN]:
        print(f"\n{ours} over: ratio of medians (least-most of a round)")
        for peer in [name for name in names if name not in AKIN]:
            line = f"{peer:24}"
            for batch in batches:
                a, b = speeds[ours][batch], speeds[peer][batch]
                each = [x / y for x, y in zip(a, b)]
                ratio = statistics.median(a) / statistics.median(b)
                line += f"{f'{ratio:.2f} ({min(each):.2f}-{max(each):.2f})':>32}"
            print(line)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(report, f, indent=1)


if __name__ == "__main__":
    main()
