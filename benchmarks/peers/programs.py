"""The five starting programs in Keras 3 and in plain PyTorch, as their users write them. Run by
``classifiers.py``.

``python programs.py keras|torch DATA.npz PROGRAM SEED EPOCHS`` prints one line of JSON: the test
accuracy, the seconds of each epoch, and the seconds from the start of the process to the end of the
first epoch. With Keras, ``KERAS_BACKEND`` chooses what computes.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

BEGIN = time.perf_counter()

import numpy as np  # noqa: E402

__all__ = ["main"]

# hidden layers, dropout, optimizer, epochs
PROGRAMS: dict[str, tuple[tuple[int, ...], float, str, int]] = {
    "dense_sgd": ((64, 64), 0.0, "sgd", 10),
    "dense_dropout": ((128,), 0.5, "adam", 10),
    "dense_two": ((128, 128), 0.0, "adam", 10),
    "cnn": ((512,), 0.0, "adam", 10),
    "mlp_1024": ((1024, 1024), 0.0, "adam", 5),
}
BATCH = 32


def main() -> None:
    """Train one program and print what it reached."""
    kind, path, program, seed, epochs = sys.argv[1:6]
    with np.load(path) as arrays:
        data = {name: arrays[name] for name in arrays}
    for name in ("x_train", "x_test"):
        data[name] = data[name].astype(np.float32) / 255
    ran = (_keras if kind == "keras" else _torch)(data, program, int(seed), int(epochs))
    print(json.dumps(ran))


def _keras(data: dict[str, Any], program: str, seed: int, epochs: int) -> dict[str, Any]:
    import keras

    keras.utils.set_random_seed(seed)
    hidden, dropout, optimizer, _ = PROGRAMS[program]
    layers: list[Any] = [keras.layers.Input((28, 28, 1) if program == "cnn" else (784,))]
    if program == "cnn":
        for channels in (32, 64):
            layers += [
                keras.layers.Conv2D(channels, 3, activation="relu"),
                keras.layers.MaxPooling2D(2),
            ]
        layers.append(keras.layers.Flatten())
    for width in hidden:
        layers.append(keras.layers.Dense(width, activation="relu"))
        layers += [keras.layers.Dropout(dropout)] if dropout else []
    model = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
    shape = (-1, 28, 28, 1) if program == "cnn" else (-1, 784)
    ends: list[float] = []

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.begin = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            ends.append(time.perf_counter() - self.begin)
            if epoch == 0:
                self.first = time.perf_counter() - BEGIN

    clock = Clock()
    one_hot = keras.utils.to_categorical(data["y_train"], 10)
    model.fit(
        data["x_train"].reshape(shape),
        one_hot,
        batch_size=BATCH,
        epochs=epochs,
        verbose=0,
        callbacks=[clock],
    )
    predicted = model.predict(data["x_test"].reshape(shape), batch_size=1000, verbose=0).argmax(1)
    return {
        "accuracy": float((predicted == data["y_test"]).mean()),
        "epochs_s": ends,
        "first_s": clock.first,
    }


def _torch(data: dict[str, Any], program: str, seed: int, epochs: int) -> dict[str, Any]:
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(seed)
    torch.set_flush_denormal(True)
    hidden, dropout, optimizer, _ = PROGRAMS[program]
    layers: list[nn.Module] = []
    width = 784
    if program == "cnn":
        layers += [
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        layers.append(nn.Flatten())
        width = 1600
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        width = size
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    shape = (-1, 1, 28, 28) if program == "cnn" else (-1, 784)
    x, y = (
        torch.from_numpy(data["x_train"]).view(shape),
        torch.from_numpy(data["y_train"].astype(np.int64)),
    )
    steps: Any = (
        torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
        if optimizer == "sgd"
        else torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True)
    )
    ends, first = [], 0.0
    for epoch in range(epochs):
        begin = time.perf_counter()
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = F.cross_entropy(model(x[rows]), y[rows])
            steps.zero_grad()
            loss.backward()
            steps.step()
        ends.append(time.perf_counter() - begin)
        first = first if epoch else time.perf_counter() - BEGIN
    model.eval()
    with torch.no_grad():
        predicted = model(torch.from_numpy(data["x_test"]).view(shape)).argmax(1).numpy()
    return {
        "accuracy": float((predicted == data["y_test"]).mean()),
        "epochs_s": ends,
        "first_s": first,
    }


if __name__ == "__main__":
    main()
