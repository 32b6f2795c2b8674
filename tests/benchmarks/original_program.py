"""The original's program in plain PyTorch: the yardstick for speed, and a reference for the tests.

Its networks, loss and loops are those of the original's sections 2.1.2, 2.1.3, 3.1.3 and 3.3. Like
the original, it trains anew for each number of each table: 221 epochs of the CNN. Two things are
added. Images are read from IDX files into memory once, and each trained network also classifies
the held-out images, because `mnist-keras run` does.

    python tests/benchmarks/original_program.py IDX_FOLDER
"""

import gzip
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(28 * 28 * 3, 512)
        self.fc2 = nn.Linear(512, 256)
        self.fc3 = nn.Linear(256, 10)

    def forward(self, x):
        x = x.view(-1, 28 * 28 * 3)
        x = F.sigmoid(self.fc1(x))
        x = F.sigmoid(self.fc2(x))
        return F.log_softmax(self.fc3(x), dim=1)


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, 1, padding="same")
        self.conv2 = nn.Conv2d(32, 64, 3, 1, padding="same")
        self.conv3 = nn.Conv2d(64, 128, 3, 1, padding="same")
        self.dropout = nn.Dropout2d(0.25)
        self.fc1 = nn.Linear(6272, 3000)
        self.fc2 = nn.Linear(3000, 1000)
        self.fc3 = nn.Linear(1000, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        x = self.dropout(x)
        x = F.relu(self.conv3(x))
        x = self.dropout(x)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return F.log_softmax(self.fc3(x), dim=1)


class FocalLoss(nn.Module):
    def __init__(self, gamma=2, alpha=1):
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, output, target):
        ce_loss = F.cross_entropy(output, target, reduction="none")
        pt = torch.exp(-ce_loss)
        return torch.mean(self.alpha * (1 - pt) ** self.gamma * ce_loss)


def read_mnist(folder):
    """Return the t10k images as the original reads them, (n, 3, 28, 28) in [0, 1], and labels."""
    with gzip.open(Path(folder, "t10k-images-idx3-ubyte.gz")) as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(Path(folder, "t10k-labels-idx1-ubyte.gz")) as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    x = torch.from_numpy(images.astype("float32") / 255).expand(-1, 3, -1, -1)
    return x, torch.from_numpy(labels.astype("int64"))


def train(name, network, criterion, optimizer, epochs, data):
    """Train one network as the original does, and print its loss and accuracies."""
    train_set, test_set, heldout_set = data
    model = network()
    optimizer = optimizer(model.parameters(), lr=0.001)
    loader = DataLoader(train_set, batch_size=100, shuffle=True)
    for _ in range(epochs):
        model.train()
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
    accuracies = [f"{accuracy(model, images):.2f}" for images in (test_set, heldout_set)]
    print(f"{name}: loss {total / len(loader):.4f}, test and held-out {accuracies}", flush=True)


def accuracy(model, images):
    model.eval()
    with torch.no_grad():
        batches = DataLoader(images, batch_size=100)
        correct = sum((model(x).argmax(1) == y).sum().item() for x, y in batches)
    return 100 * correct / len(images)


def main():
    started = time.perf_counter()
    x, y = read_mnist(sys.argv[1])
    order = torch.randperm(len(y))
    chosen = torch.cat([order[y[order] == digit][:50] for digit in range(10)])
    rest = torch.ones(len(y), dtype=torch.bool)
    rest[chosen] = False
    train_set, test_set = random_split(TensorDataset(x[chosen], y[chosen]), [400, 100])
    data = train_set, test_set, TensorDataset(x[rest], y[rest])

    adam, focal, cross_entropy = torch.optim.Adam, FocalLoss(), nn.CrossEntropyLoss()
    for epochs in (1, 20, 50, 100):
        train(f"3.2, {epochs} epochs", CNN, focal, adam, epochs, data)
    train("3.3, Basic Net", Net, cross_entropy, adam, 10, data)
    train("3.3, My CNN", CNN, cross_entropy, adam, 10, data)
    train("3.4, cross entropy", CNN, cross_entropy, adam, 10, data)
    train("3.4, focal loss", CNN, focal, adam, 10, data)
    train("3.4.3, SGD", CNN, focal, torch.optim.SGD, 10, data)
    train("3.4.3, RAdam", CNN, focal, torch.optim.RAdam, 10, data)
    print(f"{time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
