#!/usr/bin/env python3
"""nanoGPT's Shakespeare recipe for CPUs: PyTorch eager with fused AdamW against our trainer, in turns.

4 layers, 4 heads, 128 wide, block 64, batch 12, 2,000 steps, learning rate 1e-3 to 1e-4, beta2 0.99, no dropout, 0.8 M
parameters. Both sides get the same first weights, the same batches in the same order and the same threads; held-out
loss is over the whole last tenth of the text. Time is from the end of the first step to that of the last.
Both models have biases and GELU's tanh form, as GPT-2.

    cargo build -p trainer --example shakespeare
    scripts/nanogpt.py TINYSHAKESPEARE.txt [--seeds 3] [--threads 1] [--precision fp32] [--compile] [--ours PROGRAM]

needs torch, numpy and safetensors.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time

LAYERS, HEADS, WIDTH, BLOCK, BATCH, STEPS, WARMUP = 4, 4, 128, 64, 12, 2000, 100
LR, MIN_LR, VOCABULARY = 1e-3, 1e-4, 65


def rate(step):
    """The learning rate of nanoGPT's train.py."""
    if step < WARMUP:
        return LR * (step + 1) / (WARMUP + 1)
    ratio = (step - WARMUP) / (STEPS - WARMUP)
    return MIN_LR + 0.5 * (1 + math.cos(math.pi * ratio)) * (LR - MIN_LR)


def make_model():
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.fc, self.out = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x):
            b, t, c = x.shape
            heads = lambda y: y.view(b, t, HEADS, c // HEADS).transpose(1, 2)
            q, k, v = map(heads, self.qkv(self.ln_1(x)).split(c, dim=2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.proj(y.transpose(1, 2).contiguous().view(b, t, c))
            return x + self.out(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))

    class Gpt(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(BLOCK, WIDTH)
            self.h = nn.ModuleList(Block() for _ in range(LAYERS))
            self.ln_f = nn.LayerNorm(WIDTH)
            for name, p in self.named_parameters():
                if name.endswith(("proj.weight", "out.weight")):
                    nn.init.normal_(p, std=0.02 / math.sqrt(2 * LAYERS))
                elif p.dim() == 2:
                    nn.init.normal_(p, std=0.02)
                elif name.endswith("bias"):
                    nn.init.zeros_(p)

        def forward(self, x, y):
            h = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
            for block in self.h:
                h = block(h)
            logits = self.ln_f(h) @ self.wte.weight.T
            return F.cross_entropy(logits.view(-1, VOCABULARY), y.reshape(-1))

    return Gpt()


NAMES = {"qkv": "attn.c_attn", "proj": "attn.c_proj", "fc": "mlp.c_fc", "out": "mlp.c_proj"}


def prepare(folder, text, seed):
    """Writes tokens, the places of all samples, and the first weights as a Hugging Face folder."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    characters = sorted(set(text))
    assert len(characters) == VOCABULARY, len(characters)
    ids = np.array([characters.index(c) for c in text], dtype=np.uint32)
    cut = int(len(ids) * 0.9)
    ids[:cut].tofile(folder / "train.u32")
    ids[cut:].tofile(folder / "validation.u32")
    draw = np.random.default_rng(seed)
    offsets = draw.integers(0, cut - BLOCK - 1, STEPS * BATCH).astype(np.uint32)
    offsets.tofile(folder / "offsets.u32")
    torch.manual_seed(seed)
    state = make_model().state_dict()
    torch.save(state, folder / "first.pt")
    first = folder / "first"
    first.mkdir()
    tensors = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "h" and parts[2] in NAMES:
            parts[2] = NAMES[parts[2]]
            # GPT-2 stores these as [in, out].
            tensor = tensor.T if tensor.dim() == 2 else tensor
        tensors["transformer." + ".".join(parts)] = tensor.contiguous()
    save_file(tensors, first / "model.safetensors", {"format": "pt"})
    config = dict(model_type="gpt2", architectures=["GPT2LMHeadModel"], vocab_size=VOCABULARY, n_positions=BLOCK,
                  n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, layer_norm_epsilon=1e-5, activation_function="gelu_new",
                  resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, tie_word_embeddings=True)
    (first / "config.json").write_text(json.dumps(config))


def reference(folder, threads, precision, is_compiled):
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    read = lambda name: torch.from_numpy(np.fromfile(folder / name, dtype=np.uint32).astype(np.int64))
    train, held_out = read("train.u32"), read("validation.u32")
    offsets = read("offsets.u32").view(STEPS, BATCH)
    model = make_model()
    model.load_state_dict(torch.load(folder / "first.pt"))
    forward = torch.compile(model) if is_compiled else model
    decays = lambda is_matrix: [p for p in model.parameters() if (p.dim() >= 2) == is_matrix]
    groups = [dict(params=decays(True), weight_decay=0.1), dict(params=decays(False), weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.99), eps=1e-8, fused=True)
    cast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    span = torch.arange(BLOCK + 1)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        rows = train[offsets[step][:, None] + span]
        with cast():
            loss = forward(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step == 0:
            cpu, wall = time.process_time(), time.monotonic()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    n = (len(held_out) - 1) // BLOCK
    total = 0.0
    with torch.no_grad(), cast():
        for start in range(0, n, 64):
            rows = [held_out[i * BLOCK : (i + 1) * BLOCK + 1] for i in range(start, min(n, start + 64))]
            rows = torch.stack(rows)
            total += float(model(rows[:, :-1], rows[:, 1:])) * len(rows)
    print(json.dumps(dict(loss=total / n, cpu_s=cpu, wall_s=wall)))


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("text", type=pathlib.Path)
    parse.add_argument("--seeds", type=int, default=3)
    parse.add_argument("--threads", type=int, default=1)
    parse.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parse.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parse.add_argument("--ours", default="target/debug/examples/shakespeare")
    parse.add_argument("--reference", choices=["eager", "compile"], help=argparse.SUPPRESS)
    arguments = parse.parse_args()
    if arguments.reference:
        return reference(arguments.text, arguments.threads, arguments.precision, arguments.reference == "compile")
    threads = str(arguments.threads)
    sides = ["eager", "compile", "ours"] if arguments.compile else ["eager", "ours"]
    for seed in range(1, arguments.seeds + 1):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            prepare(folder, arguments.text.read_text(), seed)
            found = {}
            for side in sides:
                command = [arguments.ours, name, threads, arguments.precision]
                if side != "ours":
                    command = [sys.executable, __file__, name, "--reference", side, "--threads", threads]
                    command += ["--precision", arguments.precision]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[side] = json.loads(done.stdout)
                numbers = "  ".join(f"{key} {value:.4f}" for key, value in found[side].items())
                print(f"seed {seed}  {side:8} {numbers}", flush=True)
            ours = found["ours"]
            for side in sides[:-1]:
                other = found[side]
                print(f"seed {seed}  ours against {side}: loss {ours['loss'] - other['loss']:+.4f}, "
                      f"CPU seconds {ours['cpu_s'] / other['cpu_s']:.3f} of its, wall {ours['wall_s'] / other['wall_s']:.3f}",
                      flush=True)


main()
