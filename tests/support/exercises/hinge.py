"""
name: hinge
uses: [hinge.py]
model: {name: mlp, hidden: [32]}
task: {name: hinge, margin: 0.5}
processor: image
data: arrays
training: {batch_size: 32, steps: 20}
"""

from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import Loss, Term
from groundup.tasks.classify.task import Classify


@task("hinge")
class Hinge(Classify):
    """The true class must lead every other one by a margin: Crammer and Singer, 2001."""

    margin: float = setting(1.0, "By how much the true class must lead", gt=0)

    def loss(self, outputs, batch):
        before = super().loss(outputs, batch)
        labels = batch["labels"][:, None]
        short = (self.margin + outputs - outputs.gather(1, labels)).scatter(1, labels, 0.0)
        total = short.clamp(min=0).amax(1).sum()
        return Loss({"label": Term(total, before.terms["label"].count)}, before.metrics)
