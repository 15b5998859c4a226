"""Embedding speed on an NVIDIA GPU: Akin beside PyTorch (torch.compile, SDPA), in one interleaved run.

    pip install torch safetensors numpy pillow
    tools/build-cuda.sh cargo build --release --features flash
    python bench/peers/gpu.py --akin target/cuda-slim/release/akin --work /tmp/gpu --models s,b,l,g --sizes 224,518

Both take RGB8 pictures in host memory and give CLS vectors in host memory; both copy to the GPU and
normalise there, and compute in bf16 with the same drawn weights. Akin finds its own batch; PyTorch is
compiled for each of --batches, and the fastest is its figure. Each round asks every engine in turn, in
rotated order, for about --seconds of work. Printed: pictures a second (median over rounds), the ratio of
the medians with the least and largest ratio of a round, the share of what a bf16 product of 8192 x 8192
matrices reaches in the same process, and the least cosine between the two engines' vectors.

This script has not been run on a GPU yet (docs/gpu.md).
"""

import argparse
import os
import statistics
import subprocess
import time

SHAPES = {  # width, blocks, heads, inner width, SwiGLU
    "s": (384, 12, 6, 1536, False),
    "b": (768, 12, 12, 3072, False),
    "l": (1024, 24, 16, 4096, False),
    "g": (1536, 40, 24, 4096, True),
}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def draw(name, path):
    """Drawn weights by the names of the original release, kept as bf16."""
    import torch
    from safetensors.torch import save_file

    dim, depth, _, hidden, gated = SHAPES[name]
    g = torch.Generator().manual_seed(0)
    out = {}

    def add(key, *shape, mean=0.0, scale=0.1):
        out[key] = (mean + scale * torch.randn(*shape, generator=g)).to(torch.bfloat16)

    add("cls_token", 1, 1, dim, scale=0.5)
    add("pos_embed", 1, 37 * 37 + 1, dim, scale=0.3)
    add("mask_token", 1, dim)
    add("patch_embed.proj.weight", dim, 3, 14, 14, scale=588**-0.5)
    add("patch_embed.proj.bias", dim)
    up, down, outputs = ("mlp.w12", "mlp.w3", 2 * hidden) if gated else ("mlp.fc1", "mlp.fc2", hidden)
    for i in range(depth):
        for part, rows, columns in (
            ("attn.qkv", 3 * dim, dim), ("attn.proj", dim, dim), (up, outputs, dim), (down, dim, hidden),
        ):
            add(f"blocks.{i}.{part}.weight", rows, columns, scale=columns**-0.5)
            add(f"blocks.{i}.{part}.bias", rows)
        for norm in ("norm1", "norm2"):
            add(f"blocks.{i}.{norm}.weight", dim, mean=1.0, scale=0.2)
            add(f"blocks.{i}.{norm}.bias", dim)
        for scale in ("ls1", "ls2"):
            add(f"blocks.{i}.{scale}.gamma", dim, mean=0.3)
    add("norm.weight", dim, mean=1.0, scale=0.2)
    add("norm.bias", dim)
    save_file(out, path)


