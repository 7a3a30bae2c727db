"""The model of configs/ncf.yaml in PyTorch, and samples to train it on."""
import torch
from torch import nn
from torch.nn import functional

FEATURES = 15
NOISE = 0.1


class Ncf(nn.Module):
    """Two tables 32 wide, 15 features through a layer of 32, layers of 32, 16 and 1."""

    def __init__(self, users, videos):
        super().__init__()
        self.user_table = nn.Embedding(users, 32)
        self.video_table = nn.Embedding(videos, 32)
        self.content = nn.Linear(FEATURES, 32)
        self.hidden1 = nn.Linear(96, 32)
        self.hidden2 = nn.Linear(32, 16)
        self.output = nn.Linear(16, 1)
        self.register_buffer("features", torch.randn(videos, FEATURES))

    def forward(self, user, video):  # [rows], [rows] -> [rows]
        content = self.content(functional.embedding(video, self.features)).relu()
        x = torch.cat([self.user_table(user), self.video_table(video), content], 1)
        x = functional.dropout(self.hidden1(x).relu(), 0.2, self.training)
        return self.output(self.hidden2(x).relu()).squeeze(1)


class Samples:
    """All samples, in memory, and a shuffled order of them. Ids are random, since they do not change the speed; a label
    is the sum of a number of its user, one of its video and noise, so that a loss that falls shows training."""

    def __init__(self, rows, users, videos, device="cpu"):
        self.user = torch.randint(users, (rows,), dtype=torch.int32, device=device)
        self.video = torch.randint(videos, (rows,), dtype=torch.int32, device=device)
        of_users, of_videos = (0.5 * torch.randn(n, device=device) for n in (users, videos))
        self.label = 1 + of_users[self.user] + of_videos[self.video] + NOISE * torch.randn(rows, device=device)
        self.order = torch.randperm(rows, device=device)

    def loss(self, model, rows):
        """The mean squared error of the samples at `rows`."""
        user, video, label = (column.index_select(0, rows) for column in (self.user, self.video, self.label))
        return functional.mse_loss(model(user, video), label)
