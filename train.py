"""Train a model and report on it: `python train.py model=inversionnet fold=3`. Settings are in conf/train.yaml."""

from fwi_lightning.commands import run

if __name__ == "__main__":
    run("train")
