"""What each of two processes of torch.distributed runs: score their shares, hold masks under DDP."""

import os
import sys
from pathlib import Path

import torch
from pruning_networks import classifier, cross_entropy, images, short_last
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from radiogen.distributed import process_group
from radiogen.io.tensors import save_tensors
from radiogen.pruning.criteria import score_weights
from radiogen.pruning.settings import CriterionSettings, MomentSettings
from radiogen.pruning.weight_masks import check_masks_held, hold_weight_masks, weight_masks

CRITERIA = ("fts", "grasp", "hts")


def main(out: Path) -> None:
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")):
        rank = int(os.environ["RANK"])
        for criterion in CRITERIA:
            for settle in (None, 0.9):
                settings = CriterionSettings(criterion=criterion, moments=MomentSettings(settle=settle))
                scoring = score_weights(classifier(), images(23, size=1), cross_entropy, settings)
                if settle is None:
                    save_tensors(out / f"{criterion}{rank}.safetensors", scoring.scores)
        masks = weight_masks(scoring.scores, 0.8)
        short = score_weights(classifier(), short_last(), cross_entropy)
        save_tensors(out / f"short{rank}.safetensors", short.scores)
        model = DistributedDataParallel(classifier())
        optimizer = SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.05)
        hold_weight_masks(model, masks, optimizer)
        for number, batch in enumerate(images(8, size=3)):
            if number % 2 == rank:
                optimizer.zero_grad()
                cross_entropy(model, batch).backward()
                optimizer.step()
                check_masks_held(model, masks)
        save_tensors(out / f"trained{rank}.safetensors", model.module.state_dict())
        save_tensors(out / f"masks{rank}.safetensors", masks)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
