"""The parts of `asynccb.Trainer`, whose loop is in `asynccb/trainer.py`; they need torch."""