def module(name, path, size):
    """The backbone in PyTorch: RGB8 pictures (B, H, W, 3) on the GPU to unit vectors of CLS."""
    import torch
    from safetensors.torch import load_file
    from torch import nn
    from torch.nn import functional as F

    dim, depth, heads, _, gated = SHAPES[name]
    weights = load_file(path)
    side = size // 14
    up, down = ("mlp.w12", "mlp.w3") if gated else ("mlp.fc1", "mlp.fc2")

    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.ParameterDict({k.replace(".", "_"): nn.Parameter(v, False) for k, v in weights.items()})
            grid = weights["pos_embed"][:, 1:].float().reshape(1, 37, 37, dim).permute(0, 3, 1, 2)
            if side != 37:
                factor = (side + 0.1) / 37
                grid = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
            pos = grid.permute(0, 2, 3, 1).reshape(1, side * side, dim)
            self.pos = nn.Parameter(pos.to(torch.bfloat16), False)
            self.mean = nn.Parameter(torch.tensor(MEAN).reshape(1, 3, 1, 1), False)
            self.std = nn.Parameter(torch.tensor(STD).reshape(1, 3, 1, 1), False)

        def linear(self, x, part):
            key = part.replace(".", "_")
            return F.linear(x, self.w[f"{key}_weight"], self.w[f"{key}_bias"])

        def norm(self, x, part):
            key = part.replace(".", "_")
            return F.layer_norm(x, (dim,), self.w[f"{key}_weight"], self.w[f"{key}_bias"], 1e-6)

        def forward(self, pictures):
            x = (pictures.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
            x = x.to(torch.bfloat16)
            w, bias = self.w["patch_embed_proj_weight"], self.w["patch_embed_proj_bias"]
            x = F.conv2d(x, w, bias, stride=14).flatten(2).transpose(1, 2) + self.pos
            cls = self.w["cls_token"] + self.w["pos_embed"][:, :1]
            x = torch.cat([cls.expand(x.shape[0], -1, -1), x], 1)
            b, n, _ = x.shape
            for i in range(depth):
                qkv = self.linear(self.norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv")
                q, k, v = qkv.reshape(b, n, 3, heads, 64).permute(2, 0, 3, 1, 4).unbind(0)
                h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, dim)
                x = x + self.w[f"blocks_{i}_ls1_gamma"] * self.linear(h, f"blocks.{i}.attn.proj")
                h = self.linear(self.norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.{up}")
                if gated:
                    a, c = h.chunk(2, -1)
                    h = F.silu(a) * c
                else:
                    h = F.gelu(h)
                x = x + self.w[f"blocks_{i}_ls2_gamma"] * self.linear(h, f"blocks.{i}.{down}")
            return F.normalize(self.norm(x[:, 0], "norm").float(), dim=-1)

    return Vit().cuda().eval()


class Torch:
    def __init__(self, name, path, size, batch):
        import torch

        self.torch, self.batch = torch, batch
        self.host = torch.full((batch, size, size, 3), 127, dtype=torch.uint8).pin_memory()
        self.model = torch.compile(module(name, path, size))
        self.step()

    def step(self):
        with self.torch.inference_mode():
            return self.model(self.host.cuda(non_blocking=True)).cpu()

    def run(self, rounds):
        start = time.perf_counter()
        for _ in range(rounds):
            self.step()
        return self.batch * rounds / (time.perf_counter() - start)


class Akin:
    def __init__(self, program, path, size):
        command = [program, "--device", "cuda", "--model", path, "bench", "embed"]
        command += ["--size", str(size), "--matmul", "bf16", "--serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.line()
        self.batch = int(self.ask("batch"))
        self.ask(f"run {self.batch} 2")

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("akin ended; its message is above")
        return line.strip()

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.line()

    def run(self, rounds):
        # Some batches at a time, as when indexing: copies then go on beside products.
        times = self.ask(f"run {4 * self.batch} {max(1, rounds // 4)}").split()
        return 4 * self.batch * len(times) / sum(map(float, times))

    def close(self):
        self.process.stdin.write("quit\n")
        self.process.stdin.close()
        self.process.wait()


def peak():
    """Operations a second of bf16 products of square matrices of 8192 rows."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - start)


def operations(name, size):
    dim, depth, _, hidden, gated = SHAPES[name]
    patches = (size // 14) ** 2
    tokens = patches + 1
    matrices = 4 * dim * dim + (3 if gated else 2) * dim * hidden
    return depth * (2 * tokens * matrices + 4 * tokens * tokens * dim) + 2 * patches * 588 * dim


def agreement(program, path, name, size, work):
    """The least cosine of both engines' vectors of drawn pictures, through files."""
    import numpy as np
    import torch
    from PIL import Image

    folder = os.path.join(work, f"pictures-{size}")
    os.makedirs(folder, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), dtype=np.uint8)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(os.path.join(folder, f"{i}.png"))
    out = os.path.join(work, "vectors.npy")
    command = [program, "-q", "--device", "cuda", "--model", path, "embed", folder, "--out", out]
    subprocess.check_call(command + ["--resize", str(size), "--crop", str(size), "--matmul", "bf16"])
    with torch.inference_mode():
        theirs = module(name, path, size)(torch.from_numpy(pixels).cuda()).cpu().numpy()
    return float((np.load(out).astype("f4") * theirs).sum(1).min())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--akin", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--models", default="s,b,l,g")
    parser.add_argument("--sizes", default="224,518")
    parser.add_argument("--batches", default="16,64,256")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)

    import torch

    most = peak()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: {most / 1e12:.0f} TFLOP/s in bf16 products")
    for name in args.models.split(","):
        path = os.path.join(args.work, f"{name}.safetensors")
        if not os.path.exists(path):
            draw(name, path)
        for size in map(int, args.sizes.split(",")):
            engines = {"akin": Akin(args.akin, path, size)}
            for batch in map(int, args.batches.split(",")):
                try:
                    engines[f"torch b{batch}"] = Torch(name, path, size, batch)
                except torch.cuda.OutOfMemoryError:
                    print(f"  torch b{batch}: out of memory")
            speeds = {key: [] for key in engines}
            lengths = {key: max(4, int(args.seconds * e.run(4) / e.batch)) for key, e in engines.items()}
            for number in range(args.rounds):
                keys = list(engines)
                for key in keys[number % len(keys):] + keys[: number % len(keys)]:
                    speeds[key].append(engines[key].run(lengths[key]))
            engines["akin"].close()
            work = operations(name, size)
            print(f"vit-{name}/14 at {size} px, akin in batches of {engines['akin'].batch}:")
            for key, values in speeds.items():
                median = statistics.median(values)
                share = median * work / most
                print(f"  {key}: {median:.0f} pictures/s ({min(values):.0f}-{max(values):.0f}), {share:.0%} of the peak")
            peers = [key for key in speeds if key != "akin"]
            if peers:
                best = max(peers, key=lambda key: statistics.median(speeds[key]))
                ratios = [a / b for a, b in zip(speeds["akin"], speeds[best])]
                ratio = statistics.median(speeds["akin"]) / statistics.median(speeds[best])
                print(f"  akin / {best}: {ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
            print(f"  least cosine: {agreement(args.akin, path, name, size, args.work):.5f}")
            del engines
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
