"""Invert recorded gathers: `python predict.py ckpt=FILE input=FILE_OR_DIR output=DIR`. Settings: conf/predict.yaml."""

from fwi_lightning.commands import run

if __name__ == "__main__":
    run("predict")
