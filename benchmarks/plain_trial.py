"""The plain script that `plain_loop.py` holds the toolkit against: one trial, on raw inputs.

What a user would write around transformers; of the toolkit it takes what has to be alike on both
sides: the fusion and its first weights, the settings of the training, and how pictures are read.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.data import DataSet, read_image
from evaluators.training.config import TrainingProtocol
from search_space.design.genotype import Genotype
from search_space.encoders.features import features_of
from search_space.encoders.libraries import import_transformers
from search_space.encoders.pixels import normalisation
from search_space.network.network import new_fusion
from search_space.space.space import SearchSpace

SPLITS = ("train", "valid")
SEED = 0
PROTOCOL = TrainingProtocol(trunks="frozen", seed=SEED)
TRUNK_RATE = PROTOCOL.whole_pretrained.trunk_learning_rate
transformers = import_transformers()


@dataclass
class Inputs:
    """One split: pixels (N, 3, S, S), labels (N,), and by length (ids, mask), (N, L) each."""

    pixels: Tensor
    labels: Tensor
    text: dict[int, tuple[Tensor, Tensor]]


class Plain(nn.Module):
    """Encoders of transformers up to one tap each, pooled to means, under a fusion."""

    def __init__(self, design: Genotype, space: SearchSpace, classes: int, tuned: bool) -> None:
        super().__init__()
        point, self.tuned = design.points[0], tuned
        text, vision = (space.encoder(str(e)) for e in (design.text_encoder, design.vision_encoder))
        self.text = transformers.AutoModel.from_pretrained(
            text.source, num_hidden_layers=point.text_tap, add_pooling_layer=False
        )
        self.vision = transformers.AutoModel.from_pretrained(vision.source)
        whole = point.vision_tap == len(self.vision.layer)
        self.vision.layer = self.vision.layer[: point.vision_tap]
        self.vision.conv_1x1 = self.vision.conv_1x1 if whole else nn.Identity()
        for module in self.vision.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # its configuration's .997 is counted the other way round
        self.wanted = features_of(design, space.shapes)
        self.fusion = new_fusion(design, space.shapes, classes, SEED)

    def train(self, mode: bool = True) -> "Plain":
        super().train(mode)
        for trunk in (self.text, self.vision):
            trunk.train(mode and self.tuned)
        return self

    def forward(self, ids: Tensor, mask: Tensor, pixels: Tensor) -> Tensor:
        with torch.inference_mode(not (self.tuned and torch.is_grad_enabled())):
            states = self.text(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask.unsqueeze(-1).float()
            words = (states * weight).sum(1) / weight.sum(1)
            grid = self.vision.conv_stem(pixels)
            for layer in self.vision.layer:
                grid = layer(grid)
            picture = self.vision.conv_1x1(grid).mean((2, 3))
        read = (words, picture) if self.tuned else (words.clone(), picture.clone())
        return self.fusion(dict(zip(self.wanted, read, strict=True)), mask)


def plain_trial(
    design: Genotype, space: SearchSpace, data: dict[str, Inputs], tuned: bool, epochs_run: int
) -> dict[str, Any]:
    """Trains a design and judges it on validation: accuracy (0..1), logits, seconds an epoch."""
    config, train, valid = PROTOCOL.fusion_pretrained, data["train"], data["valid"]
    net = Plain(design, space, int(train.labels.max()) + 1, tuned)
    trunks = [*net.text.parameters(), *net.vision.parameters()] if tuned else []
    groups = [{"params": list(net.fusion.parameters()), "lr": config.learning_rate}]
    groups += [{"params": trunks, "lr": TRUNK_RATE}] if tuned else []
    trained = [parameter for group in groups for parameter in group["params"]]
    kept = net if tuned else net.fusion
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
    steps = config.epochs * -(-len(train.labels) // config.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [g["lr"] for g in groups], steps, pct_start=0.1, cycle_momentum=False
    )

    def logits_of(part: Inputs, at: Tensor) -> Tensor:
        ids, mask = part.text[design.text_tokens]
        longest = int(mask[at].sum(1).max())
        return net(ids[at, :longest], mask[at, :longest], part.pixels[at])

    torch.manual_seed(SEED)
    order = torch.Generator().manual_seed(SEED)
    best, mean, count, seconds = (-1.0, 0.0), {}, 0, []
    for epoch in range(1, epochs_run + 1):
        started = time.perf_counter()
        net.train()
        batches = torch.randperm(len(train.labels), generator=order).split(config.batch_size)
        for k in torch.randperm(len(batches), generator=order).tolist():
            F.cross_entropy(logits_of(train, batches[k]), train.labels[batches[k]]).backward()
            nn.utils.clip_grad_norm_(trained, config.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        own = {name: tensor.clone() for name, tensor in kept.state_dict().items()}
        if epoch >= config.average_from:
            count += 1
            for name, now in own.items():
                if count > 1 and now.is_floating_point():
                    mean[name] += (now - mean[name]) / count
                else:
                    mean[name] = now.clone()
            kept.load_state_dict(mean)
        net.eval()
        with torch.inference_mode():
            parts = torch.arange(len(valid.labels)).split(config.batch_size)
            logits = torch.cat([logits_of(valid, at) for at in parts])
        accuracy = float((logits.argmax(1) == valid.labels).double().mean())
        reached = (accuracy, -float(F.cross_entropy(logits, valid.labels)))
        if reached > best:
            best, best_logits = reached, logits
            best_state = {n: tensor.clone() for n, tensor in kept.state_dict().items()}
        kept.load_state_dict(own)
        seconds.append(time.perf_counter() - started)
    kept.load_state_dict(best_state)
    return {"accuracy": best[0], "logits": best_logits.tolist(), "epoch_s": seconds}


def plain_inputs(data: DataSet, space: SearchSpace) -> dict[str, Inputs]:
    """What the plain script reads, made before its clock starts."""
    text, vision = space.encoders
    tokenizer = transformers.AutoTokenizer.from_pretrained(text.source)
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in normalisation(vision))
    side, made = space.shapes[vision.name].image_size, {}
    for split in SPLITS:
        samples = data.split(split)
        pixels = torch.from_numpy(np.stack([read_image(s.picture, side) for s in samples]))
        tokens = {}
        for length in space.text_tokens:
            found = tokenizer(
                [s.text for s in samples],
                padding="longest",
                truncation=True,
                max_length=length,
                return_tensors="pt",
            )
            tokens[length] = (found["input_ids"], found["attention_mask"])
        made[split] = Inputs(
            ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last),
            torch.tensor([s.label for s in samples]),
            tokens,
        )
    return made
